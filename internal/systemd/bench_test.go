package systemd_test

import (
	"testing"

	"flotilla/internal/systemd"
	"flotilla/internal/unit"
)

// BenchmarkOnSystemd boots a machine like TestOnSystemd and measures there.
func BenchmarkOnSystemd(b *testing.B) {
	if !inside() {
		b.Log("\n" + runOnMachine(b, "-test.run=^$", "-test.bench=^BenchmarkOnSystemd$", "-test.benchtime=1s"))
		return
	}
	m := systemd.New(systemd.Config{})
	defer m.Close()
	b.Run("new-units-started-together/100", func(b *testing.B) {
		names := many(100)
		for b.Loop() {
			install(b, m, sleeper, names...)
			run(b, m, unit.Start, names...)
			b.StopTimer()
			clean(b, m)
			b.StartTimer()
		}
		b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "units/s")
	})
	b.Run("new-unit-started-alone", func(b *testing.B) {
		for b.Loop() {
			install(b, m, sleeper, "alone.service")
			run(b, m, unit.Start, "alone.service")
			b.StopTimer()
			clean(b, m)
			b.StartTimer()
		}
	})
	names := many(100)
	install(b, m, sleeper, names...)
	run(b, m, unit.Start, names...)
	defer clean(b, m)
	b.Run("status-by-name/1", func(b *testing.B) {
		for b.Loop() {
			status(b, m, names[0])
		}
	})
	b.Run("status-by-name/100", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Status(b.Context(), names...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reload", func(b *testing.B) {
		for b.Loop() {
			if err := m.Reload(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
