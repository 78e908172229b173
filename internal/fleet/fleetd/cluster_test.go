package fleetd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/api/fleet"
	"flotilla/internal/kv/member"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
	"flotilla/internal/unit/unittest"
)

// cluster is a store and machines in this process, each with an init system of
// pretended units.
type cluster struct {
	t        testing.TB
	dir      string
	url      string
	store    *process
	machines []*machine
	log      *testLog
}

type machine struct {
	*cluster
	name  string
	id    string
	dir   string
	units *unitfake.Manager
	run   *process
	cable *cable
	tune  func(*Config)
	epoch int
	// reload delivers new configurations to the daemon.
	reload chan Config
	dump   chan io.Writer
}

type stateJSON = fleet.UnitState

// process is something with a Run that can be stopped and waited for.
type process struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func spawn(run func(context.Context, func()) error) (*process, <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		p.err = run(ctx, sync.OnceFunc(func() { close(ready) }))
	}()
	return p, ready
}

func (p *process) stop() error {
	p.cancel()
	<-p.done
	return p.err
}

// testLog keeps what was logged, and shows it when the test has failed.
type testLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// refusedScript is an init system that does not take a unit's text.
func refusedScript(why string) unitfake.Script {
	return unitfake.Script{InstallErr: fmt.Errorf("%w: %s", unit.ErrRefused, why)}
}

// twin is another machine with m's id, in the same cluster.
func (c *cluster) twin(m *machine) *machine {
	c.t.Helper()
	twin := &machine{
		cluster: c, name: "twin", id: m.id, dir: filepath.Join(c.dir, "twin"), units: unitfake.New(), tune: m.tune,
		cable: newCable(c.t, strings.TrimPrefix(c.url, "http://")),
	}
	c.machines = append(c.machines, twin)
	twin.start()
	return twin
}

// newCluster starts a store and n machines; tune changes their configuration.
func newCluster(t testing.TB, n int, tune func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), log: &testLog{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.log)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + ln.Addr().String()
	ln.Close()
	c.startStore()
	for range n {
		c.add(tune)
	}
	for _, m := range c.machines {
		m.wait("machine is in the cluster", func() bool { return len(m.listMachines()) == n })
	}
	return c
}

// add starts another machine.
func (c *cluster) add(tune func(*Config)) *machine {
	c.t.Helper()
	n := len(c.machines) + 1
	m := &machine{
		cluster: c, name: fmt.Sprintf("m%d", n), id: strings.Repeat(fmt.Sprint(n), 32),
		dir: filepath.Join(c.dir, fmt.Sprint(n)), units: unitfake.New(), tune: tune,
		cable: newCable(c.t, strings.TrimPrefix(c.url, "http://")), reload: make(chan Config), dump: make(chan io.Writer),
	}
	c.machines = append(c.machines, m)
	m.start()
	return m
}

func (c *cluster) startStore() {
	c.t.Helper()
	cfg, err := member.Alone("test", filepath.Join(c.dir, "store"), []string{c.url})
	if err != nil {
		c.t.Fatal(err)
	}
	m := member.New(cfg, member.Deps{Log: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	p, ready := spawn(m.Run)
	c.store = p
	select {
	case <-ready:
	case <-p.done:
		c.t.Fatalf("store: %v", p.err)
	}
	c.t.Cleanup(func() { p.stop() })
}

// revision is that of the whole store.
func (c *cluster) revision() int64 {
	c.t.Helper()
	resp, err := c.client().Get(c.t.Context(), "/", clientv3.WithCountOnly())
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.Header.Revision
}

// leases is how many there are in the store.
func (c *cluster) leases() int {
	c.t.Helper()
	resp, err := c.client().Leases(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return len(resp.Leases)
}

// client is one of the store, until the test ends.
func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.url}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

func (m *machine) config() Config {
	cfg := Defaults()
	cfg.EtcdServers = []string{m.cable.url()}
	cfg.PublicIP, cfg.PeerListen = "127.0.0.1", "127.0.0.1:0"
	cfg.StateDir, cfg.RunDir = filepath.Join(m.dir, "state"), filepath.Join(m.dir, "run")
	cfg.APISocket = filepath.Join(m.dir, "s")
	cfg.MachineID, cfg.Hostname = m.id, m.name
	cfg.AgentTTL, cfg.MoveAfter = 2*time.Second, time.Second
	cfg.EtcdRequestTimeout = time.Second
	cfg.ColdStartAfter = 2 * time.Second
	cfg.Metadata = map[string]string{"name": m.name}
	if m.tune != nil {
		m.tune(&cfg)
	}
	return cfg
}

// start starts the machine's daemon and waits until it is ready.
func (m *machine) start() {
	m.t.Helper()
	log := slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("machine", m.name)
	d := New(m.config(), Deps{Manager: m.units, Log: m.units, Logger: log, Epoch: fmt.Sprint(m.epoch), Reload: m.reload, Dump: m.dump})
	p, ready := spawn(d.Run)
	m.run = p
	m.t.Cleanup(func() { p.stop() })
	select {
	case <-ready:
	case <-p.done:
		m.t.Fatalf("%s: %v", m.name, p.err)
	case <-time.After(10 * time.Second):
		m.t.Fatalf("%s: not ready", m.name)
	}
}

func (m *machine) stop() {
	m.t.Helper()
	if err := m.run.stop(); err != nil {
		m.t.Errorf("%s: stopped with %v", m.name, err)
	}
}

func (m *machine) client() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(m.dir, "s"))
		},
	}}
}

// do sends a request to the machine's API and returns status, body and headers.
func (m *machine) do(method, path, body string) (int, string, http.Header) {
	m.t.Helper()
	req, err := http.NewRequest(method, "http://fleet"+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.client().Do(req)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func get[T any](m *machine, path string) T {
	m.t.Helper()
	var v T
	status, body, _ := m.do("GET", path, "")
	if status == 200 {
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			m.t.Fatalf("GET %s: %v in %s", path, err, body)
		}
	}
	return v
}

func (m *machine) listMachines() []fleet.Machine {
	return get[fleet.MachinePage](m, "/fleet/v1/machines").Machines
}

func (m *machine) states(unit string) []fleet.UnitState {
	return get[fleet.UnitStatePage](m, "/fleet/v1/state?unitName="+unit).States
}

func (m *machine) unit(name string) fleet.Unit {
	return get[fleet.Unit](m, "/fleet/v1/units/"+name)
}

// launch creates and starts a unit; more is further text of its unit file as
// options "Section Name=Value".
func (m *machine) launch(name string, more ...string) {
	m.t.Helper()
	m.put(name, "launched", more...)
}

func (m *machine) put(name, state string, more ...string) {
	m.t.Helper()
	u := fleet.Unit{DesiredState: state, Options: []fleet.UnitOption{{Section: "Service", Name: "ExecStart", Value: "/bin/sleep 1d"}}}
	for _, o := range more {
		section, rest, _ := strings.Cut(o, " ")
		key, value, _ := strings.Cut(rest, "=")
		u.Options = append(u.Options, fleet.UnitOption{Section: section, Name: key, Value: value})
	}
	b, _ := json.Marshal(u)
	if status, body, _ := m.do("PUT", "/fleet/v1/units/"+name, string(b)); status != 201 && status != 204 {
		m.t.Fatalf("PUT %s: %d %s", name, status, body)
	}
}

// wait polls until a condition holds, but not for ever.
func (m *machine) wait(what string, ok func() bool) {
	m.t.Helper()
	err := unittest.Eventually(m.t.Context(), func() error {
		if !ok() {
			return errors.New(what + ": it does not come to that")
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// active waits until the unit runs on one machine and returns which.
func (c *cluster) active(name string) *machine {
	c.t.Helper()
	var at *machine
	c.first().wait(name+" is active", func() bool {
		at = nil
		for _, s := range c.first().states(name) {
			if s.SystemdActiveState == "active" {
				at = c.byID(s.MachineID)
			}
		}
		return at != nil
	})
	return at
}

// first is a machine whose daemon runs and reaches the store.
func (c *cluster) first() *machine {
	for _, m := range c.machines {
		select {
		case <-m.run.done:
		default:
			if !m.cable.isCut() {
				return m
			}
		}
	}
	c.t.Fatal("no daemon runs")
	return nil
}

func (c *cluster) byID(id string) *machine {
	for _, m := range c.machines {
		if m.id == id {
			return m
		}
	}
	return nil
}

// pid is the main process of a unit on this machine; 0 if it does not run.
func (m *machine) pid(name string) int {
	m.t.Helper()
	s, err := m.units.Status(context.Background(), name)
	if err != nil {
		m.t.Fatal(err)
	}
	return s[0].MainPID
}
