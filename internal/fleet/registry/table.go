package registry

import (
	"cmp"
	"maps"
	"slices"
)

// table is values by unit and machine. Most units are on one machine, and there are
// thousands: a row is a short list, not a map. The zero table is empty.
type table[V any] struct {
	rows map[string][]cell[V] // by unit, in order of machine
	own  map[string]bool      // the rows that no copy has as well; nil: all of them
}

type cell[V any] struct {
	machine string
	value   V
}

// copied is a table that has the same values, and goes on having them. It shares with t
// the rows that neither has changed since.
func (t *table[V]) copied() table[V] {
	t.own = map[string]bool{}
	return table[V]{rows: maps.Clone(t.rows), own: map[string]bool{}}
}

func (t *table[V]) find(unit, machine string) (int, bool) {
	return slices.BinarySearchFunc(t.rows[unit], machine, func(c cell[V], m string) int { return cmp.Compare(c.machine, m) })
}

func (t *table[V]) get(unit, machine string) (value V, ok bool) {
	i, ok := t.find(unit, machine)
	if ok {
		value = t.rows[unit][i].value
	}
	return value, ok
}

func (t *table[V]) put(unit, machine string, value V) {
	if t.rows == nil {
		t.rows = map[string][]cell[V]{}
	}
	i, ok := t.find(unit, machine)
	row := t.writable(unit)
	if ok {
		row[i].value = value
	} else {
		row = slices.Insert(row, i, cell[V]{machine, value})
	}
	t.rows[unit] = row
}

func (t *table[V]) drop(unit, machine string) {
	i, ok := t.find(unit, machine)
	if !ok {
		return
	}
	if row := slices.Delete(t.writable(unit), i, i+1); len(row) > 0 {
		t.rows[unit] = row
	} else {
		delete(t.rows, unit)
	}
}

// writable is the row of a unit, which no copy has.
func (t *table[V]) writable(unit string) []cell[V] {
	row := t.rows[unit]
	if t.own == nil || t.own[unit] {
		return row
	}
	t.own[unit] = true
	return slices.Clone(row)
}

// of returns the values of a unit, in order of machine.
func (t *table[V]) of(unit string) []V { return appendValues(nil, t.rows[unit]) }

// all returns all values, in order of unit and machine.
func (t *table[V]) all() []V {
	out := make([]V, 0, len(t.rows)) // at least
	for _, unit := range slices.Sorted(maps.Keys(t.rows)) {
		out = appendValues(out, t.rows[unit])
	}
	return out
}

func appendValues[V any](to []V, row []cell[V]) []V {
	to = slices.Grow(to, len(row))
	for i := range row {
		to = append(to, row[i].value)
	}
	return to
}
