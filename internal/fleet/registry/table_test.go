package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A table holds what was put into it, in order, and a copy what the table held then,
// whatever happens to either.
func TestTableAndItsCopies(t *testing.T) {
	type pair struct {
		table *table[string]
		want  map[string]string // in the form of the values, by unit and machine
	}
	rng := rand.New(rand.NewPCG(1, 2))
	all := []pair{{&table[string]{}, map[string]string{}}}
	for range 2000 {
		p := all[rng.IntN(len(all))]
		unit, machine := fmt.Sprint("u", rng.IntN(4)), fmt.Sprint("m", rng.IntN(5))
		key, value := unit+" "+machine, fmt.Sprintf("%s %s %d", unit, machine, rng.IntN(100))
		switch rng.IntN(8) {
		case 0:
			copied := p.table.copied()
			all = append(all[max(0, len(all)-9):], pair{&copied, maps.Clone(p.want)})
		case 1, 2, 3:
			p.table.drop(unit, machine)
			delete(p.want, key)
		default:
			p.table.put(unit, machine, value)
			p.want[key] = value
		}
	}
	for _, p := range all {
		if diff := cmp.Diff(sorted(p.want), p.table.all()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		for u := range 4 {
			for m := range 5 {
				unit, machine := fmt.Sprint("u", u), fmt.Sprint("m", m)
				want, there := p.want[unit+" "+machine]
				if got, ok := p.table.get(unit, machine); got != want || ok != there {
					t.Errorf("%s on %s: %q, %v, want %q", unit, machine, got, ok, want)
				}
			}
		}
	}
}
