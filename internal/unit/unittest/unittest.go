// Package unittest says what an init system behind the ports of package unit must
// do. Every implementation runs the suite: systemd, the supervisor, the fake.
//
// Most cases are text: a file in cases/ is a txtar archive whose comment is a
// script and whose files are the units. See script.go for the verbs. What a script
// cannot say (channels, many units at once) is a Go case in a table.
package unittest

import (
	"context"
	"embed"
	"os"
	"path"
	"slices"
	"testing"
	"time"

	"flotilla/internal/unit"
)

// limit is how long a case waits for one thing to become true. Everything that the
// cases wait for takes milliseconds; a loaded machine may take seconds.
const limit = 20 * time.Second

// Subject is an init system under test.
type Subject struct {
	Manager unit.Manager
	Log     unit.LogReader
	// Dir is an empty directory that units can read and write under the same path.
	// The path has no blanks, quotes, '%' or '$' in it.
	Dir string
	// Virtual says that no processes stand behind the units, as in the fake: cases
	// that look at what a process does are left out.
	Virtual bool
}

// Case is one thing that an init system must do.
type Case struct {
	Name string
	// Needs names what the case cannot do without: "processes" (not Virtual),
	// "root" (the test runs as root).
	Needs []string
	Run   func(t *testing.T, s Subject)
}

//go:embed cases/*.txtar
var files embed.FS

// Run runs the whole suite. open is called once for each case; what it opened is
// closed with t.Cleanup. A case stops and removes the units that it installed.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for _, c := range Cases(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := open(t)
			if lacks := c.lacks(s); lacks != "" {
				t.Logf("left out: the case needs %s", lacks)
				return
			}
			cleanup(t, s)
			c.Run(t, s)
		})
	}
}

// Cases returns every case of the suite: the scripts by file name, then those
// written in Go.
func Cases(t *testing.T) []Case {
	t.Helper()
	return slices.Concat(scripts(t), portCases, serviceCases)
}

func (c Case) lacks(s Subject) string {
	if slices.Contains(c.Needs, "processes") && s.Virtual {
		return "processes"
	}
	if slices.Contains(c.Needs, "root") && os.Geteuid() != 0 {
		return "root"
	}
	return ""
}

func scripts(t *testing.T) []Case {
	t.Helper()
	names, err := files.ReadDir("cases")
	if err != nil {
		t.Fatal(err)
	}
	var out []Case
	for _, e := range names {
		name := path.Join("cases", e.Name())
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := parseScript(name, data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Case{Name: sc.title(), Needs: sc.needs, Run: sc.play})
	}
	return out
}

// cleanup stops and removes at the end of the test whatever is installed then.
func cleanup(t *testing.T, s Subject) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		have, err := s.Manager.Installed(ctx)
		if err != nil {
			t.Errorf("clean up: %v", err)
			return
		}
		var jobs []unit.Job
		for name := range have {
			jobs = append(jobs, unit.Job{Kind: unit.Stop, Unit: name})
		}
		for range s.Manager.Run(ctx, jobs) {
			// Whether a unit could be stopped is the business of the cases.
			continue
		}
		for name := range have {
			if err := s.Manager.Remove(ctx, name); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
}
