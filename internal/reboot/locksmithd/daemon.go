// Package locksmithd is the daemon that reboots a machine which wants to: in its
// window, one machine after another, when its units have left, and it lets the next
// one go when the machine is well again.
//
// What it does next is decided by the pure function Next from a Snapshot; how far it
// has come is in the lock itself, in the store, so that a daemon that was killed goes
// on where it was, and a machine that has rebooted knows that it has.
package locksmithd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/reboot/trigger"
	"flotilla/internal/reboot/window"
	"flotilla/internal/systemd/login"
)

// Locker is the lock of the machine's group; *lock.Lock has it.
type Locker interface {
	Read(ctx context.Context) (lock.State, error)
	Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error)
	Watch(ctx context.Context) <-chan lock.Update
}

// Fleet is fleet's keys of this machine; *gate.Store has it.
type Fleet interface {
	Read(ctx context.Context) (gate.Fleet, error)
	Drain(ctx context.Context, why string, at time.Time) error
	Uncordon(ctx context.Context) error
}

// Needs says whether the machine wants to reboot; *trigger.Watcher has it.
type Needs interface {
	Run(ctx context.Context, ready func()) error
	Need() trigger.Need
	Changed() <-chan struct{}
	Settled() bool
	Withdraw() error
}

// Logind reboots the machine; *login.Manager has it.
type Logind interface {
	Reboot(ctx context.Context) error
	Sessions(ctx context.Context) ([]login.Session, error)
	Blockers(ctx context.Context) ([]string, error)
}

// Deps is what a daemon gets from outside. All but the last three are required.
type Deps struct {
	Lock   Locker
	Fleet  Fleet
	Needs  Needs
	Logind Logind
	// System says how the machine's systemd is, StoreHere whether a member of the store
	// or a proxy runs on the machine.
	System    func(ctx context.Context) (gate.Local, error)
	StoreHere func(ctx context.Context) (bool, error)
	// Hooks runs the executables of a directory and returns what they object.
	Hooks func(ctx context.Context, dir string, env ...string) []string
	// Write writes a message to a terminal such as "pts/0".
	Write func(tty, message string) error
	Boot  string // id of this run of the system
	// Wall is the clock on the wall, which windows go by and which may jump; nil: time.Now.
	Wall func() time.Time
	// Doors serve others beside the daemon, such as FleetLock clients.
	Doors  []lifecycle.Part
	Status func(string) // what it waits for, for systemd; nil: nobody is told
	Logger *slog.Logger // nil: silent
}

// Daemon is one machine's locksmithd. Make it with New.
type Daemon struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	window    window.Window
	hasWindow bool
	began     time.Time
	files     files
	updates   chan lock.Update
	lookEvery time.Duration
	// others is whether somebody else holds the lock: then it is watched whether they
	// live.
	others atomic.Bool

	// What follows belongs to the goroutine that runs the loop.
	lock     Lock
	index    uint64 // of the lock as it was read
	note     Note
	last     lastReboot
	clean    bool
	stage    Stage
	since    time.Duration // when the stage began
	withLock bool          // a reboot takes the lock, as it was last found
	beaten   time.Duration // when the last sign of life was sent
	tenure   sema.Tenure
	restTill time.Duration
	storeHere
	course
	saying
}

// course is what is known of one stage; a new stage knows nothing.
type course struct {
	still     gate.Still
	objected  mark // since when something objects
	well      mark // since when all is well
	told      bool
	notice    time.Duration // until when those who are logged in have
	asked     mark          // when logind was asked
	refused   string        // why logind did not
	refusedAt time.Duration
}

// mark is a time that may not have come.
type mark struct {
	set bool
	at  time.Duration
}

// start sets the mark if it is not set.
func (m *mark) start(now time.Duration) {
	if !m.set {
		*m = mark{true, now}
	}
}

// elapsed is for how long it has been set; 0: it is not.
func (m mark) elapsed(now time.Duration) time.Duration {
	if !m.set {
		return 0
	}
	return now - m.at
}

// New makes a daemon and touches nothing.
func New(cfg Config, deps Deps) *Daemon {
	log := deps.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if deps.Status == nil {
		deps.Status = func(string) {}
	}
	if deps.Wall == nil {
		deps.Wall = time.Now
	}
	return &Daemon{cfg: cfg, deps: deps, log: log, updates: make(chan lock.Update), lookEvery: soon, tenure: sema.Tenure{Timeout: cfg.HolderTimeout}}
}

// Run runs the daemon until ctx is done. It calls ready when it looks after the
// machine, also while the store is away. With the strategy off and no doors it ends at
// once, without an error.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	if d.cfg.Strategy == Off && len(d.deps.Doors) == 0 {
		d.log.Info("the reboot strategy is off: nothing to do")
		ready()
		return nil
	}
	var err error
	if d.window, d.hasWindow, err = d.cfg.window(); err != nil {
		return err
	}
	d.began = time.Now()
	parts := d.deps.Doors
	if d.cfg.Strategy != Off {
		if err := d.files.open(d.cfg); err != nil {
			return err
		}
		defer d.files.close()
		d.note, d.last = d.files.readNote(), d.files.readLast()
		if err := d.sameBoot(); err != nil {
			return err
		}
		parts = append(parts, d.parts()...)
	}
	parts = append(parts, lifecycle.Part{Name: "ready", Run: func(ctx context.Context, started func()) error {
		started()
		ready()
		d.log.Info("locksmithd runs", "machine", d.cfg.MachineID, "strategy", d.cfg.Strategy, "group", d.cfg.Group)
		<-ctx.Done()
		return nil
	}})
	return lifecycle.Run(ctx, d.log, parts...)
}

// sameBoot complains if the machine has rebooted and its boot id is what it was: what a
// reboot forgets is gone, and what it is told is there. Going by such an id it would take
// every reboot for one that has not been yet, and reboot for ever.
func (d *Daemon) sameBoot() error {
	if d.last.Boot != d.deps.Boot || d.note.Boot == d.deps.Boot {
		return nil
	}
	return fault.Hint(fmt.Errorf("the machine has rebooted and its boot id is still %s: it cannot be told when a reboot is over", d.deps.Boot),
		"in a container let the unit say it: Environment=%s=%%b", lifecycle.BootEnv)
}

// parts are those of a daemon that reboots the machine.
func (d *Daemon) parts() []lifecycle.Part {
	parts := []lifecycle.Part{{Name: "needs", Run: d.deps.Needs.Run}}
	if d.cfg.observes() || d.withNote() {
		parts = append(parts,
			lifecycle.Part{Name: "lock", Run: d.watchLock},
			lifecycle.Part{Name: "observer", Run: d.observe})
	}
	return append(parts, lifecycle.Part{Name: "reboots", Run: func(ctx context.Context, started func()) error {
		started()
		d.loop(ctx)
		d.leave()
		return nil
	}, StopTimeout: 20 * time.Second})
}

// withNote is whether the machine is on its way with the lock, whatever the strategy says
// now.
func (d *Daemon) withNote() bool { return d.note.Boot == d.deps.Boot && d.note.Locked }

// watchLock passes on what the lock becomes.
func (d *Daemon) watchLock(ctx context.Context, started func()) error {
	started()
	for u := range d.deps.Lock.Watch(ctx) {
		select {
		case d.updates <- u:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// now is the time since the start, on a clock that nobody sets.
func (d *Daemon) now() time.Duration { return time.Since(d.began) }

// Pauses after a step that failed.
const (
	firstPause = time.Second
	longPause  = 30 * time.Second
)

// loop decides and does, until ctx is done.
func (d *Daemon) loop(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		d.beat(ctx)
		snap, next := d.decide(ctx)
		d.say(snap, next)
		after := next.After
		if next.Do != Wait {
			err := d.do(ctx, snap, next)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				d.failed(next, err)
				after, pause = pause, min(2*pause, longPause)
			default:
				pause = firstPause
			}
		}
		d.sleep(ctx, after)
	}
}

// leave says that a slot stays taken while no daemon looks after it: of a stop that is not
// part of the reboot nobody else would know.
func (d *Daemon) leave() {
	if d.self().alive() && !d.asked.set {
		d.log.Warn("stops, and the machine keeps its slot of the lock: started again it goes on; silent for longer it counts as lost",
			"stage", d.stage, "for", d.cfg.HolderTimeout, "hint", "'locksmithctl unlock' gives the slot back")
	}
}

// sleep waits for something to happen, at most so long, and not past the next sign of
// life.
func (d *Daemon) sleep(ctx context.Context, after time.Duration) {
	if d.self().alive() {
		after = min(after, max(0, d.beaten+sema.RefreshEvery-d.now()))
	}
	if d.cfg.Strategy == BestEffort && !d.withLock {
		after = min(after, later) // a member of the store may come: it may know of a slot of ours
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-d.deps.Needs.Changed():
	case u := <-d.updates:
		d.heard(ctx, u)
	}
}

// heard takes over what the watch of the lock says. A state older than the last write's
// is one that the watch has read before it, or that of a store which was restored from a
// backup: the lock is read again, to know which. A lock that was removed has index 0.
func (d *Daemon) heard(ctx context.Context, u lock.Update) {
	if u.Err == nil && u.Index < d.index && u.Index != 0 {
		u.State, u.Err = d.deps.Lock.Read(ctx)
	}
	if u.Err != nil {
		d.lock.Err = u.Err
		return
	}
	d.learn(u.State)
}

// learn takes over the state of the lock.
func (d *Daemon) learn(s lock.State) {
	d.lock = Lock{Semaphore: s.Semaphore, Known: true}
	d.index = s.Index
	others := len(s.Holders)
	if s.Holds(d.cfg.MachineID) {
		others--
	}
	d.others.Store(others > 0)
}

// change changes the lock and takes over what it is then.
func (d *Daemon) change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) error {
	s, err := d.deps.Lock.Change(ctx, f)
	if err == nil || s.Index > 0 {
		d.learn(s) // also what refused the change
	}
	return err
}

// self is the part of the snapshot that says how far this machine is.
func (d *Daemon) self() Snapshot {
	return Snapshot{Machine: d.cfg.MachineID, Boot: d.deps.Boot, Locked: d.withLock, Lock: d.lock, Note: d.note}
}

// beat gives a sign of life if it is time.
func (d *Daemon) beat(ctx context.Context) {
	self := d.self()
	if !self.alive() || d.tenured() && d.now()-d.beaten < sema.RefreshEvery {
		return
	}
	phase, _ := self.phase()
	if err := d.refresh(ctx, phase); err != nil && ctx.Err() == nil {
		d.failed(Step{Do: "give a sign of life"}, err)
	}
}

func (d *Daemon) tenured() bool { return d.tenure != sema.Tenure{Timeout: d.cfg.HolderTimeout} }

// refresh says that the machine lives, and what it is at.
func (d *Daemon) refresh(ctx context.Context, phase sema.Phase) error {
	sent := d.now()
	d.beaten = sent
	err := d.change(ctx, func(s sema.Semaphore) (sema.Semaphore, error) {
		return s.Refresh(d.cfg.MachineID, sema.Detail{Hostname: d.cfg.Hostname, Why: d.self().why(), Boot: d.deps.Boot, Phase: phase})
	})
	if err != nil {
		return err
	}
	d.tenure.Wrote(sent)
	return nil
}

// decide reads what the stage needs, and decides.
func (d *Daemon) decide(ctx context.Context) (Snapshot, Step) {
	s := d.look(ctx)
	next := Next(s)
	switch next.Do {
	case Take, Announce, Reboot:
		// Only now, so that they are not asked without need.
		s.Objections = d.objections(ctx)
		if len(s.Objections) > 0 {
			d.course.objected.start(d.now())
		} else if d.refused == "" {
			d.course.objected = mark{}
		}
		s.ObjectedFor = d.course.objected.elapsed(d.now())
		// Asking may have taken long: the lock is as it is now.
		s.Lock, s.Sure = d.lock, d.tenure.Sure(d.now())
		next = Next(s)
	}
	return s, next
}

// look makes the snapshot.
func (d *Daemon) look(ctx context.Context) Snapshot {
	now := d.now()
	s := Snapshot{
		Machine: d.cfg.MachineID, Boot: d.deps.Boot, Need: d.deps.Needs.Need(), Lock: d.lock, Note: d.note, Clean: d.clean,
		Rest: max(0, d.restTill-now), Window: d.windowAt(d.deps.Wall()),
		Limits: Limits{
			Limits:   gate.Limits{Timeout: d.cfg.DrainTimeout, Stuck: d.cfg.DrainStuck},
			Patience: d.cfg.Patience, Gate: d.cfg.GateTimeout, Settle: d.cfg.Settle, GoingDown: goingDownLimit, Look: d.lookEvery,
		},
	}
	s.Undone = d.undone(s.Need)
	s.Settled = d.deps.Needs.Settled()
	s.Locked = d.locked(ctx)
	d.withLock = s.Locked
	if stage := s.Stage(); stage != d.stage {
		d.enter(stage)
	}
	switch d.stage {
	case Draining:
		d.lookAtFleet(ctx, &s)
	case GoingDown:
		s.Told, s.NoticeLeft = d.told, max(0, d.notice-d.now())
		s.Sure = d.tenure.Sure(d.now())
		s.AskedFor = d.asked.elapsed(d.now())
		if d.asked.set {
			s.AskedFor = max(s.AskedFor, 1)
		}
	case Checking:
		d.lookAtFleet(ctx, &s)
		d.lookAtHealth(ctx, &s)
	}
	return s
}

// goingDownLimit is how long a reboot may take that logind has begun, before it is
// asked again: systemd stops units for 90 s before it kills them.
const goingDownLimit = 10 * time.Minute

// enter begins a stage.
func (d *Daemon) enter(stage Stage) {
	d.log.Debug("stage", "is", stage, "was", d.stage)
	if (d.stage == Draining || d.stage == GoingDown) && (stage == Asking || stage == Idle) && d.note.Boot == d.deps.Boot {
		// Somebody has taken the slot away: they had a reason.
		d.log.Warn("the lock is not held any more, though nobody here gave it back")
		d.rest()
		d.forgetNote()
	}
	d.stage, d.since, d.course = stage, d.now(), course{}
	if stage != Idle && stage != Asking {
		d.clean = false
	}
	d.files.state(coordinatorState(stage))
}

// rest keeps the machine from asking for the lock again at once.
func (d *Daemon) rest() { d.restTill = d.now() + restAfter }

const restAfter = 5 * time.Minute

func (d *Daemon) windowAt(t time.Time) Window {
	if !d.hasWindow {
		return Window{}
	}
	until := d.window.UntilStart(t)
	return Window{Closed: until > 0, Opens: max(0, until), Text: d.window.String()}
}

// storeHere remembers whether a member of the store runs here.
type storeHere struct {
	known bool
	here  bool
	at    time.Duration
}

// locked says whether a reboot takes the lock.
func (d *Daemon) locked(ctx context.Context) bool {
	switch {
	case d.note.Boot == d.deps.Boot:
		return d.note.Locked
	case d.cfg.Strategy != BestEffort:
		return d.cfg.Strategy == EtcdLock
	case d.known && d.now()-d.at < later:
		return d.here
	}
	here, err := d.deps.StoreHere(ctx)
	if err != nil {
		// Asking for a lock in vain is better than rebooting without.
		d.log.Warn("whether the store runs here is not known: the lock is asked for", "err", err)
		here = true
	}
	d.storeHere = storeHere{known: true, here: here, at: d.now()}
	return here
}

// lookAtFleet reads what the store says about this machine.
func (d *Daemon) lookAtFleet(ctx context.Context, s *Snapshot) {
	s.Fleet, s.FleetErr = d.deps.Fleet.Read(ctx)
	s.DrainedFor = d.now() - d.since
	if s.FleetErr == nil {
		s.StillFor = d.course.still.Look(s.Fleet, d.now())
	}
}

// lookAtHealth asks everybody who knows whether the machine is well; the directory only
// if nothing else is wrong.
func (d *Daemon) lookAtHealth(ctx context.Context, s *Snapshot) {
	system, err := d.deps.System(ctx)
	if err != nil {
		s.Unwell = append(s.Unwell, err.Error())
	} else {
		s.Unwell = append(s.Unwell, system.Unwell()...)
	}
	switch {
	case s.FleetErr != nil:
		s.Unwell = append(s.Unwell, "the store does not answer: "+s.FleetErr.Error())
	case s.Lock.Err != nil:
		s.Unwell = append(s.Unwell, "the store does not answer: "+s.Lock.Err.Error())
	default:
		s.Unwell = append(s.Unwell, s.Fleet.Unwell()...)
	}
	if len(s.Unwell) == 0 {
		s.Unwell = d.hooks(ctx, d.cfg.HealthDir, s.why())
	}
	if len(s.Unwell) > 0 {
		d.course.well = mark{}
	} else {
		d.course.well.start(d.now())
	}
	s.WellFor, s.CheckedFor = d.course.well.elapsed(d.now()), d.now()-d.since
}

// objections is who has something against a reboot now.
func (d *Daemon) objections(ctx context.Context) []string {
	if d.refused != "" && d.now()-d.refusedAt < later {
		return []string{d.refused}
	}
	var out []string
	blockers, err := d.deps.Logind.Blockers(ctx)
	if err != nil {
		out = append(out, err.Error())
	}
	for _, who := range blockers {
		out = append(out, "inhibitor "+who)
	}
	return append(out, d.hooks(ctx, d.cfg.VetoDir, d.deps.Needs.Need().Why)...)
}

// hooks runs the executables of a directory. There may be many, and each may take its
// time: the signs of life go on.
func (d *Daemon) hooks(ctx context.Context, dir, why string) []string {
	said := make(chan []string, 1)
	go func() { said <- d.deps.Hooks(ctx, dir, "FLOTILLA_REBOOT_WHY="+why) }()
	tick := time.NewTicker(sema.RefreshEvery)
	defer tick.Stop()
	for {
		select {
		case out := <-said:
			return out
		case <-tick.C:
			d.beat(ctx)
		}
	}
}

// undone says whether the need is the one that the machine has been rebooted for. Once
// it has been gone it is another one.
func (d *Daemon) undone(need trigger.Need) bool {
	if d.last == (lastReboot{}) || d.last.Boot == d.deps.Boot {
		return false
	}
	if need == d.last.need() {
		return true
	}
	if d.deps.Needs.Settled() {
		d.last = lastReboot{}
		if err := d.files.forgetLast(); err != nil {
			d.log.Warn("what the last reboot was for is not forgotten", "err", err)
		}
	}
	return false
}

// do carries a step out.
func (d *Daemon) do(ctx context.Context, s Snapshot, next Step) error {
	switch next.Do {
	case Take:
		return d.take(ctx, s)
	case Cordon:
		return d.deps.Fleet.Drain(ctx, "reboot: "+next.Why, time.Now())
	case Announce:
		return d.enterPhase(ctx, sema.Rebooting)
	case Tell:
		d.tell(ctx)
		return nil
	case Reboot:
		return d.reboot(ctx, s, next.Why)
	case Check:
		return d.check(ctx)
	case Uncordon:
		err := d.deps.Fleet.Uncordon(ctx)
		d.clean = err == nil
		return err
	case Release:
		return d.release(ctx)
	case Fail:
		return d.over(d.change(ctx, func(l sema.Semaphore) (sema.Semaphore, error) {
			return l.Fail(d.cfg.MachineID, next.Why, time.Now().UTC().Truncate(time.Second))
		}))
	case GiveBack:
		return d.giveBack(ctx, s)
	}
	return fmt.Errorf("no such step: %q", next.Do)
}

// take takes the lock, or where there is none to be taken begins the reboot.
func (d *Daemon) take(ctx context.Context, s Snapshot) error {
	if !s.Locked {
		return d.setNote(Note{Boot: s.Boot, Phase: sema.Rebooting, Why: s.Need.Why})
	}
	sent := d.now()
	at := time.Now().UTC().Truncate(time.Second)
	err := d.change(ctx, func(l sema.Semaphore) (sema.Semaphore, error) {
		// With its phase: whatever the machine may hold, its drain begins now.
		return l.Acquire(s.Machine, sema.Detail{Hostname: d.cfg.Hostname, Since: at, Why: s.Need.Why, Boot: s.Boot, Phase: sema.Draining})
	})
	switch {
	case errors.Is(err, sema.ErrFull), errors.Is(err, sema.ErrStopped), errors.Is(err, sema.ErrHolderExists), errors.Is(err, sema.ErrLost):
		return nil // the next look says so
	case err != nil:
		return err
	}
	d.tenure.Wrote(sent)
	d.beaten = sent
	return d.setNote(Note{Boot: s.Boot, Phase: sema.Draining, Why: s.Need.Why, Locked: true})
}

// enterPhase writes a phase into the lock, and then into the note.
func (d *Daemon) enterPhase(ctx context.Context, phase sema.Phase) error {
	if err := d.refresh(ctx, phase); err != nil {
		return err
	}
	return d.setNote(Note{Boot: d.deps.Boot, Phase: phase, Why: d.self().why(), Locked: true})
}

// check begins the time after a boot.
func (d *Daemon) check(ctx context.Context) error {
	if err := d.deps.Needs.Withdraw(); err != nil {
		d.log.Warn("what was asked with locksmithctl is not withdrawn", "err", err)
	}
	return d.enterPhase(ctx, sema.Checking)
}

// reboot asks logind.
func (d *Daemon) reboot(ctx context.Context, s Snapshot, why string) error {
	if d.note.Boot != s.Boot { // it was killed before it could be written
		if err := d.setNote(Note{Boot: s.Boot, Phase: sema.Rebooting, Why: why, Locked: s.Locked}); err != nil {
			return err
		}
	}
	d.last = lastReboot{Boot: s.Boot, Source: s.Need.Source, Why: s.Need.Why}
	if err := d.files.writeLast(d.last); err != nil {
		d.log.Warn("what the reboot is for is not remembered", "err", err)
	}
	if err := d.deps.Logind.Reboot(ctx); err != nil {
		d.refused, d.refusedAt = err.Error(), d.now()
		d.course.objected.start(d.now())
		return err
	}
	d.asked, d.refused = mark{}, ""
	d.asked.start(d.now())
	return nil
}

// release ends a reboot that went well.
func (d *Daemon) release(ctx context.Context) error {
	return d.over(d.change(ctx, func(l sema.Semaphore) (sema.Semaphore, error) { return l.GiveBack(d.cfg.MachineID) }))
}

// over ends what the note is about.
func (d *Daemon) over(err error) error {
	if err != nil && !errors.Is(err, sema.ErrNotHolder) {
		return err
	}
	return d.forgetNote()
}

// giveBack ends a reboot that has not been.
func (d *Daemon) giveBack(ctx context.Context, s Snapshot) error {
	d.rest()
	if !s.Locked {
		return d.forgetNote()
	}
	if err := d.deps.Fleet.Uncordon(ctx); err != nil {
		return err
	}
	return d.release(ctx)
}

func (d *Daemon) setNote(n Note) error {
	d.note = n // it counts, whether it can be written or not
	return d.files.writeNote(n)
}

// forgetNote ends what was begun. A reboot that was asked for and has not been goes
// first: without the note it would look like one that has (sameBoot).
func (d *Daemon) forgetNote() error {
	if d.last != (lastReboot{}) && d.last.Boot == d.deps.Boot {
		d.last = lastReboot{}
		if err := d.files.forgetLast(); err != nil {
			return err
		}
	}
	return d.setNote(Note{})
}

// tell tells those who are logged in, and gives them time if there are any.
func (d *Daemon) tell(ctx context.Context) {
	d.told = true
	sessions, err := d.deps.Logind.Sessions(ctx)
	if err != nil {
		d.log.Warn("nobody is told that the machine reboots", "err", err)
	}
	message := broadcast(d.cfg.Hostname, d.self().why(), d.cfg.Notice)
	told := map[string]bool{}
	reached := 0
	for _, s := range sessions {
		if s.TTY == "" || told[s.TTY] {
			continue
		}
		told[s.TTY] = true
		if err := d.deps.Write(s.TTY, message); err != nil {
			d.log.Debug("terminal not reached", "tty", s.TTY, "err", err)
			continue
		}
		reached++
	}
	if reached > 0 {
		d.log.Info("told those who are logged in", "terminals", reached, "they have", d.cfg.Notice)
		d.notice = d.now() + d.cfg.Notice
	}
}

// broadcast is what appears on a terminal.
func broadcast(host, why string, in time.Duration) string {
	when := "now"
	if in > 0 {
		when = "in " + strings.TrimSuffix(in.Round(time.Second).String(), "0s")
	}
	if host == "" {
		host = "this machine"
	}
	return fmt.Sprintf("\r\n\aMessage from locksmithd: %s reboots %s: %s\r\n", printable(host), when, printable(why))
}

// printable keeps what comes from elsewhere from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// coordinatorState is the stage in the words of the coordinator's file.
func coordinatorState(s Stage) string {
	switch s {
	case Asking, Draining:
		return "reboot-planned"
	case GoingDown:
		return "rebooting"
	}
	return "running"
}
