package mvcc

import (
	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// The recent changes that are kept in memory: so many, but no more than these bytes of
// keys and values unless it is for the last few.
const (
	ringChanges = 4096
	ringBytes   = 16 << 20
	ringAlways  = 64
)

// ring holds all changes after the index floor.
type ring struct {
	floor   uint64
	changes []v2.Change
	bytes   int
}

func (r *ring) add(c v2.Change) {
	r.changes = append(r.changes, c)
	r.bytes += weight(c)
	for len(r.changes) > ringChanges || r.bytes > ringBytes && len(r.changes) > ringAlways {
		r.bytes -= weight(r.changes[0])
		r.floor = r.changes[0].Index()
		r.changes[0] = v2.Change{} // append moves the rest to a new array in time
		r.changes = r.changes[1:]
	}
}

// since returns the changes from the index on. They are all of them only if the
// index is above the floor.
func (r *ring) since(index uint64) []v2.Change {
	return sinceIn(r.changes, index)
}

// weight is about how many bytes a change holds on to.
func weight(c v2.Change) int {
	n := eventWeight(c.Event)
	for _, p := range c.Removed {
		n += len(p) + 16
	}
	return n
}

// eventWeight is about how many bytes an event holds on to.
func eventWeight(e *keys.Event) int {
	const fixed = 400
	n := fixed
	for _, node := range []*keys.Node{e.Node, e.PrevNode} {
		if node != nil {
			n += len(node.Key)
		}
		if node != nil && node.Value != nil {
			n += len(*node.Value)
		}
	}
	return n
}
