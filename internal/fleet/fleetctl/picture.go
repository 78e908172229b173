package fleetctl

import (
	"maps"
	"slices"

	api "flotilla/api/fleet"
)

// picture is the cluster as far as it has been told. Make one with newPicture.
type picture struct {
	units    map[string]api.Unit // without options
	states   map[string]map[string]api.UnitState
	machines map[string]api.Machine
}

func newPicture() *picture {
	return &picture{
		units:    map[string]api.Unit{},
		states:   map[string]map[string]api.UnitState{},
		machines: map[string]api.Machine{},
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
	}
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
