package up

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fleet/fleetd"
	"flotilla/internal/journal"
	"flotilla/internal/supervisor"
	"flotilla/internal/systemd"
	"flotilla/internal/unit"
)

// hosts is the machines of the process.
type hosts struct {
	cfg   Config
	log   *slog.Logger
	store func() []string // the store's client URLs, once it runs
	all   []*host
	ctx   context.Context // of the machines' daemons; set by run
}

// host is one machine: its init system and its fleetd.
type host struct {
	name, dir, id string

	mu     sync.Mutex
	init   initSystem
	cancel context.CancelFunc // stops fleetd; nil when the power is off
	done   chan struct{}      // closed when nobody looks after the daemons any more
	faults faults
}

// initSystem is what runs a machine's units, and how to be rid of it.
type initSystem struct {
	manager unit.Manager
	log     unit.LogReader
	epoch   string
	// ended returns nil when it has ended by itself, and again starts it then; both are nil
	// for systemd, which lives as long as the machine.
	ended, again func(context.Context) error
	cut          func(context.Context) error // power loss
	stop         func(context.Context) error // orderly: units are stopped
}

func newHosts(cfg Config, log *slog.Logger, store func() []string) *hosts {
	h := &hosts{cfg: cfg, log: log, store: store}
	for n := range cfg.Machines {
		name := fmt.Sprintf("m%d", n+1)
		h.all = append(h.all, &host{name: name, dir: cfg.machineDir(n + 1)})
	}
	return h
}

// run boots all machines at once and keeps them until ctx is done. That a machine does not
// start ends it; one that fails later is started again, as systemd would.
func (h *hosts) run(ctx context.Context, ready func()) error {
	h.ctx = ctx
	if err := h.each(func(m *host) error { return h.start(ctx, m) }); err != nil {
		return errors.Join(err, h.shutdown())
	}
	ready()
	<-ctx.Done()
	return h.shutdown()
}

func (h *hosts) each(do func(*host) error) error {
	errs := make([]error, len(h.all))
	var all sync.WaitGroup
	for i, m := range h.all {
		all.Go(func() {
			if err := do(m); err != nil {
				errs[i] = fmt.Errorf("machine %s: %w", m.name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// start switches a machine on: first what runs its units, then its fleetd. When fleetd
// does not start the machine is on all the same, has failed, and goes on trying.
func (h *hosts) start(ctx context.Context, m *host) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel != nil {
		return errors.New("is on already")
	}
	if err := m.identify(h.cfg); err != nil {
		return err
	}
	init, err := h.openInit(ctx, m)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(h.ctx)
	m.init, m.cancel, m.done = init, cancel, make(chan struct{})
	first := make(chan error, 1)
	go func() {
		defer close(m.done)
		h.keep(run, m, first)
	}()
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openInit connects to systemd, or to the machine's supervisor, which it starts if
// none runs: one that an earlier "up" left keeps its units.
func (h *hosts) openInit(ctx context.Context, m *host) (initSystem, error) {
	if !h.cfg.supervised() {
		user := os.Geteuid() != 0
		mgr := systemd.New(systemd.Config{User: user})
		stop := func(context.Context) error { return mgr.Close() }
		return initSystem{manager: mgr, log: journal.New(journal.Config{User: user}), cut: stop, stop: stop}, nil
	}
	ensure := func(ctx context.Context) (*supervisor.Client, error) {
		return supervisor.Ensure(ctx, h.cfg.Exe, filepath.Join(m.dir, "sv"), supervisor.Options{Machine: m.name})
	}
	sv, err := ensure(ctx)
	if err != nil {
		return initSystem{}, err
	}
	epoch, err := m.epoch()
	if err != nil {
		return initSystem{}, err
	}
	again := func(ctx context.Context) error {
		_, err := ensure(ctx) // sv reaches the new one by itself
		return err
	}
	return initSystem{manager: sv, log: sv, epoch: epoch, ended: sv.Wait, again: again, cut: m.ending(sv.Kill), stop: m.ending(sv.Shutdown)}, nil
}

// epoch names the time from one power-on of the machine to the next: what the
// agent did in it holds for as long as the supervisor's units may still run.
func (m *host) epoch() (string, error) {
	b, err := os.ReadFile(m.epochFile())
	if !errors.Is(err, fs.ErrNotExist) {
		return string(b), err
	}
	name := rand.Text()
	return name, atomicfile.Write(m.epochFile(), []byte(name), 0o600)
}

func (m *host) epochFile() string { return filepath.Join(m.dir, "run", "epoch") }

// ending makes the epoch end with the supervisor that do ends.
func (m *host) ending(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return errors.Join(do(ctx), os.Remove(m.epochFile()))
	}
}

func (h *hosts) fleetConfig(m *host) fleetd.Config {
	cfg := fleetd.Defaults().Share(h.cfg.Machines)
	cfg.EtcdServers = h.store()
	cfg.EtcdUsername, cfg.EtcdPassword = h.cfg.StoreUser, h.cfg.StorePassword
	cfg.PublicIP = "127.0.0.1"
	cfg.Metadata = h.cfg.Metadata
	cfg.StateDir = filepath.Join(m.dir, "state")
	cfg.RunDir = filepath.Join(m.dir, "run")
	cfg.APISocket = m.socket()
	cfg.PeerListen = "127.0.0.1:0"
	cfg.MachineID = m.id
	cfg.Hostname = m.name
	return cfg
}

func (m *host) socket() string { return filepath.Join(m.dir, "run", "fleet.sock") }

// identify gives the machine the id it keeps for good: this machine's own where
// systemd runs the units, else one made once.
func (m *host) identify(cfg Config) error {
	if err := os.MkdirAll(filepath.Join(m.dir, "run"), 0o700); err != nil {
		return err
	}
	path := filepath.Join(m.dir, "machine-id")
	if !cfg.supervised() {
		path = "/etc/machine-id"
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.supervised() {
		var raw [16]byte
		rand.Read(raw[:])
		b = []byte(hex.EncodeToString(raw[:]) + "\n")
		err = atomicfile.Write(path, b, 0o600)
	}
	m.id = strings.TrimSpace(string(b))
	return err
}

// kill is power loss: every process of the machine is gone at once and nobody is
// told. Its disk stays.
func (h *hosts) kill(ctx context.Context, name string) error {
	m, err := h.find(name)
	if err != nil {
		return err
	}
	if !h.cfg.supervised() {
		return errors.New("units run under this machine's systemd: there is no power switch but the real one")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel == nil {
		return fmt.Errorf("machine %s is off already", name)
	}
	// First the daemon: it must not live to see its units die and tell of it.
	m.cancel()
	<-m.done
	m.cancel = nil
	return m.init.cut(ctx)
}

// boot switches a machine on again.
func (h *hosts) boot(ctx context.Context, name string) error {
	m, err := h.find(name)
	if err != nil {
		return err
	}
	if err := h.start(ctx, m); err != nil {
		return fmt.Errorf("machine %s: %w", name, err)
	}
	return nil
}

func (h *hosts) find(name string) (*host, error) {
	var names []string
	for _, m := range h.all {
		if m.name == name {
			return m, nil
		}
		names = append(names, m.name)
	}
	return nil, fmt.Errorf("no machine %q; there are: %s", name, strings.Join(names, " "))
}

func (h *hosts) status() []MachineStatus {
	var out []MachineStatus
	for _, m := range h.all {
		m.mu.Lock()
		s := MachineStatus{Name: m.name, ID: m.id, Power: "on", Dir: m.dir}
		switch err := m.faults.err(); {
		case m.cancel == nil:
			s.Power = "off"
		case err != nil:
			s.Power, s.Error = "failed", err.Error()
		}
		m.mu.Unlock()
		out = append(out, s)
	}
	return out
}

// dialAny connects to the API of the first machine that is on.
func (h *hosts) dialAny() (net.Conn, error) {
	var errs []error
	for _, m := range h.all {
		conn, err := net.DialTimeout("unix", m.socket(), time.Second)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// shutdown stops the machines' fleetd first, so that nobody starts again what the
// supervisors then stop.
func (h *hosts) shutdown() error {
	return h.each(func(m *host) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.cancel == nil {
			return nil
		}
		m.cancel()
		<-m.done
		m.cancel = nil
		if h.cfg.KeepUnits {
			return nil
		}
		// The context of the run is over: stopping has a limit of its own.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), 100*time.Second)
		defer cancel()
		return m.init.stop(ctx)
	})
}
