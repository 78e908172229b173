package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "flotilla/api/fleet"
	"flotilla/internal/applet"
)

// waitFor a.service to be launched, with p to begin with, while tell says what
// happens. It returns what each says and what the wait said meanwhile.
func waitWhile(t *testing.T, p *picture, l limits, tell func(chan<- update)) (ends []string, said string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var stderr strings.Builder
		s := &session{env: applet.Env{Stderr: &stderr}}
		w := &watching{observer: newObserver(nil), pic: p}
		if tell != nil {
			go tell(w.observer.out)
		}
		start := time.Now()
		err = s.wait(t.Context(), w, []want{{unit: "a.service", goal: launched}}, l, func(o outcome) {
			ends = append(ends, fmt.Sprintf("%d %q timed out %v", o.kind, o.text, o.timedOut))
		})
		took, said = time.Since(start), stderr.String()
	})
	return ends, said, took, err
}

// Nothing happens at all: the wait ends by itself, long after a person has been
// told what it waits for.
func TestWaitGivesUpWhenNothingHappens(t *testing.T) {
	ends, said, took, err := waitWhile(t, scene(on("", launched, inactive, 5), ""), limits{}, nil)
	if err != nil || took != quiet || len(ends) != 1 || ends[0] != `0 "a machine to be chosen" timed out 1m0s` {
		t.Errorf("%q after %v, %v", ends, took, err)
	}
	if said != "waiting for a.service: a machine to be chosen\n" {
		t.Errorf("said %q", said)
	}
}

// A unit that somebody destroys is not waited for, whether it was new or there before.
func TestWaitEndsWhenTheUnitIsDestroyed(t *testing.T) {
	created := on("", launched, inactive, 5)
	created.Name = "a.service"
	for name, p := range map[string]*picture{"new": scene(nil, ""), "old": scene(created, "")} {
		ends, _, took, err := waitWhile(t, p, limits{}, func(out chan<- update) {
			out <- update{change: api.Change{Unit: created}}
			time.Sleep(time.Second)
			out <- update{change: api.Change{Deleted: true, Unit: &api.Unit{Name: "a.service"}}}
		})
		if err != nil || took > time.Second+settle+tick || len(ends) != 1 || ends[0] != `2 "it has been destroyed meanwhile" timed out 0s` {
			t.Errorf("%s: %q after %v, %v", name, ends, took, err)
		}
	}
}

// A unit that is starting may take as long as its init system lets it.
func TestWaitLastsWhileTheUnitStarts(t *testing.T) {
	ends, _, took, err := waitWhile(t, scene(on(m1, launched, loaded, 5), "loaded activating start-pre 4"), limits{}, func(out chan<- update) {
		time.Sleep(time.Hour)
		out <- update{change: api.Change{State: &api.UnitState{Name: "a.service", MachineID: m1, Generation: 5, SystemdActiveState: "active"}}}
	})
	if err != nil || took != time.Hour || len(ends) != 1 || ends[0] != `1 "" timed out 0s` {
		t.Errorf("%q after %v, %v", ends, took, err)
	}
}

// A reason that goes away again, because a peer has been placed, is none.
func TestWaitDoesNotBelieveAPassingReason(t *testing.T) {
	u := on("", launched, inactive, 5)
	u.Reason = "b.service is on no machine"
	ends, _, took, err := waitWhile(t, scene(u, ""), limits{}, func(out chan<- update) {
		time.Sleep(settle - tick)
		placed := on(m1, launched, loaded, 5)
		placed.Name = "a.service"
		out <- update{change: api.Change{Unit: placed}}
		out <- update{change: api.Change{State: &api.UnitState{Name: "a.service", MachineID: m1, Generation: 5, SystemdActiveState: "active"}}}
	})
	if err != nil || took != settle-tick || len(ends) != 1 || ends[0] != `1 "" timed out 0s` {
		t.Errorf("%q after %v, %v", ends, took, err)
	}
}

// A daemon that is restarted is waited for; what it says anew replaces all that was
// said before.
func TestWaitSurvivesARestartOfTheDaemon(t *testing.T) {
	ends, said, took, err := waitWhile(t, scene(on(m1, launched, loaded, 5), ""), limits{}, func(out chan<- update) {
		out <- update{lost: errors.New("connection refused")}
		time.Sleep(10 * time.Second)
		out <- update{reset: true}
		again := scene(on(m1, launched, launched, 5), "loaded active running 5")
		for _, m := range again.machines {
			out <- update{change: api.Change{Machine: &m}}
		}
		for _, u := range again.units {
			out <- update{change: api.Change{Unit: &u}}
		}
		time.Sleep(time.Second) // the unit is not taken for destroyed meanwhile
		st := again.states["a.service"][m1]
		out <- update{change: api.Change{State: &st}}
		out <- update{change: api.Change{Synced: true}}
	})
	if err != nil || took != 11*time.Second || len(ends) != 1 || ends[0] != `1 "" timed out 0s` {
		t.Errorf("%q after %v, %v", ends, took, err)
	}
	if said != "waiting for a.service: the fleet API to come back: connection refused\n" {
		t.Errorf("said %q", said)
	}
}

func TestWaitEndsWhenTheDaemonStaysAway(t *testing.T) {
	_, _, took, err := waitWhile(t, scene(on(m1, launched, loaded, 5), ""), limits{}, func(out chan<- update) {
		out <- update{lost: errors.New("connection refused")}
	})
	if err == nil || !strings.HasSuffix(err.Error(), ": connection refused") || took < awayLimit || took > awayLimit+time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := &session{env: applet.Env{Stderr: &strings.Builder{}}}
		w := &watching{observer: newObserver(nil), pic: scene(on("", launched, inactive, 5), "")}
		err := s.wait(ctx, w, []want{{unit: "a.service", goal: launched}}, limits{}, func(outcome) {})
		if err == nil || err.Error() != "interrupted while waiting for a.service: a machine to be chosen" {
			t.Errorf("got %v", err)
		}
	})
}

// On a terminal there is one line, written over and taken back.
func TestProgressOnATerminal(t *testing.T) {
	var b strings.Builder
	start := time.Now()
	p := newProgress(&b, start)
	p.terminal = true
	p.update(start.Add(900*time.Millisecond), "x")
	p.update(start.Add(1000*time.Millisecond), "x")
	p.update(start.Add(1100*time.Millisecond), "x")
	p.update(start.Add(2000*time.Millisecond), "y")
	p.clear()
	if want := "\r\x1b[Kwaiting for x (1 s)\r\x1b[Kwaiting for y (2 s)\r\x1b[K"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
