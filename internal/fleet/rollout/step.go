package rollout

import (
	"fmt"
	"strings"
	"time"

	"flotilla/internal/fleet/model"
)

// takesPart reports whether the roll is about the unit of e, and its text is there
// to be taken.
func (g *group) takesPart(e *entry) bool {
	if g.roll.State == model.Reverting && g.reverts(e.Unit) {
		return e.unit.Hash == g.roll.From[e.Unit]
	}
	_, ok := g.roll.To[e.Unit]
	return ok && g.roll.State != model.Reverting
}

// judge looks at the entries that have got their text. The first that is bad turns
// the roll round; one that has nothing to go back to is left as it is.
func (g *group) judge() {
	for _, e := range g.entries {
		if !e.present || e.changed() || !g.takesPart(e) {
			continue
		}
		_, counts := g.roll.Since[e.key()]
		if g.givenUp(e) {
			continue
		}
		switch v, why := e.judge(g.s.Now, g.since(e)); {
		case v == good && !e.up() && counts:
			g.roll.Since[e.key()] = time.Time{} // it is not meant to run: not to be waited for
		case v == good:
			delete(g.roll.Since, e.key())
		case v == waiting && !counts:
			g.roll.Since[e.key()] = g.s.Now
		case v == waiting || g.roll.State == model.Paused:
		case g.roll.State == model.Rolling && e.Watched && g.reverts(e.Unit):
			g.fail(e, why)
			return
		default:
			g.giveUp(e, why)
		}
	}
}

// fail turns the roll round because of e.
func (g *group) fail(e *entry, why string) {
	g.note(e, why)
	g.revert(e.String() + ": " + why)
	g.out.Events = append(g.out.Events, model.Event{
		At: g.s.Now, Kind: model.RollEvent, Unit: e.Unit, Machine: e.Machine,
		What: "the roll of " + g.name + " failed and goes back", Why: why,
	})
}

// giveUp lets the roll go on without e, and never looks at it again.
func (g *group) giveUp(e *entry, why string) {
	g.roll.Since[e.key()] = time.Time{}
	if g.roll.State != model.Reverting {
		g.note(e, why)
	}
	g.out.Events = append(g.out.Events, model.Event{
		At: g.s.Now, Kind: model.RollEvent, Unit: e.Unit, Machine: e.Machine,
		What: "not good, the roll of " + g.name + " goes on without it", Why: why,
	})
}

func (g *group) note(e *entry, why string) {
	g.roll.Failed, g.roll.Machine, g.roll.Why = e.Unit, e.Machine, e.String()+": "+why
	g.roll.Log = nil
	if log := strings.TrimRight(e.state.Log, "\n"); log != "" {
		g.roll.Log = strings.Split(log, "\n")
	}
}

// settled reports whether nothing more is to be waited for with e: it has its text,
// and is good, or has been given up.
func (g *group) settled(e *entry) bool {
	return !e.changed() && !g.flying(e)
}

// flying reports whether e may take its text, and has not been good with it.
func (g *group) flying(e *entry) bool {
	since, ok := g.roll.Since[e.key()]
	return ok && !since.IsZero()
}

// since is since when e may have its text and has not been good with it; zero if that
// does not count. What is not of this engine's time was written down by another one, by
// the clock of its machine: then it counts from this engine's election.
func (g *group) since(e *entry) time.Time {
	since := g.roll.Since[e.key()]
	if !since.IsZero() && (since.Before(g.s.LeaderSince) || since.After(g.s.Now)) {
		return g.s.LeaderSince
	}
	return since
}

// givenUp reports whether e is not waited for any more.
func (g *group) givenUp(e *entry) bool {
	since, ok := g.roll.Since[e.key()]
	return ok && since.IsZero()
}

// unavailable sorts an entry: down, if it serves nobody or is being changed, and in
// that case also flying.
func (g *group) unavailable(e *entry) (down, flying bool) {
	switch {
	case !e.present:
		recent := g.s.Now.Before(e.away.Add(e.patience()))
		return recent, false
	case g.flying(e):
		return true, true
	case g.givenUp(e), g.beside(e) && e.atRest() && !g.s.Now.Before(g.roll.Started.Add(e.patience())):
		return false, false
	}
	return !e.up(), false
}

// beside reports whether e is of another text than those of the roll: nothing that
// the roll does brings it up.
func (g *group) beside(e *entry) bool {
	if g.roll.State == model.Reverting {
		return !g.reverts(e.Unit)
	}
	_, rolls := g.roll.To[e.Unit]
	return !rolls
}

// advance lets the next entries go.
func (g *group) advance() {
	limit, down, flying := g.limit(), 0, 0
	for _, e := range g.entries {
		d, f := g.unavailable(e)
		if d {
			down++
		}
		if f {
			flying++
		}
	}
	reverting := g.roll.State == model.Reverting
	for _, e := range g.waiting(false) {
		if flying < limit || reverting {
			flying++
			g.release(e)
		}
	}
	for _, e := range g.waiting(true) {
		if down < limit {
			down++
			g.release(e)
		}
	}
}

// waiting is the entries that could be changed next: those that are up, or those
// that are not.
func (g *group) waiting(up bool) []*entry {
	var out []*entry
	for _, e := range g.entries {
		if e.present && e.changed() && !g.flying(e) && g.takesPart(e) && e.up() == up {
			out = append(out, e)
		}
	}
	return out
}

func (g *group) release(e *entry) { g.roll.Since[e.key()] = g.s.Now }

// finish ends the roll if there is nothing left to do, and says how far it is.
func (g *group) finish() {
	done, open, away, recent := g.tally()
	switch g.roll.State {
	case model.Rolling, model.Paused:
		g.roll.Why = g.progress(done, open, away)
	}
	over := len(open) == 0 && !recent && (done > 0 || len(away) == 0)
	switch {
	case !over || g.restoring:
		return
	case g.roll.State == model.Rolling:
		g.roll.State = model.Done
		g.tell("the roll is done", g.roll.Why, "")
	case g.roll.State == model.Reverting:
		g.roll.State = model.Reverted
		g.tell("the roll has gone back", g.roll.Why, "")
	default:
		return
	}
	g.roll.Ended = g.s.Now
	g.roll.Texts, g.roll.Since = nil, nil
}

// tally counts the entries that the roll is done with, and lists those on present
// machines that it is not, and those that it cannot reach; recent says that one of
// these fell silent only lately.
func (g *group) tally() (done int, open, away []*entry, recent bool) {
	for _, e := range g.entries {
		switch {
		case !g.takesPart(e):
			if g.roll.State == model.Reverting && g.reverts(e.Unit) {
				open = append(open, e) // its old text is not in the store yet
			}
		case e.present && g.settled(e):
			done++
		case e.present:
			open = append(open, e)
		default:
			away = append(away, e)
			down, _ := g.unavailable(e)
			recent = recent || down
		}
	}
	return done, open, away, recent
}

// maxNamed is how many entries are named in a reason.
const maxNamed = 3

// progress says how far the roll is and what it waits for.
func (g *group) progress(done int, open, away []*entry) string {
	parts := []string{fmt.Sprintf("%d of %d changed", done, done+len(open)+len(away))}
	if done+len(open)+len(away) == 0 {
		parts = []string{"nothing of it runs any more"}
	}
	if g.roll.State == model.Paused {
		parts = append(parts, "paused")
	}
	var being, blocking []string
	for _, e := range g.entries {
		switch down, flying := g.unavailable(e); {
		case flying:
			being = append(being, e.String())
		case down && len(open) > 0:
			blocking = append(blocking, e.String()+" to be up")
		}
	}
	if len(being)+len(blocking) > 0 {
		parts = append(parts, "waits for "+names(append(being, blocking...)))
	}
	if len(away) > 0 {
		var list []string
		for _, e := range away {
			list = append(list, e.String())
		}
		parts = append(parts, names(list)+": the machine is away, it follows when it returns")
	}
	if g.roll.Failed != "" {
		parts = append(parts, g.roll.Failed+" on "+model.ShortID(g.roll.Machine)+" is not good")
	}
	return strings.Join(parts, "; ")
}

func names(list []string) string {
	if len(list) > maxNamed {
		list = append(list[:maxNamed:maxNamed], fmt.Sprintf("%d more", len(list)-maxNamed))
	}
	return strings.Join(list, ", ")
}
