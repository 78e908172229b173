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

// MovesAfter is how long the lease of the unit's machine must have been gone before
// the unit moves; ever is false if it never does. cluster is the setting for units
// that say nothing: 0 for DefaultMoveAfter, negative for never. A singleton waits
// for FenceStop and FenceMargin at least, so that it is not stopped before the lease
// of its machine has run out.
func (r Requirements) MovesAfter(cluster time.Duration) (after time.Duration, ever bool) {
	after = r.MoveAfter
	if after == 0 {
		after = cluster
	}
	if after == 0 {
		after = DefaultMoveAfter
	}
	if after < 0 {
		return 0, false
	}
	if r.Singleton {
		after = max(after, FenceStop+FenceMargin)
	}
	return after, true
}

// Fence is when a machine that cannot renew its lease must ask a singleton to stop,
// and when it must kill it, both counted from the moment at which it sent the last
// renewal that was answered. fenced is false for a unit that it leaves running: one
// that is no singleton, or one that never moves.
func (r Requirements) Fence(lease, cluster time.Duration) (stop, kill time.Duration, fenced bool) {
	after, ever := r.MovesAfter(cluster)
	if !r.Singleton || !ever {
		return 0, 0, false
	}
	kill = lease + after - FenceMargin
	return kill - FenceStop, kill, true
}
