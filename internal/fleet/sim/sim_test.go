package sim

import (
	"log/slog"
	"testing"
	"time"

	"flotilla/internal/kv/member/membertest"
)

// A small cluster does what the large one is measured for.
func TestSmallCluster(t *testing.T) {
	report, err := Run(t.Context(), Config{
		Endpoint: membertest.Start(t), Dir: t.TempDir(), Machines: 20, Units: 200, Few: 50, Samples: 5,
		TTL: 2 * time.Second, MoveAfter: time.Second, Idle: 2 * time.Second, Log: slog.New(slog.DiscardHandler),
	}, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	// Times are for a machine that does nothing else; that nothing is written at
	// rest holds on any.
	for _, f := range report {
		if f.Aim != "" && !f.OK && f.What == "writes to the store in 2s at rest" {
			t.Errorf("%s: %s, aim %s", f.What, f.Value, f.Aim)
		}
	}
}
