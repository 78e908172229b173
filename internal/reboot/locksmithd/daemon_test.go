package locksmithd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/systemd/login"
)

// inWorld runs a world in a time of its own.
func inWorld(t *testing.T, n int, play func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, n)
		defer func() {
			for _, m := range w.machines {
				m.end()
				if f, ok := m.fleet.(*fakeFleet); ok {
					f.stop()
				}
			}
		}()
		play(w)
	})
}

// within waits until something is so.
func (w *world) within(limit time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func (m *machine) rebooted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reboots
}

func (m *machine) says() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// atRest is whether nobody holds anything, and nothing is cordoned.
func (w *world) atRest() bool {
	if s := w.store.now(); len(s.Holders) > 0 || s.Stopped != nil {
		return false
	}
	for _, m := range w.machines {
		if f := m.fleet.(*fakeFleet); !f.allWell() || len(f.here()) != 1 {
			return false
		}
	}
	return true
}

func (w *world) allRebooted(times int) bool {
	for _, m := range w.machines {
		if m.rebooted() != times {
			return false
		}
	}
	return w.atRest()
}

// Three machines want to reboot at once: one goes after the other, empty, and the next
// when the units of the one before run again.
func TestOneAfterTheOther(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		for _, m := range w.machines {
			m.needs.want()
			m.start()
		}
		w.within(time.Hour, "all have rebooted", func() bool { return w.allRebooted(1) })
		if w.store.worst != 1 {
			t.Errorf("%d held the lock at once", w.store.worst)
		}
	})
}

// With two slots, two are down together and never three.
func TestTwoAtOnce(t *testing.T) {
	inWorld(t, 5, func(w *world) {
		w.max = 2
		w.store.change(t, func(s sema.Semaphore) (sema.Semaphore, error) { return s.SetMax(2) })
		for _, m := range w.machines {
			m.needs.want()
			m.start()
		}
		w.within(time.Hour, "all have rebooted", func() bool { return w.allRebooted(1) })
		if w.store.worst != 2 {
			t.Errorf("at most %d held the lock at once", w.store.worst)
		}
	})
}

// A daemon that is killed before or behind any of its effects goes on where it was, and
// so does a machine that loses power: nobody reboots twice for nothing, nobody without
// the lock, and in the end the lock is free.
func TestKilledAnywhere(t *testing.T) {
	for _, powerCut := range []bool{false, true} {
		name := "daemon"
		if powerCut {
			name = "machine"
		}
		t.Run(name, func(t *testing.T) {
			for fuse, burnt := 1, true; burnt; fuse++ {
				t.Run(fmt.Sprint(fuse), func(t *testing.T) {
					var victim *machine
					killed(t, powerCut, func(m *machine) { victim, m.fuse = m, fuse }, func(*world, *machine) {})
					burnt = victim.fuse == 0
				})
				if fuse > 60 {
					t.Fatal("the fuse never lasts")
				}
			}
		})
	}
}

// A machine that never comes back: the others find out by themselves, stop, say why, and
// one command has them go on.
func TestNeverComesBack(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		lost := w.machines[0]
		lost.downtime = -1
		lost.needs.want()
		lost.start()
		w.within(time.Hour, "it is down", lost.isDown)
		for _, m := range w.machines[1:] {
			m.needs.want()
			m.start()
		}
		w.within(20*time.Minute, "it is taken for lost", func() bool { return w.store.now().Stopped != nil })
		time.Sleep(time.Hour)
		for _, m := range w.machines[1:] {
			want := "updated: libc6: the lock is stopped ('locksmithctl resume' goes on): m1 (host-m1): no sign of life for 15m"
			if m.rebooted() != 0 || !strings.HasPrefix(m.says(), want) {
				t.Errorf("%s rebooted %d times and says %q", m.id, m.rebooted(), m.says())
			}
		}
		w.store.change(t, sema.Semaphore.Resume)
		w.mu.Lock()
		delete(w.down, lost.id) // somebody knows of it
		w.lenient = true
		w.mu.Unlock()
		w.within(time.Hour, "the others reboot", func() bool {
			return w.machines[1].rebooted() == 1 && w.machines[2].rebooted() == 1 && len(w.store.now().Holders) == 0
		})
	})
}

// A machine that takes longer than the time-out, and comes back all the same, clears
// itself.
func TestComesBackLate(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		late := w.machines[0]
		late.downtime = time.Hour
		late.needs.want()
		late.start()
		w.machines[1].start()
		w.within(30*time.Minute, "it is taken for lost", func() bool { return w.store.now().Stopped != nil })
		w.within(2*time.Hour, "it is back, and all goes on", func() bool { return late.rebooted() == 1 && w.atRest() })
	})
}

// A machine that is not well after the boot stops the others, and ends that when it is.
func TestNotWell(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		bad, next := w.machines[0], w.machines[1]
		bad.unwell = []string{"50-disk: read-only"}
		bad.needs.want()
		bad.start()
		w.within(time.Hour, "it is up again", func() bool { return bad.rebooted() == 1 })
		next.needs.want()
		next.start()
		w.within(20*time.Minute, "it is found bad", func() bool { return w.store.now().Stopped != nil })
		if why := w.store.now().Stopped.Why; !strings.Contains(why, "not well 10m0s after the boot: 50-disk: read-only") {
			t.Errorf("it is stopped: %s", why)
		}
		time.Sleep(10 * time.Minute)
		if next.rebooted() != 0 {
			t.Error("the next one has rebooted")
		}
		bad.set(func() { bad.unwell = nil })
		w.within(time.Hour, "the next one has rebooted", func() bool { return next.rebooted() == 1 && w.atRest() })
	})
}

// Without the store nobody reboots, and everybody says why. One that has the lock and
// can no longer be sure of it does not either.
func TestStoreAway(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.objections = []string{"10-wait: not yet"}
		m.cfg.Patience = 24 * time.Hour
		w.store.setAway(m.id, true)
		m.needs.want()
		m.start()
		time.Sleep(time.Hour)
		if want := "connection refused"; m.says() != want {
			t.Errorf("it says %q", m.says())
		}
		w.store.setAway(m.id, false)
		time.Sleep(time.Minute)
		if !strings.Contains(m.says(), "objected to by 10-wait: not yet") {
			t.Errorf("it says %q", m.says())
		}
		m.set(func() { m.objections = nil })
		w.within(time.Minute, "it has the lock", func() bool { return w.store.now().Holds(m.id) })
		m.set(func() { m.objections = []string{"10-wait: not yet"} })
		time.Sleep(time.Minute)
		w.store.setAway(m.id, true)
		time.Sleep(time.Hour)
		m.set(func() { m.objections = nil })
		time.Sleep(time.Hour)
		if m.rebooted() != 0 {
			t.Error("it has rebooted")
		}
		w.store.setAway(m.id, false)
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// meddled is a lock that somebody changes just before the daemon's own change of a
// kind arrives, as it may be between what a watch tells and the next step.
type meddled struct {
	Locker
	when   func(before, after sema.Semaphore) bool
	meddle func() // once
}

func (l *meddled) Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	if s, err := l.Read(ctx); err == nil && l.meddle != nil {
		if next, err := f(s.Semaphore); err == nil && l.when(s.Semaphore, next) {
			meddle := l.meddle
			l.meddle = nil
			meddle()
		}
	}
	return l.Locker.Change(ctx, f)
}

// A person who takes the slot away and keeps it, at the moment at which the machine
// wants to go on with it or to give it back, has the last word.
func TestPersonMeddles(t *testing.T) {
	const me = "m1"
	for name, when := range map[string]func(before, after sema.Semaphore) bool{
		"it is about to reboot":     func(_, after sema.Semaphore) bool { return after.Details[me].Phase == sema.Rebooting },
		"it is about to give back":  func(before, after sema.Semaphore) bool { return before.Holds(me) && !after.Holds(me) },
		"it is about to ask for it": func(before, after sema.Semaphore) bool { return !before.Holds(me) && after.Holds(me) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				m := w.machines[0]
				met := false
				m.locks = &meddled{Locker: m.locks, when: when, meddle: func() {
					met = true
					if w.store.now().Holds(me) {
						w.store.change(t, func(s sema.Semaphore) (sema.Semaphore, error) { return s.Release(me) })
					}
					w.store.change(t, func(s sema.Semaphore) (sema.Semaphore, error) {
						return s.Take(me, sema.Detail{Phase: sema.ByHand})
					})
				}}
				m.needs.want()
				m.start()
				time.Sleep(time.Hour)
				if !met {
					t.Fatal("nobody has meddled")
				}
				if got := w.store.now().Details[me].Phase; got != sema.ByHand {
					t.Errorf("the lock is %s", w.store.now().Encode())
				}
				if w.store.now().Stopped != nil || name != "it is about to give back" && m.rebooted() != 0 {
					t.Errorf("it has rebooted %d times, the lock is %s", m.rebooted(), w.store.now().Encode())
				}
			})
		})
	}
}

// Those who are logged in have their five minutes.
func TestNotice(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.sessions = []login.Session{{ID: "1", TTY: "tty1"}, {ID: "2", TTY: "pts/0"}, {ID: "3", TTY: "pts/0"}, {ID: "4"}}
		m.needs.want()
		m.start()
		w.within(time.Minute, "they are told", func() bool { return strings.HasPrefix(m.says(), "who is logged in has") })
		want := "Message from locksmithd: host-m1 reboots in 5m: updated: libc6\r\n"
		m.mu.Lock()
		text := m.terminal.String()
		m.mu.Unlock()
		if strings.Count(text, want) != 2 || !strings.HasPrefix(text, "tty1: ") || strings.Count(text, "pts/0: ") != 1 {
			t.Errorf("terminals: %q", text)
		}
		time.Sleep(4*time.Minute + 50*time.Second)
		if m.isDown() {
			t.Error("it went down before its time")
		}
		w.within(time.Minute, "it goes down", m.isDown)
	})
}

// In the window, and not before: the time of a bubble begins on Saturday at midnight.
func TestWindow(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.cfg.WindowStart, m.cfg.WindowLength, m.cfg.WindowZone = "Sun 05:00", "1h", "Europe/Berlin"
		m.needs.want()
		m.start()
		time.Sleep(28*time.Hour - time.Minute)
		if len(w.store.now().Holders) > 0 {
			t.Error("it has taken the lock")
		}
		if want := "updated: libc6: until the window opens (Sun 05:00 for 1h0m0s (Europe/Berlin))"; m.says() != want {
			t.Errorf("it says %q", m.says())
		}
		w.within(10*time.Minute, "it has rebooted", func() bool { return m.rebooted() == 1 })
	})
}

// The clock is set while the machine waits for its window, as after a boot without a clock:
// a wait that was reckoned by the old time would miss the window that is open now.
func TestClockIsSet(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.cfg.WindowStart, m.cfg.WindowLength, m.cfg.WindowZone = "12:00", "5m", "UTC"
		w.lenient = true
		m.needs.want()
		m.skew.Store(int64(-30 * 365 * 24 * time.Hour)) // 1970
		m.start()
		time.Sleep(time.Minute)
		if m.rebooted() != 0 || !strings.Contains(m.says(), "until the window opens") {
			t.Fatalf("%d reboots, it says %q", m.rebooted(), m.says())
		}
		m.skew.Store(int64(12*time.Hour + time.Minute)) // it is 12:02
		w.within(4*time.Minute, "it reboots in the window", func() bool { return m.rebooted() == 1 })
	})
}

// A window that closes while units leave: the reboot is given up, and comes next time.
func TestWindowCloses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.cfg.WindowStart, m.cfg.WindowLength, m.cfg.WindowZone = "00:00", "3s", "UTC"
		m.needs.want()
		m.start()
		time.Sleep(time.Minute)
		if !w.atRest() || m.rebooted() > 0 {
			t.Errorf("it has rebooted %d times, the lock is %s", m.rebooted(), w.store.now().Encode())
		}
	})
}

// Somebody who objects for longer than the lock is held for them.
func TestObjections(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		m, next := w.machines[0], w.machines[1]
		w.lenient = true // the units of one that gives up have run elsewhere all the time
		m.needs.want()
		m.start()
		w.within(time.Minute, "it has the lock", func() bool { return w.store.now().Holds(m.id) })
		m.set(func() { m.objections = []string{"10-raid: rebuilding"} })
		next.needs.want()
		next.start()
		w.within(10*time.Minute, "the next one has rebooted", func() bool { return next.rebooted() == 1 })
		if m.rebooted() != 0 {
			t.Error("it has rebooted")
		}
		w.within(time.Hour, "all is free", w.atRest)
		m.set(func() { m.objections = nil })
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// What still wants a reboot after the reboot for it gets no second one, until it is
// another wish.
func TestUndone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.needs.stays = true
		m.needs.want()
		m.start()
		time.Sleep(5 * time.Hour)
		if m.rebooted() != 1 || !w.atRest() || !strings.Contains(m.says(), "it still says so after the reboot for it") {
			t.Errorf("it has rebooted %d times and says %q", m.rebooted(), m.says())
		}
		m.kill()
		m.start() // the daemon knows it from a file
		time.Sleep(time.Hour)
		if m.rebooted() != 1 {
			t.Errorf("it has rebooted %d times", m.rebooted())
		}
		m.needs.stays = false
		m.needs.set(m.needs.Need())
		need := m.needs.Need()
		need.Why = "updated: linux"
		m.needs.set(need)
		w.within(time.Hour, "it reboots for another", func() bool { return m.rebooted() == 2 && w.atRest() })
	})
}

// A lock that is held by a classic client's machine, and values that such a client has
// written, are coped with.
func TestClassicClients(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		classic := func(value string) func(sema.Semaphore) (sema.Semaphore, error) {
			return func(sema.Semaphore) (sema.Semaphore, error) { return sema.Decode([]byte(value)) }
		}
		w.store.change(t, classic(`{"semaphore":0,"max":1,"holders":["old"]}`))
		m.needs.want()
		m.start()
		time.Sleep(10 * time.Minute)
		w.store.change(t, classic(`{"semaphore":1,"max":1,"holders":null}`))
		w.within(time.Minute, "it has the lock", func() bool { return w.store.now().Holds(m.id) })
		// An old locksmithctl changes max, and drops what it does not know.
		w.store.change(t, classic(`{"semaphore":1,"max":2,"holders":["m1"]}`))
		w.within(time.Hour, "it has rebooted", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}

// A machine whose boot id does not change reboots once, not for ever: its daemon says
// what is wrong, and the others stop.
func TestSameBootID(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		odd := w.machines[0]
		odd.sameID = true
		odd.needs.stays = true
		odd.needs.want()
		odd.start()
		w.within(time.Hour, "it says so", func() bool { return strings.Contains(odd.says(), "boot id is still") })
		w.machines[1].needs.want()
		w.machines[1].start()
		w.within(time.Hour, "the others stop", func() bool { return w.store.now().Stopped != nil })
		if n := odd.rebooted(); n != 1 {
			t.Errorf("it rebooted %d times", n)
		}
	})
}

// A reboot that logind refused has not been: once it is not wanted any more the daemon
// can be started anew, and the next one is a reboot like any other.
func TestRefusedIsNoReboot(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		m := w.machines[0]
		m.refuses = errors.New("an inhibitor")
		m.needs.want()
		m.start()
		w.within(time.Hour, "it is refused", func() bool { return strings.Contains(m.says(), "an inhibitor") })
		m.needs.bootWith(false) // nobody wants it any more
		w.within(time.Hour, "the lock is free", func() bool { return !w.store.now().Holds(m.id) })
		m.kill()
		m.refuses = nil
		m.needs.want()
		m.start()
		w.within(time.Hour, "it reboots", func() bool { return m.rebooted() == 1 && w.atRest() })
	})
}
