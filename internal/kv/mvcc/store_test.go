package mvcc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/api/keys"
	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

var oracleRequests = flag.Int("oracle.requests", 4000, "random requests that are compared through a real store")

// start runs a gateway until the test ends.
func start(t testing.TB, cfg Config) *Store {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	s := New(cfg)
	kvtest.Run(t, s)
	return s
}

// inProcess is for a gateway in the process of its store.
func inProcess(t testing.TB, engine *embed.Etcd) Config {
	return Config{Client: kvtest.InProcess(t, engine), Engine: engine.Server}
}

func do(t testing.TB, s *Store, r v2.Request) (*keys.Event, *keys.Error) {
	t.Helper()
	op := s.Write
	if r.Op == v2.Get {
		op = s.Read
	}
	a, err := op(t.Context(), r)
	if kerr, ok := errors.AsType[*keys.Error](err); ok {
		return nil, kerr
	}
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return a.Event, nil
}

// must does a request that has to succeed.
func must(t testing.TB, s *Store, r v2.Request) *keys.Event {
	t.Helper()
	e, kerr := do(t, s, r)
	if kerr != nil {
		t.Fatalf("%+v: %v", r, kerr)
	}
	return e
}

func set(path, value string) v2.Request { return v2.Request{Op: v2.Set, Path: path, Value: value} }

func ttl(seconds uint64) *uint64 { return &seconds }

func watch(t testing.TB, s *Store, r v2.Request) *Watcher {
	t.Helper()
	r.Wait = true
	w, err := s.Watch(t.Context(), r)
	if err != nil {
		t.Fatalf("watch %+v: %v", r, err)
	}
	t.Cleanup(w.Close)
	return w
}

func next(t testing.TB, w *Watcher) *keys.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("watch %s: %v", w.path, err)
	}
	return e
}

// brief is an event in a line.
func brief(e *keys.Event) string {
	s := fmt.Sprintf("%s %s", e.Action, e.Node.Key)
	if e.Node.Value != nil {
		s += "=" + *e.Node.Value
	}
	if e.Node.Dir {
		s += "/"
	}
	if e.PrevNode != nil && e.PrevNode.Value != nil {
		s += " was " + *e.PrevNode.Value
	}
	return s
}

// clock is a clock that stands still.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// TestOracle compares answers with etcd's own v2 store, through a real v3 store
// and two gateways in turn.
func TestOracle(t *testing.T) {
	engine := kvtest.Start(t)
	clock := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	idle := Config{Now: clock.Now, Active: func() bool { return false }}
	local, remote := idle, idle
	local.Client, remote.Client = kvtest.InProcess(t, engine), kvtest.Dial(t, engine)
	local.Engine = engine.Server
	gateways := []*Store{start(t, local), start(t, remote)}
	judge := kvtest.NewJudge(t)
	must(t, gateways[0], set("/first", "")) // an empty v3 store is at revision 1
	judge.Ask(set("/first", ""), clock.Now())
	judge.Ask(set("/first", ""), clock.Now())
	must(t, gateways[0], v2.Request{Op: v2.Delete, Path: "/first"})
	judge.Ask(v2.Request{Op: v2.Delete, Path: "/first"}, clock.Now())

	rng := rand.New(rand.NewPCG(1, 2))
	for i := range *oracleRequests {
		now := clock.add(time.Duration(1+rng.IntN(3_000_000)) * time.Microsecond)
		s := gateways[i/2%2]
		if _, err := s.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		judge.Expire(now)
		(&house{s: s}).expire(t.Context())
		r := kvtest.Request(rng, judge.Index())
		r.Quorum = true
		if !judge.Rules(r) {
			continue
		}
		event, kerr := do(t, s, r)
		if diff := cmp.Diff(judge.Ask(r, now), kvtest.Text(event, kerr)); diff != "" {
			t.Fatalf("request %d %+v (-want +got):\n%s", i, r, diff)
		}
	}
}

// TestViews: what a v3 client writes is there for v2, and the reverse.
func TestViews(t *testing.T) {
	engine := kvtest.Start(t)
	client := kvtest.Dial(t, engine)
	s := start(t, inProcess(t, engine))
	ctx := t.Context()
	w := watch(t, s, v2.Request{Path: "/", Recursive: true, Stream: true})
	expect := func(want string) {
		t.Helper()
		if got := brief(next(t, w)); got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	}

	client.Put(ctx, "/a/b/c", "from v3")
	expect("set /a/b/c=from v3")
	e := must(t, s, v2.Request{Op: v2.Get, Path: "/a", Recursive: true, Quorum: true})
	if got := e.Node.Nodes[0].Nodes[0]; *got.Value != "from v3" || got.Key != "/a/b/c" {
		t.Errorf("listing: %+v", got)
	}
	must(t, s, v2.Request{Op: v2.CompareAndSwap, Path: "/a/b/c", PrevValue: "from v3", Value: "from v2"})
	expect("compareAndSwap /a/b/c=from v2 was from v3")
	got, err := client.Get(ctx, "/a/b/c")
	if err != nil || string(got.Kvs[0].Value) != "from v2" {
		t.Fatalf("v3 get: %v %v", got, err)
	}
	client.Put(ctx, "/a/b/c", "again")
	expect("set /a/b/c=again was from v2")
	client.Delete(ctx, "/a/b/c")
	expect("delete /a/b/c was again")
	if e := must(t, s, v2.Request{Op: v2.Get, Path: "/a/b"}); !e.Node.Dir {
		t.Error("a directory that v2 has written in outlives its last child")
	}

	client.Put(ctx, "elsewhere", "x") // is no v2 key
	client.Txn(ctx).Then(clientv3.OpPut("/t/1", "1"), clientv3.OpPut("/t/2", "2")).Commit()
	expect("set /t/1=1")
	expect("set /t/2=2")
	client.Delete(ctx, "/t/", clientv3.WithPrefix())
	expect("delete /t/1 was 1")
	expect("delete /t/2 was 2")
	if _, kerr := do(t, s, v2.Request{Op: v2.Get, Path: "/t"}); kerr == nil || kerr.ErrorCode != keys.CodeKeyNotFound {
		t.Errorf("a directory of v3 clients alone ends with its last key: %v", kerr)
	}
	must(t, s, v2.Request{Op: v2.Create, Path: "/lock", Value: "me", TTL: ttl(100)})
	expect("create /lock=me")
	client.Put(ctx, "/lock", "stolen")
	expect("set /lock=stolen was me")
	if e := must(t, s, v2.Request{Op: v2.Get, Path: "/lock"}); e.Node.TTL != 0 {
		t.Errorf("a v3 put ends the TTL: %+v", e.Node)
	}
}

// TestOnePut: a plain set in an existing directory is one transaction with one
// put, and leaves no record behind.
func TestOnePut(t *testing.T) {
	engine := kvtest.Start(t)
	client := kvtest.Dial(t, engine)
	s := start(t, inProcess(t, engine))
	must(t, s, set("/dir/first", "1"))
	e := must(t, s, set("/dir/second", "2"))
	events := <-client.Watch(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(int64(e.Node.ModifiedIndex)))
	if len(events.Events) != 1 || string(events.Events[0].Kv.Key) != "/dir/second" {
		t.Errorf("events: %v", events.Events)
	}
}

// TestReplay: whoever watches from the past sees what those saw who were there,
// also on a gateway that was not.
func TestReplay(t *testing.T) {
	engine := kvtest.Start(t)
	clock := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	cfg := Config{Client: kvtest.InProcess(t, engine), Engine: engine.Server, Now: clock.Now, Active: func() bool { return false }}
	s := start(t, cfg)
	first := watch(t, s, v2.Request{Path: "/", Recursive: true, Stream: true, WaitIndex: 1})
	inside := watch(t, s, v2.Request{Path: "/a/b", Stream: true, WaitIndex: 1})
	rng := rand.New(rand.NewPCG(5, 5))
	foreign := kvtest.Dial(t, engine)
	for i := range 600 {
		clock.add(time.Second / 2)
		(&house{s: s}).expire(t.Context())
		do(t, s, kvtest.Request(rng, s.Index()))
		if i%10 == 0 {
			foreign.Put(t.Context(), "/f/"+fmt.Sprint(rng.IntN(9)), "f")
			foreign.Put(t.Context(), "outside", "f")
		}
	}
	must(t, s, set("/a_end", ""))
	must(t, s, v2.Request{Op: v2.Delete, Path: "/a", Recursive: true})
	must(t, s, set("/a/b", "end"))
	want, wantInside := until(t, first, "set /a/b=end"), until(t, inside, "set /a/b=end")

	late := start(t, cfg)
	for i := range 300 {
		foreign.Put(t.Context(), "outside", fmt.Sprint(i)) // nothing that the watch would tell
	}
	if diff := cmp.Diff(want, until(t, watch(t, late, v2.Request{Path: "/", Recursive: true, Stream: true, WaitIndex: 1}), "set /a/b=end")); diff != "" {
		t.Errorf("replayed (-live +replayed):\n%s", diff)
	}
	if diff := cmp.Diff(wantInside, until(t, watch(t, late, v2.Request{Path: "/a/b", Stream: true, WaitIndex: 1}), "set /a/b=end")); diff != "" {
		t.Errorf("replayed /a/b (-live +replayed):\n%s", diff)
	}
	// The past leads into the present without a gap, and with nothing twice.
	w := watch(t, late, v2.Request{Path: "/a/b", Stream: true, WaitIndex: s.Index()})
	must(t, late, set("/a/b", "later"))
	if a, b := brief(next(t, w)), brief(next(t, w)); a != "set /a/b=end was end" && b != "set /a/b=later was end" {
		t.Errorf("got %q, %q", a, b)
	}
}

// until collects events up to one that begins like that.
func until(t *testing.T, w *Watcher, last string) []string {
	t.Helper()
	var out []string
	for {
		e := next(t, w)
		out = append(out, fmt.Sprint(e.Node.ModifiedIndex, " ", brief(e)))
		if strings.HasPrefix(brief(e), last) {
			return out
		}
	}
}

// TestCompacted: beyond the last compaction a watch is answered with error 401.
func TestCompacted(t *testing.T) {
	engine := kvtest.Start(t)
	client := kvtest.InProcess(t, engine)
	before := start(t, Config{Client: client})
	for i := range 20 {
		must(t, before, set("/k", fmt.Sprint(i))) // revisions 2 to 21
	}
	if _, err := client.Compact(t.Context(), 12); err != nil {
		t.Fatal(err)
	}
	late := start(t, Config{Client: kvtest.Dial(t, engine)})
	_, err := late.Watch(t.Context(), v2.Request{Path: "/other", WaitIndex: 12})
	want := "401: The event in requested index is outdated and cleared (the requested history has been cleared [13/12]) [21]"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if got := brief(next(t, watch(t, late, v2.Request{Path: "/k", WaitIndex: 13}))); got != "set /k=11 was 10" {
		t.Errorf("oldest retained: %q", got)
	}
	if got := brief(next(t, watch(t, before, v2.Request{Path: "/k", WaitIndex: 5}))); got != "set /k=3 was 2" {
		t.Errorf("from memory: %q", got)
	}
}

// TestExpiry: two gateways that both think they are the one to do it expire each
// key once, in order, and as what it is.
func TestExpiry(t *testing.T) {
	engine := kvtest.Start(t)
	a := start(t, inProcess(t, engine))
	b := start(t, Config{Client: kvtest.Dial(t, engine)})
	w := watch(t, a, v2.Request{Path: "/t", Recursive: true, Stream: true, WaitIndex: 1})
	const n = 30
	must(t, b, v2.Request{Op: v2.Create, Path: "/t/dir", Dir: true, TTL: ttl(1)})
	must(t, b, set("/t/dir/inside", "x"))
	for i := range n {
		must(t, b, v2.Request{Op: v2.Set, Path: fmt.Sprintf("/t/%02d", i), Value: "x", TTL: ttl(1)})
	}
	must(t, b, v2.Request{Op: v2.Set, Path: "/t/later", Value: "x", TTL: ttl(2)})
	for range n + 3 {
		next(t, w)
	}
	want := []string{"expire /t/dir/"}
	for i := range n {
		want = append(want, fmt.Sprintf("expire /t/%02d was x", i))
	}
	want = append(want, "expire /t/later was x", "set /t/end=")
	var got []string
	for range n + 2 {
		got = append(got, brief(next(t, w)))
	}
	must(t, a, set("/t/end", ""))
	got = append(got, brief(next(t, w)))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestSweep: a record that a v3 client has made meaningless goes away.
func TestSweep(t *testing.T) {
	engine := kvtest.Start(t)
	client := kvtest.Dial(t, engine)
	s := start(t, inProcess(t, engine))
	must(t, s, v2.Request{Op: v2.Set, Path: "/k", Value: "x", TTL: ttl(100)})
	client.Put(t.Context(), "/k", "y")
	gone := client.Watch(t.Context(), ".v2/n/k", clientv3.WithFilterPut(), clientv3.WithRev(1))
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the record is still there after 10 s")
	}
}

// TestGap: a gateway that comes back after its place in the history is compacted reads
// the store again, and ends its watches, which have missed something.
func TestGap(t *testing.T) {
	engine := kvtest.Start(t)
	t.Run("client", func(t *testing.T) { testGap(t, engine, Config{Client: kvtest.Dial(t, engine)}) })
	t.Run("engine", func(t *testing.T) { testGap(t, engine, inProcess(t, engine)) })
}

func testGap(t *testing.T, engine *embed.Etcd, cfg Config) {
	client := kvtest.Dial(t, engine)
	cfg.Log = slog.New(slog.DiscardHandler)
	s := New(cfg)
	run := func(during func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- s.Run(ctx, func() { close(ready) }) }()
		<-ready
		during()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	run(func() { must(t, s, set("/k", "1")) })
	w := watch(t, s, v2.Request{Path: "/k"}) // with nobody to feed it
	for i := range 10 {
		client.Put(t.Context(), "/k", fmt.Sprint("missed ", i))
	}
	if _, err := client.Compact(t.Context(), int64(s.Index())+5); err != nil {
		t.Fatal(err)
	}
	run(func() {
		_, err := w.Next(t.Context())
		if kerr, ok := errors.AsType[*keys.Error](err); !ok || kerr.ErrorCode != keys.CodeWatcherCleared {
			t.Errorf("watch over the gap: %v", err)
		}
		if e := must(t, s, v2.Request{Op: v2.Get, Path: "/k"}); *e.Node.Value != "missed 9" {
			t.Errorf("after the gap: %q", *e.Node.Value)
		}
	})
}
