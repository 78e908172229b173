package engine

import (
	"slices"
	"strings"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// told is what was said already, so that it is said once.
type told struct {
	held    string // why moves are held
	greeted bool
	drained map[string]string // by machine, how far it has been drained
	// unwritten is why the rolls wait that cannot be written down, by group.
	unwritten map[string]string
}

// drains is what there is to tell of machines that are to be drained: that one is
// empty, or that units cannot leave it.
func (t *told) drains(ds []sched.Drain, now time.Time) []model.Event {
	said := map[string]string{}
	var es []model.Event
	for _, d := range ds {
		e := drained(d)
		if said[d.Machine] = e.What + e.Why; e.What != "" && said[d.Machine] != t.drained[d.Machine] {
			e.At = now
			es = append(es, e)
		}
	}
	t.drained = said
	return es
}

// drained is what there is to say of one machine; "" nothing yet.
func drained(d sched.Drain) model.Event {
	e := model.Event{Kind: model.Presence, Machine: d.Machine}
	notes := d.Stuck
	switch {
	case d.Left == 0:
		e.What, notes = "drained", d.Stays
	case len(d.Moving) == 0 && len(d.Stuck) > 0:
		e.Kind, e.What = model.Held, "units cannot leave the machine"
	default:
		return e
	}
	var whys []string
	for _, n := range notes {
		whys = append(whys, n.Unit+": "+n.Why)
	}
	e.Why = strings.Join(whys, "; ")
	return e
}

// news is what has to be written so that the store says what result says: nothing,
// if it does already.
func news(v *registry.View, result sched.Result) registry.Notes {
	var n registry.Notes
	current := map[string]bool{}
	for _, u := range result.Unplaced {
		current[u.Unit] = true
		if !sameReason(v.Unplaced(u.Unit), u) {
			n.Unplaced = append(n.Unplaced, u)
		}
	}
	for _, u := range v.AllUnplaced() {
		if !current[u.Unit] {
			n.Placed = append(n.Placed, u.Unit)
		}
	}
	if v.Hold() != result.Held {
		n.Hold = &result.Held
	}
	return n
}

func sameReason(a, b sched.Unplaced) bool {
	return a.Unit == b.Unit && a.Why == b.Why && slices.Equal(a.Verdicts, b.Verdicts)
}
