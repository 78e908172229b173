package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

const single = one + "[X-Fleet]\nSingleton=true\n"

// A machine whose lease is 10 s and whose units move 10 s after its end: a singleton
// is asked to stop 15 s after the last word, killed at 18 s, and may run elsewhere at
// 20 s, counted from the store's side, which begins to count later.
func TestFence(t *testing.T) {
	lose := func(b *bench) { b.store.change(func() { b.store.away = true }) }
	find := func(b *bench) { b.store.change(func() { b.store.away = false }) }
	placed := func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.store.place("any.service", one, model.Launched)
		b.after(10 * time.Second) // just after a renewal
		b.expect("one.service", "active", 1)
		lose(b)
	}

	scenario(t, "a singleton is claimed, and runs", func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.after(time.Second)
		b.expect("one.service", "active", 1)
		if s := b.store.state("one.service"); b.store.claims != 1 || s.Active != "active" {
			b.t.Errorf("%d claims, state %+v", b.store.claims, s)
		}
		before := b.store.written()
		b.after(time.Hour)
		b.expect("one.service", "active", 1)
		if n := b.store.written() - before; n != 0 || b.store.claims != 1 {
			b.t.Errorf("%d writes and %d claims in an hour", n, b.store.claims)
		}
	})

	scenario(t, "without the store it is stopped in time, and no other unit is", func(b *bench) {
		placed(b)
		b.after(11 * time.Second)
		b.expect("one.service", "active", 1)
		b.after(4 * time.Second)
		b.expect("one.service", "inactive", 1)
		b.after(time.Hour)
		b.expect("one.service", "inactive", 1)
		b.expect("any.service", "active", 1)
	})

	scenario(t, "one that does not end is killed in time", func(b *bench) {
		b.units.Script("one.service", unitfake.Script{StopTakes: time.Hour})
		placed(b)
		b.after(15500 * time.Millisecond)
		b.expect("one.service", "deactivating", 1)
		b.after(2500 * time.Millisecond)
		b.expect("one.service", "inactive", 1)
	})

	scenario(t, "a store that is back before that costs nothing", func(b *bench) {
		for range 20 {
			placed(b)
			b.after(11 * time.Second)
			find(b)
			b.after(5 * time.Second)
		}
		b.expect("one.service", "active", 1)
	})

	scenario(t, "it is started again when the store says that it is this machine's still", func(b *bench) {
		placed(b)
		b.after(time.Minute)
		find(b)
		b.after(5 * time.Second)
		b.expect("one.service", "active", 2)
		b.expect("any.service", "active", 1)
		if s := b.store.state("one.service"); s.Active != "active" || s.Message != "" || s.Gen == 0 {
			b.t.Errorf("published is %+v", s)
		}
	})

	scenario(t, "it stays down when it has been moved", func(b *bench) {
		placed(b)
		b.after(time.Minute)
		b.store.change(func() {
			b.store.away = false
			delete(b.store.values, "schedule/m/one.service")
		})
		b.after(time.Minute)
		b.expect("one.service", "inactive", 0) // and removed
		b.expect("any.service", "active", 1)
	})

	scenario(t, "one that is started by somebody while its time is over is stopped again", func(b *bench) {
		placed(b)
		b.after(time.Minute)
		for range b.units.Run(b.t.Context(), []unit.Job{{Kind: unit.Start, Unit: "one.service"}}) {
			continue
		}
		b.after(time.Second)
		b.expect("one.service", "inactive", 2)
	})

	scenario(t, "one that had ended by itself is not started again", func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.after(10 * time.Second)
		b.units.Crash("one.service")
		b.after(time.Second)
		lose(b)
		b.after(time.Minute)
		find(b)
		b.after(time.Minute)
		b.expect("one.service", "failed", 1)
	})

	scenario(t, "after the machine has slept that comes first", func(b *bench) {
		placed(b)
		b.store.change(func() { b.store.slept += time.Hour })
		b.after(1100 * time.Millisecond)
		b.expect("one.service", "inactive", 1)
		b.expect("any.service", "active", 1)
	})

	scenario(t, "it goes by what its entry says, after a restart too", func(b *bench) {
		b.store.change(func() { b.store.moveAfter = 30 * time.Second })
		placed(b)
		b.after(20 * time.Second)
		b.stop()
		b.start()
		b.after(14 * time.Second)
		b.expect("one.service", "active", 1)
		b.after(1100 * time.Millisecond)
		b.expect("one.service", "inactive", 1)
	})

	scenario(t, "an entry that waits to be heard is answered when it is in force", func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.after(time.Second)
		if s := b.store.state("one.service"); s.Heard != 0 {
			b.t.Errorf("nobody waits, and it says %d", s.Heard)
		}
		b.store.waitFor, b.store.gen = "1m0s", b.store.state("one.service").Gen
		b.store.place("one.service", single, model.Launched)
		b.after(time.Second)
		if s := b.store.state("one.service"); s.Heard == 0 || s.Heard != b.store.rev {
			b.t.Errorf("it says %d", s.Heard)
		}
		b.expect("one.service", "active", 1)
	})

	scenario(t, "never moved, never stopped", func(b *bench) {
		b.store.place("one.service", single+"MoveAfter=never\n", model.Launched)
		b.after(time.Second)
		lose(b)
		b.after(time.Hour)
		b.expect("one.service", "active", 1)
	})

	scenario(t, "a machine that boots without the store does not start it", func(b *bench) {
		placed(b)
		b.stop()
		b.units.Reboot()
		b.epoch++
		b.start()
		b.after(time.Hour)
		b.expect("any.service", "active", 1)
		b.expect("one.service", "inactive", 0)
		find(b)
		b.after(10 * time.Second)
		b.expect("one.service", "active", 1)
	})

	scenario(t, "the time runs on while the agent restarts, and while it is away", func(b *bench) {
		placed(b)
		b.after(10 * time.Second)
		b.stop()
		b.start()
		b.after(5100 * time.Millisecond)
		b.expect("one.service", "inactive", 1)
		find(b)
		b.after(10 * time.Second)
		b.expect("one.service", "active", 2)
		b.stop()
		b.after(time.Minute)
		b.expect("one.service", "inactive", 2) // the init system did
		b.expect("any.service", "active", 1)
		b.start()
		b.after(10 * time.Second)
		b.expect("one.service", "active", 3)
		b.after(time.Hour)
		b.expect("one.service", "active", 3)
	})

	scenario(t, "a restart of the agent that is quick stops nothing", func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.after(10 * time.Second)
		for range 5 {
			b.stop()
			b.after(5 * time.Second)
			b.start()
			b.after(time.Minute)
		}
		b.expect("one.service", "active", 1)
	})

	scenario(t, "another store cannot vouch for it", func(b *bench) {
		b.store.place("one.service", single, model.Launched)
		b.store.place("any.service", one, model.Launched)
		b.after(time.Second)
		b.store.replace("second")
		b.after(time.Minute)
		b.expect("one.service", "inactive", 1)
		b.expect("any.service", "active", 1)
	})

	scenario(t, "a loop that hangs holds up nothing", func(b *bench) {
		placed(b)
		release := make(chan struct{})
		defer close(release)
		b.agent.inbox.leave(func(n *news) { n.found = append(n.found, func() { <-release }) })
		b.after(15500 * time.Millisecond)
		b.expect("one.service", "inactive", 1)
	})
}

// A fence that hangs, as it does in a process that is stopped, is started anew in
// time: the singleton has ended before it may start elsewhere.
func TestFenceIsWatched(t *testing.T) {
	for _, hangs := range []time.Duration{0, 9 * time.Second, 14900 * time.Millisecond} {
		scenario(t, fmt.Sprintf("it hangs %v after the last word of the store", hangs), func(b *bench) {
			b.stop()
			b.dog = &dog{bitten: make(chan struct{})}
			b.start()
			b.units.Script("one.service", unitfake.Script{StopTakes: time.Hour})
			b.store.place("one.service", single, model.Launched)
			b.after(10 * time.Second)
			b.store.change(func() { b.store.away = true })
			proof := time.Now()
			b.after(hangs)
			b.dog.hung.Store(true)
			select {
			case <-b.dog.bitten:
			case <-time.After(time.Minute):
				b.t.Fatal("nobody has noticed")
			}
			b.stop()
			b.dog = &dog{}
			b.after(1500 * time.Millisecond) // as in fleet.service
			b.start()
			b.after(20*time.Second - time.Since(proof))
			b.expect("one.service", "inactive", 1)
		})
	}

	scenario(t, "one that is at work is let be", func(b *bench) {
		b.stop()
		b.dog = &dog{bitten: make(chan struct{})}
		b.start()
		b.after(time.Hour)
		b.store.place("one.service", single, model.Launched)
		b.after(time.Hour)
		b.store.change(func() { b.store.away = true })
		b.after(time.Hour)
		select {
		case <-b.dog.bitten:
			b.t.Error("it was ended")
		default:
		}
	})
}

// Whatever the lease, the time to move, and the moments of renewals and losses: the
// last process of the old copy has ended before the cluster may start the next.
func TestNeverTwo(t *testing.T) {
	for _, ttl := range []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second} {
		for _, move := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
			req := model.Requirements{Singleton: true}
			stop, kill, fenced := model.Fence(ttl, req.FencedBy(move))
			after, ever := req.MovesAfter(move)
			// The store counts from when it gets the renewal, the machine from before it
			// sent it: the sooner the store gets it, the sooner it is over.
			earliest := ttl + after
			if !fenced || !ever || kill-stop < model.FenceStop || earliest-kill < model.FenceMargin || earliest-stop < 3*time.Second {
				t.Errorf("lease %v, move %v: stop %v, kill %v, elsewhere %v", ttl, move, stop, kill, earliest)
			}
			if stop < ttl {
				t.Errorf("lease %v, move %v: stopped at %v, while it is present", ttl, move, stop)
			}
		}
	}
}

// The real alarm goes off on the real clock, and is woken.
func TestBootAlarm(t *testing.T) {
	a, err := newBootAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	wake := make(chan struct{}, 1)
	begin := registry.BootTime()
	a.Wait(t.Context(), begin+30*time.Millisecond, wake)
	if d := registry.BootTime() - begin; d < 30*time.Millisecond || d > 5*time.Second {
		t.Errorf("it went off after %v", d)
	}
	a.Wait(t.Context(), begin, wake) // overdue
	wake <- struct{}{}
	a.Wait(t.Context(), never, wake)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.Wait(ctx, never, wake)
}

// The order of what is published: nobody is ever told that a singleton that is about
// to start is down.
func TestClaimComesFirst(t *testing.T) {
	scenario(t, "a claim is what is published until the unit runs", func(b *bench) {
		b.units.Script("one.service", unitfake.Script{StartTakes: time.Minute})
		b.store.place("one.service", single, model.Loaded)
		b.after(time.Second)
		if s := b.store.state("one.service"); s.Active != "inactive" {
			b.t.Errorf("published is %+v", s)
		}
		b.store.place("one.service", single, model.Launched)
		b.after(time.Second)
		if s := b.store.state("one.service"); s.Active != "activating" {
			b.t.Errorf("published is %+v", s)
		}
		b.after(time.Minute)
		if s := b.store.state("one.service"); s.Active != "active" || s.Sub != "running" {
			b.t.Errorf("published is %+v", s)
		}
	})
	scenario(t, "an entry that is gone by then starts nothing", func(b *bench) {
		b.store.change(func() { b.store.refuse = true })
		b.store.place("one.service", single, model.Launched)
		b.after(time.Minute)
		b.expect("one.service", "inactive", 0)
		if s := b.store.state("one.service"); !strings.Contains(s.Message, "its entry in the schedule has changed") {
			b.t.Errorf("published is %+v", s)
		}
	})
}
