package locksmithd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/reboot/trigger"
	"flotilla/internal/systemd/login"
)

// world is some machines and what they share. Nothing in it is real but the daemons,
// unless a test says otherwise.
type world struct {
	t        *testing.T
	store    *memStore
	machines []*machine
	log      *logBuffer
	max      int

	mu   sync.Mutex      // guards what the machines have in common
	down map[string]bool // true: with the lock in its hand
	// lenient: units of the others need not run when one goes down.
	lenient bool
	// classic: a classic client may have written the phases away.
	classic bool
	// story is what has happened, in order.
	story []string
}

// machine is one of them: it has boots, and in each of them a daemon that may be
// killed.
type machine struct {
	*world
	id    string
	cfg   Config
	locks Locker
	fleet Fleet
	needs *fakeNeeds
	// downtime is how long a reboot takes; negative: it never comes back.
	downtime time.Duration
	// refuses is what logind says to a reboot.
	refuses error
	// sameID is a machine whose boot id stays what it is.
	sameID bool
	// fuse is how many effects the daemon still has; 0 is for ever.
	fuse int
	// blows is what happens when the fuse has burnt: the daemon is started again, or
	// the machine.
	powerCut bool

	skew                 atomic.Int64 // what the clock on the wall shows beside the time of the bubble: a time.Duration
	noLock               bool         // it reboots without
	beforeDown, beforeUp func()       // nil: nothing

	objections []string
	sessions   []login.Session
	terminal   strings.Builder
	unwell     []string
	storeFrom  time.Time     // when the store's member here is active; the zero value is always
	hookTime   time.Duration // how long the executables of a directory take

	mu      sync.Mutex // guards what follows
	boot    int
	cancel  context.CancelFunc
	done    chan struct{}
	reboots int
	status  string
	gone    bool // the test is over
	dead    bool // the daemon has been killed: nothing it does takes effect
	wg      sync.WaitGroup
}

func newWorld(t *testing.T, n int) *world {
	w := &world{t: t, store: newMemStore(), log: &logBuffer{}, down: map[string]bool{}, max: 1}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
			t.Logf("story: %s", strings.Join(w.story, "; "))
		}
	})
	for i := range n {
		w.add(fmt.Sprintf("m%d", i+1))
	}
	return w
}

func (w *world) add(id string) *machine {
	dir := w.t.TempDir()
	cfg := Defaults()
	cfg.Strategy, cfg.MachineID, cfg.Hostname = EtcdLock, id, "host-"+id
	cfg.RunDir, cfg.StateDir = filepath.Join(dir, "run"), filepath.Join(dir, "state")
	cfg.CoordinatorFile = filepath.Join(dir, "run", "coordinator.conf")
	m := &machine{world: w, id: id, cfg: cfg, boot: 1, downtime: time.Minute, needs: newFakeNeeds()}
	m.locks, m.fleet = &memLock{memStore: w.store, machine: id}, newFakeFleet()
	w.machines = append(w.machines, m)
	return m
}

// tell adds to the story.
func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

func (m *machine) bootID() string { return fmt.Sprintf("%s-boot-%d", m.id, m.boot) }

// wall is the clock on the wall.
func (m *machine) wall() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

// start starts the daemon.
func (m *machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone || m.runs() || m.isDown() {
		return
	}
	log := slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", m.id)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.cancel, m.done, m.dead = cancel, done, false
	d := New(m.cfg, Deps{
		Lock: fusedLock{m.locks, m}, Fleet: fusedFleet{m.fleet, m}, Needs: m.needs, Logind: m,
		System:    func(context.Context) (gate.Local, error) { return gate.Local{System: "running"}, nil },
		StoreHere: func(context.Context) (bool, error) { return !time.Now().Before(m.storeFrom), nil },
		Hooks:     m.hooks, Write: m.write, Boot: m.bootID(), Logger: log,
		Wall:   m.wall,
		Status: func(s string) { m.mu.Lock(); defer m.mu.Unlock(); m.status = s },
	})
	d.lookEvery = m.lookEvery()
	m.wg.Go(func() {
		defer close(done)
		if err := d.Run(ctx, func() {}); err != nil && ctx.Err() == nil {
			if !m.sameID {
				m.t.Errorf("%s: %v", m.id, err)
			}
			m.mu.Lock()
			m.status = err.Error()
			m.mu.Unlock()
		}
	})
}

// runs is whether there is a daemon. m.mu is held.
func (m *machine) runs() bool {
	if m.done == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

func (m *machine) isDown() bool {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	_, down := m.down[m.id]
	return down
}

func (m *machine) lookEvery() time.Duration {
	if m.store == nil {
		return 50 * time.Millisecond // real time
	}
	return soon
}

// kill ends the daemon as if it had been killed: nothing it begins takes effect any
// more.
func (m *machine) kill() {
	m.mu.Lock()
	cancel, done := m.cancel, m.done
	m.dead = true
	m.mu.Unlock()
	if cancel == nil {
		return // it has never run
	}
	cancel()
	<-done
}

// stop ends the daemon in order, as systemd does: what it has begun it may end.
func (m *machine) stop() {
	m.mu.Lock()
	cancel, done := m.cancel, m.done
	m.mu.Unlock()
	cancel()
	<-done
}

// end ends the machine with the test.
func (m *machine) end() {
	m.mu.Lock()
	m.gone = true
	m.mu.Unlock()
	m.kill()
	m.wg.Wait()
}

// reset is a reboot, whoever has asked for it.
func (m *machine) reset() {
	held := m.store == nil || m.store.now().Holds(m.id)
	m.world.mu.Lock()
	if _, down := m.down[m.id]; down { // it loses power in the middle of a reboot
		m.world.mu.Unlock()
		return
	}
	m.down[m.id] = held
	m.world.mu.Unlock()
	m.tell("%s down", m.id)
	if f, ok := m.fleet.(*fakeFleet); ok {
		f.machineDown()
	}
	m.kill()
	os.RemoveAll(m.cfg.RunDir)
	m.needs.bootWith(m.needs.stays)
	if m.downtime < 0 {
		return
	}
	time.Sleep(m.downtime)
	m.world.mu.Lock()
	delete(m.down, m.id)
	m.world.mu.Unlock()
	m.mu.Lock()
	if !m.sameID {
		m.boot++
	}
	m.reboots++
	m.mu.Unlock()
	if m.beforeUp != nil {
		m.beforeUp()
	}
	m.tell("%s up", m.id)
	if f, ok := m.fleet.(*fakeFleet); ok {
		f.machineUp()
	}
	m.start()
}

// burn is one effect of the daemon's: true if it is the one that it does not survive.
func (m *machine) burn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead || m.fuse == 0 {
		return m.dead
	}
	m.fuse--
	if m.fuse > 0 {
		return false
	}
	m.dead = true
	cancel, cut := m.cancel, m.powerCut
	cancel()
	m.wg.Go(func() {
		if cut {
			m.reset()
			return
		}
		m.kill()
		time.Sleep(time.Second)
		m.start()
	})
	return true
}

// effect does something that a kill may come before or behind.
func (m *machine) effect(do func() error) error {
	if m.burn() {
		return errKilled
	}
	err := do()
	if m.burn() {
		return errKilled
	}
	return err
}

var errKilled = errors.New("killed")

func (m *machine) hooks(ctx context.Context, dir string, _ ...string) []string {
	m.mu.Lock()
	takes := m.hookTime
	m.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(takes):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if dir == m.cfg.HealthDir {
		return slices.Clone(m.unwell)
	}
	return slices.Clone(m.objections)
}

func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// Reboot implements Logind.
func (m *machine) Reboot(context.Context) error {
	return m.effect(func() error {
		if m.refuses != nil {
			return m.refuses
		}
		m.judge()
		if m.beforeDown != nil {
			m.beforeDown()
		}
		m.wg.Go(m.reset)
		return nil
	})
}

// judge is called when a machine is about to go down: no more than max may be, and the
// units of all others run.
func (m *machine) judge() {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	holding := 0
	for _, held := range m.down {
		if held {
			holding++
		}
	}
	if holding >= m.max {
		m.t.Errorf("%s goes down while %v is", m.id, m.down)
	}
	for _, other := range m.machines {
		f, ok := other.fleet.(*fakeFleet)
		if ok && other != m && m.max == 1 && !m.lenient && !other.powerCut && !f.allWell() {
			m.t.Errorf("%s goes down while units of %s are not well", m.id, other.id)
		}
	}
	if f, ok := m.fleet.(*fakeFleet); ok && !m.noLock && len(f.here()) > 0 {
		m.t.Errorf("%s goes down with %v", m.id, f.here())
	}
	if m.store != nil && !m.noLock {
		s := m.store.now()
		_, known := s.Details[m.id]
		if !s.Holds(m.id) || s.Details[m.id].Phase != sema.Rebooting && (known || !m.classic) || len(s.Holders) > m.max {
			m.t.Errorf("%s goes down while the lock is %s", m.id, s.Encode())
		}
	}
}

// Sessions implements Logind.
func (m *machine) Sessions(context.Context) ([]login.Session, error) { return m.sessions, nil }

// Blockers implements Logind.
func (m *machine) Blockers(context.Context) ([]string, error) { return nil, nil }

func (m *machine) write(tty, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprintf(&m.terminal, "%s: %s", tty, text)
	return nil
}

// fusedLock is the lock as a daemon sees it that may be killed.
type fusedLock struct {
	Locker
	m *machine
}

func (l fusedLock) Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (s lock.State, err error) {
	err = l.m.effect(func() (err error) { s, err = l.Locker.Change(ctx, f); return err })
	return s, err
}

type fusedFleet struct {
	Fleet
	m *machine
}

func (f fusedFleet) Drain(ctx context.Context, why string, at time.Time) error {
	return f.m.effect(func() error { return f.Fleet.Drain(ctx, why, at) })
}

func (f fusedFleet) Uncordon(ctx context.Context) error {
	return f.m.effect(func() error { return f.Fleet.Uncordon(ctx) })
}

// fakeNeeds says what the test wants.
type fakeNeeds struct {
	mu      sync.Mutex
	need    trigger.Need
	stays   bool // it is still there after a reboot
	changed chan struct{}
}

func newFakeNeeds() *fakeNeeds { return &fakeNeeds{changed: make(chan struct{}, 1)} }

func (n *fakeNeeds) set(need trigger.Need) {
	n.mu.Lock()
	n.need = need
	n.mu.Unlock()
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *fakeNeeds) want() { n.set(trigger.Need{Source: trigger.Required, Why: "updated: libc6"}) }

func (n *fakeNeeds) bootWith(stays bool) {
	if !stays {
		n.set(trigger.Need{})
	}
}

func (n *fakeNeeds) Run(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return nil }
func (n *fakeNeeds) Changed() <-chan struct{}                    { return n.changed }
func (n *fakeNeeds) Settled() bool                               { return true }
func (n *fakeNeeds) Withdraw() error                             { return nil }
func (n *fakeNeeds) Need() trigger.Need {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.need
}

// fakeFleet moves a machine's one movable unit away when it is drained, and back when
// it is not, each in 5 s; a global one stays.
type fakeFleet struct {
	mu     sync.Mutex
	f      gate.Fleet
	stuck  bool // nobody takes the unit
	timers []*time.Timer
}

func newFakeFleet() *fakeFleet {
	f := &fakeFleet{}
	f.f = gate.Fleet{
		Present: true, Others: []string{"x"}, Led: true, States: map[string]gate.State{},
		Entries: []gate.Entry{
			{Unit: "log.service", Desired: "launched", Gen: 1, Stays: "a global unit"},
			{Unit: "web.service", Desired: "launched", Gen: 1},
		},
	}
	f.run("log.service", "active")
	f.run("web.service", "active")
	return f
}

func (f *fakeFleet) run(unit, state string) { f.f.States[unit] = gate.State{Active: state, Gen: 1} }

func (f *fakeFleet) here() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stuck {
		return nil
	}
	return f.f.ToMove()
}

// allWell is whether the units run, and nothing keeps them away.
func (f *fakeFleet) allWell() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.f.Unwell()) == 0 && f.f.Cordon == nil
}

func (f *fakeFleet) after(d time.Duration, do func()) {
	f.timers = append(f.timers, time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	}))
}

func (f *fakeFleet) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.timers {
		t.Stop()
	}
}

func (f *fakeFleet) machineDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f.Present, f.f.States = false, map[string]gate.State{}
}

// machineUp has fleetd come 10 s after the boot, and the units 3 s later.
func (f *fakeFleet) machineUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after(10*time.Second, func() {
		f.f.Present = true
		f.after(3*time.Second, func() {
			for _, e := range f.f.Entries {
				f.run(e.Unit, "active")
			}
		})
	})
}

func (f *fakeFleet) Read(context.Context) (gate.Fleet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.f
	out.Entries = slices.Clone(out.Entries)
	states := map[string]gate.State{}
	for u, s := range out.States {
		states[u] = s
	}
	out.States = states
	return out, nil
}

func (f *fakeFleet) Drain(_ context.Context, why string, _ time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f.Cordon = &gate.Cordon{Drain: true, Why: why, Ours: true}
	f.after(5*time.Second, func() {
		if f.f.Cordon != nil && len(f.f.Entries) == 2 && !f.stuck {
			f.f.Entries = f.f.Entries[:1]
			delete(f.f.States, "web.service")
		}
	})
	return nil
}

func (f *fakeFleet) Uncordon(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f.Cordon = nil
	f.after(5*time.Second, func() {
		if f.f.Cordon == nil && len(f.f.Entries) == 1 {
			f.f.Entries = append(f.f.Entries, gate.Entry{Unit: "web.service", Desired: "launched", Gen: 1})
			f.after(3*time.Second, func() { f.run("web.service", "active") })
		}
	})
	return nil
}

// memStore is a lock in memory.
type memStore struct {
	mu      sync.Mutex
	value   sema.Semaphore
	index   uint64
	changed chan struct{}
	away    map[string]bool // machines that do not reach it
	worst   int             // the most holders at once
}

func newMemStore() *memStore {
	return &memStore{value: sema.New(), index: 1, changed: make(chan struct{}), away: map[string]bool{}}
}

var errAway = errors.New("connection refused")

func (s *memStore) now() sema.Semaphore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// change is a change by hand.
func (s *memStore) change(t *testing.T, f func(sema.Semaphore) (sema.Semaphore, error)) {
	t.Helper()
	if _, err := (&memLock{memStore: s}).Change(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func (s *memStore) setAway(machine string, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away[machine] = away
	close(s.changed)
	s.changed = make(chan struct{})
}

// memLock is one machine's way to it.
type memLock struct {
	*memStore
	machine string
}

func (l *memLock) Read(context.Context) (lock.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away[l.machine] {
		return lock.State{}, errAway
	}
	return lock.State{Semaphore: l.value, Index: l.index}, nil
}

func (l *memLock) Change(_ context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away[l.machine] {
		return lock.State{}, errAway
	}
	next, err := f(l.value)
	if err != nil {
		return lock.State{Semaphore: l.value, Index: l.index}, err
	}
	l.value = next
	l.index++
	l.worst = max(l.worst, len(next.Holders))
	close(l.changed)
	l.changed = make(chan struct{})
	return lock.State{Semaphore: l.value, Index: l.index}, nil
}

func (l *memLock) Watch(ctx context.Context) <-chan lock.Update {
	out := make(chan lock.Update)
	go func() {
		defer close(out)
		for {
			l.mu.Lock()
			changed := l.changed
			l.mu.Unlock()
			s, err := l.Read(ctx)
			select {
			case out <- lock.Update{State: s, Err: err}:
			case <-ctx.Done():
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// logBuffer keeps the log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
