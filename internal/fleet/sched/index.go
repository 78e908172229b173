package sched

import (
	"cmp"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
)

// fate is what becomes of an entry of the schedule.
type fate int

const (
	stays  fate = iota // the machine runs the unit and goes on
	leaves             // the machine runs the unit until it is up elsewhere
	goes               // the machine stops the unit
)

// entry is a unit on a machine: one of the snapshot, or one to be written.
type entry struct {
	job    *job
	on     *machine
	old    model.Placement // zero if not stored
	stored bool
	fate   fate
	why    string // why fate is not what it was
}

// machine is one that is present, or one that is away and has entries.
type machine struct {
	model.Machine
	present bool
	since   time.Time // if away
	here    []*entry  // settled entries that stay
	leaving []*entry
}

func (m *machine) load() int { return len(m.here) + len(m.leaving) }

// job is a unit with its entries, in order of machine ids.
type job struct {
	model.Unit
	known   bool // the unit exists
	entries []*entry
	settled bool // its stored entries have been judged
	placed  bool // a place has been looked for if it needed one
	// unseated is set when an ordinary job has been evicted in this pass.
	unseated bool
	cause    string // why it needs another place, for Why
}

// wanted reports whether the unit should be on a machine.
func (j *job) wanted() bool { return j.known && j.Desired != model.Inactive }

// home is the entry of an ordinary unit that stays; nil if there is none.
func (j *job) home() *entry {
	for _, e := range j.entries {
		if e.fate == stays {
			return e
		}
	}
	return nil
}

// on is the job's entry on m, whatever its fate; nil if there is none.
func (j *job) on(m *machine) *entry {
	for _, e := range j.entries {
		if e.on == m {
			return e
		}
	}
	return nil
}

// cluster is the snapshot in the form that decisions are made on.
type cluster struct {
	Snapshot
	machines  map[string]*machine
	present   []*machine // by id
	away      []*machine // by id
	jobs      map[string]*job
	order     []*job // older requests first, then by name
	replacers []*job // jobs with Replaces, in order
	states    map[place]model.UnitState
	running   map[string][]*machine // by unit: the present machines that say it is active, by id
	unplaced  []Unplaced
	evicted   []*job // to be placed again
	stuck     []*job // no machine fits, so far
	last      bool   // this is the last try
	heldMoves int
}

// place is a unit on a machine, as a key.
type place struct{ unit, machine string }

func index(s Snapshot) *cluster {
	c := &cluster{
		Snapshot: s,
		machines: make(map[string]*machine, len(s.Machines)),
		jobs:     make(map[string]*job, len(s.Units)),
		states:   make(map[place]model.UnitState, len(s.States)),
	}
	for _, m := range s.Machines {
		c.machines[m.ID] = &machine{Machine: m, present: true}
	}
	for _, u := range s.Units {
		c.jobs[u.Name] = &job{Unit: u, known: true}
	}
	for _, st := range s.States {
		c.states[place{st.Unit, st.Machine}] = st
	}
	for _, p := range s.Placements {
		c.add(p)
	}
	c.sort()
	c.noteRunning()
	return c
}

// noteRunning lists who runs what, by what the machines say.
func (c *cluster) noteRunning() {
	c.running = make(map[string][]*machine)
	for _, st := range c.States {
		if m := c.machines[st.Machine]; m != nil && m.present && (st.Active == "active" || st.Active == "reloading") {
			c.running[st.Unit] = append(c.running[st.Unit], m)
		}
	}
	for _, ms := range c.running {
		slices.SortFunc(ms, func(a, b *machine) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// add enters a stored placement, with the machine and the unit it names if these
// are gone.
func (c *cluster) add(p model.Placement) {
	m := c.machines[p.Machine]
	if m == nil {
		m = &machine{Machine: model.Machine{ID: p.Machine}, since: c.lostAt(p.Machine)}
		c.machines[p.Machine] = m
	}
	j := c.jobs[p.Unit]
	if j == nil {
		j = &job{Unit: model.Unit{Name: p.Unit}}
		c.jobs[p.Unit] = j
	}
	e := &entry{job: j, on: m, old: p, stored: true}
	if p.Leaving {
		e.fate = leaves
	}
	j.entries = append(j.entries, e)
}

func (c *cluster) lostAt(id string) time.Time {
	if at, ok := c.Lost[id]; ok {
		return at
	}
	return c.LeaderSince
}

func (c *cluster) sort() {
	for _, m := range c.machines {
		if m.present {
			c.present = append(c.present, m)
		} else {
			c.away = append(c.away, m)
		}
	}
	byID := func(a, b *machine) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(c.present, byID)
	slices.SortFunc(c.away, byID)
	for _, j := range c.jobs {
		slices.SortFunc(j.entries, func(a, b *entry) int { return byID(a.on, b.on) })
		c.order = append(c.order, j)
	}
	slices.SortFunc(c.order, func(a, b *job) int {
		return cmp.Or(cmp.Compare(a.Gen, b.Gen), cmp.Compare(a.Name, b.Name))
	})
	for _, j := range c.order {
		if j.wanted() && len(j.Req.Replaces) > 0 {
			c.replacers = append(c.replacers, j)
		}
	}
}

// The following keep an entry's fate and its machine's lists in step.

func (e *entry) stay() {
	e.fate = stays
	e.on.leaving = without(e.on.leaving, e)
	e.on.here = append(e.on.here, e)
}

func (e *entry) leave(why string) {
	e.fate, e.why = leaves, why
	e.on.here = without(e.on.here, e)
	e.on.leaving = append(e.on.leaving, e)
}

func (e *entry) release(why string) {
	e.fate, e.why = goes, why
	e.on.here = without(e.on.here, e)
	e.on.leaving = without(e.on.leaving, e)
}

func without(list []*entry, e *entry) []*entry {
	if i := slices.Index(list, e); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
