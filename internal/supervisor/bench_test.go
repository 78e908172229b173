package supervisor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"flotilla/internal/supervisor/proc"
	"flotilla/internal/unit"
)

// BenchmarkStart measures from the start job to its result, over the socket, for
// one simple service at a time, and what the supervisor then takes.
func BenchmarkStart(b *testing.B) {
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c, err := Ensure(b.Context(), "/proc/self/exe", dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := c.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("bench%d.service", i)
		if err := c.Install(b.Context(), name, "[Service]\nExecStart=/bin/sleep 1000\n"); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for o := range c.Run(b.Context(), []unit.Job{{Kind: unit.Start, Unit: name}}) {
			if o.Result != unit.Done {
				b.Fatalf("%+v", o)
			}
		}
		took = append(took, time.Since(began))
		for range c.Run(b.Context(), []unit.Job{{Kind: unit.Stop, Unit: name}}) {
			continue
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	self, err := c.Self(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(proc.RSS(self.PID))/(1<<20), "rss-MB")
}
