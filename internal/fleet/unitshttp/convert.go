package unitshttp

import (
	"errors"
	"fmt"

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
	b, err := unitfile.ParseBundle(u.Text)
	if err != nil {
		return out // the reason says what is wrong with the text
	}
	out.Options = optionsOf(b.Main)
	for _, d := range b.DropIns {
		out.DropIns = append(out.DropIns, fleet.DropIn{Name: d.Name, Options: optionsOf(d.File)})
	}
	return out
}

func optionsOf(f unitfile.File) []fleet.UnitOption {
	out := make([]fleet.UnitOption, 0, len(f.Options))
	for _, o := range f.Options {
		out = append(out, fleet.UnitOption{Section: o.Section, Name: o.Name, Value: o.Value})
	}
	return out
}

func stateOf(s model.UnitState) fleet.UnitState {
	return fleet.UnitState{
		Name: s.Unit, MachineID: s.Machine, Hash: s.Hash, Generation: s.Gen, Message: s.Message,
		SystemdLoadState: s.Load, SystemdActiveState: s.Active, SystemdSubState: s.Sub,
		Health: string(s.Health), HealthWhy: s.HealthWhy,
	}
}

func machineOf(m model.Machine) fleet.Machine {
	out := fleet.Machine{
		ID: m.ID, PrimaryIP: m.IP, Metadata: m.Metadata, Hostname: m.Hostname, Version: m.Version,
		Cores: cores(m.Cores), Memory: m.Memory,
	}
	if c := m.Cordon; c != nil {
		out.Cordon = &fleet.Cordon{Drain: c.Drain, Why: c.Why, By: c.By, At: c.At.UTC()}
	}
	return out
}

// cores makes processors of thousandths.
func cores(thousandths int64) float64 { return float64(thousandths) / 1000 }

// used sums up, by machine, what the units placed there ask for. Those that are
// leaving still run, and count.
func used(v *registry.View) map[string]*fleet.Used {
	out := map[string]*fleet.Used{}
	thousandths := map[string]int64{}
	for _, p := range v.Placements() {
		if out[p.Machine] == nil {
			out[p.Machine] = &fleet.Used{}
		}
		u, _ := v.Unit(p.Unit)
		sum := out[p.Machine]
		sum.Units++
		sum.Memory += u.Req.Memory
		thousandths[p.Machine] += u.Req.Cores
		sum.Cores = cores(thousandths[p.Machine])
	}
	return out
}

// bundleOf makes a unit file with its drop-ins of what a request says.
func bundleOf(u fleet.Unit) (unitfile.Bundle, error) {
	var b unitfile.Bundle
	var err error
	if len(u.Options) == 0 && len(u.DropIns) > 0 {
		return b, errors.New("dropIns without options: a drop-in goes with its unit file")
	}
	if b.Main, err = fileOf(u.Options); err != nil {
		return b, err
	}
	for _, d := range u.DropIns {
		if err := unitfile.CheckDropInName(d.Name); err != nil {
			return b, err
		}
		f, err := fileOf(d.Options)
		if err != nil {
			return b, fmt.Errorf("drop-in %q: %w", d.Name, err)
		}
		if len(f.Options) == 0 {
			return b, fmt.Errorf("drop-in %q: it has no options", d.Name)
		}
		b.DropIns = append(b.DropIns, unitfile.DropIn{Name: d.Name, File: f})
	}
	if len(b.DropIns) == 0 {
		return b, nil
	}
	return unitfile.ParseBundle(b.String()) // in the store it is one text
}

func fileOf(options []fleet.UnitOption) (unitfile.File, error) {
	list := make([]unitfile.Option, len(options))
	for i, o := range options {
		list[i] = unitfile.Option{Section: o.Section, Name: o.Name, Value: o.Value}
	}
	return unitfile.FromOptions(list)
}
