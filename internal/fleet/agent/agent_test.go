package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
	"flotilla/internal/unitfile"
)

// fakeStore is a schedule that a test writes, and what the agent publishes.
type fakeStore struct {
	mu        sync.Mutex
	values    map[string]string
	rev       int64
	changed   chan struct{} // closed and replaced with every change
	away      bool
	published map[string]model.UnitState
	writes    int
	claims    int  // granted
	refuse    bool // claims
	slots     int  // that are taken
	mine      bool // one of them is this machine's
	began     time.Time
	slept     time.Duration
	watched   bool          // entries that are placed now
	gen       int64         // their generation; 0: the revision
	moveAfter time.Duration // of the engine that places them
	waitFor   string        // as in the entries
}

func newFakeStore() *fakeStore {
	return &fakeStore{values: map[string]string{"mark": "first"}, changed: make(chan struct{}), published: map[string]model.UnitState{},
		began: time.Now().Add(-time.Hour)}
}

func (f *fakeStore) NewView() *registry.View { return registry.NewView("/f/") }

func (f *fakeStore) Follow(ctx context.Context, _ string, v *registry.View, changed func([]registry.Change, bool)) {
	for {
		f.mu.Lock()
		next, away := f.changed, f.away
		if !away {
			v.Load(f.values, f.rev)
		}
		f.mu.Unlock()
		if !away {
			changed(nil, true)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// Hold renews the lease three times in its life as long as the store is there. A
// lease that has run out is found out when the store is back.
func (f *fakeStore) Hold(ctx context.Context, ttl time.Duration, _ bool, run func(context.Context, registry.Lease)) {
	for ctx.Err() == nil {
		pulse := &registry.Pulse{}
		held, lost := context.WithCancel(ctx)
		if f.isAway() {
			sleep(held, time.Second)
			lost()
			continue
		}
		pulse.Beat(f.clock())
		go func() {
			defer lost()
			var wait time.Duration // set before each sleep
			for last := f.clock(); held.Err() == nil; sleep(held, wait) {
				switch now := f.clock(); {
				case f.isAway():
					wait = time.Second
				case now > last+ttl:
					return
				default:
					pulse.Beat(now)
					last, wait = now, ttl/3
				}
			}
		}()
		run(held, registry.Lease{Pulse: pulse})
		lost()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (f *fakeStore) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// clock is the boot clock: that of the bubble, and what the machine has slept.
func (f *fakeStore) clock() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.began) + f.slept
}

func (f *fakeStore) TakeSlot(_ context.Context, _ registry.Lease, _, _ string, n int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return false, registry.ErrAway
	}
	switch {
	case f.mine:
		return true, nil
	case f.slots >= n:
		return false, nil
	}
	f.slots++
	f.mine = true
	return true, nil
}

func (f *fakeStore) taken() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slots
}

func (f *fakeStore) FreeSlot(context.Context, string, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return registry.ErrAway
	}
	if f.mine {
		f.slots--
	}
	f.mine = false
	return nil
}

// Claim grants what the schedule holds.
func (f *fakeStore) Claim(_ context.Context, _ registry.Lease, s model.UnitState, _ int64) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return false, registry.ErrAway
	}
	if _, ok := f.values["schedule/m/"+s.Unit]; !ok || f.refuse {
		return false, nil
	}
	f.published[s.Unit] = s
	f.claims++
	return true, nil
}

func (f *fakeStore) Join(context.Context, registry.Lease, registry.Presence, string) error {
	return nil
}

func (f *fakeStore) Displaced(ctx context.Context, _ registry.Lease, _ string) (*registry.Presence, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fakeStore) Publish(_ context.Context, _ registry.Lease, _ string, put []model.UnitState, remove []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return registry.ErrAway
	}
	for _, s := range put {
		f.published[s.Unit] = s
	}
	for _, u := range remove {
		delete(f.published, u)
	}
	if len(put)+len(remove) > 0 {
		f.writes++
	}
	return nil
}

func (f *fakeStore) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// place writes an entry of the schedule; its generation is the revision.
func (f *fakeStore) place(name, text string, desired model.State) {
	f.change(func() {
		gen := f.rev
		if f.gen != 0 {
			gen = f.gen
		}
		entry := map[string]any{"hash": unitfile.HashText(text), "text": text, "desired": desired, "gen": gen, "watched": f.watched}
		switch after := model.NewUnit(name, text, desired, gen).Req.FencedBy(f.moveAfter); {
		case after < 0:
			entry["moveAfter"] = "never"
		case after > 0:
			entry["moveAfter"] = after.String()
		}
		if f.waitFor != "" {
			entry["waitFor"] = f.waitFor
		}
		b, _ := json.Marshal(entry)
		f.values["schedule/m/"+name] = string(b)
	})
}

func (f *fakeStore) release(name string) {
	f.change(func() { delete(f.values, "schedule/m/"+name) })
}

// replace makes it another store, without data, which begins to count anew.
func (f *fakeStore) replace(mark string) {
	f.change(func() { f.values, f.rev = map[string]string{"mark": mark}, 1 })
}

func (f *fakeStore) state(name string) model.UnitState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.published[name]
}

// written is how often the agent has published something.
func (f *fakeStore) written() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// bench is an agent with everything around it, in a bubble of time.
type bench struct {
	t     *testing.T
	store *fakeStore
	units *unitfake.Manager
	dir   string
	epoch int
	log   syncLog
	stop  func()
	// forget is the configuration of the next start.
	forget bool
	// deaf: the next run of the agent sends jobs and never hears how they end.
	deaf  bool
	agent *Agent
	dog   *dog                                                      // watches the next run of the agent; nil: nobody does
	probe func(context.Context, unitfile.HealthProbe, string) error // of the next start; nil: the real one
}

// deaf is an init system that carries jobs out and does not say so in time.
type deaf struct{ *unitfake.Manager }

func (d deaf) Run(ctx context.Context, jobs []unit.Job) <-chan unit.Outcome {
	d.Manager.Run(context.WithoutCancel(ctx), jobs)
	never := make(chan unit.Outcome)
	context.AfterFunc(ctx, func() { close(never) })
	return never
}

// unguarded is an init system that nobody has asked to stop anything: the agent was
// killed before it could.
type unguarded struct{ *unitfake.Manager }

func (unguarded) Guard(context.Context, time.Duration, time.Duration, ...string) error { return nil }

// dog is who watches the agent, as an init system does, and can have its fence hang.
type dog struct {
	timer  *time.Timer
	bitten chan struct{} // is closed when it has not been told in time; nil: it never bites
	hung   atomic.Bool
}

func (d *dog) alive(within time.Duration) {
	switch {
	case d.bitten == nil:
	case d.timer == nil:
		d.timer = time.AfterFunc(within, func() { close(d.bitten) })
	default:
		d.timer.Reset(within)
	}
}

// watchedAlarm is that of a fence that can hang.
type watchedAlarm struct {
	alarm
	dog *dog
}

func (w watchedAlarm) Wait(ctx context.Context, at time.Duration, wake <-chan struct{}) {
	w.alarm.Wait(ctx, at, wake)
	if w.dog.hung.Load() {
		<-ctx.Done()
	}
}

// syncLog is a log that can be read while it is written.
type syncLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, store: newFakeStore(), units: unitfake.New(), dir: t.TempDir()}
	b.start()
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	var manager unit.Manager = b.units
	if b.deaf {
		manager = deaf{b.units}
	}
	cfg := Config{
		Presence: registry.Presence{Machine: model.Machine{ID: "m"}}, TTL: 10 * time.Second,
		StateDir: filepath.Join(b.dir, "state"), RunDir: filepath.Join(b.dir, "run"), Epoch: fmt.Sprint(b.epoch),
		ColdStartAfter: 30 * time.Second, ForgetForeign: b.forget, Journal: b.units,
	}
	if b.dog != nil {
		cfg.Watched, cfg.Alive = 30*time.Second, b.dog.alive
		manager = unguarded{b.units}
	}
	a := New(cfg, manager, b.store, slog.New(slog.NewTextHandler(&b.log, nil)))
	b.agent = a
	a.fence.clock = b.store.clock
	a.fence.alarm = func() (alarm, error) { return plainAlarm{b.store.clock}, nil }
	if dog := b.dog; dog != nil {
		a.fence.alarm = func() (alarm, error) { return watchedAlarm{plainAlarm{b.store.clock}, dog}, nil }
	}
	if b.probe != nil {
		a.probe = b.probe
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx, func() {}); err != nil {
			b.t.Error(err)
		}
	}()
	b.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (b *bench) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) active(name string) string {
	b.t.Helper()
	s, err := b.units.Status(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return s[0].Active
}

func (b *bench) expect(name, active string, starts int) {
	b.t.Helper()
	if got, n := b.active(name), b.units.Starts(name); got != active || n != starts {
		b.t.Errorf("%s is %s after %d starts, want %s after %d", name, got, n, active, starts)
	}
}

func scenario(t *testing.T, name string, play func(b *bench)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer func() { b.stop() }()
			play(b)
			if t.Failed() {
				t.Log(b.log.String())
			}
		})
	})
}

const (
	one = "[Service]\nExecStart=/bin/one\n"
	two = "[Service]\nExecStart=/bin/two\n"
)

const brief = "[Service]\nType=oneshot\nExecStart=/bin/one\n"

// An agent that is killed when it has sent a job and has not written down that it
// did: the next one sees by the unit whether the job was carried out.
func TestKilledAfterSending(t *testing.T) {
	killed := func(b *bench, send func()) {
		b.stop()
		b.deaf = true
		b.start()
		send()
		b.after(time.Second)
		b.stop()
		b.deaf = false
		b.start()
		b.after(time.Minute)
	}
	scenario(t, "a start that ran through is not repeated", func(b *bench) {
		killed(b, func() { b.store.place("a.service", brief, model.Launched) })
		b.expect("a.service", "inactive", 1)
		if s := b.store.state("a.service"); s.Gen == 0 {
			b.t.Error("the request does not count as carried out")
		}
	})
	scenario(t, "a start that failed is not repeated", func(b *bench) {
		b.units.Script("a.service", unitfake.Script{Start: unit.Failed})
		killed(b, func() { b.store.place("a.service", one, model.Launched) })
		b.units.Script("a.service", unitfake.Script{})
		b.after(time.Hour)
		b.expect("a.service", "failed", 0)
	})
	scenario(t, "a restart with another text is not repeated", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		killed(b, func() { b.store.place("a.service", two, model.Launched) })
		b.expect("a.service", "active", 2)
	})
	// The restart is seen in each of its parts: the new text has been sent to run and
	// does not run yet.
	for _, c := range []struct {
		part   string
		script unitfake.Script
	}{
		{"stopping", unitfake.Script{StopTakes: time.Minute}},
		{"down", unitfake.Script{RestTakes: time.Minute}},
		{"starting", unitfake.Script{StartTakes: time.Minute}},
	} {
		scenario(t, "a restart is not over while the unit is "+c.part, func(b *bench) {
			b.store.place("a.service", one, model.Launched)
			b.after(time.Second)
			b.units.Script("a.service", c.script)
			b.deaf = true
			b.stop()
			b.start()
			b.store.roll("a.service", two+"[X-Fleet]\nHealthyTimeout=5min\n")
			b.after(time.Second)
			b.stop()
			b.deaf = false
			b.start()
			b.after(30 * time.Second)
			b.judged("a.service", model.Waiting, "it is being started")
			b.after(29500 * time.Millisecond)
			b.expect("a.service", "active", 2)
			b.judged("a.service", model.Waiting, "")
			b.after(5 * time.Second)
			b.judged("a.service", model.Good, "active for 1s")
			b.expect("a.service", "active", 2)
		})
	}
	scenario(t, "what has been down before is not good while its restart is under way", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.store.gen = b.store.rev // nobody asks for a start
		b.units.Script("a.service", unitfake.Script{RestTakes: time.Minute, Start: unit.Failed})
		b.deaf = true
		b.stop()
		b.start()
		b.store.roll("a.service", two)
		b.after(time.Second)
		b.stop()
		b.deaf = false
		b.start()
		b.after(30 * time.Second)
		b.judged("a.service", model.Waiting, "it is being started")
		b.after(time.Minute)
		b.judged("a.service", model.Bad, "it failed")
	})
	scenario(t, "a start that never arrived is sent again", func(b *bench) {
		b.units.Script("a.service", unitfake.Script{StartErr: errors.New("lost on the way")})
		killed(b, func() { b.store.place("a.service", one, model.Launched) })
		b.expect("a.service", "inactive", 0)
		b.units.Script("a.service", unitfake.Script{})
		b.after(10 * time.Minute)
		b.expect("a.service", "active", 1)
	})
}

func TestAgent(t *testing.T) {
	scenario(t, "a unit that has failed is started again for a new request alone", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "active", 1)
		b.units.Crash("a.service")
		b.after(time.Hour)
		b.expect("a.service", "failed", 1)
		if s := b.store.state("a.service"); s.Active != "failed" {
			b.t.Errorf("published as %s", s.Active)
		}
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "active", 2)
	})

	scenario(t, "the first new unit does not wait, and those on its heels come together", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Millisecond)
		b.expect("a.service", "active", 1)
		for _, name := range []string{"b.service", "c.service", "d.service"} {
			b.store.place(name, one, model.Launched)
			b.after(10 * time.Millisecond)
		}
		if files, _ := b.units.Installed(b.t.Context()); len(files) != 1 {
			b.t.Errorf("installed: %v", files)
		}
		b.after(gather - 30*time.Millisecond)
		for _, name := range []string{"a.service", "b.service", "c.service", "d.service"} {
			b.expect(name, "active", 1)
		}
		b.after(time.Second)
		b.store.place("e.service", one, model.Launched)
		b.after(time.Millisecond)
		b.expect("e.service", "active", 1)
	})

	scenario(t, "a changed text restarts the unit once, in place", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.store.place("b.service", one, model.Launched)
		b.after(time.Second)
		b.store.place("a.service", two, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "active", 2)
		b.expect("b.service", "active", 1)
		if s := b.store.state("a.service"); s.Hash != unitfile.HashText(two) {
			b.t.Errorf("published hash %s", s.Hash)
		}
	})

	scenario(t, "a unit that is gone is forgotten", func(b *bench) {
		for i := range 50 {
			name := fmt.Sprintf("job%d.service", i)
			b.store.place(name, one, model.Launched)
			b.after(time.Second)
			b.store.release(name)
			b.after(time.Second)
		}
		b.units.Script("bad.service", unitfake.Script{InstallErr: unit.ErrRefused})
		b.store.place("bad.service", one, model.Launched)
		b.after(time.Second)
		b.store.release("bad.service")
		b.after(time.Second)
		b.stop()
		if n, m := len(b.agent.units), len(b.agent.memory.Units); n+m > 0 {
			b.t.Errorf("%d units and the work on %d are kept in memory", n, m)
		}
		b.start()
	})

	scenario(t, "a slow stop holds up nobody, and the file goes after the stop", func(b *bench) {
		b.units.Script("slow.service", unitfake.Script{StopTakes: time.Minute})
		b.store.place("slow.service", one, model.Launched)
		b.after(time.Second)
		b.store.release("slow.service")
		b.store.place("new.service", one, model.Launched)
		b.after(time.Second)
		b.expect("new.service", "active", 1)
		if files, _ := b.units.Installed(b.t.Context()); files["slow.service"] == "" {
			b.t.Error("the file went before the stop had ended")
		}
		b.after(time.Minute)
		if files, _ := b.units.Installed(b.t.Context()); len(files) != 1 {
			b.t.Errorf("installed: %v", files)
		}
		if s := b.store.state("slow.service"); s.Unit != "" {
			b.t.Errorf("still published: %+v", s)
		}
	})

	scenario(t, "a job that cannot be queued is tried again, ever more seldom, and said once", func(b *bench) {
		b.units.Script("bad.service", unitfake.Script{StartErr: errors.New("no such thing")})
		b.store.place("bad.service", one, model.Launched)
		b.store.place("good.service", one, model.Launched)
		b.after(time.Hour)
		b.expect("good.service", "active", 1)
		if n := strings.Count(b.log.String(), "step failed"); n != 1 {
			b.t.Errorf("said %d times", n)
		}
		if n := strings.Count(b.log.String(), "msg=start unit=bad.service"); n < 10 || n > 25 {
			b.t.Errorf("tried %d times in an hour", n)
		}
		if s := b.store.state("bad.service"); !strings.Contains(s.Message, "no such thing") {
			b.t.Errorf("published message %q", s.Message)
		}
		b.units.Script("bad.service", unitfake.Script{})
		b.after(6 * time.Minute)
		b.expect("bad.service", "active", 1)
		if s := b.store.state("bad.service"); s.Message != "" {
			b.t.Errorf("published message %q", s.Message)
		}
	})

	scenario(t, "a lost init system is asked for everything when it is back", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.units.Disconnect()
		b.after(time.Minute)
		b.units.Connect()
		b.units.Crash("a.service")
		b.after(10 * time.Second)
		if s := b.store.state("a.service"); s.Active != "failed" {
			b.t.Errorf("published as %s", s.Active)
		}
		b.store.place("b.service", one, model.Launched)
		b.after(time.Second)
		b.expect("b.service", "active", 1)
		if n := strings.Count(b.log.String(), "init system lost"); n != 1 {
			b.t.Errorf("said %d times", n)
		}
	})

	scenario(t, "a machine that boots without the store waits, then starts what it knows", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.store.place("b.service", one, model.Loaded)
		b.after(time.Second)
		b.stop()
		b.store.change(func() { b.store.away = true })
		b.units.Reboot()
		b.epoch++
		b.start()
		b.after(29 * time.Second)
		b.expect("a.service", "inactive", 0)
		b.after(2 * time.Second)
		b.expect("a.service", "active", 1)
		b.expect("b.service", "inactive", 0)
		b.store.change(func() { b.store.away = false })
		b.after(time.Minute)
		b.expect("a.service", "active", 1)
	})

	scenario(t, "a schedule that is missing or old on disk stops nothing while the store is away", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.store.place("b.service", one, model.Loaded)
		b.after(time.Second)
		old, err := os.ReadFile(filepath.Join(b.dir, "state", "schedule.json"))
		if err != nil {
			b.t.Fatal(err)
		}
		b.store.place("a.service", two, model.Launched)
		b.store.place("b.service", one, model.Launched)
		b.store.place("c.service", one, model.Launched)
		b.after(time.Second)
		b.store.change(func() { b.store.away = true })
		for _, onDisk := range [][]byte{old, nil} {
			b.stop()
			if err := os.Remove(filepath.Join(b.dir, "state", "schedule.json")); err != nil {
				b.t.Fatal(err)
			}
			if onDisk != nil {
				if err := os.WriteFile(filepath.Join(b.dir, "state", "schedule.json"), onDisk, 0o600); err != nil {
					b.t.Fatal(err)
				}
			}
			b.start()
			b.after(time.Hour)
			b.expect("a.service", "active", 2)
			b.expect("b.service", "active", 1)
			b.expect("c.service", "active", 1)
		}
		b.store.change(func() { b.store.away = false })
		b.after(time.Minute)
		b.expect("a.service", "active", 2)
		b.expect("c.service", "active", 1)
	})

	scenario(t, "a restart of the agent starts nothing and stops nothing", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.store.place("b.service", one, model.Launched)
		b.after(time.Second)
		b.units.Crash("b.service")
		b.after(time.Second)
		b.stop()
		b.start()
		b.after(time.Hour)
		b.expect("a.service", "active", 1)
		b.expect("b.service", "failed", 1)
	})

	scenario(t, "nothing is written while nothing changes", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		before := b.store.written()
		b.after(24 * time.Hour)
		if n := b.store.written() - before; n != 0 {
			b.t.Errorf("%d writes in a day", n)
		}
	})

	scenario(t, "an entry that cannot be read leaves the last one in force", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.store.change(func() { b.store.values["schedule/m/a.service"] = "nonsense" })
		b.after(time.Minute)
		b.expect("a.service", "active", 1)
	})

	scenario(t, "an entry that cannot be read stops nothing where no other is known", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.stop()
		if err := os.Remove(filepath.Join(b.dir, "state", "schedule.json")); err != nil {
			b.t.Fatal(err)
		}
		b.store.change(func() { b.store.values["schedule/m/a.service"] = "nonsense" })
		for range 2 {
			b.start()
			b.after(time.Hour)
			b.expect("a.service", "active", 1)
			if s := b.store.state("a.service"); !strings.Contains(s.Message, "cannot be read") || s.Active != "active" {
				b.t.Errorf("published is %+v", s)
			}
			b.stop()
		}
		b.start()
		b.store.place("a.service", two, model.Launched)
		b.after(time.Minute)
		b.expect("a.service", "active", 2)
		b.store.change(func() { b.store.values["schedule/m/a.service"] = "nonsense" })
		b.store.release("a.service")
		b.after(time.Minute)
		b.expect("a.service", "inactive", 0)
	})

	scenario(t, "a text that is refused is not tried again, and an older one runs on", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.units.Script("a.service", unitfake.Script{InstallErr: fmt.Errorf("%w: Type=dbus", unit.ErrRefused)})
		b.store.place("a.service", two, model.Launched)
		b.after(time.Hour)
		b.expect("a.service", "active", 1)
		if n := strings.Count(b.log.String(), "refused by the init system"); n != 1 {
			b.t.Errorf("tried %d times", n)
		}
		refused := func(times int) {
			b.t.Helper()
			if n := strings.Count(b.log.String(), "refused by the init system"); n != times {
				b.t.Errorf("tried %d times, want %d", n, times)
			}
			if s := b.store.state("a.service"); !strings.Contains(s.Message, "Type=dbus") {
				b.t.Errorf("published message %q", s.Message)
			}
		}
		refused(1)
		b.store.place("a.service", two, model.Launched) // asked again: the reason is there again
		b.after(time.Hour)
		refused(2)
		b.stop()
		b.start()
		b.after(time.Hour)
		refused(3)
		b.expect("a.service", "active", 1)
	})
}

// A store that is not the one that placed the units stops none of them.
func TestAnotherStore(t *testing.T) {
	launched := func(b *bench, units ...string) {
		for _, u := range units {
			b.store.place(u, one, model.Launched)
		}
		b.after(time.Second)
	}
	running := func(b *bench, starts int, units ...string) {
		b.t.Helper()
		for _, u := range units {
			b.expect(u, "active", starts)
		}
	}
	said := func(b *bench, times int) {
		b.t.Helper()
		if n := strings.Count(b.log.String(), "level=WARN msg=\"this is another store"); n != times {
			b.t.Errorf("said %d times, want %d", n, times)
		}
	}

	scenario(t, "it stops nothing whose entry on disk is damaged", func(b *bench) {
		launched(b, "a.service", "b.service")
		b.stop()
		path := filepath.Join(b.dir, "state", "schedule.json")
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(strings.Replace(string(text), "/bin/one", "/bin/two", 1)), 0o600)
		}
		if err != nil {
			b.t.Fatal(err)
		}
		b.store.replace("second")
		for range 3 {
			b.start()
			b.after(time.Hour)
			running(b, 1, "a.service", "b.service")
			b.stop()
		}
		b.start()
	})

	scenario(t, "an empty store stops nothing, now or after a restart of the agent", func(b *bench) {
		launched(b, "a.service", "b.service")
		b.store.replace("second")
		b.after(time.Hour)
		running(b, 1, "a.service", "b.service")
		said(b, 1)
		b.stop()
		b.start()
		b.after(time.Hour)
		running(b, 1, "a.service", "b.service")
		said(b, 2)
	})

	scenario(t, "a store that was replaced while the agent was away is found out", func(b *bench) {
		launched(b, "a.service")
		b.stop()
		b.store.replace("second")
		b.start()
		b.after(time.Hour)
		running(b, 1, "a.service")
		said(b, 1)
		if s := b.store.state("a.service"); !strings.Contains(s.Message, "another store") {
			b.t.Errorf("published with the message %q", s.Message)
		}
	})

	scenario(t, "a store set back to an earlier time stops nothing that was placed later", func(b *bench) {
		launched(b, "a.service")
		backup, rev := maps.Clone(b.store.values), b.store.rev
		launched(b, "b.service")
		b.store.release("a.service")
		b.after(time.Second)
		b.store.change(func() { b.store.values, b.store.rev = backup, rev })
		b.after(time.Hour)
		running(b, 1, "a.service", "b.service")
	})

	scenario(t, "what the new store mentions belongs to it", func(b *bench) {
		launched(b, "a.service", "b.service", "c.service")
		b.store.replace("second")
		b.after(time.Minute)
		launched(b, "a.service", "b.service")
		running(b, 1, "a.service", "b.service", "c.service")
		b.store.place("a.service", two, model.Launched)
		b.store.release("b.service")
		b.after(time.Minute)
		b.expect("a.service", "active", 2)
		b.expect("b.service", "inactive", 0)
		running(b, 1, "c.service")
	})

	scenario(t, "a unit that has failed is started by the new store though its counting is younger", func(b *bench) {
		for range 20 {
			b.store.place("a.service", one, model.Launched)
		}
		b.after(time.Second)
		b.units.Crash("a.service")
		b.store.replace("second")
		b.after(time.Minute)
		b.expect("a.service", "failed", 1)
		launched(b, "a.service")
		b.expect("a.service", "active", 2)
	})

	scenario(t, "a reboot starts foreign units too", func(b *bench) {
		launched(b, "a.service")
		b.store.replace("second")
		b.after(time.Minute)
		b.stop()
		b.units.Reboot()
		b.epoch++
		b.start()
		b.after(time.Minute)
		running(b, 1, "a.service")
	})

	scenario(t, "foreign units are stopped when the operator says so, once", func(b *bench) {
		launched(b, "a.service", "b.service")
		b.store.replace("second")
		b.after(time.Minute)
		launched(b, "b.service")
		b.stop()
		b.forget = true
		b.start()
		b.after(time.Minute)
		b.expect("a.service", "inactive", 0)
		running(b, 1, "b.service")
		if n := strings.Count(b.log.String(), "units of another store are forgotten"); n != 1 {
			b.t.Errorf("said %d times", n)
		}
		b.store.replace("third") // in the same run: counts as any other
		b.after(time.Minute)
		running(b, 1, "b.service")
	})
}

// Units are a, b and c; a store's word is its name, the revision and what it
// mentions, and after it stands what is wanted: a foreign unit with the store that
// placed it.
func TestSucceed(t *testing.T) {
	for _, c := range []struct{ name, words, want string }{
		{"the first store ever", "one 5 a b", "a b"},
		{"the same store says what is over", "one 5 a b; one 6 b", "b"},
		{"an empty store", "one 5 a b; two 1", "a<one b<one"},
		{"another store mentions one", "one 5 a b; two 1 a", "a b<one"},
		{"and ends it", "one 5 a b; two 1 a; two 2", "b<one"},
		{"a later store of the same name cluster", "one 5 a b; two 9", "a<one b<one"},
		{"the old store is back and still has them", "one 5 a b; two 1 c; one 6 a b", "a b c<two"},
		{"the old store is back and has ended one", "one 5 a b; two 1; one 6 a", "a"},
		{"a third store", "one 5 a; two 1 b; three 1 c", "a<one b<two c"},
		{"a store set back", "one 5 a; one 9 a b c; one 5 a", "a b<one until 9 c<one until 9"},
		{"a store set back goes on", "one 9 a b c; one 5 a; one 10 a b; one 11 a", "a c<one until 9"},
		{"forgetting", "one 5 a b; two 1 a; forget 2 a", "a"},
		{"forgetting at the first word of another store", "one 5 a b; forget 1 a", "a"},
	} {
		var w wanted
		for word := range strings.SplitSeq(c.words, "; ") {
			f := strings.Fields(word)
			s := registry.Schedule{Store: f[0]}
			fmt.Sscan(f[1], &s.Rev)
			for _, u := range f[2:] {
				s.Entries = append(s.Entries, model.Placement{Unit: u, Hash: "h"})
			}
			if f[0] == "forget" {
				s.Store = "two"
			}
			w = w.succeed(s, f[0] == "forget")
		}
		var got []string
		for _, p := range sortedValues(w.units) {
			if other := w.foreign[p.Unit]; other != "" {
				p.Unit += "<" + other
			}
			got = append(got, p.Unit)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

// A schedule on disk that is damaged, or another machine's, is left aside.
func TestScheduleOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "schedule.json")
	want := wanted{
		store: "2a/mark", rev: 7, foreign: map[string]string{"a.service": "1/other"},
		units: map[string]model.Placement{"a.service": {
			Machine: "m", Unit: "a.service", Text: one, Hash: unitfile.HashText(one), Desired: model.Launched, Gen: 3, Leaving: true}},
	}
	good := encodeSchedule("m", want)
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := loadSchedule(path, "m"); err != nil || len(got.units) != 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
	write(good)
	if got, err := loadSchedule(path, "m"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := loadSchedule(path, "other"); err == nil {
		t.Error("another machine's schedule is taken")
	}
	write([]byte(strings.Replace(string(good), "/bin/one", "/bin/two", 1)))
	got, err := loadSchedule(path, "m")
	if want.units["a.service"] = held("m", "a.service"); err == nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a damaged text: %v, %v", got, err)
	}
	write(encodeSchedule("m", got)) // said once
	if got, err := loadSchedule(path, "m"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("an entry without a text: %v, %v", got, err)
	}
	write(good[:len(good)/2])
	if _, err := loadSchedule(path, "m"); err == nil {
		t.Error("half a file is taken")
	}
}
