package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/kv/member/membertest"
)

// counted is a store of which it is known how often all of it was read.
type counted struct {
	keepable
	reads atomic.Int64
}

func (c *counted) Read(ctx context.Context, scope string) (*View, error) {
	c.reads.Add(1)
	return c.keepable.Read(ctx, scope)
}

// Who has written something, by whatever way, and asks at once, is answered with it;
// and nothing is read twice for that, however much of what happens to the store is none
// of the registry's.
func TestKeptHasWhatWasWrittenBefore(t *testing.T) {
	url := membertest.Start(t)
	store := &counted{keepable: connect(t, url).Keep().store}
	kept, writer, ctx := newKept(store), connect(t, url), t.Context()
	kept.patience = time.Minute // also with a busy machine
	if _, err := kept.Read(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for who := range 4 {
		wg.Go(func() {
			for i := range 25 {
				name := fmt.Sprintf("a%d-%d.service", who, i)
				if err := writer.Create(ctx, name, aText, model.Loaded, "", ""); err != nil {
					t.Error(err)
				}
				if v, err := kept.Read(ctx); err != nil {
					t.Error(err)
				} else if _, ok := v.Unit(name); !ok {
					t.Errorf("%s was created, and is not seen", name)
				}
				if _, err := writer.client.Put(ctx, fmt.Sprint("/elsewhere/", who), "x"); err != nil {
					t.Error(err)
				}
				if err := writer.Destroy(ctx, name); err != nil {
					t.Error(err)
				}
				if v, err := kept.Read(ctx); err != nil {
					t.Error(err)
				} else if _, ok := v.Unit(name); ok {
					t.Errorf("%s was destroyed, and is seen", name)
				}
			}
		})
	}
	wg.Wait()
	if n := store.reads.Load(); n != 1 {
		t.Errorf("all was read %d times", n)
	}
	kept.mu.Lock()
	now := kept.now
	kept.mu.Unlock()
	kept.letGo(now)
	<-now.ended
	if v, err := kept.Read(ctx); err != nil || len(v.Units()) != 0 || store.reads.Load() != 2 {
		t.Errorf("after the view was let go: %v, %v, read %d times", v.Units(), err, store.reads.Load())
	}
}

// A view that was handed out stays as it was.
func TestKeptViewsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		kept := newKept(f)
		f.put("states/m/a.service", `{"activeState":"active"}`)
		var views []*View
		for i := range 3 {
			v, err := kept.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			views = append(views, v)
			f.put("states/m/a.service", fmt.Sprintf(`{"activeState":"%d"}`, i))
			f.put("machines/m/metadata/disk", fmt.Sprint(i))
			synctest.Wait()
		}
		for i, want := range []string{"active ", "0 0", "1 1"} {
			if got := views[i].State("a.service", "m").Active + " " + views[i].DynamicMetadata("m")["disk"]; got != want {
				t.Errorf("view %d: %s, want %s", i, got, want)
			}
		}
		f.end()
	})
}

// fakeStore is a store of a few keys. It must be used in a bubble.
type fakeStore struct {
	mu      sync.Mutex
	values  map[string]string
	rev     int64
	away    error
	mute    bool // the watch tells nothing
	old     bool // it cannot say how far the watch has come
	reads   int
	watches int // that go on
	history []clientv3.WatchResponse
	tell    chan clientv3.WatchResponse
	stop    context.CancelFunc // ends the watch
}

func newFakeStore() *fakeStore {
	return &fakeStore{values: map[string]string{"mark": "one"}, rev: 1}
}

func (f *fakeStore) Read(context.Context, string) (*View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	v := NewView("/f/")
	v.Load(f.values, f.rev)
	return v, f.away
}

func (f *fakeStore) passing() context.Context { return context.Background() }

func (f *fakeStore) position(context.Context) (position, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return position{mark: f.values["mark"], rev: f.rev}, f.away
}

func (f *fakeStore) watchAfter(ctx context.Context, rev int64) clientv3.WatchChan {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, f.stop = context.WithCancel(ctx)
	tell, out := make(chan clientv3.WatchResponse, 100), make(chan clientv3.WatchResponse)
	f.tell = tell
	for _, past := range f.history {
		if past.Header.Revision > rev {
			tell <- past
		}
	}
	f.watches++
	go func() {
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.watches--
			close(out)
		}()
		for {
			select {
			case resp := <-tell:
				out <- resp
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (f *fakeStore) askProgress(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told()
	return nil
}

func (f *fakeStore) tellsProgress(context.Context) bool { return !f.old }

func (f *fakeStore) told(events ...*clientv3.Event) {
	resp := clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{Revision: f.rev}, Events: events}
	if len(events) > 0 {
		f.history = append(f.history, resp)
	}
	if f.tell != nil && !f.mute {
		f.tell <- resp
	}
}

func (f *fakeStore) put(path, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[path] = value
	f.rev++
	f.told(&clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte("/f/" + path), Value: []byte(value), ModRevision: f.rev}})
}

// end ends the watch, as a store does that goes away.
func (f *fakeStore) end() {
	f.stop()
	synctest.Wait()
}

func (f *fakeStore) compact() {
	f.tell <- clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{}, CompactRevision: f.rev, Canceled: true}
	synctest.Wait()
}

// counts is how often all was read, and how many watches go on.
func (f *fakeStore) counts() string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("%d read, %d watched", f.reads, f.watches)
}

// A view is kept as long as it is asked for, and then nothing of it: the bubble would
// not end with a goroutine in it.
func TestKeptIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		kept := newKept(f)
		is := func(want string) {
			t.Helper()
			if got := f.counts(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		read := func() {
			t.Helper()
			if _, err := kept.Read(t.Context()); err != nil {
				t.Error(err)
			}
		}
		is("0 read, 0 watched")
		for range 10 {
			read()
			is("1 read, 1 watched")
			time.Sleep(keptFor - time.Second)
		}
		is("1 read, 1 watched")
		time.Sleep(time.Second)
		is("1 read, 0 watched")
		if kept.now != nil {
			t.Error("the view is still there")
		}
		read()
		is("2 read, 1 watched")
		time.Sleep(keptFor)
		is("2 read, 0 watched")
	})
}

// What the watch does not bring is read; a store that is away is told.
func TestKeptWithoutItsWatch(t *testing.T) {
	away := fmt.Errorf("read the registry: %w", ErrAway)
	for _, c := range []struct {
		name   string
		breaks func(f *fakeStore)
		waits  time.Duration
		want   string
	}{
		{"nothing is wrong", func(*fakeStore) {}, 0, "1 read, 1 watched"},
		{"the watch has ended", (*fakeStore).end, 0, "2 read, 1 watched"},
		{"what the watch has missed is compacted", (*fakeStore).compact, 0, "2 read, 1 watched"},
		{"the watch tells nothing", func(f *fakeStore) { f.mute = true }, keptPatience, "2 read, 1 watched"},
		{"another store", func(f *fakeStore) { f.values["mark"] = "two" }, 0, "2 read, 1 watched"},
		{"an older state", func(f *fakeStore) { f.rev = -5 }, 0, "2 read, 1 watched"},
		{"the store is away", func(f *fakeStore) { f.away = away }, 0, "1 read, 1 watched"},
		{"the store is away, and the watch has ended", func(f *fakeStore) { f.away = away; f.end() }, 0, "2 read, 0 watched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStore()
				kept := newKept(f)
				if _, err := kept.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				c.breaks(f)
				f.put("lease/engine-leader", `{"MachineID":"m"}`)
				start := time.Now()
				v, err := kept.Read(t.Context())
				if !errors.Is(err, f.away) {
					t.Errorf("error %v, want %v", err, f.away)
				}
				if err == nil && v.Leader() != "m" {
					t.Errorf("what was written before is not seen: leader %q", v.Leader())
				}
				if waited := time.Since(start); waited != c.waits {
					t.Errorf("it took %v, want %v", waited, c.waits)
				}
				if got := f.counts(); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				time.Sleep(keptFor)
			})
		})
	}
}

// Of a store whose word on the progress of a watch does not count all is read each time.
func TestKeptOfAnOldStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		f.old = true
		kept := newKept(f)
		for range 3 {
			if _, err := kept.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.counts(); got != "3 read, 0 watched" {
			t.Error(got)
		}
	})
	for version, want := range map[string]bool{
		"3.4.23": false, "3.5.21": false, "3.6.0": true, "3.7.3": true, "3.10.0": true, "4.0.0": true,
		"3.7.0-rc.0": true, "2.3.8": false, "": false, "3": false, "unknown": false,
	} {
		if got := ordersProgress(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

// Who gives up waiting gets the error of that, and the others go on.
func TestKeptReaderGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStore()
		kept := newKept(f)
		if _, err := kept.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.mute = true
		f.put("engine/hold", "x")
		ctx, cancel := context.WithTimeout(t.Context(), keptPatience/2)
		defer cancel()
		if _, err := kept.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got := f.counts(); got != "1 read, 1 watched" {
			t.Error(got)
		}
		time.Sleep(keptFor)
	})
}
