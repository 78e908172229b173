package sched

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"flotilla/internal/fleet/model"
)

// told is a cluster that is told what has changed since it was last told.
type told struct {
	Cluster
	machines   map[string]model.Machine
	units      map[string]model.Unit
	placements map[place]model.Placement
	states     map[place]model.UnitState
}

func newTold() *told {
	return &told{
		machines: map[string]model.Machine{}, units: map[string]model.Unit{},
		placements: map[place]model.Placement{}, states: map[place]model.UnitState{},
	}
}

// tell brings the cluster to what w is.
func (c *told) tell(w *world) {
	differ(c.machines, w.machines, c.SetMachine, c.RemoveMachine)
	differ(c.placements, w.placements, c.SetPlacement, func(p place) { c.RemovePlacement(p.unit, p.machine) })
	differ(c.units, w.units, c.SetUnit, c.RemoveUnit)
	differ(c.states, w.states, c.SetState, func(p place) { c.RemoveState(p.unit, p.machine) })
}

// differ makes had what have is, and tells of each difference.
func differ[K comparable, V any](had, have map[K]V, set func(V), remove func(K)) {
	for k := range had {
		if _, ok := have[k]; !ok {
			delete(had, k)
			remove(k)
		}
	}
	for k, v := range have {
		if was, ok := had[k]; !ok || !reflect.DeepEqual(was, v) {
			had[k] = v
			set(v)
		}
	}
}

// A cluster that is told of changes decides what one decides that is told of all at
// once, also when what it decided was not written.
func TestTellingChangesIsTellingAll(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		w, c := newWorld(), newTold()
		w.rolls = true
		now := 0
		var lines []string
		for range 60 {
			for range 1 + r.IntN(3) {
				line := randomCommand(r, w, &now)
				lines = append(lines, line)
				if err := w.command(line); err != nil {
					t.Fatal(err)
				}
			}
			c.tell(w)
			s := w.snapshot()
			want, got := Decide(s), c.Decide(s.Moment())
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: told of changes:\n%stold of all:\n%safter %q", seed, tell(got), tell(want), lines)
			}
			if r.IntN(8) > 0 {
				w.did(want)
			} else {
				lines = append(lines, fmt.Sprint("not written: ", tell(want)))
			}
		}
	}
}
