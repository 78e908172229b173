package sched

import (
	"fmt"
	"time"

	"flotilla/internal/unitfile"
)

// moveAfter is Policy.MoveAfter with its default; ok is false for never.
func (p Policy) moveAfter() (d time.Duration, ok bool) {
	if p.MoveAfter == 0 {
		return defaultMoveAfter, true
	}
	return p.MoveAfter, p.MoveAfter > 0
}

// due reports whether the units of m are to move because m has been away too long,
// whether or not moves are held.
func (c *cluster) due(m *machine) bool {
	after, ok := c.Policy.moveAfter()
	return !m.present && ok && !c.Now.Before(m.since.Add(after))
}

// awayOf counts the machines that are away, of how many.
func (c *cluster) awayOf() (away, seen int) {
	seen = max(c.Seen, len(c.present)+len(c.away))
	return seen - len(c.present), seen
}

// holding reports whether so many machines are away that the network or the store
// is to blame rather than they.
func (c *cluster) holding() bool {
	fraction := c.Policy.HoldFraction
	if fraction == 0 {
		fraction = defaultHoldFraction
	}
	away, seen := c.awayOf()
	return float64(away) > fraction*float64(seen)
}

func (c *cluster) held() string {
	if c.heldMoves == 0 {
		return ""
	}
	away, seen := c.awayOf()
	return fmt.Sprintf("%d of %d machines are away: taken for a fault of the network or the store; moves held: %d",
		away, seen, c.heldMoves)
}

// wake is when the first machine that is away and not due yet will be, if it has a
// unit that could move. While moves are held that is when Held will change.
func (c *cluster) wake() time.Time {
	after, ok := c.Policy.moveAfter()
	if !ok {
		return time.Time{}
	}
	var first time.Time
	for _, m := range c.away {
		at := m.since.Add(after)
		if !c.due(m) && hasMovable(m) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

func hasMovable(m *machine) bool {
	for _, e := range m.here {
		if e.job.movable() {
			return true
		}
	}
	return false
}

// movable reports whether the unit goes elsewhere if its machine is away.
func (j *job) movable() bool { return j.wanted() && j.Bad == "" && !j.Req.Global }

// isOneshot reports whether a unit is a service that is meant to end.
func isOneshot(text string) bool {
	b, err := unitfile.ParseBundle(text)
	if err != nil {
		return false
	}
	v, _ := b.Effective().Get("Service", "Type")
	return v == "oneshot"
}
