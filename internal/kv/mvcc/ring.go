package mvcc

import (
	"sort"

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
	i := sort.Search(len(r.changes), func(i int) bool { return r.changes[i].Index() >= index })
	return r.changes[i:]
}

// weight is about how many bytes a change holds on to.
func weight(c v2.Change) int {
	const fixed = 400
	n := fixed + len(c.Event.Node.Key)
	if v := c.Event.Node.Value; v != nil {
		n += len(*v)
	}
	for _, p := range c.Removed {
		n += len(p) + 16
	}
	return n
}
