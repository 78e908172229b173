package engine

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/rollout"
	"flotilla/internal/fleet/sched"
)

// picture is the cluster in the form that decisions are made on, kept up change by
// change.
type picture struct {
	cluster sched.Cluster
	// groups is the units that are rolled together, by group; differ is which of
	// their entries have another text than their unit, by model.RollKey.
	groups map[string]map[string]bool
	differ map[string]map[string]bool
	live   map[string]bool // groups whose roll goes on
	// trouble is what was last seen to be wrong with a unit on a machine.
	trouble map[string]string
}

// redraw makes the picture of a whole view. It returns what has gone wrong since the
// last picture, if there was one.
func (p *picture) redraw(v *registry.View, now time.Time) []model.Event {
	known := p.trouble
	*p = picture{
		groups: map[string]map[string]bool{}, differ: map[string]map[string]bool{},
		live: map[string]bool{}, trouble: map[string]string{},
	}
	for _, r := range v.Rolls() {
		p.roll(v, r.Group)
	}
	for _, m := range v.Machines() {
		p.cluster.SetMachine(m)
	}
	for _, u := range v.Units() {
		p.cluster.SetUnit(u)
		enter(p.groups, model.GroupOf(u.Name), u.Name)
	}
	for _, e := range v.Placements() {
		p.cluster.SetPlacement(e)
		p.compare(v, e.Unit, e.Machine)
	}
	var events []model.Event
	for _, s := range v.States() {
		key := model.RollKey(s.Unit, s.Machine)
		if what, is := known[key]; is {
			p.trouble[key] = what
		}
		events = append(events, p.state(v, s.Unit, s.Machine, now)...)
	}
	if known == nil {
		return nil
	}
	return events
}

// draw takes over one change. It returns what has gone wrong by it.
func (p *picture) draw(v *registry.View, c registry.Change, now time.Time) []model.Event {
	switch c.Kind {
	case registry.KindMachine, registry.KindMetadata, registry.KindCordon:
		if m, ok := v.Machine(c.Machine); ok {
			p.cluster.SetMachine(m)
		} else {
			p.cluster.RemoveMachine(c.Machine)
		}
	case registry.KindObject, registry.KindDesired, registry.KindRestart:
		p.unit(v, c.Unit)
	case registry.KindPlacement:
		if e, ok := v.Placement(c.Unit, c.Machine); ok {
			p.cluster.SetPlacement(e)
		} else {
			p.cluster.RemovePlacement(c.Unit, c.Machine)
		}
		p.compare(v, c.Unit, c.Machine)
	case registry.KindRoll:
		p.roll(v, c.Group)
	case registry.KindState:
		return p.state(v, c.Unit, c.Machine, now)
	}
	return nil
}

func (p *picture) unit(v *registry.View, name string) {
	group := model.GroupOf(name)
	if u, ok := v.Unit(name); ok {
		p.cluster.SetUnit(u)
		enter(p.groups, group, name)
	} else {
		p.cluster.RemoveUnit(name)
		leave(p.groups, group, name)
	}
	for _, e := range v.PlacementsOf(name) {
		p.compare(v, name, e.Machine)
	}
}

// roll notes whether the roll of a group goes on.
func (p *picture) roll(v *registry.View, group string) {
	if r, ok := v.Roll(group); ok && !r.State.Final() {
		p.live[group] = true
	} else {
		delete(p.live, group)
	}
}

// compare notes whether the entry of a unit on a machine has the unit's text.
func (p *picture) compare(v *registry.View, unit, machine string) {
	u, known := v.Unit(unit)
	e, placed := v.Placement(unit, machine)
	group, key := model.GroupOf(unit), model.RollKey(unit, machine)
	if known && placed && rollout.Differs(u, e) {
		enter(p.differ, group, key)
	} else {
		leave(p.differ, group, key)
	}
}

// state takes over what a machine says of a unit, and tells if it has failed.
func (p *picture) state(v *registry.View, unit, machine string, now time.Time) []model.Event {
	s := v.State(unit, machine)
	key := model.RollKey(unit, machine)
	if s.Unit == "" {
		p.cluster.RemoveState(unit, machine)
		delete(p.trouble, key)
		return nil
	}
	p.cluster.SetState(s)
	what, why := troubleOf(s)
	before := p.trouble[key]
	if what == "" {
		delete(p.trouble, key)
		return nil
	}
	p.trouble[key] = what + why
	if before == what+why {
		return nil
	}
	return []model.Event{{At: now, Kind: model.Failure, Unit: unit, Machine: machine, What: what, Why: why}}
}

// troubleOf is what is wrong with a unit, and why; "" nothing is. While a copy is being
// judged a failure may be that of the copy before, and what the judgement says is why
// only if it was bad.
func troubleOf(s model.UnitState) (what, why string) {
	judged := ""
	if s.Health == model.Bad {
		judged = s.HealthWhy
	}
	switch {
	case s.Active == "failed" && s.Health != model.Waiting:
		return "failed", cmp.Or(model.OneLine(s.Message), judged)
	case s.Message != "":
		return "could not be loaded or started", model.OneLine(s.Message)
	}
	return "", ""
}

// rolls is what rollout has to look at: the groups of which an entry has not got its
// text, those whose roll goes on and, with old, those whose roll is long over. The
// revisions of the units' objects are older than the snapshot, or as old: what has
// changed since is not overwritten.
func (p *picture) rolls(v *registry.View, now time.Time, old bool) (s rollout.Snapshot, revs map[string]int64) {
	s.Now, revs = now, map[string]int64{}
	names := maps.Clone(p.live)
	for group := range p.differ {
		names[group] = true
	}
	if old {
		for _, r := range v.Rolls() {
			if rollout.Due(r, now) {
				names[r.Group] = true
			}
		}
	}
	for _, group := range slices.Sorted(maps.Keys(names)) {
		if r, ok := v.Roll(group); ok {
			s.Rolls = append(s.Rolls, r)
		}
		for _, name := range slices.Sorted(maps.Keys(p.groups[group])) {
			revs[name] = v.ObjectRev(name)
			if u, ok := v.Unit(name); ok {
				s.Units = append(s.Units, u)
			}
			s.Placements = append(s.Placements, v.PlacementsOf(name)...)
			s.States = append(s.States, v.StatesOf(name)...)
		}
	}
	return s, revs
}

// enter and leave keep sets by key, without empty ones.

func enter(sets map[string]map[string]bool, key, member string) {
	if sets[key] == nil {
		sets[key] = map[string]bool{}
	}
	sets[key][member] = true
}

func leave(sets map[string]map[string]bool, key, member string) {
	delete(sets[key], member)
	if len(sets[key]) == 0 {
		delete(sets, key)
	}
}
