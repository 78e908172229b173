// Package engine decides, for the whole cluster, which machine runs which unit.
//
// Every machine's daemon has an engine; one of them leads, by lease. It keeps the
// registry in memory from one watch, is woken by events, and tells sched's cluster of
// each change, so that a decision costs what has changed and not what there is.
// rollout says which texts may change now, sched where everything runs. Decisions
// are written in batches that are guarded by the engine's leadership and by the
// revision of each entry.
//
// What the engine does, what it sees machines and units do, and what it waits for it
// tells as events. They are for people: that they cannot be written holds nothing up.
package engine

import (
	"context"
	"errors"
	"log/slog"
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
	AwaitVacancy(ctx context.Context, c registry.Candidate, fresh bool) error
	Campaign(ctx context.Context, lease registry.Lease, c registry.Candidate) (registry.Leadership, error)
	WriteSchedule(ctx context.Context, l registry.Leadership, ds []sched.Decision, written func([]sched.Decision)) (int64, error)
	WriteNotes(ctx context.Context, l registry.Leadership, n registry.Notes) (int64, error)
	WriteRolls(ctx context.Context, l registry.Leadership, put []model.Roll, remove []string) (int64, map[string]error, error)
	DeleteAsks(ctx context.Context, l registry.Leadership, ids []string) (int64, error)
	ForgetUnits(ctx context.Context, l registry.Leadership, units []string) (int64, error)
	Apply(ctx context.Context, ws []registry.UnitWrite, by, why string) error
	ReadHistory(ctx context.Context, unit string) ([]model.Version, error)
	WriteEvents(ctx context.Context, es []model.Event) error
	TrimEvents(ctx context.Context, l registry.Leadership, keep int, oldest time.Time) (int64, error)
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
	fresh, said := true, ""
	retry := registry.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for e.store.AwaitVacancy(ctx, e.cfg.Candidate, fresh) == nil {
		err := e.lead(ctx)
		switch {
		case err == nil:
			fresh, said = false, ""
			retry.Reset()
			continue
		case errors.Is(err, registry.ErrLed), errors.Is(err, registry.ErrLeaseLost), errors.Is(err, context.Canceled):
		case err.Error() != said:
			said = err.Error()
			e.log.Warn("nobody leads, and this engine cannot, trying again", "err", err)
		}
		retry.Wait(ctx)
	}
}

// lead takes the lead if nobody else is sooner, and returns when it has it no more; the
// error is why it has not got it. The lease is asked for here: those that wait hold none,
// so that a store that rests renews one for all engines.
func (e *Engine) lead(ctx context.Context) (err error) {
	ctx, over := context.WithCancel(ctx)
	defer over()
	err = context.Canceled // if it ends before a lease is granted
	e.store.Hold(ctx, e.cfg.Lease, true, func(held context.Context, lease registry.Lease) {
		defer over()
		var term registry.Leadership
		if term, err = e.store.Campaign(held, lease, e.cfg.Candidate); err != nil {
			return
		}
		e.log.Info("Engine leadership acquired", "machine", model.ShortID(e.cfg.Candidate.Machine))
		e.stats.leader(time.Now())
		defer e.stats.leader(time.Time{})
		newTerm(e, term).run(held)
		if ctx.Err() == nil {
			e.log.Info("Engine leadership lost")
		}
	})
	return err
}
