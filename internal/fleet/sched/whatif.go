package sched

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
)

// Move is a unit that changes machines, or cannot.
type Move struct {
	Unit string
	From string
	To   string // "" if it can go nowhere
	Why  string
}

// Forecast is what would come of something that has not happened.
type Forecast struct {
	Moves []Move // in order of unit
	Stuck []Move // what would stay where it is, or run nowhere, in order of unit
	Held  string // why nothing would move; "" if moves would not be held
}

// Rebalance says which moves would even out the machines, at most max of them; 0 is
// one. What is amiss otherwise is taken to be put right first.
func Rebalance(s Snapshot, max int) []Move {
	f := newForecast(s)
	f.comeToRest()
	f.moment.Asks = []model.Ask{{Kind: model.Rebalance, Max: max}}
	p := f.run(f.moment)
	defer p.restore()
	return p.moves
}

// WhatIf says what would move, and what could not, if some machines were drained and
// others lost for good, once everything that has to be done already is done. Every
// unit is taken to come up where it is placed.
func WhatIf(s Snapshot, drain, lose []string) Forecast {
	f := newForecast(s)
	f.comeToRest()
	before := f.homes()
	for _, id := range drain {
		if m := f.machines[id]; m != nil && m.present {
			m := m.Machine
			m.Cordon = &model.Cordon{Drain: true}
			f.SetMachine(m)
		}
	}
	f.moment.Seen = max(f.moment.Seen, len(f.present))
	for _, id := range lose {
		f.lose(id)
	}
	last := f.comeToRest()
	out := Forecast{Held: last.Held}
	after := f.homes()
	why := stuckWhy(last)
	for _, unit := range slices.Sorted(maps.Keys(before)) {
		from, to := before[unit], after[unit]
		switch {
		case to != "" && from != to:
			out.Moves = append(out.Moves, Move{Unit: unit, From: from, To: to, Why: f.why[unit]})
		case to == "" || slices.Contains(drain, from) || slices.Contains(lose, from):
			out.Stuck = append(out.Stuck, Move{Unit: unit, From: from, Why: cmp.Or(why[unit], last.Held, "it never moves from a machine that is away")})
		}
	}
	return out
}

// stuckWhy is why units are stuck, by unit.
func stuckWhy(r Result) map[string]string {
	why := map[string]string{}
	for _, u := range r.Unplaced {
		why[u.Unit] = u.Why
	}
	for _, d := range r.Drains {
		for _, n := range append(slices.Clone(d.Stuck), d.Stays...) {
			why[n.Unit] = n.Why
		}
	}
	return why
}

// forecast is a cluster whose decisions are carried out at once.
type forecast struct {
	*Cluster
	moment Moment
	rev    int64
	why    map[string]string // why a unit was placed, by unit
}

func newForecast(s Snapshot) *forecast {
	f := &forecast{Cluster: s.cluster(), moment: s.Moment(), why: map[string]string{}}
	f.moment.Asks = nil
	f.moment.Lost = maps.Clone(s.Lost)
	for _, p := range s.Placements {
		f.rev = max(f.rev, p.Rev)
	}
	return f
}

// lose has a machine be away for so long that all that will ever leave it does.
func (f *forecast) lose(id string) {
	m := f.machines[id]
	if m == nil {
		return
	}
	var longest time.Duration
	m.each(func(e *entry) {
		after, _ := e.job.Req.MovesAfter(f.moment.Policy.MoveAfter)
		longest = max(longest, after, e.old.MoveAfter, e.old.WaitFor)
	})
	f.RemoveMachine(id)
	put(&f.moment.Lost, id, f.moment.Now.Add(-longest))
}

// comeToRest decides until there is nothing left to decide, and returns the last
// result. Each decision brings one entry further, and no entry goes in circles for
// long: the bound is for circles of followers and replacers.
func (f *forecast) comeToRest() (last Result) {
	const perJob = 4
	for range perJob*len(f.jobs) + perJob {
		last = f.Decide(f.moment)
		if len(last.Decisions) == 0 {
			break
		}
		for _, d := range last.Decisions {
			f.carryOut(d)
		}
	}
	return last
}

func (f *forecast) carryOut(d Decision) {
	e := d.Entry
	switch d.Op {
	case Release:
		f.RemovePlacement(e.Unit, e.Machine)
		f.RemoveState(e.Unit, e.Machine)
		return
	case Place:
		f.why[e.Unit] = d.Why
	}
	f.rev++
	e.Rev = f.rev
	f.SetPlacement(e)
	if d.Op == Leave || !f.machines[e.Machine].present {
		return
	}
	st := model.UnitState{Unit: e.Unit, Machine: e.Machine, Hash: e.Hash, Gen: e.Gen, Load: "loaded", Active: "inactive"}
	if e.Desired == model.Launched {
		st.Active = "active"
	}
	f.SetState(st)
}

// homes is where the units that can move are, by unit; those of global units, which
// are everywhere, are left out.
func (f *forecast) homes() map[string]string {
	homes := map[string]string{}
	for name, j := range f.jobs {
		if h := j.home(); h != nil && j.wanted() && !j.Req.Global {
			homes[name] = h.on.ID
		}
	}
	return homes
}
