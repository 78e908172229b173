// Package agent makes one machine's units what its schedule says.
//
// It watches its own schedule alone, keeps the last known one on disk, plans with
// nodeplan and carries the plan out, each unit independent of the others. What it
// has carried out it remembers until the init system's units are gone (a reboot).
//
// Nothing that runs is stopped because the store, the engine or the agent itself
// is away: a unit is stopped only because a schedule that was read from the store
// says so. The one exception is a unit with Singleton=true, of which at most one may
// run: a machine that is not heard stops it before the cluster starts it elsewhere.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"flotilla/internal/fleet/health"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// Config is what an agent needs to know of its machine.
type Config struct {
	Presence registry.Presence
	// TTL is how long the machine counts as present after its last word.
	TTL      time.Duration
	StateDir string // survives a reboot: the last known schedule
	RunDir   string // what the agent has carried out
	// Epoch names one run of the init system. What was carried out in another one
	// is forgotten.
	Epoch string
	// ColdStartAfter is how long the store is waited for after a reboot before
	// the last known schedule is started from disk.
	ColdStartAfter time.Duration
	// ForgetForeign has the first schedule that is read from the store after the
	// start count alone: units that another store placed here are stopped.
	ForgetForeign bool
	// Watched is for how long the agent may hang: Alive has whoever watches this
	// process end it, and start it again, unless it is called again within that time
	// or the one that it says, if that is shorter. 0: nobody watches.
	Watched time.Duration
	Alive   func(within time.Duration)
	// Journal has the last words of units that turn out bad in a roll; nil: none.
	Journal unit.LogReader
}

// Store is the registry as the agent uses it; *registry.Registry is one.
type Store interface {
	NewView() *registry.View
	Follow(ctx context.Context, scope string, v *registry.View, changed func([]registry.Change, bool))
	Hold(ctx context.Context, ttl time.Duration, resign bool, run func(context.Context, registry.Lease))
	Join(ctx context.Context, lease registry.Lease, p registry.Presence, yieldTo string) error
	Displaced(ctx context.Context, lease registry.Lease, machine string) (*registry.Presence, error)
	Publish(ctx context.Context, lease registry.Lease, machine string, put []model.UnitState, remove []string) error
	Claim(ctx context.Context, lease registry.Lease, s model.UnitState, rev int64) (bool, error)
	TakeSlot(ctx context.Context, lease registry.Lease, unit, machine string, n int) (bool, error)
	FreeSlot(ctx context.Context, unit, machine string) error
}

var _ Store = (*registry.Registry)(nil)

// How often everything is asked for again though nothing was heard: signals of
// the init system are reliable, so this is for what we do not know of.
const resync = 5 * time.Minute

// After a restart of the agent the store is given this long before units are
// looked after by the schedule on disk. Nothing changes for units that run.
const warmStartAfter = 2 * time.Second

// Agent is one machine's agent. Make it with New.
type Agent struct {
	cfg     Config
	manager unit.Manager
	store   Store
	log     *slog.Logger

	inbox inbox
	herald
	fence    *fence
	session  *session
	life     context.Context // of Run
	schedule *registry.View

	// What follows belongs to the loop alone.
	units     map[string]*local
	slots     map[string]*slot // held, waited for, or being given back
	want      wanted
	source    source
	memory    memory
	adopted   position          // of the schedule in use
	saved     position          // of the one on disk
	diskErr   map[string]string // by file, what was said of it
	surveyed  bool              // the init system has said what it has of ours
	coldStart time.Time
	refused   map[string]bool // units whose text was refused in this round
	wrote     time.Time       // when the last new units' files were written
	more      time.Time       // when new units that are gathered are installed; zero: none are

	over chan struct{} // closed when Run has ended

	probe func(ctx context.Context, check unitfile.HealthProbe, user string) error
}

// source is where the schedule in use comes from; the order is that of trust.
type source int

const (
	nowhere source = iota
	disk
	store
)

// position is where in which store a schedule was read.
type position struct {
	store string
	rev   int64
}

// New makes an agent and touches nothing.
func New(cfg Config, manager unit.Manager, st Store, log *slog.Logger) *Agent {
	a := &Agent{
		cfg: cfg, manager: manager, store: st, log: log,
		inbox:    inbox{wake: make(chan struct{}, 1), statuses: map[string]unit.Status{}},
		herald:   newHerald(cfg.Presence),
		schedule: st.NewView(),
		units:    map[string]*local{},
		slots:    map[string]*slot{},
		diskErr:  map[string]string{},
		refused:  map[string]bool{},
		over:     make(chan struct{}),
		session:  newSession(),
		probe:    health.Probe,
		fence:    newFence(cfg, manager, log),
	}
	a.fence.fallen = a.fell
	return a
}

// Run looks after the machine's units until ctx is done. It calls ready when it
// knows what the init system runs. All units go on running after it has returned.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	if err := a.recall(); err != nil {
		return err
	}
	defer close(a.over)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	a.inbox.jobs, a.life = &wg, ctx
	wg.Go(func() { a.fence.run(ctx) })
	wg.Go(func() { a.listen(ctx) })
	wg.Go(func() { a.attend(ctx) })
	return a.loop(ctx, ready)
}

// recall reads what an earlier run of the agent left behind.
func (a *Agent) recall() error {
	for _, dir := range []string{a.cfg.StateDir, a.cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	known, err := loadSchedule(a.schedulePath(), a.cfg.Presence.ID)
	if err != nil {
		a.log.Warn("last known schedule left aside, waiting for the store", "err", err)
	}
	a.memory, err = loadMemory(a.memoryPath(), a.cfg.Epoch)
	if err != nil {
		a.log.Warn("memory of earlier work left aside", "err", err)
	}
	wait := a.cfg.ColdStartAfter
	if len(a.memory.Units) > 0 {
		wait = warmStartAfter
	}
	a.want, a.coldStart = known, time.Now().Add(wait)
	a.fence.recall()
	return nil
}

// loop is the agent: wait for news, take it in, bring the units nearer to what is
// wanted, say how they are.
func (a *Agent) loop(ctx context.Context, ready func()) error {
	if !a.survey(ctx) {
		return nil
	}
	ready()
	a.inbox.jobs.Go(func() { a.fence.relieve(ctx) })
	defer a.guarded()
	slow := time.NewTicker(resync)
	defer slow.Stop()
	for {
		next := a.round(ctx)
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-a.inbox.wake:
		case <-timer.C:
		case <-slow.C:
			a.inbox.askAll()
		}
		timer.Stop()
	}
}

// survey waits until the init system has said what it runs; false: ctx is done.
func (a *Agent) survey(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.inbox.wake:
		}
		a.learn(ctx, a.inbox.take())
		if a.surveyed {
			a.inbox.poke() // what else came with it is looked at in the first round
			return true
		}
	}
}

// round does one turn of the loop and returns how long nothing will have to be
// done if nothing happens.
func (a *Agent) round(ctx context.Context) time.Duration {
	a.learn(ctx, a.inbox.take())
	a.choose()
	a.arm()
	a.dropLeaves()
	if a.source != nowhere {
		a.work(ctx)
		a.judge(ctx)
	}
	a.keepSlots(ctx)
	a.prune()
	a.remember()
	a.announce(a.states())
	return a.idle()
}

// prune forgets the units that the agent has nothing to do with any more.
func (a *Agent) prune() {
	maps.DeleteFunc(a.units, func(name string, u *local) bool {
		_, wanted := a.want.units[name]
		over := !wanted && !u.installed && u.job == nil
		if over && a.source == store {
			a.memory.drop(name) // of a text that was refused
		}
		if over {
			u.trial.end()
			a.giveBack(name, u)
			a.giveSlotBack(name)
		}
		return over
	})
}

// idle is how long until time alone makes a difference.
func (a *Agent) idle() time.Duration {
	now := time.Now()
	wait := resync
	if a.source == nowhere {
		wait = min(wait, a.coldStart.Sub(now))
	}
	if !a.more.IsZero() {
		wait = min(wait, a.more.Sub(now))
	}
	if len(a.unsettled()) > 0 {
		wait = min(wait, firstRetry) // that a job has ended is no change of state
	}
	for _, u := range a.units {
		if !u.retryAt.IsZero() {
			wait = min(wait, u.retryAt.Sub(now))
		}
		if t := u.trial; t != nil && !t.closing && !t.verdict.Next.IsZero() {
			wait = min(wait, t.verdict.Next.Sub(now))
		}
	}
	return max(wait, time.Millisecond)
}

// choose takes the schedule from the store, once it has been read, else from disk
// when the store has been waited for.
func (a *Agent) choose() {
	switch loaded := a.inbox.scheduleLoaded(); {
	case loaded:
		s := a.schedule.Schedule()
		at := position{s.Store, s.Rev}
		if a.source != store {
			a.log.Info("schedule read from the store", "units", len(s.Entries))
		}
		if a.source != store || at != a.adopted {
			a.adopt(s)
		}
		a.source, a.adopted = store, at
	case a.source == nowhere && !time.Now().Before(a.coldStart):
		a.source = disk
		a.log.Warn("store away, going on from the last known schedule", "units", len(a.want.units))
	}
}

// learn takes in what the init system says.
func (a *Agent) learn(ctx context.Context, n news) {
	for _, f := range n.found {
		f()
	}
	for name, s := range n.statuses {
		a.local(name).learn(s)
	}
	if n.connected {
		a.takeStock(ctx)
	}
	if n.connected || n.all {
		a.ask(ctx, a.names()...)
	}
	a.finish(ctx, n.ends)
}

// takeStock asks what the init system has of ours. What it does not answer is asked
// again.
func (a *Agent) takeStock(ctx context.Context) {
	texts, err := a.manager.Installed(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Warn("ask for installed units, trying again", "err", err)
			time.AfterFunc(firstRetry, func() { a.inbox.leave(func(n *news) { n.connected = true }) })
		}
		return
	}
	for name, u := range a.units {
		_, u.installed = texts[name]
	}
	for name, text := range texts {
		u := a.local(name)
		text = withoutSlot(text)
		u.installed, u.hash = true, unitfile.HashText(text)
		u.rule.read(name, u.hash, text)
	}
	a.surveyed = true
}

// ask asks the init system for the statuses of units, and reports whether it told them.
func (a *Agent) ask(ctx context.Context, names ...string) (told bool) {
	if len(names) == 0 {
		return true
	}
	statuses, err := a.manager.Status(ctx, names...)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("ask for unit states", "units", len(names), "err", err)
	}
	for _, s := range statuses {
		a.local(s.Name).learn(s)
	}
	return err == nil && len(statuses) >= len(names)
}

// names is every unit the agent has to do with: wanted, installed or both.
func (a *Agent) names() []string {
	var out []string
	for name := range a.want.units {
		out = append(out, name)
	}
	for name, u := range a.units {
		if _, wanted := a.want.units[name]; !wanted && u.installed {
			out = append(out, name)
		}
	}
	return out
}

func (a *Agent) local(name string) *local {
	u, ok := a.units[name]
	if !ok {
		u = &local{}
		a.units[name] = u
	}
	return u
}

var errUnfinished = errors.New("the init system went away before the job ended")
