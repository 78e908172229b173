package member

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flotilla/client/keys"
	"flotilla/internal/logx"
)

// runningMember is a member under test and what it logged.
type runningMember struct {
	*Member
	log   *syncBuffer
	ended chan struct{} // Run has returned
	stop  func() error  // the error of Run
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func alone(t testing.TB, name, dir string) Config {
	t.Helper()
	cfg, err := Alone(name, dir, []string{"http://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start runs a member until the test ends or stop is called.
func start(t testing.TB, cfg Config) *runningMember {
	t.Helper()
	m, ready, ended := launch(t, cfg)
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("member ended before it was ready: %v\n%s", m.stop(), m.log)
	case <-time.After(30 * time.Second):
		t.Fatalf("member not ready\n%s", m.log)
	}
	return m
}

func launch(t testing.TB, cfg Config) (m *runningMember, ready, ended chan struct{}) {
	t.Helper()
	return launchWith(t, cfg, func(*Member) {})
}

// launchWith is launch with a member that is changed before it runs.
func launchWith(t testing.TB, cfg Config, change func(*Member)) (m *runningMember, ready, ended chan struct{}) {
	t.Helper()
	log := &syncBuffer{}
	m = &runningMember{Member: New(cfg, Deps{Log: textLog(log)}), log: log}
	change(m.Member)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended = make(chan struct{}), make(chan struct{})
	m.ended = ended
	var err error
	go func() {
		defer close(ended)
		err = m.Run(ctx, func() { close(ready) })
	}()
	m.stop = func() error {
		cancel()
		<-ended
		return err
	}
	t.Cleanup(func() { m.stop() })
	return m, ready, ended
}

// firstClientURL waits until the addresses are bound.
func (m *runningMember) firstClientURL() string {
	for {
		if urls := m.ClientURLs(); len(urls) > 0 {
			return urls[0]
		}
		runtime.Gosched()
	}
}

func textLog(w io.Writer) *slog.Logger { return logx.New(w, slog.LevelInfo) }

func v3(t testing.TB, m *runningMember) *clientv3.Client {
	t.Helper()
	u, err := url.Parse(m.ClientURLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{u.Host}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func noComplaints(t testing.TB, m *runningMember) {
	t.Helper()
	for line := range strings.Lines(m.log.String()) {
		if strings.Contains(line, "level=warn") || strings.Contains(line, "level=error") {
			t.Errorf("logged: %s", line)
		}
	}
}

func TestStartStopRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	m := start(t, alone(t, "n1", dir))
	if _, err := v3(t, m).Put(t.Context(), "/a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := m.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	noComplaints(t, m)

	m = start(t, alone(t, "n1", dir))
	got, err := v3(t, m).Get(t.Context(), "/a")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "1" {
		t.Fatalf("after a restart: %v, %v", got, err)
	}
	list, err := v3(t, m).MemberList(t.Context())
	if err != nil || !sameSet(list.Members[0].PeerURLs, m.PeerURLs()) || !sameSet(list.Members[0].ClientURLs, m.ClientURLs()) {
		t.Errorf("member list after a restart on other ports: %v, %v; listens on %v and %v", list, err, m.PeerURLs(), m.ClientURLs())
	}
	if err := m.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	noComplaints(t, m)
}

// What one API writes the other reads, on the same port.
func TestBothAPIs(t *testing.T) {
	m := start(t, alone(t, "n1", filepath.Join(t.TempDir(), "data")))
	v2, err := keys.New(keys.Config{Endpoints: m.ClientURLs()})
	if err != nil {
		t.Fatal(err)
	}
	defer v2.Close()
	c, ctx := v3(t, m), t.Context()

	if _, err := v2.Set(ctx, "/both/two", "by v2", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(ctx, "/both/two")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "by v2" {
		t.Errorf("v3 reads what v2 wrote: %v, %v", got, err)
	}

	watch := v2.Watch("/both", keys.WatchOptions{Recursive: true, After: uint64(got.Header.Revision)})
	if _, err := c.Put(ctx, "/both/three", "by v3"); err != nil {
		t.Fatal(err)
	}
	r, err := watch.Next(ctx)
	if err != nil || r.Node.Key != "/both/three" || *r.Node.Value != "by v3" {
		t.Errorf("a v2 watch sees what v3 wrote: %+v, %v", r, err)
	}
	r, err = v2.Get(ctx, "/both/three", keys.GetOptions{Quorum: true})
	if err != nil || *r.Node.Value != "by v3" {
		t.Errorf("v2 reads what v3 wrote: %+v, %v", r, err)
	}
	noComplaints(t, m)
}
