package nodeplan

import (
	"slices"
	"strings"

	"flotilla/internal/unitfile"
)

// inStartOrder sorts names so that a unit comes after those it names in After=
// and before those it names in Before= (systemd.unit(5)), by name where nothing is
// said. An init system orders jobs only among those it has been given: of two jobs
// sent one after the other it may run the first before it hears of the second.
// Units that wait for each other in a circle come in some order, always the same.
func inStartOrder(names []string, want map[string]Want) []string {
	names = slices.Sorted(slices.Values(names))
	before := predecessors(names, want)
	var out []string
	state := map[string]int{} // 1: being looked at, 2: in out
	var visit func(string)
	visit = func(name string) {
		if state[name] != 0 {
			return
		}
		state[name] = 1
		for _, p := range before[name] {
			visit(p)
		}
		state[name] = 2
		out = append(out, name)
	}
	for _, name := range names {
		visit(name)
	}
	return out
}

// predecessors says for each name which of the others come before it.
func predecessors(names []string, want map[string]Want) map[string][]string {
	among := make(map[string]bool, len(names))
	for _, name := range names {
		among[name] = true
	}
	before := map[string][]string{}
	for _, name := range names {
		text := want[name].Text
		if !strings.Contains(text, "After=") && !strings.Contains(text, "Before=") {
			continue // most units: spare the parsing
		}
		b, err := unitfile.ParseBundle(text)
		if err != nil {
			continue // it will be refused where it is installed
		}
		f := b.Effective()
		for _, other := range listed(f, "After", name) {
			if among[other] {
				before[name] = append(before[name], other)
			}
		}
		for _, other := range listed(f, "Before", name) {
			if among[other] {
				before[other] = append(before[other], name)
			}
		}
	}
	return before
}

// listed is the units that an option of [Unit] names; an empty value takes back
// what came before it.
func listed(f unitfile.File, option, name string) []string {
	var out []string
	for _, v := range f.All("Unit", option) {
		if strings.TrimSpace(v) == "" {
			out = nil
		}
		out = append(out, strings.Fields(unitfile.ExpandFleet(v, name))...)
	}
	return out
}
