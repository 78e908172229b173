package sched

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/fleet/model"
)

// chance makes choices: rapid's, which can be shrunk, or those of a seed.
type chance interface{ IntN(n int) int }

type drawn struct{ t *rapid.T }

func (d drawn) IntN(n int) int { return rapid.IntRange(0, n-1).Draw(d.t, "choice") }

// stories changes a world at random, decides after each change, and hands everything
// to check. It is repeated many times; the shortest story that fails is told.
func stories(t *testing.T, check func(before Snapshot, r Result, after Snapshot) error) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		w, now := newWorld(), 0
		var lines []string
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			line := randomCommand(drawn{t}, w, &now)
			if err := w.command(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			before := w.snapshot()
			result := Decide(before)
			w.did(result)
			lines = append(lines, line, tell(result))
			if err := check(before, result, w.snapshot()); err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
			}
		}
	})
}

func randomCommand(r chance, w *world, now *int) string {
	id := fmt.Sprintf("m%d", r.IntN(5))
	name := fmt.Sprintf("%s@%d.%s", pick(r, "a", "b", "c"), r.IntN(4), pick(r, "service", "service", "service", "timer"))
	switch r.IntN(10) {
	case 0, 1:
		return fmt.Sprintf("machine %s role=%s rack=%d%s", id, pick(r, "db", "web"), r.IntN(2),
			pick(r, "", "", " memory=3G", " memory=2G cores=1", " cordon", " drain", " drain"))
	case 2:
		if _, ok := w.machines[id]; ok {
			return "lose " + id
		}
		return "machine " + id
	case 3, 4, 5:
		return "unit " + name + pick(r, "", "", " load", " Type=oneshot", " Global=true",
			" Conflicts=a@*", " Conflicts=b@1.*", " MachineMetadata=role=db", " MachineOf=a@%i.service",
			" MachineOf=b@1.service", " MachineOf=%p@%i.timer", " Unit=a@1.service", " Unit=b@%i.timer", " Replaces=a@*", " Replaces=b@*", " Replaces=c@*", " MachineID=m1",
			" Global=true MachineMetadata=role=web", " Bogus=1",
			" Memory=1G", " Memory=2G Cores=1", " Cores=0.5 Strategy=pack", " Spread=rack", " Prefers=role=db",
			" MoveAfter=never", " MoveAfter=1s", " Global=true Memory=1G",
			" Singleton=true", " Singleton=true MachineMetadata=role=web", " Singleton=true MoveAfter=never")
	case 6:
		return pick(r, "destroy ", "unload ", "destroy ", "unload ", "ask rebalance ", "ask adopt ") + name + pick(r, " m0", " m1")
	case 7:
		if w.rolls && r.IntN(4) == 0 {
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

func pick[T any](r chance, of ...T) T { return of[r.IntN(len(of))] }

// Carrying decisions out, over and over, soon leaves nothing to decide: at once in
// nearly every case, and in a few passes when followers and replacers are entangled.
func TestDecideConverges(t *testing.T) {
	const passes = 4
	stories(t, func(_ Snapshot, r Result, after Snapshot) error {
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
	stories(t, func(before Snapshot, r Result, _ Snapshot) error {
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
	stories(t, func(_ Snapshot, _ Result, after Snapshot) error {
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
			u, wanted := units[p.Unit]
			if !wanted || p.Leaving || u.Bad != "" || toStop(u, p) {
				continue
			}
			if homes[p.Unit]++; homes[p.Unit] > 1 && !units[p.Unit].Req.Global {
				return fmt.Errorf("%s is on two machines", p.Unit)
			}
			for _, q := range after.Placements {
				if v, wanted := units[q.Unit]; !wanted || toStop(v, q) {
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

// toStop reports whether an entry is one of a singleton that may have been told to
// stop.
func toStop(u model.Unit, p model.Placement) bool {
	return p.Desired == model.Loaded && (u.Req.Singleton || strings.Contains(p.Text, "Singleton"))
}

// What is placed breaks no hard rule, judged without a line of what has placed it.
func TestNoHardRuleIsBroken(t *testing.T) {
	stories(t, func(before Snapshot, r Result, after Snapshot) error {
		o := oracle(before, after)
		for _, d := range r.Decisions {
			if d.Op != Place {
				continue
			}
			if why := o.broken(d.Entry); why != "" {
				return fmt.Errorf("%s is placed on %s, %s", d.Entry.Unit, d.Entry.Machine, why)
			}
		}
		return nil
	})
}

// judge is what the rules are judged by: what there is, and the schedule that is to
// be.
type judge struct {
	machines map[string]model.Machine
	units    map[string]model.Unit
	entries  map[string][]model.Placement // by machine
}

func oracle(before, after Snapshot) judge {
	o := judge{map[string]model.Machine{}, map[string]model.Unit{}, map[string][]model.Placement{}}
	for _, m := range before.Machines {
		o.machines[m.ID] = m
	}
	for _, u := range before.Units {
		o.units[u.Name] = u
	}
	for _, p := range after.Placements {
		o.entries[p.Machine] = append(o.entries[p.Machine], p)
	}
	return o
}

// broken is the hard rule that a new entry breaks; "" if it breaks none.
func (o judge) broken(p model.Placement) string {
	m, present := o.machines[p.Machine]
	u := o.units[p.Unit]
	switch {
	case !present:
		return "which is away"
	case u.Bad != "" || u.Desired == model.Inactive:
		return "and should be nowhere"
	case m.Cordon != nil:
		return "which is cordoned"
	case u.Req.MachineID != "" && u.Req.MachineID != m.ID:
		return "and not on that of MachineID"
	}
	for key, values := range u.Req.Metadata {
		if !slices.Contains(values, m.Metadata[key]) {
			return "which lacks " + key
		}
	}
	var used amount
	here := map[string]bool{}
	for _, q := range o.entries[m.ID] {
		v := o.units[q.Unit]
		used = used.plus(amount{v.Req.Cores, v.Req.Memory})
		here[q.Unit] = !q.Leaving
		if q.Unit != p.Unit && (matchAny(u.Req.Conflicts, q.Unit) || matchAny(v.Req.Conflicts, p.Unit)) {
			return "and conflicts with " + q.Unit
		}
	}
	for _, peer := range u.Req.MachineOf {
		if !here[peer] {
			return "without " + peer
		}
	}
	if t, ok := o.units[u.Req.Triggers]; ok && !t.Req.Global && len(t.Req.MachineOf) == 0 && t.Req.Triggers == "" && !here[t.Name] {
		return "without " + t.Name + ", which it triggers"
	}
	if u.Req.Cores > 0 && m.Cores > 0 && used.cores > m.Cores || u.Req.Memory > 0 && m.Memory > 0 && used.memory > m.Memory {
		return fmt.Sprintf("which has no room: %v", used)
	}
	return ""
}

// A unit that is alone in its place, on a machine that is present and fits, is not
// taken from there.
func TestNothingMovesWithoutReason(t *testing.T) {
	stories(t, func(before Snapshot, r Result, _ Snapshot) error {
		if len(before.Asks) > 0 {
			return nil
		}
		o := oracle(before, before)
		for _, d := range r.Decisions {
			if d.Op != Leave && d.Op != Release || d.Entry.Leaving && d.Op == Release {
				continue
			}
			if !o.mayGo(d.Entry, before.Placements) {
				return fmt.Errorf("%s has to %s %s", d.Entry.Unit, d.Op, d.Entry.Machine)
			}
		}
		return nil
	})
}

// mayGo reports whether there can be a reason for a unit to leave its place.
func (o judge) mayGo(p model.Placement, all []model.Placement) bool {
	m, present := o.machines[p.Machine]
	u, known := o.units[p.Unit]
	if !present || !known || u.Desired == model.Inactive || m.Cordon != nil && m.Cordon.Drain || len(u.Req.MachineOf) > 0 || u.Req.Triggers != "" {
		return true
	}
	m.Cordon, u.Req.Cores, u.Req.Memory = nil, 0, 0 // these keep nobody from staying
	o.machines[p.Machine], o.units[p.Unit] = m, u
	if o.broken(p) != "" {
		return true
	}
	for _, q := range all {
		if q.Unit == p.Unit && q.Machine != p.Machine {
			return true // it may be up elsewhere
		}
	}
	for _, v := range o.units {
		if matchAny(v.Req.Replaces, p.Unit) {
			return true
		}
	}
	return false
}

// Every unit that should be somewhere is somewhere or explained, machine by machine.
func TestNowhereIsExplained(t *testing.T) {
	stories(t, func(_ Snapshot, r Result, after Snapshot) error {
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
	stories(t, func(before Snapshot, r Result, after Snapshot) error {
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
