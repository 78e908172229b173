package sched

import (
	"cmp"
	"maps"
	"slices"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// Cluster is machines, units, entries and states in the form that decisions are
// made on. It is told of changes, and its Decide looks only at what they can have
// changed. The zero value is an empty cluster. It has no clock and no locks: one
// goroutine at a time.
//
// Everything may be told in any order: an entry of a machine or unit that is not
// there waits for it.
type Cluster struct {
	machines map[string]*machine // those present, and those away that have entries
	present  []*machine          // by id
	draining []*machine          // those of present that are to be drained, by id
	ladder   ladder              // present, by load
	away     []*machine          // by id
	jobs     map[string]*job     // units, and names that have entries or states
	// followers is by the unit they follow, whether it exists or not.
	followers map[string]map[*job]bool
	groups    map[string]*group // by template
	globals   map[*job]bool
	// replacing is the wanted jobs with Replaces; replacers is the same in order,
	// nil if it has to be made again.
	replacing map[*job]bool
	replacers []*job

	epoch  int           // grows whenever a machine comes, goes or changes
	dirty  map[*job]bool // changed since the last decision
	active map[*job]bool // not at rest when last decided: always looked at
	all    bool          // everything is to be looked at
}

// SetMachine tells of a machine that is present, new or changed.
func (c *Cluster) SetMachine(m model.Machine) {
	x := c.machine(m.ID)
	if x.present && sameForUnits(x.Machine, m) {
		x.Machine = m
		return
	}
	if x.present {
		c.leaveRanks(x)
	} else {
		c.away = removeMachine(c.away, x)
	}
	x.Machine, x.present = m, true
	c.joinRanks(x)
	x.each(func(e *entry) { c.touch(e.job) })
	for j := range c.globals {
		c.touch(j)
	}
}

// joinRanks enters m among those present, leaveRanks takes it out.
func (c *Cluster) joinRanks(m *machine) {
	c.epoch++
	c.present = insertMachine(c.present, m)
	if m.drained() {
		c.draining = insertMachine(c.draining, m)
	}
	m.ladder = &c.ladder
	c.ladder.add(m)
}

func (c *Cluster) leaveRanks(m *machine) {
	c.epoch++
	c.present = removeMachine(c.present, m)
	c.draining = removeMachine(c.draining, m)
	c.ladder.remove(m)
	m.ladder = nil
}

// sameForUnits reports whether two descriptions of a machine make no difference to
// what it can run.
func sameForUnits(a, b model.Machine) bool {
	cordon := func(m model.Machine) [2]bool { return [2]bool{m.Cordon != nil, m.Cordon != nil && m.Cordon.Drain} }
	return a.Cores == b.Cores && a.Memory == b.Memory && cordon(a) == cordon(b) && maps.Equal(a.Metadata, b.Metadata)
}

// RemoveMachine tells that a machine is not present any more.
func (c *Cluster) RemoveMachine(id string) {
	m := c.machines[id]
	if m == nil || !m.present {
		return
	}
	c.leaveRanks(m)
	m.present = false
	c.away = insertMachine(c.away, m)
	m.each(func(e *entry) {
		if !e.job.Req.Global { // those stay on a machine that is away
			c.touch(e.job)
		}
	})
	c.forgetMachine(m)
}

// SetUnit tells of a unit, new or changed.
func (c *Cluster) SetUnit(u model.Unit) { c.setUnit(c.job(u.Name), u, true) }

// RemoveUnit tells that a unit was destroyed. Its entries remain until they are
// released.
func (c *Cluster) RemoveUnit(name string) {
	if j := c.jobs[name]; j != nil {
		c.setUnit(j, model.Unit{Name: name}, false)
		for f := range c.followers[name] { // j may be forgotten, and nobody learn it from j
			c.touch(f)
		}
		c.forgetJob(j)
	}
}

func (c *Cluster) setUnit(j *job, u model.Unit, known bool) {
	c.unlink(j)
	for _, e := range j.entries {
		e.exit()
	}
	j.Unit, j.known, j.barred = u, known, nil
	for _, e := range j.entries {
		e.rest()
	}
	c.link(j)
	c.touch(j)
}

// link enters what others need to know of j, unlink takes it out again. Who replaces
// whom hangs together in circles: when that changes everything may.
func (c *Cluster) link(j *job) {
	for _, peer := range mayFollow(j.Req) {
		if c.followers[peer] == nil {
			put(&c.followers, peer, map[*job]bool{})
		}
		c.followers[peer][j] = true
	}
	if j.Req.Global {
		put(&c.globals, j, true)
	}
	if j.wanted() && len(j.Req.Replaces) > 0 {
		put(&c.replacing, j, true)
		c.replacers, c.all = nil, true
	}
}

func (c *Cluster) unlink(j *job) {
	for _, peer := range mayFollow(j.Req) {
		delete(c.followers[peer], j)
		if len(c.followers[peer]) == 0 {
			delete(c.followers, peer)
		}
	}
	delete(c.globals, j)
	if c.replacing[j] {
		delete(c.replacing, j)
		c.replacers, c.all = nil, true
	}
}

// SetPlacement tells of an entry as it is stored now.
func (c *Cluster) SetPlacement(p model.Placement) {
	j, m := c.job(p.Unit), c.machine(p.Machine)
	e := j.on(m)
	if e == nil {
		e = &entry{job: j, on: m, stored: true}
		j.insert(e)
	}
	e.exit()
	e.old, e.parsed = p, nil
	e.rest()
	c.touch(j)
}

// RemovePlacement tells that an entry is not stored any more.
func (c *Cluster) RemovePlacement(unit, machine string) {
	j, m := c.jobs[unit], c.machines[machine]
	if j == nil || m == nil || j.on(m) == nil {
		return
	}
	e := j.on(m)
	e.exit()
	j.entries = without(j.entries, e)
	c.touch(j)
	c.forgetJob(j)
	c.forgetMachine(m)
}

// SetState tells what a machine says of a unit. It wakes nobody: what a state can
// change is a unit that is not at rest, and that is looked at in any case.
func (c *Cluster) SetState(s model.UnitState) {
	j := c.job(s.Unit)
	r := report{machine: s.Machine, hash: s.Hash, load: s.Load, active: s.Active, gen: s.Gen, heard: s.Heard}
	i, found := slices.BinarySearchFunc(j.reports, s.Machine, reportOf)
	if found {
		j.reports[i] = r
	} else {
		j.reports = slices.Insert(j.reports, i, r)
	}
}

// RemoveState tells that a machine says nothing of a unit any more.
func (c *Cluster) RemoveState(unit, machine string) {
	j := c.jobs[unit]
	if j == nil {
		return
	}
	if i, found := slices.BinarySearchFunc(j.reports, machine, reportOf); found {
		j.reports = slices.Delete(j.reports, i, i+1)
		c.forgetJob(j)
	}
}

// job returns the job of that name, a new one if there is none.
func (c *Cluster) job(name string) *job {
	j := c.jobs[name]
	if j == nil {
		j = &job{Unit: model.Unit{Name: name}, group: c.join(name)}
		put(&c.jobs, name, j)
	}
	return j
}

// join enters a job in the group of its template; nil if it has none.
func (c *Cluster) join(name string) *group {
	template, ok := unitfile.TemplateOf(name)
	if !ok {
		return nil
	}
	g := c.groups[template]
	if g == nil {
		g = &group{name: template, on: map[*machine]int{}}
		put(&c.groups, template, g)
	}
	g.jobs++
	return g
}

// machine returns the machine of that id, one that is away if there is none.
func (c *Cluster) machine(id string) *machine {
	m := c.machines[id]
	if m == nil {
		m = &machine{Machine: model.Machine{ID: id}}
		put(&c.machines, id, m)
		c.away = insertMachine(c.away, m)
	}
	return m
}

// forgetJob drops a job that is nothing but a name.
func (c *Cluster) forgetJob(j *job) {
	if !j.known && len(j.entries) == 0 && len(j.reports) == 0 {
		delete(c.jobs, j.Name)
		delete(c.dirty, j)
		delete(c.active, j)
		if j.group == nil {
			return
		}
		if j.group.jobs--; j.group.jobs == 0 {
			delete(c.groups, j.group.name)
		}
	}
}

// forgetMachine drops a machine that is away and has no entries.
func (c *Cluster) forgetMachine(m *machine) {
	if !m.present && m.load() == 0 {
		delete(c.machines, m.ID)
		c.away = removeMachine(c.away, m)
	}
}

func (c *Cluster) touch(j *job) { put(&c.dirty, j, true) }

// put is a map assignment that makes the map if there is none.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

func byID(a, b *machine) int { return cmp.Compare(a.ID, b.ID) }

func insertMachine(list []*machine, m *machine) []*machine {
	i, _ := slices.BinarySearchFunc(list, m, byID)
	return slices.Insert(list, i, m)
}

func removeMachine(list []*machine, m *machine) []*machine {
	if i, found := slices.BinarySearchFunc(list, m, byID); found {
		return slices.Delete(list, i, i+1)
	}
	return list
}
