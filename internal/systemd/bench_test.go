package systemd_test

import (
	"fmt"
	"testing"

	"flotilla/internal/systemd"
	"flotilla/internal/unit"
)

// BenchmarkOnSystemd boots a machine like TestOnSystemd and measures there.
func BenchmarkOnSystemd(b *testing.B) {
	if !inside() {
		// To standard output: a benchmark's log is cut after ten lines.
		fmt.Print(runOnMachine(b, "-test.run=^$", "-test.bench=^BenchmarkOnSystemd$", "-test.benchtime=1s", "-test.timeout=3m"))
		return
	}
	m := systemd.New(systemd.Config{})
	defer m.Close()
	b.Run("new-units-started-together/100", func(b *testing.B) { startTogether(b, m) })
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
	b.Run("800-loaded", func(b *testing.B) {
		full := systemd.New(systemd.Config{})
		defer full.Close()
		var loaded []string
		for i := range 700 {
			loaded = append(loaded, fmt.Sprintf("loaded%03d.service", i))
		}
		install(b, full, sleeper, loaded...)
		run(b, full, unit.Start, loaded...)
		b.Run("new-units-started-together/100", func(b *testing.B) { startTogether(b, full) })
		b.Run("status-by-name/1", func(b *testing.B) {
			for b.Loop() {
				status(b, full, loaded[0])
			}
		})
		b.Run("reload", func(b *testing.B) {
			for b.Loop() {
				if err := full.Reload(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		run(b, full, unit.Stop, loaded...)
	})
}

// startTogether installs and starts a hundred new units, again and again.
func startTogether(b *testing.B, m *systemd.Manager) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("together%02d.service", i))
	}
	for b.Loop() {
		install(b, m, sleeper, names...)
		run(b, m, unit.Start, names...)
		b.StopTimer()
		run(b, m, unit.Stop, names...)
		for _, name := range names {
			if err := m.Remove(b.Context(), name); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(names)*b.N)/b.Elapsed().Seconds(), "units/s")
}
