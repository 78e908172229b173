package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/kv/member"
)

// keptStore is a store that can be stopped, and set back to what it was.
type keptStore struct {
	t   *testing.T
	dir string
	url string
	end func()
}

func newKeptStore(t *testing.T) *keptStore {
	t.Helper()
	s := &keptStore{t: t, dir: t.TempDir(), url: freeURL(t)}
	s.start(s.url)
	t.Cleanup(func() { s.end() })
	return s
}

func freeURL(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "http://" + ln.Addr().String()
}

func (s *keptStore) data() string { return filepath.Join(s.dir, "store") }

func (s *keptStore) start(url string) {
	s.t.Helper()
	cfg, err := member.Alone("n1", s.data(), []string{url})
	if err != nil {
		s.t.Fatal(err)
	}
	m := member.New(cfg, member.Deps{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Run(ctx, sync.OnceFunc(func() { close(ready) })) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("store: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		s.t.Fatal("the store is not ready after 30 s")
	}
}

// backup stops the store, copies it and starts it again.
func (s *keptStore) backup() (copied string) {
	s.t.Helper()
	s.end()
	copied = filepath.Join(s.dir, "backup")
	if err := os.CopyFS(copied, os.DirFS(s.data())); err != nil {
		s.t.Fatal(err)
	}
	s.start(s.url)
	return copied
}

// restore has the store be what it was in a backup. meanwhile happens to it before
// anybody can reach it under its old address; nil: nothing.
func (s *keptStore) restore(backup string, meanwhile func(url string)) {
	s.t.Helper()
	s.end()
	if err := errors.Join(os.RemoveAll(s.data()), os.Rename(backup, s.data())); err != nil {
		s.t.Fatal(err)
	}
	if meanwhile != nil {
		elsewhere := freeURL(s.t)
		s.start(elsewhere)
		meanwhile(elsewhere)
		s.end()
	}
	s.start(s.url)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func (r *Registry) mustCreate(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := r.Create(t.Context(), name, aText, model.Loaded, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}

func has(v *View, name string) bool { _, ok := v.Unit(name); return ok }

// Whoever follows a store that is set back to a backup notices, whether the store has
// come further again by then or not, and knows what it holds now.
func TestFollowersOfAStoreThatIsSetBack(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile func(t *testing.T, url string)
	}{
		{"it has lower revisions", nil},
		{"it has come further than it was", func(t *testing.T, url string) {
			r := connect(t, url)
			r.mustCreate(t, "new.service")
			for range 100 {
				if _, err := r.client.Put(t.Context(), "/elsewhere", ""); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newKeptStore(t)
			r := connect(t, s.url)
			r.mustCreate(t, "old.service")
			backup := s.backup()

			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			defer all.Wait()
			defer cancel()
			view, kept := r.NewView(), r.Keep()
			all.Go(func() { r.Follow(ctx, Everything, view, func([]Change, bool) {}) })
			told := make(chan string, 100)
			all.Go(func() {
				r.FollowEvents(ctx, EventFilter{}, func(e model.Event) error { told <- e.What; return nil })
			})
			for i := range 30 {
				r.mustCreate(t, fmt.Sprintf("lost%d.service", i))
			}
			if err := r.WriteEvents(ctx, []model.Event{{What: "lost"}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the event is told", func() bool { return len(told) > 0 && <-told == "lost" })
			eventually(t, "all is followed", func() bool { return has(view, "lost29.service") })
			if v, err := kept.Read(ctx); err != nil || !has(v, "lost29.service") {
				t.Fatal("kept:", err)
			}

			var meanwhile func(url string)
			if c.meanwhile != nil {
				meanwhile = func(url string) { c.meanwhile(t, url) }
			}
			s.restore(backup, meanwhile)
			eventually(t, "the store is back", func() bool { _, err := r.position(ctx); return err == nil })
			v, err := kept.Read(ctx)
			if err != nil || has(v, "lost29.service") || !has(v, "old.service") || has(v, "new.service") != (c.meanwhile != nil) {
				t.Errorf("kept is out of date, %v: %v", err, v.Units())
			}
			eventually(t, "the view is what the store holds", func() bool {
				return !has(view, "lost29.service") && has(view, "old.service") && has(view, "new.service") == (c.meanwhile != nil)
			})
			if err := r.WriteEvents(ctx, []model.Event{{What: "after"}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "what happens is told", func() bool { return len(told) > 0 && <-told == "after" })
			r.mustCreate(t, "after.service")
			eventually(t, "it is followed further", func() bool { return has(view, "after.service") })
		})
	}
}

// The lead that a backup holds ends with its lease, and then another engine leads.
// Leases and asks that are no more are noticed.
func TestLeadAfterAStoreIsSetBack(t *testing.T) {
	t.Parallel()
	s := newKeptStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	r, leader := connect(t, s.url), connect(t, s.url)
	leads, leading := context.WithCancel(ctx)
	all.Go(func() {
		leader.Hold(leads, 2*time.Second, false, func(held context.Context, l Lease) {
			if _, err := leader.Campaign(held, l, Candidate{Machine: "m"}); err != nil && held.Err() == nil {
				t.Error(err)
			}
			<-held.Done()
		})
	})
	led := func() bool { v, err := r.Read(ctx, Everything); return err == nil && v.Leader() == "m" }
	eventually(t, "m leads", led)
	backup := s.backup()
	eventually(t, "m leads still", led)
	id, err := r.Ask(ctx, model.Ask{Kind: model.Rebalance})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		r.mustCreate(t, fmt.Sprintf("lost%d.service", i))
	}
	vacant, asked := make(chan error, 1), make(chan error, 1)
	all.Go(func() { vacant <- r.AwaitVacancy(ctx, Candidate{Machine: "n"}, true) })
	all.Go(func() { asked <- r.AwaitAsk(ctx, id) })
	select {
	case err := <-vacant:
		t.Fatal("nobody leads:", err)
	case err := <-asked:
		t.Fatal("nobody asks:", err)
	case <-time.After(300 * time.Millisecond):
	}
	leading()
	s.restore(backup, nil)
	for _, c := range []chan error{vacant, asked} {
		select {
		case err := <-c:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("still waiting after 15 s")
		}
	}
}

// Whoever holds a lease that the older store has as well holds another one after it was
// set back: what was written with the lease is not there any more.
func TestLeaseInAStoreThatIsSetBack(t *testing.T) {
	t.Parallel()
	s := newKeptStore(t)
	r := connect(t, s.url)
	if _, err := r.loadMarked(t.Context(), r.all(Everything), r.NewView()); err != nil {
		t.Fatal(err)
	}
	before := r.past.known()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	leases := make(chan clientv3.LeaseID, 10)
	all.Go(func() {
		r.Hold(ctx, time.Minute, true, func(held context.Context, l Lease) {
			leases <- l.id
			<-held.Done()
		})
	})
	first := <-leases
	backup := s.backup()
	eventually(t, "the store is back", func() bool { return r.look(ctx, r.timeout) == nil })
	select {
	case id := <-leases:
		t.Fatalf("the store was only away, and the lease is %x after %x", id, first)
	case <-time.After(300 * time.Millisecond):
	}
	r.mustCreate(t, "lost.service")
	s.restore(backup, nil)
	select {
	case <-leases:
	case <-time.After(10 * time.Second):
		t.Fatalf("the lease is the same after 10 s, known is %+v", r.past.known())
	}
	if now := r.past.known(); now.mark == before.mark || now.cluster != before.cluster {
		t.Errorf("the registry has the mark %s, as it had before", now.mark)
	}
}

// forgetful is a store that has leases no more.
type forgetful struct{ clientv3.Lease }

func (forgetful) TimeToLive(_ context.Context, id clientv3.LeaseID, _ ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	return &clientv3.LeaseTimeToLiveResponse{ID: id, TTL: -1}, nil
}

// A lead that has no lease, or one that is no more, as a copy of the keys may have it,
// is nobody's; one whose lease lives is waited for.
func TestLeadWithoutALease(t *testing.T) {
	for _, c := range []struct {
		name         string
		leased, gone bool
		want         error
	}{
		{"it has none", false, false, nil},
		{"it is gone", true, true, nil},
		{"it lives", true, false, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t)
			var opts []clientv3.OpOption
			if c.leased {
				lease, err := r.grant(t.Context(), time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				opts = append(opts, clientv3.WithLease(lease.id))
			}
			if _, err := r.client.Put(t.Context(), r.key(Key{Kind: KindLeader}), `{"MachineID":"m"}`, opts...); err != nil {
				t.Fatal(err)
			}
			if c.gone {
				r.client.Lease = forgetful{r.client.Lease}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := r.AwaitVacancy(ctx, Candidate{Machine: "n"}, true); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A store has what a witness tells of if it has come to that revision by the same way;
// what is compacted counts as had.
func TestWitness(t *testing.T) {
	r, ctx := open(t), t.Context()
	first := r.raw(t, "job/a.service/object=one")
	gone := r.raw(t, "job/a.service/object")
	last := r.raw(t, "job/b.service/object=two")
	a, b := r.prefix+"job/a.service/object", r.prefix+"job/b.service/object"
	is := func(what string, w witness, want bool) {
		t.Helper()
		if has, err := r.has(ctx, w); has != want || err != nil {
			t.Errorf("%s: %v, %v", what, has, err)
		}
	}
	is("no witness", witness{}, true)
	is("a value that was", witness{a, first}, true)
	is("the newest value", witness{b, last}, true)
	is("a revision of another key", witness{b, first}, false)
	is("a key that was gone by then", witness{a, gone}, false)
	is("a revision to come", witness{b, last + 1}, false)
	if _, err := r.client.Compact(ctx, last); err != nil {
		t.Fatal(err)
	}
	is("a revision that is compacted", witness{b, first}, true)
}
