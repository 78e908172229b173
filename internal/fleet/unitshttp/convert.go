package unitshttp

import (
	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

// place is the entry of the machine that an ordinary unit is on: the one it is
// leaving counts only while it has no other.
func place(entries []model.Placement) (model.Placement, bool) {
	for _, p := range entries {
		if !p.Leaving {
			return p, true
		}
	}
	if len(entries) > 0 {
		return entries[0], true
	}
	return model.Placement{}, false
}

// brief is a unit as the API tells it, without its options.
func brief(v *registry.View, u model.Unit) fleet.Unit {
	out := fleet.Unit{
		Name:         u.Name,
		DesiredState: u.Desired.String(),
		Generation:   u.Gen,
		Reason:       v.Unplaced(u.Name).Why,
	}
	if u.Bad != "" {
		out.Reason = u.Bad
	}
	if u.Req.Global {
		return out
	}
	p, placed := place(v.PlacementsOf(u.Name))
	if placed {
		out.MachineID = p.Machine
	}
	out.CurrentState = model.Current(p, v.State(u.Name, p.Machine)).String()
	return out
}

// whole is a unit as the API tells it.
func whole(v *registry.View, u model.Unit) fleet.Unit {
	out := brief(v, u)
	f, err := unitfile.Parse(u.Text)
	if err != nil {
		return out // the reason says what is wrong with the text
	}
	for _, o := range f.Options {
		out.Options = append(out.Options, fleet.UnitOption{Section: o.Section, Name: o.Name, Value: o.Value})
	}
	return out
}

func stateOf(s model.UnitState) fleet.UnitState {
	return fleet.UnitState{
		Name: s.Unit, MachineID: s.Machine, Hash: s.Hash, Generation: s.Gen, Message: s.Message,
		SystemdLoadState: s.Load, SystemdActiveState: s.Active, SystemdSubState: s.Sub,
	}
}

func machineOf(m model.Machine) fleet.Machine {
	return fleet.Machine{ID: m.ID, PrimaryIP: m.IP, Metadata: m.Metadata}
}

// fileOf makes a unit file of the options in a request.
func fileOf(options []fleet.UnitOption) (unitfile.File, error) {
	list := make([]unitfile.Option, len(options))
	for i, o := range options {
		list[i] = unitfile.Option{Section: o.Section, Name: o.Name, Value: o.Value}
	}
	return unitfile.FromOptions(list)
}
