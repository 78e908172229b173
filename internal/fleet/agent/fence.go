package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// fence stops singletons when the machine cannot prove any more that it is present:
// the cluster may start them elsewhere from then on.
//
// It runs on a goroutine and an alarm of its own, so that nothing that holds up the
// agent's loop holds it up, and counts on a clock that runs while the machine sleeps:
// what is overdue when the machine wakes up or thaws is done first. When each unit is
// to stop and to be killed says model.Requirements.Fence.
//
// A unit that was stopped, or is started by somebody while its time is over, is
// stopped again until the store has answered. The agent starts it anew when the store
// says that it is this machine's still (see claim.go).
type fence struct {
	clock   func() time.Duration
	alarm   func() (alarm, error)
	manager unit.Manager
	log     *slog.Logger
	fallen  func(name string) // a unit that ran has been stopped
	watched time.Duration     // see Config.Watched
	alive   func(within time.Duration)
	lease   time.Duration // its time to live
	file    string        // keeps the proof across a restart of the agent
	epoch   string        // of the file

	wake chan struct{}

	mu    sync.Mutex
	pulse *registry.Pulse // of the lease that the machine is present by; nil: none
	proof time.Duration   // when it was last surely present
	armed map[string]deadline
	// efforts are the units that are being stopped.
	efforts map[string]effort
	saved   time.Duration
	// begun is when this run of the agent began, recalled the proof that it found.
	begun, recalled time.Duration
}

// deadline is when a singleton is to be stopped and when it is to be killed, counted
// from the last proof of presence.
type deadline struct{ stop, kill time.Duration }

// effort is what was done to stop a unit: when the last stop job was sent, and
// whether it has been killed.
type effort struct {
	asked  time.Duration
	killed bool
}

// alarm wakes the fence: Wait returns at a time on its clock, when wake has a token,
// or when ctx is done.
type alarm interface {
	Wait(ctx context.Context, at time.Duration, wake <-chan struct{})
	Close() error
}

const (
	// How often the fence looks while units are being stopped, and how often it looks
	// whether they stay down.
	fenceLook  = 200 * time.Millisecond
	fenceWatch = time.Second
	// fenceAsk bounds a question to the init system; without an answer a unit counts
	// as running.
	fenceAsk = time.Second
	// fenceGrace is how long after its start an agent that knows of no proof waits for
	// the store's first word before it stops singletons that run.
	fenceGrace = 5 * time.Second
	// fenceHang is how long the fence may hang at least before it is started anew: its
	// questions may take as long. With that it is at work again before FenceMargin is
	// over, if it hangs right before a unit is to be stopped.
	fenceHang = 2 * fenceAsk
	// never is later than any boot lasts.
	never = time.Duration(1<<63 - 1)
)

func newFence(cfg Config, manager unit.Manager, log *slog.Logger) *fence {
	return &fence{
		clock: registry.BootTime, alarm: newBootAlarm, manager: manager, log: log,
		watched: cfg.Watched, alive: cfg.Alive,
		lease: max(time.Second, cfg.TTL.Truncate(time.Second)),
		file:  filepath.Join(cfg.RunDir, "present"), epoch: cfg.Epoch,
		wake:  make(chan struct{}, 1),
		armed: map[string]deadline{}, efforts: map[string]effort{},
	}
}

func (f *fence) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// recall takes up the proof that an earlier run of the agent had.
func (f *fence) recall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = f.clock()
	var epoch string
	var proof int64
	b, err := os.ReadFile(f.file)
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%q %d", &epoch, &proof)
	}
	if err == nil && epoch == f.epoch && time.Duration(proof) <= f.clock() {
		f.proof, f.saved, f.recalled = time.Duration(proof), time.Duration(proof), time.Duration(proof)
		return
	}
	// As if the last word had been so long ago that no more than the grace is left
	// for a unit whose machine is to stop it right after the end of its lease.
	f.proof = f.begun + fenceGrace - f.lease
}

// joined notes that the machine is present by a lease with that pulse; nil: by none.
func (f *fence) joined(p *registry.Pulse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.provenLocked()
	f.pulse = p
}

// provenLocked is when the machine was last surely present.
func (f *fence) provenLocked() time.Duration {
	if f.pulse != nil {
		f.proof = max(f.proof, f.pulse.Last())
	}
	return f.proof
}

// sure reports whether the machine is present beyond doubt.
func (f *fence) sure() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pulse != nil && f.clock() < f.provenLocked()+f.lease
}

// lapsed reports whether a unit's time was over when this run of the agent began.
func (f *fence) lapsed(d deadline) bool { return f.begun >= f.recalled+d.stop }

// arm sets which units the fence looks after.
func (f *fence) arm(units map[string]deadline) {
	f.mu.Lock()
	same := maps.Equal(f.armed, units)
	f.armed = units
	f.mu.Unlock()
	if !same {
		f.poke()
	}
}

// run guards until ctx is done, then leaves that to the init system.
func (f *fence) run(ctx context.Context) {
	bell, err := f.alarm()
	if err != nil {
		f.log.Error("no clock that runs while the machine sleeps: singletons are fenced a second late after that", "err", err)
		bell = plainAlarm{f.clock}
	}
	defer bell.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		f.save()
		next := f.enforce(ctx, &wg)
		bell.Wait(ctx, f.live(next), f.wake)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceAsk)
	defer cancel()
	f.enforce(last, &wg) // what is overdue does not wait for another process
	f.handOver(context.WithoutCancel(ctx))
}

// overdue returns the units whose time is over, true for those that are to be killed,
// and when the next one's is.
func (f *fence) overdue() (due map[string]bool, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, proof := f.clock(), f.provenLocked()
	next = never
	if len(f.armed) > 0 {
		next = now + f.lease/3 // the proof is written down
	}
	due = map[string]bool{}
	for name, d := range f.armed {
		if now >= proof+d.stop {
			due[name] = now >= proof+d.kill
			continue
		}
		next = min(next, proof+d.stop)
		if _, tried := f.efforts[name]; tried {
			f.log.Info("store answers again, singleton may run where it says", "unit", name)
			delete(f.efforts, name)
		}
	}
	return due, next
}

// live says that the fence is at work, and has it ended if it is not any more when
// the first singleton is to be stopped or killed: what is started in its place does
// that. It returns when to look again, in time to say so anew.
func (f *fence) live(next time.Duration) time.Duration {
	if f.watched <= 0 {
		return next
	}
	f.mu.Lock()
	now, proof := f.clock(), f.provenLocked()
	within := f.watched
	for name, d := range f.armed {
		due := proof + d.stop
		if e, tried := f.efforts[name]; tried && e.killed {
			continue
		} else if tried {
			due = proof + d.kill
		}
		within = min(within, max(due-now, fenceHang))
	}
	f.mu.Unlock()
	f.alive(within)
	return min(next, now+within/3)
}

// enforce stops what is overdue and returns when to look again.
func (f *fence) enforce(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	due, next := f.overdue()
	if len(due) == 0 {
		return next
	}
	again := fenceWatch
	for _, name := range f.running(ctx, slices.Sorted(maps.Keys(due))) {
		again = fenceLook
		f.stop(ctx, wg, name, due[name])
	}
	return min(next, f.clock()+again)
}

// running is those of the units that run, or may run.
func (f *fence) running(ctx context.Context, names []string) []string {
	ctx, cancel := context.WithTimeout(ctx, fenceAsk)
	defer cancel()
	statuses, err := f.manager.Status(ctx, names...)
	if err != nil {
		f.log.Warn("singletons that are to be stopped: their states are not known", "units", names, "err", err)
		return names
	}
	var out []string
	for _, s := range statuses {
		if !quiet(s) {
			out = append(out, s.Name)
		}
	}
	return out
}

// stop has a unit stopped, and killed when that is due. Neither waits: a stop that is
// repeated joins the one under way.
func (f *fence) stop(ctx context.Context, wg *sync.WaitGroup, name string, kill bool) {
	f.mu.Lock()
	e, tried := f.efforts[name]
	now := f.clock()
	since := now - f.provenLocked()
	f.mu.Unlock()
	if !tried || now-e.asked >= fenceWatch {
		e.asked = now
		outcomes := f.manager.Run(ctx, []unit.Job{{Kind: unit.Stop, Unit: name}})
		wg.Go(func() {
			for range outcomes {
				continue // whether it has stopped is seen by its state
			}
		})
	}
	if kill {
		f.kill(ctx, name, &e)
	}
	if !tried { // said last: a log that takes nothing holds up no stop
		f.fallen(name)
		f.log.Error("singleton stopped: no word from the store, it may be started elsewhere soon", "unit", name, "silent", since.Round(time.Millisecond))
	}
	f.mu.Lock()
	f.efforts[name] = e
	f.mu.Unlock()
}

func (f *fence) kill(ctx context.Context, name string, e *effort) {
	k, ok := f.manager.(unit.Fencer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fenceAsk)
	defer cancel()
	err := k.KillUnit(ctx, name)
	if !e.killed {
		f.log.Error("singleton killed: it had no more time to end", "unit", name, "err", err)
	}
	e.killed = true
}

// save writes the proof down, if there is a unit that it matters for.
func (f *fence) save() {
	f.mu.Lock()
	proof := f.provenLocked()
	changed := proof != f.saved && len(f.armed) > 0
	f.saved = proof
	f.mu.Unlock()
	if !changed {
		return
	}
	// Not synced: it counts for this boot alone, and is written every few seconds.
	err := os.WriteFile(f.file+".new", fmt.Appendf(nil, "%q %d\n", f.epoch, proof), 0o600)
	if err == nil {
		err = os.Rename(f.file+".new", f.file)
	}
	if err != nil {
		f.log.Warn("agent cannot write down when it was present: a restart may stop singletons", "err", err)
	}
}

// handOver has the init system stop the singletons in the agent's place, should it
// not come back in time.
func (f *fence) handOver(ctx context.Context) {
	f.mu.Lock()
	names := slices.Sorted(maps.Keys(f.armed))
	after := never
	for _, d := range f.armed {
		after = min(after, d.stop)
	}
	if len(names) > 0 {
		after = max(0, f.provenLocked()+after-f.clock())
	}
	f.mu.Unlock()
	if len(names) > 0 {
		f.guard(ctx, after, names...)
	}
}

// relieve ends what an earlier run of the agent has handed over.
func (f *fence) relieve(ctx context.Context) { f.guard(ctx, 0) }

func (f *fence) guard(ctx context.Context, after time.Duration, names ...string) {
	g, ok := f.manager.(unit.Fencer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fenceAsk)
	defer cancel()
	if err := g.Guard(ctx, after, model.FenceStop, names...); err != nil && !errors.Is(err, context.Canceled) {
		f.log.Error("init system does not guard singletons in the agent's place", "units", names, "err", err)
	}
}

// plainAlarm waits on the clock of the time package, which stands still while the
// machine sleeps, and therefore no longer than a second at a time.
type plainAlarm struct{ clock func() time.Duration }

func (p plainAlarm) Wait(ctx context.Context, at time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(min(max(at-p.clock(), time.Millisecond), fenceWatch))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

func (plainAlarm) Close() error { return nil }
