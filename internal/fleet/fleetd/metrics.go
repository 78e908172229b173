package fleetd

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flotilla/internal/fleet/engine"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// metrics serves what the daemon counts, under the classic names where there is
// one.
func metrics(e *engine.Stats, r *registry.Registry) http.Handler {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "fleet", Name: name, Help: help}, value))
	}
	counter := func(name, help string, labels prometheus.Labels, value func() float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "fleet", Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("engine_leader_start_time", "Unix time since when this engine leads; 0: it does not.", func() float64 {
		return unixTime(e.LeaderSince())
	})
	gauge("store_away_since", "Unix time since when the store has not answered; 0: it answers.", func() float64 {
		return unixTime(r.Away())
	})
	for _, op := range []sched.Op{sched.Place, sched.Release, sched.Leave, sched.Update} {
		counter("engine_task_count_total", "Decisions carried out.", prometheus.Labels{"type": string(op)}, func() float64 {
			return float64(e.Tasks(op))
		})
	}
	counter("engine_reconcile_count_total", "How often the engine has decided.", nil, func() float64 {
		n, _ := e.Passes()
		return float64(n)
	})
	counter("engine_reconcile_duration_second_sum", "How long that took together, in seconds.", nil, func() float64 {
		_, took := e.Passes()
		return took.Seconds()
	})
	counter("engine_reconcile_failure_count_total", "Passes that could not be written.", nil, func() float64 {
		return float64(e.Failures())
	})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
