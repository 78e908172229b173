package sched

import (
	"cmp"
	"fmt"
	"time"
)

// since is when a machine that is away was seen last.
func (p *pass) since(m *machine) time.Time {
	if at, ok := p.Lost[m.ID]; ok {
		return at
	}
	return p.LeaderSince
}

// due is when the unit of e moves because its machine has been away too long,
// whether or not moves are held; ever is false if it never does. A singleton moves
// when the entries that its machine may go by have made the machine stop it.
func (p *pass) due(e *entry) (at time.Time, ever bool) {
	after, ever := e.job.Req.MovesAfter(p.Policy.MoveAfter)
	if p.single(e) {
		after, ever = e.old.Wait()
	}
	return p.since(e.on).Add(after), ever && !e.on.present
}

// overdue reports whether the unit of e is to move because its machine has been away
// too long.
func (p *pass) overdue(e *entry) bool {
	at, ever := p.due(e)
	return ever && !p.Now.Before(at)
}

// awayOf counts the machines that are away, of how many.
func (p *pass) awayOf() (away, seen int) {
	seen = max(p.Seen, len(p.present)+len(p.away))
	return seen - len(p.present), seen
}

// holding reports whether so many machines are away that the network or the store
// is to blame rather than they.
func (p *pass) holding() bool {
	away, seen := p.awayOf()
	return float64(away) > p.fraction()*float64(seen)
}

// fraction is the share of the machines that may be away while units move.
func (p *pass) fraction() float64 { return cmp.Or(p.Policy.HoldFraction, defaultHoldFraction) }

func (p *pass) held() string {
	if p.heldMoves == 0 {
		return ""
	}
	away, seen := p.awayOf()
	return fmt.Sprintf("%d of %d machines are away: taken for a fault of the network or the store (hold_fraction=%g); moves held: %d",
		away, seen, p.fraction(), p.heldMoves)
}

// wake is when the first unit that could move from a machine that is away, and is
// not due yet, will be. While moves are held that is when Held will change.
func (p *pass) wake() time.Time {
	var first time.Time
	for _, m := range p.away {
		m.each(func(e *entry) {
			waits := e.fate == stays && e.job.movable() || e.fate == halts
			if at, ever := p.due(e); waits && ever && p.Now.Before(at) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		})
	}
	return first
}

// movable reports whether the unit goes elsewhere if its machine is away.
func (j *job) movable() bool { return j.wanted() && j.Bad == "" && !j.Req.Global }
