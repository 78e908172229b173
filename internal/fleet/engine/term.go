package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"flotilla/internal/fleet/registry"
)

// term is one time of leading.
type term struct {
	*Engine
	lead   registry.Leadership
	view   *registry.View
	since  time.Time
	wake   chan struct{} // holds one token when there is something to look at
	scribe *scribe

	mu         sync.Mutex
	attendance attendance
	news       inbox

	// What follows belongs to the loop.
	picture picture
	settled int64 // revision of our last write: decide on nothing older
	told    told
	tidied  time.Time // when old things were last thrown away
}

// inbox is what the view has been told and the picture has not.
type inbox struct {
	loaded  bool // the view has been read at least once
	all     bool // it was read as a whole
	changes []registry.Change
	rev     int64
}

func newTerm(e *Engine, lead registry.Leadership) *term {
	return &term{
		Engine: e, lead: lead, view: e.store.NewView(), since: time.Now(),
		wake:       make(chan struct{}, 1),
		scribe:     newScribe(e.store, e.log),
		attendance: attendance{lost: map[string]time.Time{}, present: map[string]bool{}},
	}
}

// run decides until the lead is lost or ctx is done.
func (t *term) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { t.store.Follow(ctx, registry.Everything, t.view, t.heard) })
	wg.Go(func() { t.scribe.run(ctx) })
	retry := registry.Backoff{Min: 20 * time.Millisecond, Max: time.Second}
	wait := t.cfg.Resync
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
		next, err := t.pass(ctx)
		switch {
		case errors.Is(err, registry.ErrNotLeader):
			return
		case err != nil:
			wait = t.afterFailure(err, &retry)
		default:
			retry.Reset()
			wait = next
		}
	}
}

// afterFailure says what went wrong and returns when to try again. What changed
// meanwhile is no failure: the event of that change is on its way.
func (t *term) afterFailure(err error, retry *registry.Backoff) time.Duration {
	wait := retry.Next()
	if !errors.Is(err, registry.ErrStale) && !errors.Is(err, registry.ErrAway) {
		t.log.Warn("schedule not written, trying again", "err", err, "next_try", wait)
	}
	t.stats.failed.Add(1)
	return wait
}

// heard takes note of what has changed, and wakes the loop.
func (t *term) heard(changes []registry.Change, loaded bool) {
	t.mu.Lock()
	first := !t.news.loaded
	t.news.loaded = true
	t.news.rev = t.view.Rev()
	now := time.Now()
	if loaded {
		t.news.all, t.news.changes = true, nil
		t.attendance.call(t.view.Machines(), now)
	} else {
		t.news.changes = append(t.news.changes, changes...)
	}
	for _, c := range changes {
		if c.Kind == registry.KindMachine && c.Bad == nil {
			t.attendance.mark(c.Machine, !c.Deleted, now)
		}
	}
	if first {
		t.attendance.takeNews() // who is there already does not come now
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// next is how long to sleep when nothing happens before these times, of which zero
// ones do not count.
func (t *term) next(wakes ...time.Time) time.Duration {
	wait := t.cfg.Resync
	for _, at := range wakes {
		if !at.IsZero() {
			wait = min(wait, time.Until(at))
		}
	}
	return max(time.Millisecond, wait)
}
