package sched

import (
	"fmt"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
)

// placeAll finds a place for every job that needs one, then for those that the
// newly placed have evicted. Those that nothing fits are tried once more, when all
// others have made room, before they are given up.
func (p *pass) placeAll() {
	for i := 0; i < len(p.order); i++ {
		p.at = p.order[i]
		p.placeJob(p.at)
		i, _ = slices.BinarySearchFunc(p.order, p.at, older) // others may have been enlisted
	}
	p.at = nil
	p.placeEvicted()
	p.last = true
	stuck := p.stuck
	for _, j := range stuck {
		j.placed = false
	}
	for _, j := range stuck {
		p.placeJob(j)
	}
	p.placeEvicted()
}

func (p *pass) placeEvicted() {
	for len(p.evicted) > 0 {
		j := p.evicted[0]
		p.evicted = p.evicted[1:]
		p.placeJob(j)
	}
}

// placeJob places j after the jobs it follows.
func (p *pass) placeJob(j *job) {
	if !j.enlisted || j.placed || !j.wanted() {
		return
	}
	j.placed = true
	for _, peer := range p.peers(j) {
		if t := p.jobs[peer]; t != nil {
			p.placeJob(t)
		}
	}
	switch {
	case j.Bad != "":
		p.explainBad(j)
	case j.Req.Global:
		p.placeGlobal(j)
	default:
		p.placeOrdinary(j)
	}
}

// placeGlobal puts j on every present machine that fits, and takes it off the
// others: there is nowhere else for it to go.
func (p *pass) placeGlobal(j *job) {
	for _, m := range p.present {
		e := j.on(m)
		if e != nil && e.fate == stays {
			continue
		}
		r := p.refuses(m, j, true)
		switch {
		case r.kind == fits && e == nil:
			p.put(j, m, "a global unit, and the machine fits")
		case r.kind == fits:
			e.why = "a global unit, and the machine fits"
			e.stay()
		case e != nil:
			e.release(p.worded(m, j, true).String())
		}
		j.pending = j.pending || !r.kind.lasting()
	}
	if j.home() == nil {
		p.explain(j, "")
	}
}

// placeOrdinary gives j a place if it has none or if its machine has been away for
// too long.
func (p *pass) placeOrdinary(j *job) {
	if p.explainBarred(j) {
		return
	}
	home := j.home()
	if home != nil && !p.overdue(home) {
		return
	}
	if m := p.mustWait(j); m != nil {
		p.explainWait(j, m)
		return
	}
	to := p.choose(j)
	switch {
	case home != nil && p.holding():
		if to.m != nil {
			p.heldMoves++
		}
		j.told = true
		return
	case to.m == nil && !p.last:
		p.stuck = append(p.stuck, j)
		return
	case to.m == nil:
		p.nowhere(j, home, to.blocked)
		return
	}
	cause := j.cause
	if home != nil {
		away := p.Now.Sub(p.since(home.on)).Truncate(time.Second).String()
		cause = model.ShortID(home.on.ID) + " has been away for " + away
		p.leave(home, "moved to "+model.ShortID(to.m.ID)+": away for "+away)
	}
	p.seat(j, to, cause)
}

// seat gives j its chosen machine; it leaves what other machines it is on.
func (p *pass) seat(j *job, to choice, cause string) {
	for _, e := range j.entries {
		if e.fate == leaves && e.on != to.m && !e.old.Leaving && e.on.present {
			e.why += "; moved to " + model.ShortID(to.m.ID)
		}
	}
	if e := j.on(to.m); e != nil {
		e.why = "it still runs here"
		if cause != "" {
			e.why += ", and " + cause
		}
		e.stay()
	} else {
		p.put(j, to.m, because(cause, to.why))
	}
	p.evict(to.m, j)
}

func because(cause, why string) string {
	if cause == "" {
		return why
	}
	return cause + "; " + why
}

func (p *pass) put(j *job, m *machine, why string) {
	e := &entry{job: j, on: m, why: why}
	e.stay()
	j.insert(e)
}

// runsAlready returns the machine, the first by id, that runs j with this very text
// though no schedule says so, and fits it; nil if there is none. A store that was
// lost and filled again finds the units where they are.
func (p *pass) runsAlready(j *job) *machine {
	for _, r := range j.reports {
		m := p.machines[r.machine]
		if m != nil && m.present && r.running() && r.hash == j.Hash && j.on(m) == nil && p.refuses(m, j, true).kind == fits {
			return m
		}
	}
	return nil
}

// nowhere deals with a job that no present machine fits.
func (p *pass) nowhere(j *job, home *entry, blocked bool) {
	note := ""
	switch {
	case home != nil:
		note = fmt.Sprintf("its machine %s is away", model.ShortID(home.on.ID))
	case blocked:
		// A place is about to become free: what runs, runs on till then.
	default:
		for _, e := range j.entries {
			if e.fate == leaves && e.on.present {
				if e.why == "" {
					e.why = p.worded(e.on, j, true).String()
				}
				e.release(e.why + ", and no other machine can run it")
			}
		}
	}
	p.explain(j, note)
}

// evict moves away what by replaces from m, where by is now.
func (p *pass) evict(m *machine, by *job) {
	if len(by.Req.Replaces) == 0 {
		return
	}
	for _, e := range slices.Clone(m.here) {
		if p.replaces(by, e.job) {
			p.unseat(e, by.Name+" replaces it")
		}
	}
}

// unseat takes e off the entries that stay, and with it those that follow it, and
// has their jobs placed again. Once a pass is enough for an ordinary job: a second time
// would be a circle of followers and replacers, left to the next pass.
func (p *pass) unseat(e *entry, why string) {
	j := e.job
	if e.fate != stays || j.unseated || j.Bad != "" {
		return
	}
	p.enlistLate(j)
	j.unseated = !j.Req.Global
	j.placed = false
	j.cause = why
	if e.stored {
		p.leave(e, why)
	} else {
		e.release(why)
		j.entries = without(j.entries, e)
	}
	p.evicted = append(p.evicted, j)
	if e.fate == halts {
		return // those that follow it run on until it has stopped
	}
	for _, f := range slices.Clone(e.on.here) {
		if slices.Contains(p.peers(f.job), j.Name) {
			p.unseat(f, "its peer "+j.Name+" moves")
		}
	}
}
