package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// group is the units that are rolled together, and their roll.
type group struct {
	s       *Snapshot
	out     *Result
	name    string
	units   map[string]model.Unit // those that can be understood
	entries []*entry              // in order of unit and machine
	idle    []string              // entries of what does not run, by model.RollKey
	was     model.Roll            // the record as it is; State "": there is none
	roll    model.Roll            // the record as it is to be
	// restoring is set when old texts are not in the store yet.
	restoring bool
}

// mustRoll reports whether there is something to roll: an entry that has not got its
// unit's text. If those entries are all on machines that are away and were left
// behind by the last roll, there is not.
func (g *group) mustRoll() bool {
	for _, e := range g.entries {
		if e.changed() && (e.present || !g.leftBehind(e.unit)) {
			return true
		}
	}
	return false
}

// leftBehind reports whether entries of u that have not got its text missed a roll
// that is over, rather than are the beginning of a new one: they follow the others,
// and if one of them is bad that says nothing of the text.
func (g *group) leftBehind(u model.Unit) bool {
	r := g.was
	switch {
	case r.State == model.Done && r.To[u.Name] == u.Hash, r.State == model.Reverted && r.From[u.Name] == u.Hash:
		return true
	case r.State == model.Reverted && r.From[u.Name] == "" && r.To[u.Name] == u.Hash:
		return true
	}
	return u.Req.Global && slices.ContainsFunc(g.entries, func(e *entry) bool {
		return e.Unit == u.Name && !e.changed() && e.up()
	})
}

// begin starts a roll in place of the last.
func (g *group) begin() {
	g.roll = model.Roll{
		Group: g.name, State: model.Rolling, Started: g.s.Now, Rev: g.was.Rev,
	}
	g.refresh()
	g.tell("the roll begins", fmt.Sprintf("%d to change, %d at a time", g.count((*entry).changed), g.limit()), "")
}

// tell notes an event of the roll.
func (g *group) tell(what, why, by string) {
	g.out.Events = append(g.out.Events, model.Event{At: g.s.Now, Kind: model.RollEvent, Unit: g.name, What: what, Why: why, By: by})
}

func (g *group) count(is func(*entry) bool) int {
	n := 0
	for _, e := range g.entries {
		if is(e) {
			n++
		}
	}
	return n
}

// limit is how many may be unavailable at a time: the least that a unit of the roll
// says.
func (g *group) limit() int {
	n := 0
	for name := range g.roll.To {
		if u, ok := g.units[name]; ok && (n == 0 || u.Req.Roll.MaxUnavailable < n) {
			n = u.Req.Roll.MaxUnavailable
		}
	}
	return max(1, n)
}

// refresh brings the record up to what there is: units that were destroyed are out of
// it, units that have been changed since are in it, and a text that was changed again
// is the new aim.
func (g *group) refresh() {
	for _, m := range []*map[string]string{&g.roll.From, &g.roll.To, &g.roll.Texts} {
		if *m == nil {
			*m = map[string]string{} // the store keeps no empty maps
		}
	}
	if g.roll.Since == nil {
		g.roll.Since = map[string]time.Time{}
	}
	for _, hashes := range []map[string]string{g.roll.From, g.roll.To} {
		maps.DeleteFunc(hashes, func(name, _ string) bool { _, ok := g.units[name]; return !ok })
	}
	if g.roll.State == model.Reverting && !g.overtaken() {
		return
	}
	var again []string
	for _, name := range slices.Sorted(maps.Keys(g.units)) {
		u := g.units[name]
		switch to, rolls := g.roll.To[name]; {
		case rolls && to != u.Hash:
			g.aim(u)
			again = append(again, name)
		case !rolls:
			g.enlist(u)
		}
	}
	if len(again) > 0 {
		g.tell("the roll has another aim", "changed again: "+names(again), "")
	}
	g.enlistTemplate()
	g.prune()
}

// overtaken reports whether somebody has given a unit yet another text while the old
// ones are put back: then that is what is rolled.
func (g *group) overtaken() bool {
	for _, name := range slices.Sorted(maps.Keys(g.roll.From)) {
		if h := g.units[name].Hash; h != g.roll.From[name] && h != g.roll.To[name] {
			g.roll.State = model.Rolling
			g.roll.Failed, g.roll.Machine, g.roll.Log = "", "", nil
			return true
		}
	}
	return false
}

// aim makes the present text of a unit what is rolled. Its entries wait for their
// turn again: one that was let go and has not done anything yet still serves.
func (g *group) aim(u model.Unit) {
	g.roll.To[u.Name] = u.Hash
	for _, e := range g.entries {
		if e.Unit == u.Name {
			delete(g.roll.Since, e.key())
		}
	}
	if g.roll.From[u.Name] == "" {
		g.remember(u) // it only followed so far; this is a change like any other
	}
}

// enlist takes a unit in of which an entry has not got its text.
func (g *group) enlist(u model.Unit) {
	if !slices.ContainsFunc(g.entries, func(e *entry) bool { return e.Unit == u.Name && e.changed() }) {
		return
	}
	g.roll.To[u.Name] = u.Hash
	if !g.leftBehind(u) {
		g.remember(u)
	}
}

// remember notes what a unit can go back to: the text that most of its entries have.
func (g *group) remember(u model.Unit) {
	number, texts, most := map[string]int{}, map[string]string{}, ""
	for _, e := range g.entries {
		if e.Unit == u.Name && e.changed() {
			number[e.Hash]++
			texts[e.Hash] = e.Text
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(number)) {
		if number[hash] > number[most] {
			most = hash
		}
	}
	if most != "" {
		g.roll.From[u.Name] = most
		g.roll.Texts[most] = texts[most]
	}
}

// enlistTemplate takes the template in if it has the new text of one of its
// instances: with them it goes back.
func (g *group) enlistTemplate() {
	t, ok := g.units[g.name]
	if !ok || !unitfile.IsTemplate(g.name) || g.roll.To[g.name] != "" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(g.roll.From)) {
		if g.roll.To[name] == t.Hash && g.roll.From[name] != t.Hash {
			g.roll.From[g.name], g.roll.To[g.name] = g.roll.From[name], t.Hash
			return
		}
	}
}

// prune forgets when entries were let go that are not there any more.
func (g *group) prune() {
	there := map[string]bool{}
	for _, e := range g.entries {
		there[e.key()] = true
	}
	maps.DeleteFunc(g.roll.Since, func(key string, _ time.Time) bool { return !there[key] })
}

// obey does what somebody asked of the roll.
func (g *group) obey() {
	asked, by := g.roll.Asked, g.roll.AskedBy
	g.roll.Asked, g.roll.AskedBy = "", ""
	state := g.roll.State
	switch {
	case asked == "":
	case asked == model.Pause && state == model.Rolling:
		g.roll.State = model.Paused
		g.tell("the roll is paused", "", by)
	case asked == model.Resume && state == model.Paused:
		g.roll.State = model.Rolling
		g.tell("the roll goes on", "", by)
	case asked == model.Revert && state != model.Reverting && g.canRevert():
		g.revert(strings.TrimSpace("asked for " + byWhom(by)))
		g.tell("the roll goes back", "it was asked for", by)
	default:
		g.tell(asked+" was asked of the roll: there is nothing to do", "it is "+string(state), by)
	}
}

func byWhom(by string) string {
	if by == "" {
		return ""
	}
	return "by " + by
}

// reverts reports whether a unit has a text to go back to.
func (g *group) reverts(unit string) bool {
	from := g.roll.From[unit]
	_, known := g.roll.Texts[from]
	return known && from != "" && from != g.roll.To[unit]
}

func (g *group) canRevert() bool {
	for unit := range g.roll.From {
		if g.reverts(unit) {
			return true
		}
	}
	return false
}

// revert turns the roll round. Nothing may change until the old texts are in the
// store.
func (g *group) revert(why string) {
	g.roll.State, g.roll.Why = model.Reverting, why
	clear(g.roll.Since)
}

// putBack asks for the texts that have not been put back yet.
func (g *group) putBack() {
	for _, name := range slices.Sorted(maps.Keys(g.roll.From)) {
		if g.reverts(name) && g.units[name].Hash == g.roll.To[name] {
			g.restoring = true
			hash := g.roll.From[name]
			g.out.Reverts = append(g.out.Reverts, Revert{
				Unit: name, Text: g.roll.Texts[hash], Hash: hash, Why: TakenBack + g.roll.Why,
			})
		}
	}
}
