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
func (c *cluster) placeAll() {
	for _, j := range c.order {
		c.placeJob(j)
	}
	c.placeEvicted()
	c.last = true
	stuck := c.stuck
	for _, j := range stuck {
		j.placed = false
	}
	for _, j := range stuck {
		c.placeJob(j)
	}
	c.placeEvicted()
}

func (c *cluster) placeEvicted() {
	for len(c.evicted) > 0 {
		j := c.evicted[0]
		c.evicted = c.evicted[1:]
		c.placeJob(j)
	}
}

// placeJob places j after the jobs it follows.
func (c *cluster) placeJob(j *job) {
	if j.placed || !j.wanted() {
		return
	}
	j.placed = true
	for _, peer := range j.Req.MachineOf {
		if t := c.jobs[peer]; t != nil {
			c.placeJob(t)
		}
	}
	switch {
	case j.Bad != "":
		c.explainBad(j)
	case j.Req.Global:
		c.placeGlobal(j)
	default:
		c.placeOrdinary(j)
	}
}

// placeGlobal puts j on every present machine that fits, and takes it off the
// others: there is nowhere else for it to go.
func (c *cluster) placeGlobal(j *job) {
	for _, m := range c.present {
		e := j.on(m)
		if e != nil && e.fate == stays {
			continue
		}
		r := c.refuses(m, j, true)
		switch {
		case r.kind == fits && e == nil:
			c.put(j, m, "a global unit, and the machine fits")
		case r.kind == fits:
			e.why = "a global unit, and the machine fits"
			e.stay()
		case e != nil:
			e.release(c.worded(m, j, true).String())
		}
	}
	if j.home() == nil {
		c.explain(j, "")
	}
}

// placeOrdinary gives j a place if it has none or if its machine has been away for
// too long.
func (c *cluster) placeOrdinary(j *job) {
	home := j.home()
	if home != nil && !c.due(home.on) {
		return
	}
	if home != nil && c.holding() {
		if m, _ := c.choose(j); m != nil {
			c.heldMoves++
		}
		return
	}
	m, blocked := c.choose(j)
	switch {
	case m == nil && !c.last:
		c.stuck = append(c.stuck, j)
		return
	case m == nil:
		c.nowhere(j, home, blocked)
		return
	}
	cause := j.cause
	if home != nil {
		cause = fmt.Sprintf("%s has been away for %s", model.ShortID(home.on.ID), c.Now.Sub(home.on.since).Truncate(time.Second))
		home.leave("moved to " + model.ShortID(m.ID) + ": away for " + c.Now.Sub(home.on.since).Truncate(time.Second).String())
	}
	c.seat(j, m, cause)
}

// seat makes m the machine of j, which leaves what other machines it is on.
func (c *cluster) seat(j *job, m *machine, cause string) {
	for _, e := range j.entries {
		if e.fate == leaves && e.on != m && !e.old.Leaving && e.on.present {
			e.why += "; moved to " + model.ShortID(m.ID)
		}
	}
	why := fmt.Sprintf("fewest units (%d) of the machines that fit", m.load())
	if m == c.runsAlready(j) {
		why = "it runs there already"
	}
	if cause != "" {
		why = cause + "; " + why
	}
	if e := j.on(m); e != nil {
		e.why = "it still runs here"
		if cause != "" {
			e.why += ", and " + cause
		}
		e.stay()
	} else {
		c.put(j, m, why)
	}
	c.evict(m, j)
}

func (c *cluster) put(j *job, m *machine, why string) {
	e := &entry{job: j, on: m, why: why}
	e.stay()
	j.entries = append(j.entries, e)
}

// choose returns the machine that j goes to: one that it is leaving if it fits
// again, else one that runs it already, else the one with the fewest units that
// fits; nil if there is none.
// blocked then reports whether there will be one when another unit has left.
func (c *cluster) choose(j *job) (best *machine, blocked bool) {
	for _, e := range j.entries {
		if e.fate == leaves && e.on.present && c.refuses(e.on, j, true).kind == fits {
			return e.on, false
		}
	}
	if m := c.runsAlready(j); m != nil {
		return m, false
	}
	for _, m := range c.present {
		if best != nil && m.load() >= best.load() {
			continue
		}
		r := c.refuses(m, j, true)
		switch r.kind {
		case fits:
			best = m
		case conflictsLeaving:
			blocked = blocked || r.other.home() != nil
		}
	}
	return best, blocked
}

// runsAlready returns the machine, the first by id, that runs j with this very text
// though no schedule says so, and fits it; nil if there is none. A store that was
// lost and filled again finds the units where they are.
func (c *cluster) runsAlready(j *job) *machine {
	for _, m := range c.running[j.Name] {
		st := c.states[place{j.Name, m.ID}]
		if st.Hash == j.Hash && j.on(m) == nil && c.refuses(m, j, true).kind == fits {
			return m
		}
	}
	return nil
}

// nowhere deals with a job that no present machine fits.
func (c *cluster) nowhere(j *job, home *entry, blocked bool) {
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
					e.why = c.worded(e.on, j, true).String()
				}
				e.release(e.why + ", and no other machine can run it")
			}
		}
	}
	c.explain(j, note)
}

// evict moves away what by replaces from m, where by is now.
func (c *cluster) evict(m *machine, by *job) {
	if len(by.Req.Replaces) == 0 {
		return
	}
	for _, e := range slices.Clone(m.here) {
		if c.replaces(by, e.job) {
			c.unseat(e, by.Name+" replaces it")
		}
	}
}

// unseat takes e off the entries that stay, and with it those that follow it, and
// has their jobs placed again. Once a pass is enough for an ordinary job: a second time
// would be a circle of followers and replacers, left to the next pass.
func (c *cluster) unseat(e *entry, why string) {
	j := e.job
	if e.fate != stays || j.unseated || j.Bad != "" {
		return
	}
	j.unseated = !j.Req.Global
	j.placed = false
	j.cause = why
	if e.stored {
		e.leave(why)
	} else {
		e.release(why)
		j.entries = without(j.entries, e)
	}
	c.evicted = append(c.evicted, j)
	for _, f := range slices.Clone(e.on.here) {
		if slices.Contains(f.job.Req.MachineOf, j.Name) {
			c.unseat(f, "its peer "+j.Name+" moves")
		}
	}
}
