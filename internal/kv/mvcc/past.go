package mvcc

import (
	"slices"
	"sort"

	"flotilla/internal/kv/v2"
)

// A watcher that asks for one change at a time comes back for the next one at once.
// After a restart, and for who is far behind, that change is in the store alone, and
// to read it takes a tree of that time: so what is read is not the one change but a
// stretch of the history, which the next requests are answered from.

// pastStretches is how many stretches of the history are in memory, each of the size
// of a ring: the watchers that are behind are seldom at more places than that.
const pastStretches = 4

// stretch is all changes after the index floor up to until.
type stretch struct {
	floor, until uint64
	changes      []v2.Change
	bytes        int
	full         bool
}

// add appends the next change, until the stretch is full: then it ends with the last
// index of which it has everything.
func (p *stretch) add(c v2.Change) {
	if p.full {
		return
	}
	if p.full = len(p.changes) >= ringChanges || p.bytes >= ringBytes; !p.full {
		p.changes = append(p.changes, c)
		p.bytes += weight(c)
		p.until = c.Index()
		return
	}
	for n := len(p.changes); n > 0 && p.changes[n-1].Index() == c.Index(); n-- {
		p.changes = p.changes[:n-1]
	}
	p.until = c.Index() - 1
}

// since returns the changes from the index on.
func (p *stretch) since(index uint64) []v2.Change { return sinceIn(p.changes, index) }

// sinceIn returns the changes, which are in order, from the index on.
func sinceIn(changes []v2.Change, index uint64) []v2.Change {
	i := sort.Search(len(changes), func(i int) bool { return changes[i].Index() >= index })
	return changes[i:]
}

// past is stretches of the history, the one that was used last at the end.
type past []*stretch

// keep takes one more stretch, in the place of the one that was not used for longest.
func (p *past) keep(s *stretch) {
	if s.until <= s.floor {
		return
	}
	if len(*p) >= pastStretches {
		*p = slices.Delete(*p, 0, 1)
	}
	*p = append(*p, s)
}

// at returns the stretch that has the index; nil if there is none.
func (p past) at(index uint64) *stretch {
	for i, s := range p {
		if s.floor < index && index <= s.until {
			copy(p[i:], p[i+1:])
			p[len(p)-1] = s
			return s
		}
	}
	return nil
}

// find looks for the first change from the index on that match takes. If what is in
// memory has none, next is the first index that it does not reach.
func (p past) find(index uint64, match func(v2.Change) bool) (c v2.Change, next uint64, ok bool) {
	for s := p.at(index); s != nil; s = p.at(index) {
		for _, c := range s.since(index) {
			if match(c) {
				return c, 0, true
			}
		}
		index = s.until + 1
	}
	return v2.Change{}, index, false
}
