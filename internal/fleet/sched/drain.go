package sched

import (
	"fmt"
	"slices"

	"flotilla/internal/fleet/model"
)

// drain has what is on the machines that are to be drained leave them, each machine
// one unit at a time, together with those that are bound to it.
func (p *pass) drain() {
	for _, m := range p.draining {
		p.drains = append(p.drains, p.drainMachine(m))
		p.placeEvicted()
	}
}

// drained reports whether m is to be drained.
func (m *machine) drained() bool { return m.Cordon != nil && m.Cordon.Drain }

func (p *pass) drainMachine(m *machine) Drain {
	d := Drain{Machine: m.ID}
	for _, e := range m.leaving {
		if e.job.wanted() {
			d.Moving = append(d.Moving, e.job.Name)
		}
	}
	d.Left = len(d.Moving)
	for _, e := range drainOrder(m) {
		if pin := e.job.pinned(); pin != "" {
			d.Stays = append(d.Stays, Note{e.job.Name, pin})
			continue
		}
		d.Left++
		switch {
		case slices.Contains(d.Moving, e.job.Name): // with another
		case p.holding():
			d.Stuck = append(d.Stuck, Note{e.job.Name, "moves are held"})
		default:
			p.drainEntry(e, &d)
		}
	}
	slices.Sort(d.Moving)
	return d
}

// drainEntry has e leave if it is its turn and it can.
func (p *pass) drainEntry(e *entry, d *Drain) {
	group := p.bound(e)
	to := p.elsewhere(e, group, func(*machine) bool { return true })
	switch {
	case to.m == nil:
		d.Stuck = append(d.Stuck, Note{e.job.Name, p.whyStuck(e, group)})
	case len(d.Moving) == 0:
		why := model.ShortID(e.on.ID) + " is drained"
		if e.on.Cordon.Why != "" {
			why += " " + cordonText(e.on.Cordon)
		}
		p.move(group, to, why)
		for _, g := range group {
			d.Moving = append(d.Moving, g.job.Name)
		}
	}
}

// drainOrder is who leaves m first: what has been told to stop already, then in
// order.
func drainOrder(m *machine) []*entry {
	list := slices.Clone(m.here)
	rank := func(e *entry) int {
		if e.stopping() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b *entry) int { return rank(a) - rank(b) })
	return list
}

// pinned is why the unit is not one that can leave its machine; "" if it can.
func (j *job) pinned() string {
	switch {
	case j.Bad != "":
		return "it cannot be understood: " + j.Bad
	case j.Req.Global:
		return "a global unit"
	case j.Req.MachineID != "":
		return "bound to this machine by MachineID"
	}
	return ""
}

// move moves a group to a machine that has a place for all of them. Singletons are
// stopped first, while the others run on.
func (p *pass) move(group []*entry, to choice, why string) {
	ready := true
	for _, g := range group {
		p.enlistLate(g.job)
		if p.single(g) && !p.stopped(g) {
			p.leave(g, why+": to be stopped first")
			ready = false
		}
	}
	if !ready {
		return
	}
	for _, g := range group {
		p.leave(g, why)
	}
	for i, g := range group {
		if i > 0 {
			to.why = "with " + group[0].job.Name
		}
		p.seat(g.job, to, why)
	}
}

// bound is the entries that can leave their machine only together with e, e among
// them: those its unit follows, and those that follow it.
func (p *pass) bound(e *entry) []*entry {
	group := []*entry{e}
	for i := 0; i < len(group); i++ {
		g := group[i].job
		for _, other := range e.on.here {
			q := other.job
			if !q.Req.Global && !slices.Contains(group, other) &&
				(slices.Contains(p.peers(q), g.Name) || slices.Contains(p.peers(g), q.Name)) {
				group = append(group, other)
			}
		}
	}
	return group
}

// elsewhere returns the machine, one that will do, for a group that leaves the
// machine of e together.
func (p *pass) elsewhere(e *entry, group []*entry, willDo func(*machine) bool) choice {
	var total amount
	for _, g := range group {
		if g.job.pinned() != "" {
			return choice{}
		}
		total = total.plus(g.job.asks())
	}
	p.take(group)
	defer p.take(nil)
	return p.best(e.job, func(m *machine, _ *job) refusal {
		if m == e.on || !willDo(m) {
			return refusal{kind: cordoned}
		}
		for _, g := range group {
			if r := p.refuses(m, g.job, true); r.kind != fits {
				return r
			}
		}
		if !m.hasRoom(m.used, total) {
			return refusal{kind: lacksRoom}
		}
		return refusal{}
	})
}

// take has the units of a group be taken to be wherever one of them would go.
func (p *pass) take(group []*entry) {
	p.together = nil
	for _, g := range group {
		put(&p.together, g.job.Name, true)
	}
}

// whyStuck says why elsewhere has found no machine.
func (p *pass) whyStuck(e *entry, group []*entry) string {
	for _, g := range group {
		if pin := g.job.pinned(); pin != "" {
			return "its peer " + g.job.Name + " stays: " + pin
		}
	}
	p.take(group)
	defer p.take(nil)
	var all []refusal
	for _, m := range p.present {
		if m != e.on {
			all = append(all, p.refusesAny(m, group))
		}
	}
	if len(all) == 0 {
		return "there is no other machine"
	}
	return count(all)
}

// refusesAny is why m cannot take all of a group.
func (p *pass) refusesAny(m *machine, group []*entry) refusal {
	for _, g := range group {
		if r := p.worded(m, g.job, true); r.kind != fits {
			return r
		}
	}
	return refusal{kind: lacksRoom, what: fmt.Sprintf("needs room for %d units that are bound to each other", len(group))}
}
