package rollout

import (
	"fmt"
	"time"

	"flotilla/internal/fleet/model"
)

// entry is a unit that runs on a machine.
type entry struct {
	model.Placement
	unit    model.Unit
	state   model.UnitState // zero: the machine has said nothing
	present bool
	away    time.Time // since when the machine is not present
}

func (g *group) entry(u model.Unit, p model.Placement, st model.UnitState) *entry {
	e := &entry{Placement: p, unit: u, state: st, present: g.s.Present(p.Machine)}
	if !e.present {
		e.away = g.s.LeaderSince
		if lost, ok := g.s.Lost[p.Machine]; ok {
			e.away = lost
		}
	}
	return e
}

func (e *entry) key() string { return model.RollKey(e.Unit, e.Machine) }

func (e *entry) String() string { return e.Unit + " on " + model.ShortID(e.Machine) }

// changed reports whether the entry still has another text than its unit.
func (e *entry) changed() bool { return e.Hash != e.unit.Hash }

func (e *entry) patience() time.Duration { return e.unit.Req.Roll.HealthyTimeout }

// up reports whether the unit serves there, with the text of the entry.
func (e *entry) up() bool {
	st := e.state
	switch {
	case !e.present || st.Hash != "" && st.Hash != e.Hash:
		return false
	case e.Watched && (st.Health == model.Waiting || st.Health == model.Bad):
		return false
	case st.Active == "active" || st.Active == "reloading":
		return true
	}
	return st.Active == "inactive" && model.IsOneshot(e.Text)
}

// atRest reports whether the unit has failed or ended there, and will not come up by
// itself.
func (e *entry) atRest() bool {
	st := e.state
	return st.Hash == e.Hash && st.Gen >= e.Gen && (st.Active == "failed" || st.Active == "inactive")
}

// verdict is what is made of an entry with its new text.
type verdict int

const (
	waiting verdict = iota // too early to tell
	good
	bad
)

// judge judges an entry on a present machine that has its unit's text, with the
// reason if it is bad. Since is since when, if it has not been good yet.
func (e *entry) judge(now, since time.Time) (verdict, string) {
	st, flying := e.state, !since.IsZero()
	late := func(after time.Duration) bool { return flying && !now.Before(since.Add(after+mute)) }
	switch {
	case st.Hash != e.Hash || e.Watched && st.Health == model.Unwatched:
		// The machine has not come to it yet. Stopping the old copy may take
		// as long as its unit file lets it.
		if late(e.patience()) && st.Active != "deactivating" {
			return bad, fmt.Sprintf("nothing was heard of it for %s", now.Sub(since).Truncate(time.Second))
		}
		return waiting, ""
	case st.Health == model.Bad:
		return bad, orElse(st.HealthWhy, "it is not healthy")
	case st.Health == model.Good && flying:
		return good, "" // also of what did not run before, and does not now
	case st.Active == "failed" && st.Health != model.Waiting:
		return bad, orElse(st.Message, "it failed")
	case st.Health == model.Good || e.up():
		return good, ""
	case late(2 * e.patience()): // the machine should have said so long ago
		return bad, "it is " + orElse(st.Active, "in no known state") + " for too long"
	}
	return waiting, ""
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
