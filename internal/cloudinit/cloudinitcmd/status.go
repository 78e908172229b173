package cloudinitcmd

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"flotilla/internal/cloudinit/apply"
)

// printResults tells each run in a line, and below it what went wrong.
func (p *program) printResults(results map[string]apply.Result) {
	out := p.env.Stdout
	if len(results) == 0 {
		fmt.Fprintf(out, "no run yet (nothing in %s; runs with -root or -workspace are found with the same flags)\n", filepath.Join(p.root, p.workspace))
	}
	for _, name := range slices.Sorted(maps.Keys(results)) {
		r := results[name]
		when := r.Ended
		if when.IsZero() {
			when = r.Started
		}
		fmt.Fprintf(out, "%s: %s at %s, from %s: %s\n", name, r.State, when.Format(time.RFC3339), r.Source, summary(r))
		for _, e := range r.Errors {
			fmt.Fprintf(out, "  error: %s\n", e)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(out, "  %s\n", f)
		}
		for _, n := range r.Notes {
			if n.Problem {
				fmt.Fprintf(out, "  %s: %s\n", n.Target, n.Text)
			}
		}
		for _, o := range r.Steps {
			if o.Error != "" {
				fmt.Fprintf(out, "  %s %s: %s: %s\n", o.Kind, o.Target, o.Status, o.Error)
			}
		}
	}
}
