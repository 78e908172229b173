package engine

import (
	"slices"

	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// told is what was said already, so that it is said once.
type told struct {
	held    string // why moves are held
	greeted bool
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
