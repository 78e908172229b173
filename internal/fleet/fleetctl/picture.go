package fleetctl

import (
	"maps"
	"slices"
	"time"

	api "flotilla/api/fleet"
	"flotilla/internal/fleet/model"
)

// picture is the cluster as far as it has been told. Make one with newPicture.
type picture struct {
	units    map[string]api.Unit // without options
	states   map[string]map[string]api.UnitState
	machines map[string]api.Machine
	rolls    map[string]api.Roll // by group
}

func newPicture() *picture {
	return &picture{
		units:    map[string]api.Unit{},
		states:   map[string]map[string]api.UnitState{},
		machines: map[string]api.Machine{},
		rolls:    map[string]api.Roll{},
	}
}

// apply takes over one change.
func (p *picture) apply(c api.Change) {
	switch {
	case c.Unit != nil && c.Deleted:
		delete(p.units, c.Unit.Name)
	case c.Unit != nil:
		p.units[c.Unit.Name] = *c.Unit
	case c.State != nil && c.Deleted:
		delete(p.states[c.State.Name], c.State.MachineID)
	case c.State != nil:
		if p.states[c.State.Name] == nil {
			p.states[c.State.Name] = map[string]api.UnitState{}
		}
		p.states[c.State.Name][c.State.MachineID] = *c.State
	case c.Machine != nil && c.Deleted:
		delete(p.machines, c.Machine.ID)
	case c.Machine != nil:
		p.machines[c.Machine.ID] = *c.Machine
	case c.Roll != nil && c.Deleted:
		delete(p.rolls, c.Roll.Group)
	case c.Roll != nil:
		p.rolls[c.Roll.Group] = *c.Roll
	}
}

// rollOf is the roll that brings a unit the text it is waited for with. One that had
// ended when that was asked for is another.
func (p *picture) rollOf(w want) (api.Roll, bool) {
	r, ok := p.rolls[model.GroupOf(w.unit)]
	if !ok || w.hash == "" || r.To[w.unit] != w.hash {
		return api.Roll{}, false
	}
	return r, w.rolledBefore.IsZero() || !r.Started.Equal(w.rolledBefore)
}

// endedRoll is when the last roll of a unit's group began, if it has ended; zero if
// there was none or it goes on.
func (p *picture) endedRoll(unit string) time.Time {
	if r := p.rolls[model.GroupOf(unit)]; r.Final() {
		return r.Started
	}
	return time.Time{}
}

// has reports whether all of the units are there.
func (p *picture) has(units []string) bool {
	return !slices.ContainsFunc(units, func(u string) bool { _, ok := p.units[u]; return !ok })
}

// names is the names of all units, sorted.
func (p *picture) names() []string { return slices.Sorted(maps.Keys(p.units)) }

// running is the machines, sorted, on which the unit is not at rest. A machine
// that is not present says nothing any more.
func (p *picture) running(unit string) []string {
	var ids []string
	for id, st := range p.states[unit] {
		if _, present := p.machines[id]; present && !atRest(st) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// failed reports whether some machine that is present says that the unit has failed.
func (p *picture) failed(unit string) bool {
	return slices.ContainsFunc(p.holding(unit), func(id string) bool {
		return p.states[unit][id].SystemdActiveState == "failed"
	})
}

// holding is the machines, sorted, that are present and report the unit.
func (p *picture) holding(unit string) []string {
	var ids []string
	for id := range p.states[unit] {
		if _, present := p.machines[id]; present {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// atRest reports whether nothing of the unit runs, starts or stops.
func atRest(st api.UnitState) bool {
	switch st.SystemdActiveState {
	case "inactive", "failed", "":
		return true
	}
	return false
}

// machine names a machine for people.
func (p *picture) machine(id string) string { return machineCell(id, p.machines, false) }
