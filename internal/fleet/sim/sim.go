// Package sim is a whole cluster in one process, to be measured: the real engine and
// as many real agents as wanted, each with a fake init system, against a real store.
//
// What is fake is systemd alone: a start job ends at once. So the figures are what
// deciding, writing, watching and telling cost, for all machines together on this
// one.
package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"flotilla/internal/fleet/agent"
	"flotilla/internal/fleet/engine"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/unit/unitfake"
	"flotilla/internal/unitfile"
)

// Config says what is simulated.
type Config struct {
	Endpoint string // of the store, which must be empty
	Dir      string // where machines keep their state
	Machines int
	Few      int // units to begin with, at which one more is measured first
	Units    int // units that are placed at once, after which one more is measured again
	// Samples is how many times one more unit is measured.
	Samples   int
	TTL       time.Duration // of a machine's lease
	MoveAfter time.Duration
	Idle      time.Duration // for how long an idle cluster is watched
	Log       *slog.Logger
}

// sharing is how many machines use one connection to the store: on one machine there
// would be one for each.
const sharing = 50

// cluster is what runs.
type cluster struct {
	cfg    Config
	reg    *registry.Registry // the simulation's own
	view   *registry.View     // and what it sees
	news   chan struct{}      // holds a token when the view has changed
	agents map[string]context.CancelFunc
	stops  []func()
	wg     sync.WaitGroup

	mu      sync.Mutex
	watcher func(registry.Change) // nil: nobody wants to know each change
	placed  map[string]bool       // entries, by model.RollKey
	active  map[string]bool       // units that run, by model.RollKey
}

// start connects to the store and starts the machines.
func start(ctx context.Context, cfg Config) (*cluster, error) {
	c := &cluster{cfg: cfg, agents: map[string]context.CancelFunc{}, news: make(chan struct{}, 1)}
	c.placed, c.active = map[string]bool{}, map[string]bool{}
	var err error
	if c.reg, err = c.connect(); err != nil {
		return nil, err
	}
	c.view = c.reg.NewView()
	following, cancel := context.WithCancel(ctx)
	c.stops = append(c.stops, cancel)
	c.wg.Go(func() { c.reg.Follow(following, registry.Everything, c.view, c.heard) })
	var shared *registry.Registry
	for i := range cfg.Machines {
		if i%sharing == 0 {
			if shared, err = c.connect(); err != nil {
				c.stop()
				return nil, err
			}
		}
		c.machine(ctx, i, shared)
	}
	return c, nil
}

func (c *cluster) connect() (*registry.Registry, error) {
	r, err := registry.Open(registry.Config{Endpoints: []string{c.cfg.Endpoint}, Timeout: 30 * time.Second}, c.cfg.Log)
	if err == nil {
		c.stops = append(c.stops, func() { r.Close() })
	}
	return r, err
}

// stop ends everything and waits for it.
func (c *cluster) stop() {
	for _, cancel := range c.agents {
		cancel()
	}
	if len(c.stops) > 1 {
		c.stops[1]() // the view; connections are closed when nobody uses them
	}
	c.wg.Wait()
	for _, stop := range c.stops {
		stop()
	}
}

func machineID(i int) string { return fmt.Sprintf("%032x", i+1) }

// machine starts a machine's agent.
func (c *cluster) machine(ctx context.Context, i int, reg *registry.Registry) {
	id := machineID(i)
	dir := filepath.Join(c.cfg.Dir, id)
	ctx, cancel := context.WithCancel(ctx)
	c.agents[id] = cancel
	a := agent.New(agent.Config{
		Presence: registry.Presence{
			Machine: model.Machine{
				ID: id, IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), Hostname: fmt.Sprintf("m%d", i),
				Metadata: map[string]string{"rack": fmt.Sprint(i % 10)}, Version: "sim", Boot: id,
				Cores: 8000, Memory: 32 << 30,
			},
			Instance: id,
		},
		TTL: c.cfg.TTL, StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Epoch: "sim",
	}, unitfake.New(), reg, c.cfg.Log)
	c.wg.Go(func() {
		if err := a.Run(ctx, func() {}); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("agent ended", "machine", id, "err", err)
		}
	})
}

// lead starts the engine; the returned function stops it.
func (c *cluster) lead(ctx context.Context) (*engine.Engine, func(), error) {
	reg, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	e := engine.New(engine.Config{
		Candidate: registry.Candidate{Machine: "sim", Instance: "sim", Boot: "sim"},
		Policy:    sched.Policy{MoveAfter: c.cfg.MoveAfter},
	}, reg, c.cfg.Log)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	return e, func() { cancel(); <-done }, nil
}

// heard counts, and wakes who waits for the view. Counting here is what keeps the
// simulation from costing more than what it simulates.
func (c *cluster) heard(changes []registry.Change, _ bool) {
	c.mu.Lock()
	for _, change := range changes {
		c.count(change)
		if c.watcher != nil {
			c.watcher(change)
		}
	}
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *cluster) count(change registry.Change) {
	key := model.RollKey(change.Unit, change.Machine)
	switch change.Kind {
	case registry.KindPlacement:
		set(c.placed, key, !change.Deleted)
	case registry.KindState:
		set(c.active, key, c.view.State(change.Unit, change.Machine).Active == "active")
	}
}

func set(m map[string]bool, key string, is bool) {
	if is {
		m[key] = true
	} else {
		delete(m, key)
	}
}

// counts is how many entries there are, and how many units run.
func (c *cluster) counts() (placed, active int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.placed), len(c.active)
}

// watch has f called with every change from now on; nil: no more.
func (c *cluster) watch(f func(registry.Change)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watcher = f
}

// limit bounds every wait: what takes longer has failed.
const limit = 10 * time.Minute

var errTooLong = errors.New("not within ten minutes")

// await waits until the view is as wanted.
func (c *cluster) await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-c.news:
		}
	}
	return nil
}

// create writes units that are to run, from the first number to the last.
func (c *cluster) create(ctx context.Context, from, to int) error {
	text := func(i int) string {
		return fmt.Sprintf("[Unit]\nDescription=Unit %d\n\n[Service]\nExecStart=/usr/bin/server --port %d\nMemoryMax=256M\nCPUQuota=10%%\n", i, 1000+i)
	}
	for from < to {
		var ws []registry.UnitWrite
		for ; from < to && len(ws) < 1000; from++ {
			t := text(from)
			ws = append(ws, registry.UnitWrite{
				Name: unitName(from), Text: registry.Text{Canonical: t, Hash: unitfile.HashText(t)}, Want: model.Launched,
			})
		}
		if err := c.reg.Apply(ctx, ws, "sim", "simulation"); err != nil {
			return err
		}
	}
	return nil
}

func unitName(i int) string { return fmt.Sprintf("u%05d.service", i) }
