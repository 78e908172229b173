package sched

import (
	"cmp"
	"slices"
)

// ladder is the present machines by load: the emptiest first, of those with as many
// units the one of which less is in use, then by id. A unit that nothing but load
// matters to need not look at more machines than do not fit.
type ladder struct {
	rungs [][]*machine // by number of units
}

// add enters m at its present load; remove takes it out before that changes.
func (l *ladder) add(m *machine) {
	m.rung, m.inUse = m.load(), m.share(nil)
	for len(l.rungs) <= m.rung {
		l.rungs = append(l.rungs, nil)
	}
	i, _ := l.find(m)
	l.rungs[m.rung] = slices.Insert(l.rungs[m.rung], i, m)
}

func (l *ladder) remove(m *machine) {
	i, _ := l.find(m)
	l.rungs[m.rung] = slices.Delete(l.rungs[m.rung], i, i+1)
}

func (l *ladder) find(m *machine) (int, bool) {
	return slices.BinarySearchFunc(l.rungs[m.rung], m, func(a, b *machine) int {
		return cmp.Or(cmp.Compare(a.inUse, b.inUse), byID(a, b))
	})
}

// change makes a change of what is on m, and moves m to its new place.
func (m *machine) change(do func()) {
	if m.ladder == nil {
		do()
		return
	}
	m.ladder.remove(m)
	do()
	m.ladder.add(m)
}
