package locksmithd

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

// rewrite is what a classic client makes of the lock when it changes nothing of what it
// knows: all else is gone.
func rewrite(s sema.Semaphore) (sema.Semaphore, error) {
	var known struct {
		Semaphore int      `json:"semaphore"`
		Max       int      `json:"max"`
		Holders   []string `json:"holders"`
	}
	if err := json.Unmarshal(s.Encode(), &known); err != nil {
		return s, err
	}
	b, err := json.Marshal(known)
	if err != nil {
		return s, err
	}
	return sema.Decode(b)
}

// rewritten is a lock that a classic client writes just before the nth change of a
// machine, or just behind it; 0 is every one.
type rewritten struct {
	Locker
	nth    int
	behind bool
	count  int
	write  func()
}

func (l *rewritten) Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	l.count++
	now := l.nth == 0 || l.count == l.nth
	if now && !l.behind {
		l.write()
	}
	s, err := l.Locker.Change(ctx, f)
	if now && l.behind {
		l.write()
	}
	return s, err
}

// A classic client that writes before or behind any change of a machine's: no more than
// max hold the lock, everybody reboots once, and in the end it is free.
func TestClassicWriteAnywhere(t *testing.T) {
	for _, behind := range []bool{false, true} {
		for nth, more := 0, true; more; nth++ {
			t.Run(fmt.Sprintf("behind %t, %d", behind, nth), func(t *testing.T) {
				inWorld(t, 3, func(w *world) {
					w.classic = true
					for i, m := range w.machines {
						r := &rewritten{Locker: m.locks, nth: nth, behind: behind, write: func() { w.store.change(t, rewrite) }}
						if i == 0 || nth == 0 {
							m.locks = r
						}
						if i == 0 {
							defer func() { more = nth == 0 || r.count >= nth }()
						}
						m.needs.want()
						m.start()
					}
					w.within(2*time.Hour, "all have rebooted", func() bool { return w.allRebooted(1) })
					if w.store.worst != 1 {
						t.Errorf("%d held the lock at once", w.store.worst)
					}
				})
			})
			if nth > 60 {
				t.Fatal("it never ends")
			}
		}
	}
}

// One that writes all the time, between any two signs of life.
func TestClassicWritesAllTheTime(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 7 * time.Second, sema.RefreshEvery} {
		t.Run(every.String(), func(t *testing.T) {
			inWorld(t, 3, func(w *world) {
				w.classic = true
				ctx, cancel := context.WithCancel(w.t.Context())
				defer cancel()
				go each(ctx, every, func() { w.store.change(t, rewrite) })
				for _, m := range w.machines {
					m.needs.want()
					m.start()
				}
				w.within(2*time.Hour, "all have rebooted", func() bool { return w.allRebooted(1) })
				if w.store.worst != 1 {
					t.Errorf("%d held the lock at once", w.store.worst)
				}
			})
		})
	}
}

// A machine that never comes back, and a classic client that ends the stop: the machine
// still holds its slot, is found again, and can be resumed from.
func TestClassicWriteEndsAStop(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		gone, next := w.machines[0], w.machines[1]
		gone.downtime = -1
		gone.needs.want()
		gone.start()
		w.within(time.Hour, "it is down", gone.isDown)
		next.needs.want()
		next.start()
		for range 3 {
			w.within(20*time.Minute, "it is taken for lost", func() bool { return w.store.now().Stopped != nil })
			w.store.change(t, rewrite)
			if s := w.store.now(); s.Stopped != nil || !s.Holds(gone.id) || next.rebooted() != 0 {
				t.Fatalf("the lock is %s, and the next one has rebooted %d times", s.Encode(), next.rebooted())
			}
		}
		w.within(20*time.Minute, "it is taken for lost", func() bool { return w.store.now().Stopped != nil })
		w.store.change(t, sema.Semaphore.Resume)
		w.mu.Lock()
		delete(w.down, gone.id)
		w.lenient = true
		w.mu.Unlock()
		w.within(time.Hour, "the next one reboots", func() bool { return next.rebooted() == 1 && len(w.store.now().Holders) == 0 })
	})
}
