package sched

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/fleet/model"
)

// story changes a world at random, decides after each change, and hands everything
// to check.
func story(seed uint64, steps int, check func(before Snapshot, r Result, after Snapshot)) error {
	r := rand.New(rand.NewPCG(seed, 2))
	w := newWorld()
	now := 0
	for range steps {
		line := randomCommand(r, w, &now)
		if err := w.command(line); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		before := w.snapshot()
		result := Decide(before)
		w.did(result)
		check(before, result, w.snapshot())
	}
	return nil
}

func randomCommand(r *rand.Rand, w *world, now *int) string {
	id := fmt.Sprintf("m%d", r.IntN(5))
	name := fmt.Sprintf("%s@%d.service", pick(r, "a", "b", "c"), r.IntN(4))
	switch r.IntN(10) {
	case 0, 1:
		return fmt.Sprintf("machine %s role=%s rack=%d%s", id, pick(r, "db", "web"), r.IntN(2),
			pick(r, "", "", " memory=4G", " memory=2G cores=2", " cordon", " drain", " drain"))
	case 2:
		if _, ok := w.machines[id]; ok {
			return "lose " + id
		}
		return "machine " + id
	case 3, 4, 5:
		return "unit " + name + pick(r, "", "", " load", " Type=oneshot", " Global=true",
			" Conflicts=a@*", " Conflicts=b@1.*", " MachineMetadata=role=db", " MachineOf=a@%i.service",
			" MachineOf=b@1.service", " Replaces=a@*", " Replaces=b@*", " Replaces=c@*", " MachineID=m1",
			" Global=true MachineMetadata=role=web", " Bogus=1",
			" Memory=1G", " Memory=2G Cores=1", " Cores=0.5 Strategy=pack", " Spread=rack", " Prefers=role=db",
			" MoveAfter=never", " MoveAfter=1s", " Global=true Memory=1G",
			" Singleton=true", " Singleton=true MachineMetadata=role=web", " Singleton=true MoveAfter=never")
	case 6:
		return pick(r, "destroy ", "unload ", "destroy ", "unload ", "ask rebalance ", "ask adopt ") + name + pick(r, " m0", " m1")
	case 7:
		if r.IntN(4) == 0 {
			return pick(r, "allow", "allow a@1.service/* b@*/m1", "allow **", "watch a@*", "elected")
		}
		*now += r.IntN(20)
		return fmt.Sprintf("at %d", *now)
	default:
		keys := slices.SortedFunc(maps.Keys(w.placements), func(a, b place) int {
			return strings.Compare(a.unit+a.machine, b.unit+b.machine)
		})
		keys = slices.DeleteFunc(keys, func(p place) bool { _, ok := w.machines[p.machine]; return !ok })
		if len(keys) == 0 {
			return "machine m0 role=db"
		}
		p := keys[r.IntN(len(keys))]
		return fmt.Sprintf("is %s %s %s", p.unit, p.machine, pick(r, "active", "active", "inactive", "failed", "activating"))
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// stories runs check over many stories and names the seed of the one that fails.
func stories(t *testing.T, n uint64, check func(before Snapshot, r Result, after Snapshot) error) {
	t.Helper()
	for seed := range n {
		var failed error
		if err := story(seed, 60, func(before Snapshot, r Result, after Snapshot) {
			if failed == nil {
				failed = check(before, r, after)
			}
			if failed != nil && !t.Failed() {
				t.Errorf("seed %d: %v\ndecided:\n%s", seed, failed, tell(r))
				for _, p := range before.Placements {
					t.Logf("had %s on %s leaving=%v", p.Unit, p.Machine, p.Leaving)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			return
		}
	}
}

// Carrying decisions out, over and over, soon leaves nothing to decide: at once in
// nearly every case, and in a few passes when followers and replacers are entangled.
func TestDecideConverges(t *testing.T) {
	const passes = 4
	stories(t, 400, func(_ Snapshot, r Result, after Snapshot) error {
		w := newWorld()
		for _, p := range after.Placements {
			w.placements[place{p.Unit, p.Machine}] = p
		}
		for range passes + len(after.Units) { // a machine that is drained takes one for each
			r = Decide(after)
			if len(r.Decisions) == 0 {
				return nil
			}
			w.carryOut(r.Decisions)
			after.Placements = slices.Collect(maps.Values(w.placements))
		}
		return fmt.Errorf("still deciding after %d passes:\n%s", passes, tell(r))
	})
}

func TestOrderOfInputMeansNothing(t *testing.T) {
	shuffle := rand.New(rand.NewPCG(1, 1))
	stories(t, 100, func(before Snapshot, r Result, _ Snapshot) error {
		shuffleAll(shuffle, &before)
		if again := Decide(before); !reflect.DeepEqual(again, r) {
			return fmt.Errorf("in another order:\n%s", tell(again))
		}
		return nil
	})
}

func shuffleAll(r *rand.Rand, s *Snapshot) {
	r.Shuffle(len(s.Machines), reflect.Swapper(s.Machines))
	r.Shuffle(len(s.Units), reflect.Swapper(s.Units))
	r.Shuffle(len(s.Placements), reflect.Swapper(s.Placements))
	r.Shuffle(len(s.States), reflect.Swapper(s.States))
}

// After every pass an ordinary unit is on one machine at most, not counting those
// it is leaving, and no two units on a present machine conflict.
func TestWhatIsPlacedIsRight(t *testing.T) {
	stories(t, 400, func(_ Snapshot, _ Result, after Snapshot) error {
		units := map[string]model.Unit{}
		for _, u := range after.Units {
			units[u.Name] = u
		}
		present := map[string]bool{}
		for _, m := range after.Machines {
			present[m.ID] = true
		}
		homes := map[string]int{}
		for _, p := range after.Placements {
			u := units[p.Unit]
			if p.Leaving || u.Bad != "" || u.Req.Singleton && p.Desired == model.Loaded {
				continue
			}
			if homes[p.Unit]++; homes[p.Unit] > 1 && !units[p.Unit].Req.Global {
				return fmt.Errorf("%s is on two machines", p.Unit)
			}
			for _, q := range after.Placements {
				if v, wanted := units[q.Unit]; !wanted || v.Req.Singleton && q.Desired == model.Loaded {
					continue // a singleton that has yet to stop
				}
				if q.Machine != p.Machine || q.Leaving || q.Unit == p.Unit || !present[p.Machine] || units[q.Unit].Bad != "" {
					continue
				}
				if matchAny(units[p.Unit].Req.Conflicts, q.Unit) {
					return fmt.Errorf("%s is on %s with %s", p.Unit, p.Machine, q.Unit)
				}
			}
		}
		return nil
	})
}

// Nothing is placed where it does not fit, or on a machine that is cordoned.
func TestWhatIsPlacedHasRoom(t *testing.T) {
	stories(t, 400, func(before Snapshot, r Result, after Snapshot) error {
		machines, units := map[string]model.Machine{}, map[string]model.Unit{}
		for _, m := range before.Machines {
			machines[m.ID] = m
		}
		for _, u := range before.Units {
			units[u.Name] = u
		}
		used := map[string]amount{}
		for _, p := range after.Placements {
			req := units[p.Unit].Req
			used[p.Machine] = used[p.Machine].plus(amount{req.Cores, req.Memory})
		}
		for _, d := range r.Decisions {
			m, req := machines[d.Entry.Machine], units[d.Entry.Unit].Req
			switch {
			case d.Op != Place:
			case m.Cordon != nil:
				return fmt.Errorf("%s is placed on %s, which is cordoned", d.Entry.Unit, m.ID)
			case req.Cores > 0 && m.Cores > 0 && used[m.ID].cores > m.Cores, req.Memory > 0 && m.Memory > 0 && used[m.ID].memory > m.Memory:
				return fmt.Errorf("%s is placed on %s, which has no room: %v", d.Entry.Unit, m.ID, used[m.ID])
			}
		}
		return nil
	})
}

// Every unit that should be somewhere is somewhere or explained, machine by machine.
func TestNowhereIsExplained(t *testing.T) {
	stories(t, 400, func(_ Snapshot, r Result, after Snapshot) error {
		placed := map[string]bool{}
		for _, p := range after.Placements {
			placed[p.Unit] = placed[p.Unit] || !p.Leaving
		}
		why := map[string]Unplaced{}
		for _, u := range r.Unplaced {
			why[u.Unit] = u
		}
		for _, u := range after.Units {
			e, explained := why[u.Name]
			switch {
			case u.Desired == model.Inactive || placed[u.Name] && !explained:
				continue
			case !explained:
				return fmt.Errorf("%s is nowhere, without a word", u.Name)
			case e.Why == "" || len(e.Verdicts) != len(after.Machines):
				return fmt.Errorf("%s: %d verdicts for %d machines: %q", u.Name, len(e.Verdicts), len(after.Machines), e.Why)
			}
		}
		return nil
	})
}

// What is decided has a reason, the revision it replaces, and never takes a unit
// that somebody wants from a machine before it is up elsewhere, unless no machine
// could run it.
func TestAtLeastOneRuns(t *testing.T) {
	stories(t, 400, func(before Snapshot, r Result, after Snapshot) error {
		wanted := map[string]model.Unit{}
		for _, u := range before.Units {
			if u.Desired != model.Inactive {
				wanted[u.Name] = u
			}
		}
		nowhere := map[string]bool{}
		for _, u := range r.Unplaced {
			nowhere[u.Unit] = true
		}
		up := map[string]bool{}
		for _, s := range before.States {
			up[s.Unit] = up[s.Unit] || s.Active != ""
		}
		for _, d := range r.Decisions {
			u, ok := wanted[d.Entry.Unit]
			switch {
			case d.Why == "" || (d.Op == Place) != (d.Entry.Rev == 0):
				return fmt.Errorf("%+v", d)
			case d.Op == Release && ok && !u.Req.Global && !u.Req.Singleton && !nowhere[u.Name] && !up[u.Name]:
				return fmt.Errorf("%s is released from %s and up nowhere", u.Name, d.Entry.Machine)
			}
		}
		return nil
	})
}
