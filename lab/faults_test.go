package lab

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/lab/faults"
)

// A short piece of what "go run ./lab/faults" does for as long as one likes: while
// members are killed, paused, frozen, cut off and slowed down, the history of the
// clients is linearizable and no watcher misses a change.
func TestStoreUnderFaults(t *testing.T) {
	scenario(t)
	report, err := faults.Run(t.Context(), faults.Config{
		Lab: lab, Seed: 1, For: 75 * time.Second, Dir: t.ArtifactDir(), Say: t.Logf,
		// Those that leave the machines' disks and power to the other scenarios.
		Kinds: []faults.Kind{faults.Crash, faults.Down, faults.Pause, faults.Freeze, faults.Cut, faults.Split, faults.SlowNet, faults.SlowCPU},
	})
	var text strings.Builder
	report.Print(&text)
	t.Logf("\n%s", &text)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Sound() {
		t.Error("the store did what it may not do, or a fault could not be injected: see above")
	}
	if report.OK < 200 || len(report.Injected) < 3 || report.Events < report.OK {
		t.Error("too little was tried to say anything")
	}
}
