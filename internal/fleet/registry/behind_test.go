package registry

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// lateWatcher has something happen before a watch begins.
type lateWatcher struct {
	clientv3.Watcher
	before func()
}

func (l *lateWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	if f := l.before; f != nil {
		l.before = nil
		f()
	}
	return l.Watcher.Watch(ctx, key, opts...)
}

// A view says that it has come to a revision only when it has everything up to there,
// also while the watch is thousands of revisions behind and the store tells them in
// parts.
func TestViewThatIsBehindKnowsIt(t *testing.T) {
	r := open(t)
	const n = 1500
	unit := func(i int) string { return fmt.Sprintf("a%d.service", i) }
	revs := map[int64]string{}
	r.client.Watcher = &lateWatcher{r.client.Watcher, func() {
		for i := range n {
			resp, err := r.client.Put(t.Context(), r.key(Key{Kind: KindDesired, Unit: unit(i)}), model.Launched.String())
			if err != nil {
				t.Fatal(err)
			}
			revs[resp.Header.Revision] = unit(i)
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	view, seen, parts := r.NewView(), map[string]bool{}, 0
	r.Follow(ctx, Everything, view, func(cs []Change, loaded bool) {
		for _, c := range cs {
			seen[c.Unit] = true
		}
		if !loaded {
			parts++
		}
		for rev, name := range revs {
			if rev <= view.Rev() && !seen[name] {
				t.Fatalf("in part %d the view has come to %d, and has not %s of revision %d", parts, view.Rev(), name, rev)
			}
		}
		if seen[unit(n-1)] {
			cancel()
		}
	})
	if parts < 2 {
		t.Error("the store has told all at once: nothing was tested")
	}
}

// brokenWatcher ends the first watch after its first response.
type brokenWatcher struct {
	clientv3.Watcher
	broke bool
}

func (b *brokenWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	if b.broke {
		return b.Watcher.Watch(ctx, key, opts...)
	}
	b.broke = true
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan clientv3.WatchResponse, 1)
	out <- <-b.Watcher.Watch(ctx, key, opts...)
	cancel()
	close(out)
	return out
}

// Whoever follows the events is told all of them, also when the watch ends while it is
// thousands of revisions behind.
func TestEventsAfterAWatchThatWasBehind(t *testing.T) {
	r := open(t)
	const n = 1500
	r.client.Watcher = &lateWatcher{&brokenWatcher{Watcher: r.client.Watcher}, func() {
		for i := range n {
			e := model.Event{What: fmt.Sprint(i), At: time.Unix(int64(i), 0)}
			if _, err := r.client.Put(t.Context(), r.eventKey(e), string(encodeEvent(e))); err != nil {
				t.Fatal(err)
			}
		}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := 0
	r.FollowEvents(ctx, EventFilter{}, func(e model.Event) error {
		if e.What != fmt.Sprint(next) {
			t.Errorf("told %s, want %d", e.What, next)
			cancel()
		}
		if next++; next == n {
			cancel()
		}
		return nil
	})
	if next != n {
		t.Errorf("%d events were told, want %d", next, n)
	}
}
