// Package engine decides, for the whole cluster, which machine runs which unit.
//
// Every machine's daemon has an engine; one of them leads, by lease. It keeps the
// registry in memory from one watch, is woken by events, asks sched what to do, and
// writes decisions in batches that are guarded by its leadership and by the
// revision of each entry.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// Config is what an engine needs to know.
type Config struct {
	Candidate registry.Candidate
	Policy    sched.Policy
	// Resync is how often everything is looked at though nothing has happened.
	// 0 means 30 s.
	Resync time.Duration
	// Lease is for how long the lead is kept without a word. 0 means 5 s: shorter
	// than a machine's, so that a machine that is lost with the engine on it is
	// missed by the next engine no later than by this one.
	Lease time.Duration
}

// Store is the registry as the engine uses it; *registry.Registry is one.
type Store interface {
	NewView() *registry.View
	Follow(ctx context.Context, scope string, v *registry.View, changed func([]registry.Change, bool))
	Hold(ctx context.Context, ttl time.Duration, resign bool, run func(context.Context, registry.Lease))
	Campaign(ctx context.Context, lease registry.Lease, c registry.Candidate, fresh bool) (registry.Leadership, error)
	WriteSchedule(ctx context.Context, l registry.Leadership, ds []sched.Decision, written func([]sched.Decision)) (int64, error)
	WriteNotes(ctx context.Context, l registry.Leadership, n registry.Notes) (int64, error)
}

var _ Store = (*registry.Registry)(nil)

// Engine is one machine's engine. Make it with New.
type Engine struct {
	cfg   Config
	store Store
	log   *slog.Logger
	stats Stats
}

// New makes an engine and touches nothing.
func New(cfg Config, st Store, log *slog.Logger) *Engine {
	if cfg.Resync == 0 {
		cfg.Resync = 30 * time.Second
	}
	if cfg.Lease == 0 {
		cfg.Lease = 5 * time.Second
	}
	return &Engine{cfg: cfg, store: st, log: log}
}

// Stats returns the engine's counters, for metrics.
func (e *Engine) Stats() *Stats { return &e.stats }

// Run takes part until ctx is done: it waits for the lead, leads while it has it,
// and gives it back at the end so that another leads at once.
func (e *Engine) Run(ctx context.Context) {
	fresh := true
	e.store.Hold(ctx, e.cfg.Lease, true, func(ctx context.Context, lease registry.Lease) {
		lead, err := e.store.Campaign(ctx, lease, e.cfg.Candidate, fresh)
		if err != nil {
			return
		}
		fresh = false
		e.log.Info("Engine leadership acquired", "machine", model.ShortID(e.cfg.Candidate.Machine))
		e.stats.leader(time.Now())
		defer e.stats.leader(time.Time{})
		newTerm(e, lead).run(ctx)
		if ctx.Err() == nil {
			e.log.Info("Engine leadership lost")
		}
	})
}

// term is one time of leading.
type term struct {
	*Engine
	lead  registry.Leadership
	view  *registry.View
	since time.Time
	wake  chan struct{} // holds one token when there is something to look at

	mu     sync.Mutex
	loaded bool
	roll   roll

	settled int64 // revision of our last write: decide on nothing older
	told    told
}

func newTerm(e *Engine, lead registry.Leadership) *term {
	now := time.Now()
	return &term{
		Engine: e, lead: lead, view: e.store.NewView(), since: now,
		wake: make(chan struct{}, 1),
		roll: roll{lost: map[string]time.Time{}, present: map[string]bool{}},
	}
}

// run decides until the lead is lost or ctx is done.
func (t *term) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { t.store.Follow(ctx, registry.Everything, t.view, t.heard) })
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

// afterFailure says what went wrong and returns when to try again. A schedule that
// changed meanwhile is no failure: the event of that change is on its way.
func (t *term) afterFailure(err error, retry *registry.Backoff) time.Duration {
	wait := retry.Next()
	if !errors.Is(err, registry.ErrStale) && !errors.Is(err, registry.ErrAway) {
		t.log.Warn("schedule not written, trying again", "err", err, "next_try", wait)
	}
	t.stats.failed.Add(1)
	return wait
}

// heard takes note of who comes and goes, and wakes the loop.
func (t *term) heard(changes []registry.Change, loaded bool) {
	t.mu.Lock()
	t.loaded = true
	now := time.Now()
	if loaded {
		t.roll.call(t.view.Machines(), now)
	}
	for _, c := range changes {
		if c.Kind == registry.KindMachine && c.Bad == nil {
			t.roll.mark(c.Machine, !c.Deleted, now)
		}
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// pass decides once and writes what was decided. It returns when to look again.
func (t *term) pass(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	snap, ok := t.snapshot(began)
	if !ok {
		return t.cfg.Resync, nil // our own last write is still on its way to us
	}
	result := t.decide(snap)
	defer func() { t.stats.passed(time.Since(began)) }()
	rev, err := t.store.WriteSchedule(ctx, t.lead, result.Decisions, t.written)
	t.settled = max(t.settled, rev)
	if err != nil {
		return 0, err
	}
	t.say(result.Held)
	rev, err = t.store.WriteNotes(ctx, t.lead, news(t.view, result))
	t.settled = max(t.settled, rev)
	if err != nil {
		return 0, err
	}
	return t.next(result.Wake), nil
}

// decide asks sched. A hold that ends starts the clocks of those still away anew:
// after a fault of the network machines come back one after another, and the last
// of them are not to be taken for lost because the first have come.
func (t *term) decide(snap sched.Snapshot) sched.Result {
	result := sched.Decide(snap)
	if t.told.held == "" || result.Held != "" {
		return result
	}
	t.mu.Lock()
	t.roll.restart(snap.Now)
	snap.Lost, snap.Seen = t.roll.report()
	t.mu.Unlock()
	snap.LeaderSince = snap.Now // counts for machines that this engine has never seen
	t.since = snap.Now
	return sched.Decide(snap)
}

// snapshot is what a decision is made on; false while the view is older than our
// own last write.
func (t *term) snapshot(now time.Time) (sched.Snapshot, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.loaded || t.view.Rev() < t.settled {
		return sched.Snapshot{}, false
	}
	placements := t.view.Placements()
	holds := map[string]bool{}
	for _, p := range placements {
		holds[p.Machine] = true
	}
	t.roll.forget(holds, now)
	lost, seen := t.roll.report()
	return sched.Snapshot{
		Now: now, LeaderSince: t.since, Policy: t.cfg.Policy,
		Machines: t.view.Machines(), Lost: lost, Seen: seen,
		Units: t.view.Units(), Placements: placements, States: t.view.States(),
	}, true
}

func (t *term) next(wake time.Time) time.Duration {
	if wake.IsZero() {
		return t.cfg.Resync
	}
	return max(time.Millisecond, min(t.cfg.Resync, time.Until(wake)))
}

// written logs decisions that are in force now, in the words that people and tools
// know.
func (t *term) written(ds []sched.Decision) {
	for _, d := range ds {
		t.stats.decided(d.Op)
		t.log.Info(sentence(d), "why", d.Why)
	}
}

func sentence(d sched.Decision) string {
	u, m := d.Entry.Unit, d.Entry.Machine
	switch d.Op {
	case sched.Place:
		return fmt.Sprintf("Scheduled Unit(%s) to Machine(%s)", u, m)
	case sched.Release:
		return fmt.Sprintf("Unscheduled Job(%s) from Machine(%s)", u, m)
	case sched.Leave:
		return fmt.Sprintf("Unit(%s) is to leave Machine(%s)", u, m)
	}
	return fmt.Sprintf("Updated Unit(%s) on Machine(%s)", u, m)
}

// say tells once that moves are held, and once that they are not any more.
func (t *term) say(held string) {
	if held == t.told.held {
		return
	}
	if held != "" {
		t.log.Warn("moves are held", "why", held)
	} else {
		t.log.Info("moves are not held any more")
	}
	t.told.held = held
}
