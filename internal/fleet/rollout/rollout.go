// Package rollout decides how a changed text reaches units that run: a few at a
// time, judged, and back again if it is no good.
//
// Plan is a function from a snapshot to what may change now and what is to be
// written down. It has no clock and no memory: all that a roll needs to know is in
// its record (model.Roll), so that an engine that takes over goes on where the last
// one stood. docs/states/roll.md has the tables.
//
// # What is rolled
//
// Entries of the schedule of units that are to run and whose text is not their
// unit's any more. The instances of a template are one group; any other unit is a
// group of its own, a global one over its machines. What does not run takes a new
// text at once, and a first placement is no roll.
//
// # How many at a time
//
// An entry that is up is changed only while fewer than MaxUnavailable of its group
// are not good, for whatever reason: being changed, failed, or on a machine that fell
// silent within the last HealthyTimeout. One that is down already costs nothing and
// goes first, though never more than MaxUnavailable are being changed. One that has
// failed by itself and is not of the roll is waited for HealthyTimeout after the roll
// began. A machine that
// is away for longer is not counted, and its entries follow when it returns. Units
// that are on no machine are not counted either: nothing a roll does brings them up.
//
// # When it fails
//
// When an entry with its new text is bad: its machine says so, it failed, or nothing
// is heard of it for HealthyTimeout. Then the old texts are put back, everywhere,
// MaxUnavailable at a time again, but without waiting for health for ever.
package rollout

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
)

// Snapshot is all that a plan depends on. It may leave out groups that neither roll
// nor have anything to roll (see Differs), but of a group it holds everything.
type Snapshot struct {
	Now time.Time
	// Present reports whether a machine is present, and Lost since when it is not:
	// one that Lost does not name is away since LeaderSince.
	Present     func(machine string) bool
	Lost        map[string]time.Time
	LeaderSince time.Time
	Units       []model.Unit
	Placements  []model.Placement
	States      []model.UnitState
	Rolls       []model.Roll
}

// Result is what Plan returns.
type Result struct {
	Put     []model.Roll // records to write, each guarded by its Rev
	Remove  []string     // groups whose records are to go
	Reverts []Revert
	Events  []model.Event
	// Wake is when time alone will change the plan; zero: never.
	Wake time.Time

	rolling map[string]bool // units whose text is held, but for
	may     map[string]bool // these entries, by model.RollKey
	watched map[string]bool
}

// TakenBack begins the Why of a Revert, and so that of the version it makes: the one
// before it was no good.
const TakenBack = "reverted: "

// Revert is a text that is to be put back.
type Revert struct{ Unit, Text, Hash, Why string }

// Allow reports whether the entry of a unit on a machine may take the unit's text.
func (r *Result) Allow(unit, machine string) bool {
	return !r.rolling[unit] || r.may[model.RollKey(unit, machine)]
}

// Watch reports whether the machine is to judge the health of a unit that takes a
// new text now.
func (r *Result) Watch(unit string) bool { return r.watched[unit] }

// Times that nobody sets.
const (
	// mute is how long after HealthyTimeout the engine judges itself what it has
	// heard nothing of: the machine's own judgement comes first.
	mute = 10 * time.Second
	// keepRecord is how long the record of a roll stays that is over.
	keepRecord = 7 * 24 * time.Hour
)

// Differs reports whether the entry of a unit runs with another text than the unit
// has: its group has something to roll.
func Differs(u model.Unit, p model.Placement) bool { return runs(u, p) && p.Hash != u.Hash }

// Due reports whether there is something to do for a roll though nothing differs: it
// goes on, or its record has been kept for long enough.
func Due(r model.Roll, now time.Time) bool {
	return !r.State.Final() || now.Sub(r.Ended) > keepRecord
}

// runs reports whether p is an entry that counts: one of a unit that runs there and
// is to go on. An entry without a text could not be read, and is written anew at once.
func runs(u model.Unit, p model.Placement) bool {
	return u.Bad == "" && u.Desired == model.Launched && p.Desired == model.Launched && !p.Leaving && p.Hash != ""
}

// Plan says how the rolls go on.
func Plan(s Snapshot) Result {
	s.Now = s.Now.Round(0).UTC()
	out := Result{rolling: map[string]bool{}, may: map[string]bool{}, watched: map[string]bool{}}
	groups := assemble(&s, &out)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		groups[name].plan()
	}
	return out
}

// assemble sorts the snapshot into groups.
func assemble(s *Snapshot, out *Result) map[string]*group {
	groups := map[string]*group{}
	of := func(name string) *group {
		g := groups[name]
		if g == nil {
			g = &group{s: s, out: out, name: name, units: map[string]model.Unit{}}
			groups[name] = g
		}
		return g
	}
	for _, r := range s.Rolls {
		g := of(r.Group)
		g.was, g.roll = r, clone(r)
	}
	for _, u := range s.Units {
		if u.Bad == "" {
			of(model.GroupOf(u.Name)).units[u.Name] = u
		}
	}
	states := make(map[string]model.UnitState, len(s.States))
	for _, st := range s.States {
		states[model.RollKey(st.Unit, st.Machine)] = st
	}
	for _, p := range s.Placements {
		g := of(model.GroupOf(p.Unit))
		u, known := g.units[p.Unit]
		switch {
		case known && runs(u, p):
			g.entries = append(g.entries, g.entry(u, p, states[model.RollKey(p.Unit, p.Machine)]))
		case !p.Leaving:
			g.idle = append(g.idle, model.RollKey(p.Unit, p.Machine))
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.entries, func(a, b *entry) int {
			return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Machine, b.Machine))
		})
	}
	return groups
}

// clone copies what a plan changes.
func clone(r model.Roll) model.Roll {
	r.From, r.To, r.Texts, r.Since = maps.Clone(r.From), maps.Clone(r.To), maps.Clone(r.Texts), maps.Clone(r.Since)
	return r
}

// same compares records as the store keeps them: it knows no empty maps.
func same(a, b model.Roll) bool {
	return maps.Equal(a.From, b.From) && maps.Equal(a.To, b.To) && maps.Equal(a.Texts, b.Texts) &&
		maps.EqualFunc(a.Since, b.Since, time.Time.Equal) && slices.Equal(a.Log, b.Log) &&
		a.State == b.State && a.Started.Equal(b.Started) && a.Ended.Equal(b.Ended) && a.Why == b.Why &&
		a.Failed == b.Failed && a.Machine == b.Machine && a.Asked == b.Asked
}

// live reports whether the group has a roll that goes on.
func (g *group) live() bool { return g.roll.State != "" && !g.roll.State.Final() }

// plan takes one group a step further.
func (g *group) plan() {
	switch {
	case g.live():
	case g.mustRoll():
		g.begin()
	case g.roll.State != "" && Due(g.roll, g.s.Now):
		g.out.Remove = append(g.out.Remove, g.name)
		return
	default:
		g.holdAway()
		return
	}
	g.refresh()
	g.obey()
	g.judge()
	switch g.roll.State {
	case model.Rolling:
		g.advance()
	case model.Reverting:
		g.putBack()
		g.advance()
	}
	g.finish()
	g.publish()
}

// publish says what the roll allows, and has its record written if it has changed.
func (g *group) publish() {
	if !same(g.roll, g.was) {
		g.out.Put = append(g.out.Put, g.roll)
	}
	if !g.live() {
		g.holdAway()
		return
	}
	for _, e := range g.entries {
		g.out.rolling[e.Unit] = true
		g.out.watched[e.Unit] = true
	}
	for unit := range g.roll.To {
		g.out.watched[unit] = true
	}
	for key := range g.roll.Since {
		g.out.may[key] = true
	}
	for _, key := range g.idle {
		g.out.may[key] = true
	}
	g.wake()
}

// holdAway keeps the entries on machines that are away at their text when a roll is
// over: they follow one by one when the machines return.
func (g *group) holdAway() {
	for _, e := range g.entries {
		g.out.rolling[e.Unit] = true
	}
	for _, key := range g.idle {
		g.out.may[key] = true
	}
}

// wake notes when something that is waited for has taken too long.
func (g *group) wake() {
	at := func(t time.Time) {
		if t.After(g.s.Now) && (g.out.Wake.IsZero() || t.Before(g.out.Wake)) {
			g.out.Wake = t
		}
	}
	for _, e := range g.entries {
		if since := g.since(e); !since.IsZero() {
			at(since.Add(e.patience() + mute))
			at(since.Add(2*e.patience() + mute))
		}
		if e.present && g.beside(e) && e.atRest() {
			at(g.roll.Started.Add(e.patience()))
		}
		if !e.present {
			at(e.away.Add(e.patience()))
		}
	}
}
