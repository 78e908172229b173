package mvcc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/api/keys"
	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

// countPast counts how often a client reads the store as it was.
type countPast struct {
	clientv3.KV
	n *atomic.Int64
}

func (c countPast) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	op := clientv3.OpGet(key, opts...)
	if key == v2.RangeStart && op.Rev() != 0 {
		c.n.Add(1)
	}
	return c.KV.Get(ctx, key, opts...)
}

// TestManyRecallTogether: a thousand watchers that come back with indexes from
// before the gateway's memory are each told the right event, for a few readings of
// the store.
func TestManyRecallTogether(t *testing.T) {
	engine := kvtest.Start(t)
	writer := start(t, Config{Client: kvtest.InProcess(t, engine)})
	const files = 200
	var first uint64
	for i := range files {
		a := must(t, writer, set(fmt.Sprintf("/dir/%d", i), "x"))
		if i == 0 {
			first = a.Node.ModifiedIndex
		}
	}
	client := kvtest.InProcess(t, engine)
	var readings atomic.Int64
	client.KV = countPast{client.KV, &readings}
	late := start(t, Config{Client: client})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			key := i % files
			r := v2.Request{Path: fmt.Sprintf("/dir/%d", key), WaitIndex: first + uint64(i%(key+1))}
			w, err := late.Watch(ctx, r)
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			e, err := w.Next(ctx)
			if err != nil || e.Node.Key != r.Path || e.Node.ModifiedIndex != first+uint64(key) {
				t.Errorf("watch %+v: %+v, %v", r, e, err)
			}
		})
	}
	wg.Wait()
	if n := readings.Load(); n > 40 {
		t.Errorf("the store was read %d times", n)
	}
}

// TestSimilar: who is served together.
func TestSimilar(t *testing.T) {
	var all []*recall
	for _, since := range []uint64{50_000, 7, 10_007, 10_008} {
		all = append(all, &recall{w: &Watcher{since: since}})
	}
	batch, rest := similar(all)
	if fmt.Sprint(sinces(batch), sinces(rest)) != "[7 10007] [50000 10008]" {
		t.Errorf("together %v, later %v", sinces(batch), sinces(rest))
	}
}

func sinces(all []*recall) (out []uint64) {
	for _, r := range all {
		out = append(out, r.w.since)
	}
	return out
}

// TestRecallWithoutClient: a replay ends when nobody waits for it any more.
func TestRecallWithoutClient(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	there := t.Context()
	ctx, cancel := whileAny([]*recall{{ctx: gone}, {ctx: there}})
	leave()
	if ctx.Err() != nil {
		t.Error("ended with a client left")
	}
	cancel()
	ctx, cancel = whileAny([]*recall{{ctx: gone}, {ctx: gone}})
	defer cancel()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("goes on without a client")
	}
}

// TestAwaitIsForgotten: who gives up waiting leaves nothing behind.
func TestAwaitIsForgotten(t *testing.T) {
	s := start(t, Config{Client: kvtest.InProcess(t, kvtest.Start(t))})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.await(ctx, s.Index()+1000, false); err == nil {
		t.Error("revision reached")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waits) != 0 {
		t.Errorf("%d waits are left", len(s.waits))
	}
}

// TestOneChangeAtATime: a watcher that comes back for each change of a history from
// before the gateway's memory costs a reading of the store now and then, not one for
// each.
func TestOneChangeAtATime(t *testing.T) {
	engine := kvtest.Start(t)
	writer := start(t, Config{Client: kvtest.InProcess(t, engine)})
	const changes = ringChanges + 200
	first := must(t, writer, set("/w/0", "x")).Node.ModifiedIndex
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < changes; i += 8 {
				must(t, writer, set(fmt.Sprintf("/w/%d", i%10), "x"))
			}
		})
	}
	wg.Wait()
	client := kvtest.InProcess(t, engine)
	var readings atomic.Int64
	client.KV = countPast{client.KV, &readings}
	late := start(t, Config{Client: client})
	for index, told := first, 0; told < changes; told++ {
		w, err := late.Watch(t.Context(), v2.Request{Path: "/w", Recursive: true, WaitIndex: index})
		if err != nil {
			t.Fatal(err)
		}
		e, err := w.Next(t.Context())
		w.Close()
		if err != nil || e.Node.ModifiedIndex != index {
			t.Fatalf("at %d: %+v, %v", index, e, err)
		}
		index++
	}
	if n := readings.Load(); n > 2 {
		t.Errorf("the store was read %d times", n)
	}
	// Nobody else is told of what is not for it.
	w, err := late.Watch(t.Context(), v2.Request{Path: "/w/3", WaitIndex: first + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e, err := w.Next(t.Context()); err != nil || e.Node.Key != "/w/3" {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestStretch: a stretch that is full ends with an index of which it has everything.
func TestStretch(t *testing.T) {
	p := stretch{floor: 9}
	value := string(make([]byte, ringBytes/2))
	for _, index := range []uint64{10, 11, 12, 12, 13} {
		p.add(v2.Change{Event: &keys.Event{Node: &keys.Node{Key: "/k", Value: &value, ModifiedIndex: index}}})
	}
	if len(p.changes) != 2 || p.until != 11 || !p.full {
		t.Errorf("%d changes until %d, full %t", len(p.changes), p.until, p.full)
	}
	for index, want := range map[uint64]bool{9: false, 10: true, 11: true, 12: false} {
		if got := (past{&p}).at(index) != nil; got != want {
			t.Errorf("index %d: %t", index, got)
		}
	}
}
