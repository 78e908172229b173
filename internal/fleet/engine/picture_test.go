package engine

import (
	"testing"

	"flotilla/internal/fleet/model"
)

// What is told of a failure is never what was said of a copy that is well, or that
// nobody has judged yet.
func TestTroubleOf(t *testing.T) {
	for _, c := range []struct {
		name  string
		state model.UnitState
		want  string
	}{
		{"well", model.UnitState{Active: "active"}, ""},
		{"failed", model.UnitState{Active: "failed"}, "failed: "},
		{"failed, and its job told", model.UnitState{Active: "failed", Message: "start job ended"}, "failed: start job ended"},
		{"found bad", model.UnitState{Active: "failed", Health: model.Bad, HealthWhy: "it failed (exit-code)"}, "failed: it failed (exit-code)"},
		{"the copy before had failed", model.UnitState{Active: "failed", Health: model.Waiting, HealthWhy: "it is being started"}, ""},
		{"was good once", model.UnitState{Active: "failed", Health: model.Good, HealthWhy: "active for 1s"}, "failed: "},
		{"cannot be started yet", model.UnitState{Active: "failed", Health: model.Waiting, HealthWhy: "it is being started", Message: "start: connection lost"},
			"could not be loaded or started: start: connection lost"},
	} {
		got := ""
		if what, why := troubleOf(c.state); what != "" {
			got = what + ": " + why
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
