package sched

import (
	"cmp"
	"maps"
	"slices"

	"flotilla/internal/fleet/model"
)

// Decide says how the schedule must change. It is what Cluster.Decide says to one
// who has been told all of s.
func Decide(s Snapshot) Result { return s.cluster().Decide(s.Moment()) }

// cluster is the snapshot in the form that decisions are made on.
func (s Snapshot) cluster() *Cluster {
	c := &Cluster{
		machines: make(map[string]*machine, len(s.Machines)),
		jobs:     make(map[string]*job, len(s.Units)),
		dirty:    make(map[*job]bool, len(s.Units)),
	}
	for _, m := range s.Machines {
		c.SetMachine(m)
	}
	for _, u := range s.Units {
		c.SetUnit(u)
	}
	for _, p := range s.Placements {
		c.SetPlacement(p)
	}
	for _, st := range s.States {
		c.SetState(st)
	}
	return c
}

// pass is one decision.
type pass struct {
	*Cluster
	Moment
	order     []*job // what the pass looks at, in order
	at        *job   // the one that is being placed, while placing goes in order
	unplaced  []Unplaced
	evicted   []*job          // to be placed again
	stuck     []*job          // no machine fits, so far
	last      bool            // this is the last try
	together  map[string]bool // units that are taken to go where one of them goes
	drains    []Drain
	moves     []Move // of rebalancing
	doneAsks  []string
	answers   map[string]string
	heldMoves int
}

// Decide says how the schedule must change, of all that the cluster has been told.
// It changes nothing: what was decided has to be told like any other change, and is
// decided again as long as it is not. What it returns must not be changed.
//
// It takes time for what is not at rest: units that have changed since the last
// call or whose machine has, and those they are bound to; units that are on no
// machine, or leaving one, or on one that is away.
func (c *Cluster) Decide(m Moment) Result {
	p := c.run(m)
	r := Result{
		Decisions: p.decisions(),
		Unplaced:  p.unplacedByName(),
		Held:      p.held(),
		Drains:    p.drains,
		DoneAsks:  p.doneAsks,
		Answers:   p.answers,
		Wake:      p.wake(),
	}
	p.restore()
	return r
}

// run makes a pass, which has to be restored.
func (c *Cluster) run(m Moment) *pass {
	p := &pass{Cluster: c, Moment: m}
	p.enlist()
	p.retire()
	p.settle()
	p.handOver() // makes room
	p.answer(model.Adopt, p.adopt)
	p.placeAll()
	p.drain()
	p.answer(model.Rebalance, p.rebalance)
	p.handOver() // to what has turned out to be the right place all along
	p.refuseUnknown()
	return p
}

// enlist collects what the pass has to look at and takes its entries off their
// machines. What is left is at rest: judged anew it would stay where it is.
func (p *pass) enlist() {
	if p.replacers == nil {
		p.replacers = slices.SortedFunc(maps.Keys(p.replacing), older)
	}
	var todo []*job
	add := func(j *job) {
		if !j.enlisted {
			j.enlisted = true
			todo = append(todo, j)
		}
	}
	if p.all {
		for _, j := range p.jobs {
			add(j)
		}
	}
	for j := range p.dirty {
		add(j)
	}
	for j := range p.active {
		add(j)
	}
	for _, a := range p.Asks {
		if j := p.jobs[a.Unit]; j != nil {
			add(j)
		}
	}
	for _, m := range p.draining {
		m.each(func(e *entry) { add(e.job) })
	}
	for i := 0; i < len(todo); i++ {
		j := todo[i]
		for _, e := range j.entries {
			e.lift()
		}
		p.wear(j)
		p.related(j, add)
	}
	p.order = todo
	slices.SortFunc(p.order, older)
}

// related adds the jobs that may have to go when j is judged: those that follow it,
// and those on its machines that it cannot be with.
func (p *pass) related(j *job, add func(*job)) {
	for f := range p.followers[j.Name] {
		add(f)
	}
	for _, e := range j.entries {
		if !e.on.present || e.on.prickly == 0 && !j.prickly() {
			continue
		}
		for _, other := range e.on.here {
			if q := other.job; inConflict(j, q) || matchAny(j.Req.Replaces, q.Name) || matchAny(q.Req.Replaces, j.Name) {
				add(q)
			}
		}
	}
}

// enlistLate adds a job that was at rest until something came in its way, and those
// that follow it. If it is yet to come in order, its turn comes.
func (p *pass) enlistLate(j *job) {
	if j.enlisted {
		return
	}
	j.enlisted, j.settled = true, true
	j.placed = p.at == nil || older(j, p.at) < 0
	i, _ := slices.BinarySearchFunc(p.order, j, older)
	p.order = slices.Insert(p.order, i, j)
	for f := range p.followers[j.Name] {
		p.enlistLate(f)
	}
}

// restore puts everything back to what is stored, and notes what is not at rest.
func (p *pass) restore() {
	active := map[*job]bool{}
	for _, j := range p.order {
		if !p.resting(j) {
			active[j] = true
		}
		for _, e := range j.entries {
			e.exit()
		}
		if j.own != nil {
			j.Req, j.own = *j.own, nil
		}
		j.entries = slices.DeleteFunc(j.entries, func(e *entry) bool { return !e.stored })
		for _, e := range j.entries {
			e.rest()
		}
		j.enlisted, j.settled, j.placed, j.unseated = false, false, false, false
		j.pending, j.told, j.cause = false, false, ""
	}
	p.active, p.all = active, false
	clear(p.dirty)
}

// resting reports whether j, after a pass, needs no second look until it, its
// machine, or something that it is bound to has changed.
func (p *pass) resting(j *job) bool {
	switch {
	case j.told || j.pending:
		return false
	case !j.wanted():
		return len(j.entries) == 0
	}
	for _, e := range j.entries {
		same := e.stored && e.fate == stays && !e.old.Leaving && e.old.WaitFor == 0 && (e.old.Hash == j.Hash || j.Bad != "")
		if !same || !e.on.present && !j.Req.Global {
			return false
		}
	}
	return j.Req.Global || len(j.entries) == 1
}

func (p *pass) unplacedByName() []Unplaced {
	slices.SortFunc(p.unplaced, func(a, b Unplaced) int { return cmp.Compare(a.Unit, b.Unit) })
	return p.unplaced
}
