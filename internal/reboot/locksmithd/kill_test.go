package locksmithd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

// killed plays a reboot of three machines whose first one is hit, and looks whether all
// goes well all the same: nobody is down without the lock, at most one holds it, and in
// the end it is free.
func killed(t *testing.T, powerCut bool, before func(victim *machine), hit func(w *world, victim *machine)) {
	inWorld(t, 3, func(w *world) {
		victim := w.machines[0]
		victim.powerCut = powerCut
		for _, m := range w.machines {
			m.downtime = 5 * time.Second
			m.needs.want()
		}
		before(victim)
		victim.start()
		synctest.Wait()
		for _, m := range w.machines[1:] {
			m.start()
		}
		hit(w, victim)
		w.within(2*time.Hour, "all have rebooted", func() bool {
			for _, m := range w.machines {
				if m.rebooted() == 0 {
					return false
				}
			}
			return w.atRest()
		})
		if !powerCut && victim.rebooted() != 1 {
			t.Errorf("it rebooted %d times", victim.rebooted())
		}
		if w.store.worst != 1 {
			t.Errorf("%d held the lock at once", w.store.worst)
		}
	})
}

// blow ends the daemon, or the machine, and has it start again.
func (m *machine) blow() {
	if m.powerCut {
		m.reset()
		return
	}
	m.kill()
	time.Sleep(time.Second)
	m.start()
}

// A daemon that is killed or stopped in order, or a machine that loses power, at any moment of its reboot:
// while its units leave, after the boot and before it looks whether it is well, while it
// looks, and when all is over.
func TestKilledAtAnyMoment(t *testing.T) {
	for _, how := range []string{"killed", "stopped", "power cut"} {
		stages := map[Stage]bool{}
		for at := time.Duration(0); at < time.Minute; at += 1100 * time.Millisecond {
			t.Run(fmt.Sprintf("%s after %v", how, at), func(t *testing.T) {
				killed(t, how == "power cut", func(*machine) {}, func(w *world, victim *machine) {
					time.Sleep(at)
					synctest.Wait()
					if p := w.store.now().Details[victim.id].Phase; p != "" {
						stages[Stage(p)] = true
					}
					if how == "stopped" {
						victim.stop()
						time.Sleep(time.Second)
						victim.start()
						return
					}
					victim.blow()
				})
			})
		}
		for _, phase := range []sema.Phase{sema.Draining, sema.Rebooting, sema.Checking} {
			if !stages[Stage(phase)] {
				t.Errorf("%s: never hit while it is %s", how, phase)
			}
		}
	}
}

// overdue is a lock whose nth change, of the machine that dies in it, is under way for a
// while: it arrives when the machine may have been started again, unless the lock has
// been changed meanwhile.
type overdue struct {
	*memLock
	nth, count int
	delay      time.Duration
	die        func()
}

func (l *overdue) Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	if l.count++; l.count != l.nth {
		return l.memLock.Change(ctx, f)
	}
	read, err := l.Read(ctx)
	if err != nil {
		return read, err
	}
	next, err := f(read.Semaphore)
	if err != nil {
		return read, err
	}
	time.AfterFunc(l.delay, func() { l.put(read.Index, next) })
	l.die()
	return lock.State{}, errKilled
}

// put is a write that compares the index.
func (s *memStore) put(index uint64, next sema.Semaphore) {
	l := memLock{memStore: s}
	l.Change(context.Background(), func(sema.Semaphore) (sema.Semaphore, error) {
		if l.index != index {
			return sema.Semaphore{}, errKilled
		}
		return next, nil
	})
}

// A daemon that is killed in a write, or a machine that loses power in one: the write
// arrives before the daemon is started again, soon after, or when all seems over.
func TestKilledInAWrite(t *testing.T) {
	for _, powerCut := range []bool{false, true} {
		for _, delay := range []time.Duration{time.Millisecond, 900 * time.Millisecond, 1001 * time.Millisecond, 6 * time.Second, time.Minute} {
			for nth, more := 1, true; more; nth++ {
				t.Run(fmt.Sprintf("power %t, write %d, after %v", powerCut, nth, delay), func(t *testing.T) {
					var l *overdue
					killed(t, powerCut, func(victim *machine) {
						l = &overdue{memLock: victim.locks.(*memLock), nth: nth, delay: delay, die: func() { victim.wg.Go(victim.blow) }}
						victim.locks = l
					}, func(*world, *machine) {})
					more = l.count >= nth
				})
				if nth > 60 {
					t.Fatal("it never ends")
				}
			}
		}
	}
}

// The strategy is another one when the daemon is started again on its way: it goes on
// with the lock that it has, and does not leave it to the others to find it.
func TestStrategyChangesOnTheWay(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.needs.want()
		m.start()
		w.within(time.Minute, "it drains", func() bool { return w.store.now().Details[m.id].Phase == sema.Draining })
		m.kill()
		if !strings.Contains(w.log.String(), "stops, and the machine keeps its slot of the lock") {
			t.Error("it says nothing of the slot that it keeps")
		}
		m.cfg.Strategy = AtOnce
		m.beforeDown = func() { m.cfg.Strategy = EtcdLock }
		m.objections = []string{"10-raid: rebuilding"}
		m.start()
		time.Sleep(3 * time.Minute)
		if d := w.store.now().Details[m.id]; d.Seq < 5 {
			t.Errorf("it gives no signs of life: %+v", d)
		}
		m.set(func() { m.objections = nil })
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// A write of the run before the boot that arrives just before the machine asks for the
// lock: it drains all the same, and does not take that for its own way down.
func TestEntryOfAnEarlierRun(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.locks = &meddled{Locker: m.locks, when: func(before, after sema.Semaphore) bool { return !before.Holds(m.id) && after.Holds(m.id) }, meddle: func() {
			w.store.change(t, func(s sema.Semaphore) (sema.Semaphore, error) {
				return s.Take(m.id, sema.Detail{Boot: "earlier", Phase: sema.Rebooting})
			})
		}}
		m.needs.want()
		m.start()
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// What a watch has read before the last write is not news, and what a store has that was
// restored from a backup is.
func TestOlderState(t *testing.T) {
	held, err := sema.New().Take("m1", sema.Detail{})
	if err != nil {
		t.Fatal(err)
	}
	store := newMemStore()
	d := New(Defaults(), Deps{Lock: &memLock{memStore: store}})
	for _, c := range []struct {
		name          string
		heard, stored uint64
		inStore       sema.Semaphore
		held          bool
	}{
		{"read before the last write", 4, 5, held, true},
		{"a store that was restored", 4, 4, sema.New(), false},
		{"written by another", 6, 6, sema.New(), false},
		{"the key has been removed", 0, 0, sema.New(), false},
	} {
		d.learn(lock.State{Semaphore: held, Index: 5})
		store.value, store.index = c.inStore, c.stored
		d.heard(t.Context(), lock.Update{State: lock.State{Semaphore: sema.New(), Index: c.heard}})
		if got := d.lock.Holds("m1"); got != c.held {
			t.Errorf("%s: held %t", c.name, got)
		}
	}
}

// Executables that take longer together than a holder may be silent: the machine gives
// signs of life all the same, and reboots.
func TestSlowHooks(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		m, other := w.machines[0], w.machines[1]
		m.hookTime = 20 * time.Minute
		m.needs.want()
		m.start()
		other.start()
		w.within(3*time.Hour, "it has rebooted", func() bool {
			if s := w.store.now(); s.Stopped != nil {
				w.t.Fatalf("the lock is %s", s.Encode())
			}
			return m.rebooted() == 1 && w.atRest()
		})
	})
}

// While they run the store goes away, and the others take the machine for dead: nobody
// can know what they did then, so it does not reboot.
func TestGivenUpWhileHooksRun(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		m, other := w.machines[0], w.machines[1]
		w.lenient = true
		m.needs.want()
		m.start()
		other.start()
		w.within(time.Minute, "it has the lock", func() bool { return w.store.now().Holds(m.id) })
		m.set(func() { m.hookTime = 20 * time.Minute })
		w.within(time.Hour, "it is about to reboot", func() bool { return w.store.now().Details[m.id].Phase == sema.Rebooting })
		time.Sleep(time.Minute)
		w.store.setAway(m.id, true)
		w.within(20*time.Minute, "it is taken for lost", func() bool { return w.store.now().Stopped != nil })
		w.store.change(t, sema.Semaphore.Resume)
		m.set(func() { m.hookTime = 0 })
		time.Sleep(time.Hour)
		if m.rebooted() != 0 || m.isDown() {
			t.Error("it has rebooted")
		}
		w.store.setAway(m.id, false)
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// After the boot the member of the store takes its time: the machine that rebooted with the
// lock, since it had one, finds its slot soon after, and not when it next looks around.
func TestBestEffortStoreComesLate(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		m, other := w.machines[0], w.machines[1]
		m.cfg.Strategy = BestEffort
		m.beforeUp = func() { m.storeFrom = time.Now().Add(40 * time.Second) }
		m.needs.want()
		m.start()
		other.start()
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 })
		w.within(3*time.Minute, "all is free", w.atRest)
	})
}
