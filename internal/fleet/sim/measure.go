package sim

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/fleet/engine"
	"flotilla/internal/fleet/registry"
)

// Figure is one thing measured.
type Figure struct {
	What, Value, Aim string
	OK               bool // the aim is reached
}

// Report is what a simulation has shown.
type Report []Figure

// Print writes the report as a table.
func (r Report) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tFIGURE\tAIM\t")
	for _, f := range r {
		verdict := "reached"
		switch {
		case f.Aim == "":
			verdict = ""
		case !f.OK:
			verdict = "MISSED"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.What, f.Value, f.Aim, verdict)
	}
	return tw.Flush()
}

// Missed reports whether an aim is missed.
func (r Report) Missed() bool {
	return slices.ContainsFunc(r, func(f Figure) bool { return f.Aim != "" && !f.OK })
}

// The aims.
const (
	aimPlaced = 10 * time.Second
	aimLost   = 100 * time.Millisecond
	aimGrowth = 1.5
	aimMemory = 150 << 20
)

// run is a simulation that goes on.
type run struct {
	*cluster
	report Report
	say    func(string)
	units  int // how many there are
}

func (r *run) note(what, value, aim string, ok bool) {
	r.report = append(r.report, Figure{what, value, aim, ok})
	r.say(what + ": " + value)
}

// Run simulates and measures. It calls say with each figure as it is known.
func Run(ctx context.Context, cfg Config, say func(string)) (Report, error) {
	began := time.Now()
	c, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	r := &run{cluster: c, say: say}
	if err := c.await(ctx, "the machines", func() bool { return len(c.view.Machines()) == cfg.Machines }); err != nil {
		return nil, err
	}
	r.note(fmt.Sprintf("%d machines have joined", cfg.Machines), round(time.Since(began)), "", true)
	few, err := r.growth(ctx)
	if err != nil {
		return r.report, err
	}
	e, quit, err := r.fill(ctx)
	if err != nil {
		return r.report, err
	}
	defer func() { quit() }()
	for _, step := range []func() error{
		func() error { return r.compare(ctx, e, few) },
		func() error { return r.idle(ctx) },
		func() error { return r.lose(ctx) },
	} {
		if err := step(); err != nil {
			return r.report, err
		}
	}
	r.memory(quit)
	quit = func() {}
	return r.report, nil
}

// growth measures one more unit while there are few.
func (r *run) growth(ctx context.Context) (time.Duration, error) {
	e, quit, err := r.lead(ctx)
	if err != nil {
		return 0, err
	}
	defer quit()
	if err := r.add(ctx, r.cfg.Few); err != nil {
		return 0, err
	}
	return r.oneMore(ctx, e)
}

// add creates units until there are n, and waits until all run.
func (r *run) add(ctx context.Context, n int) error {
	if err := r.create(ctx, r.units, n); err != nil {
		return err
	}
	r.units = n
	return r.await(ctx, "the units to run", r.allActive)
}

func (r *run) allActive() bool { _, active := r.counts(); return active == r.units }

func (r *run) allPlaced() bool { placed, _ := r.counts(); return placed == r.units }

// oneMore is what one more unit costs the engine: the time that it decides and
// writes until the unit is active, the middle of the samples.
func (r *run) oneMore(ctx context.Context, e *engine.Engine) (time.Duration, error) {
	var costs, waits []time.Duration
	for range r.cfg.Samples {
		_, before := e.Stats().Passes()
		began := time.Now()
		if err := r.create(ctx, r.units, r.units+1); err != nil {
			return 0, err
		}
		name := unitName(r.units)
		r.units++
		active := func() bool {
			states := r.view.StatesOf(name)
			return len(states) > 0 && states[0].Active == "active"
		}
		if err := r.await(ctx, name, active); err != nil {
			return 0, err
		}
		waits = append(waits, time.Since(began))
		_, after := e.Stats().Passes()
		costs = append(costs, after-before)
	}
	cost := middle(costs)
	r.note(fmt.Sprintf("one more unit at %d: the engine's time", r.units-r.cfg.Samples), round(cost), "", true)
	r.note(fmt.Sprintf("one more unit at %d: from request to active", r.units-r.cfg.Samples), round(middle(waits)), "", true)
	return cost, nil
}

// fill has cfg.Units more placed at once: they are written while no engine leads.
func (r *run) fill(ctx context.Context) (*engine.Engine, func(), error) {
	if err := r.create(ctx, r.units, r.units+r.cfg.Units); err != nil {
		return nil, nil, err
	}
	r.units += r.cfg.Units
	last := func() bool { _, seen := r.view.Unit(unitName(r.units - 1)); return seen }
	if err := r.await(ctx, "the units to be seen", last); err != nil {
		return nil, nil, err
	}
	began, used := time.Now(), processor()
	e, quit, err := r.lead(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := r.await(ctx, "all to be placed", r.allPlaced); err != nil {
		return nil, quit, err
	}
	took, work := time.Since(began), processor()-used
	r.note(fmt.Sprintf("%d units at once on %d machines: all placed", r.cfg.Units, r.cfg.Machines), round(took), "under "+aimPlaced.String(), took < aimPlaced)
	r.note("  processor time of it, all parts and the store", round(work), "", true)
	if err := r.await(ctx, "all to run", r.allActive); err != nil {
		return nil, quit, err
	}
	r.note("  all active", round(time.Since(began)), "", true)
	return e, quit, nil
}

func (r *run) compare(ctx context.Context, e *engine.Engine, few time.Duration) error {
	many, err := r.oneMore(ctx, e)
	if err != nil {
		return err
	}
	ratio := float64(many) / float64(few)
	r.note("one more unit, many to few", fmt.Sprintf("%.2f", ratio), fmt.Sprintf("at most %.1f", aimGrowth), ratio <= aimGrowth)
	return nil
}

// idle counts what is written while nothing happens.
func (r *run) idle(ctx context.Context) error {
	for { // what the samples before have left to be told
		n, err := r.writes(ctx, r.cfg.Idle/10)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	n, err := r.writes(ctx, r.cfg.Idle)
	if err != nil {
		return err
	}
	r.note("writes to the store in "+r.cfg.Idle.String()+" at rest", fmt.Sprint(n), "0: leases are renewed, no more", n == 0)
	return nil
}

// writes is how many revisions the store makes in a time.
func (r *run) writes(ctx context.Context, during time.Duration) (int64, error) {
	before, err := r.reg.ReadMachines(ctx)
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(during):
	}
	after, err := r.reg.ReadMachines(ctx)
	if err != nil {
		return 0, err
	}
	return after.Rev() - before.Rev(), nil
}

// lose lets one machine die: from the moment at which its units are due to move to
// the last of the writes that move them.
func (r *run) lose(ctx context.Context) error {
	id := machineID(0)
	units := map[string]bool{}
	for _, p := range r.view.Placements() {
		if p.Machine == id {
			units[p.Unit] = true
		}
	}
	var gone, moved time.Time
	left := len(units)
	r.watch(func(c registry.Change) {
		switch {
		case c.Kind == registry.KindMachine && c.Machine == id && c.Deleted:
			gone = time.Now()
		case c.Kind == registry.KindPlacement && c.Machine != id && units[c.Unit] && !c.Deleted && left > 0:
			left--
			moved = time.Now()
		}
	})
	defer r.watch(nil)
	r.agents[id]()
	over := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return left == 0
	}
	if err := r.await(ctx, "the units to move", over); err != nil {
		return err
	}
	took := moved.Sub(gone) - r.cfg.MoveAfter
	r.note(fmt.Sprintf("one machine lost: its %d units placed elsewhere after they were due", len(units)),
		round(took), "under "+aimLost.String(), took < aimLost)
	return nil
}

// memory is what the engine keeps: what is free when it has stopped.
func (r *run) memory(quit func()) {
	with := heap()
	quit()
	kept := max(0, with-heap())
	r.note("the engine's memory (live heap)", fmt.Sprintf("%.1f MB", float64(kept)/(1<<20)), "under 150 MB, twice that counted", 2*kept < aimMemory)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// processor is the processor time that this process has taken.
func processor() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func middle(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func round(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
