package sim

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"flotilla/internal/kv/member"
)

// A small cluster does what the large one is measured for.
func TestSmallCluster(t *testing.T) {
	cfg, err := member.Alone("sim", filepath.Join(t.TempDir(), "store"), []string{"http://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m := member.New(cfg, member.Deps{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); <-done })
	report, err := Run(t.Context(), Config{
		Endpoint: m.ClientURLs()[0], Dir: t.TempDir(), Machines: 20, Units: 200, Few: 50, Samples: 5,
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
