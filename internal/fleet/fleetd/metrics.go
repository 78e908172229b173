package fleetd

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flotilla/internal/fleet/engine"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// metrics serves what the daemon counts, under the classic names where there is
// one.
func metrics(e *engine.Stats, r *registry.Registry, n *notebook) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(clusterMetrics{r})
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
	counter("events_kept_total", "What requests to this daemon have done, written among the cluster's events.", nil, func() float64 {
		return float64(n.kept.Load())
	})
	counter("events_lost_total", "What there was no room or no store for.", nil, func() float64 { return float64(n.lost.Load()) })
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// readLimit is how long the store is asked at a scrape.
const readLimit = 2 * time.Second

// clusterMetrics is what the cluster is doing, read from the store when somebody
// asks. While the store is away there is none of it.
type clusterMetrics struct{ *registry.Registry }

var (
	rollsDesc    = prometheus.NewDesc("fleet_rolls", "Rolls by state; those that have ended are told for a while.", []string{"state"}, nil)
	machinesDesc = prometheus.NewDesc("fleet_machines", "Machines that are present, by whether units may come (open), may not (cordoned), or leave (draining).", []string{"state"}, nil)
	heldDesc     = prometheus.NewDesc("fleet_moves_held", "1 while the engine holds moves.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c clusterMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rollsDesc, machinesDesc, heldDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c clusterMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	if rolls, err := c.ReadRolls(ctx); err == nil {
		count := map[model.RollState]int{}
		for _, r := range rolls {
			count[r.State]++
		}
		for _, s := range []model.RollState{model.Rolling, model.Paused, model.Reverting, model.Done, model.Reverted} {
			gauge(rollsDesc, count[s], string(s))
		}
	}
	if v, err := c.ReadMachines(ctx); err == nil {
		count := map[string]int{}
		for _, m := range v.Machines() {
			count[openness(m)]++
		}
		for _, state := range []string{"open", "cordoned", "draining"} {
			gauge(machinesDesc, count[state], state)
		}
	}
	if v, err := c.Read(ctx, registry.EngineNotes); err == nil {
		gauge(heldDesc, min(1, len(v.Hold())))
	}
}

func openness(m model.Machine) string {
	switch {
	case m.Cordon == nil:
		return "open"
	case m.Cordon.Drain:
		return "draining"
	}
	return "cordoned"
}
