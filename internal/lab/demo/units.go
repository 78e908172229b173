package demo

import (
	"fmt"
	"sort"
	"strings"
)

// row is a line of "fleetctl list-units".
type row struct {
	unit, machine, active, sub string // machine is 8 digits of its id
}

// parseUnits reads what "fleetctl list-units --no-legend" prints.
func parseUnits(out string) []row {
	var rows []row
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		id, _, _ := strings.Cut(f[1], "...")
		rows = append(rows, row{unit: f[0], machine: id, active: f[2], sub: f[3]})
	}
	return rows
}

// parseSystemd reads what "systemctl list-units --plain --no-legend" prints on the
// machine: unit, load, active and sub state, description.
func parseSystemd(m machine, out string) []row {
	var rows []row
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 4 {
			rows = append(rows, row{unit: f[0], machine: m.name, active: f[2], sub: f[3]})
		}
	}
	return rows
}

// where returns the machines on which the unit is active.
func where(rows []row, unit string) []string {
	var out []string
	for _, r := range rows {
		if r.unit == unit && r.active == "active" {
			out = append(out, r.machine)
		}
	}
	return out
}

// twice names the units that are active on more than one machine though they are not
// the global one, and where.
func twice(rows []row, global string) []string {
	seen := map[string]bool{}
	var out []string
	for _, r := range rows {
		if at := where(rows, r.unit); r.unit != global && len(at) > 1 && !seen[r.unit] {
			seen[r.unit] = true
			out = append(out, fmt.Sprintf("%s on %s", r.unit, strings.Join(at, " and ")))
		}
	}
	sort.Strings(out)
	return out
}
