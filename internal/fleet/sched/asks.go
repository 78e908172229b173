package sched

import (
	"cmp"
	"fmt"
	"slices"

	"flotilla/internal/fleet/model"
)

// answer carries out what is asked once, of one kind: there is a time in a pass for
// each. What is carried out, and what cannot be, is done with.
func (p *pass) answer(kind model.AskKind, do func(model.Ask) string) {
	for _, a := range p.Asks {
		if a.Kind == kind {
			p.done(a, do(a))
		}
	}
}

func (p *pass) done(a model.Ask, came string) {
	p.doneAsks = append(p.doneAsks, a.ID)
	put(&p.answers, a.ID, came)
}

// refuseUnknown is done with what nobody knows how to do, and with what is no matter of
// placing.
func (p *pass) refuseUnknown() {
	for _, a := range p.Asks {
		switch {
		case a.Kind == model.Forget:
			p.done(a, "it counts no more among the machines") // its entries are gone already
		case !a.Kind.Known():
			p.done(a, fmt.Sprintf("unknown request %q", a.Kind))
		}
	}
	slices.Sort(p.doneAsks)
}

// adopt places a unit on the machine that runs it already, if it is on none and
// fits, and says what came of it.
func (p *pass) adopt(a model.Ask) string {
	j, m := p.jobs[a.Unit], p.machines[a.Machine]
	switch {
	case j == nil || !j.wanted():
		return "nobody wants " + a.Unit + " to run"
	case j.Bad != "":
		return j.Bad
	case m == nil || !m.present:
		return "machine " + a.Machine + " is not present"
	case j.Req.Global:
		return "a global unit is on every machine that fits"
	case len(j.entries) > 0:
		return "it is placed on " + model.ShortID(j.entries[0].on.ID) + " already"
	}
	if other := p.mustWait(j); other != nil && other != m {
		return model.ShortID(other.ID) + " runs it, and it is a singleton"
	}
	if r := p.worded(m, j, true); r.kind != fits {
		return model.ShortID(m.ID) + " " + r.String()
	}
	p.seat(j, choice{m: m, why: "it runs there already, and was adopted"}, "")
	j.on(m).found = true
	return "placed on " + model.ShortID(m.ID)
}

// minGain is by how many units a move must even out two machines.
const minGain = 2

// rebalance moves units from full machines to emptier ones, and says how many.
func (p *pass) rebalance(a model.Ask) string {
	if p.holding() {
		return "moves are held"
	}
	var n int
	for n < max(1, a.Max) && p.balanceOnce() {
		n++
	}
	p.placeEvicted()
	if n == 0 {
		return fmt.Sprintf("no move would even out two machines by %d units", minGain)
	}
	return fmt.Sprintf("moves: %d", n)
}

// balanceOnce makes the first move that evens out two machines, from the fullest one
// that has a unit to give; false if there is none.
func (p *pass) balanceOnce() bool {
	full := slices.Clone(p.present)
	slices.SortStableFunc(full, func(a, b *machine) int { return cmp.Compare(len(b.here), len(a.here)) })
	for _, m := range full {
		if len(m.here)-len(full[len(full)-1].here) < minGain {
			return false
		}
		for _, e := range slices.Backward(slices.Clone(m.here)) {
			if p.lighten(e) {
				return true
			}
		}
	}
	return false
}

// lighten moves e, and what is bound to it, to a machine such that both are more even
// then and the unit is nowhere worse off.
func (p *pass) lighten(e *entry) bool {
	group := p.bound(e)
	if !p.mayBalance(group) {
		return false
	}
	e.exit()
	taste := tasteOf(e.job)
	here := taste.rate(e.on)
	e.enter(&e.on.here)
	to := p.elsewhere(e, group, func(m *machine) bool {
		if len(e.on.here)-len(m.here) < minGain*len(group) {
			return false
		}
		there := taste.rate(m)
		return there.compareSoft(here) <= 0 && (e.job.asks() == amount{} || there.load[0] <= here.load[0])
	})
	if to.m == nil {
		return false
	}
	why := fmt.Sprintf("rebalanced: %s has %d units, %s has %d",
		model.ShortID(e.on.ID), len(e.on.here), model.ShortID(to.m.ID), len(to.m.here))
	for _, g := range group {
		p.moves = append(p.moves, Move{Unit: g.job.Name, From: e.on.ID, To: to.m.ID, Why: why})
	}
	p.move(group, to, why)
	return true
}

// mayBalance reports whether all of a group may be moved for nothing but balance:
// what is up and wants to be spread.
func (p *pass) mayBalance(group []*entry) bool {
	for _, g := range group {
		j := g.job
		if !g.stored || g.old.Leaving || len(j.entries) != 1 || j.Req.Pack || j.Req.Singleton || len(j.Req.Replaces) > 0 {
			return false
		}
	}
	return true
}
