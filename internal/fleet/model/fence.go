package model

import "time"

// DefaultMoveAfter is how long a machine's lease must have been gone before its units
// move, if nobody has said otherwise: with a lease of 10 s, a machine is suspected
// 10 s and its units move 20 s after its last word.
const DefaultMoveAfter = 10 * time.Second

// A singleton must be dead on a machine that has lost touch before the cluster may
// start it elsewhere. The machine counts from the moment at which it sent the last
// renewal of its lease that was answered, which is before the store began to count,
// and on a clock that runs while the machine sleeps. The cluster counts from the
// moment at which it saw the lease gone, which is after the store had counted out.
const (
	// FenceStop is how long a singleton is given to end by itself when its machine
	// has lost touch, before it is killed.
	FenceStop = 3 * time.Second
	// FenceMargin is how long it has been killed when the cluster may start it
	// elsewhere: what the kill and clocks that drift apart may take.
	FenceMargin = 2 * time.Second
)

// Forever is a move time that never ends.
const Forever time.Duration = -1

// endless is as good as for ever, and little enough that such spans can be added up.
const endless = 50 * 365 * 24 * time.Hour

// MovesAfter is how long the lease of the unit's machine must have been gone before
// the unit moves; ever is false if it never does. cluster is the setting for units
// that say nothing: 0 for DefaultMoveAfter, negative for never. Decades are never, too.
// A singleton waits for FenceStop and FenceMargin at least, so that it is not stopped
// before the lease of its machine has run out.
func (r Requirements) MovesAfter(cluster time.Duration) (after time.Duration, ever bool) {
	after = r.MoveAfter
	if after == 0 {
		after = cluster
	}
	if after == 0 {
		after = DefaultMoveAfter
	}
	if after < 0 || after >= endless {
		return 0, false
	}
	if r.Singleton {
		after = max(after, FenceStop+FenceMargin)
	}
	return after, true
}

// FencedBy is the move time that goes into an entry of a unit, for its machine to
// stop it by: Forever if it never moves, 0 if it is no singleton.
func (r Requirements) FencedBy(cluster time.Duration) time.Duration {
	after, ever := r.MovesAfter(cluster)
	switch {
	case !r.Singleton:
		return 0
	case !ever:
		return Forever
	}
	return after
}

// Fence is when a machine that cannot renew its lease must ask a singleton to stop
// whose move time is after, and when it must kill it, both counted from the moment at
// which it sent the last renewal that was answered. fenced is false for one that it
// leaves running, since it never moves. A time that is too short to be one (0 in an
// entry that says nothing) counts as the shortest.
func Fence(lease, after time.Duration) (stop, kill time.Duration, fenced bool) {
	if after < 0 || after >= endless {
		return 0, 0, false
	}
	kill = lease + max(after, FenceStop+FenceMargin) - FenceMargin
	return kill - FenceStop, kill, true
}

// Longer returns the longer of two move times.
func Longer(a, b time.Duration) time.Duration {
	if a < 0 || b < 0 {
		return Forever
	}
	return max(a, b)
}

// Wait is how long the lease of the machine of p, an entry of a singleton, must have
// been gone before nothing of the unit can run there any more; ever is false if that
// is not to be known. An entry that says nothing of it was not made for a singleton.
func (p Placement) Wait() (after time.Duration, ever bool) {
	after = Longer(p.MoveAfter, p.WaitFor)
	return after, after > 0
}
