package fleetd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"flotilla/api/fleet"
)

// follow reads the API's watch and sends each change.
func (m *machine) follow(query string) <-chan fleet.Change {
	m.t.Helper()
	client := m.client()
	client.Timeout = 0
	resp, err := client.Get("http://fleet/fleet/v1/watch" + query)
	if err != nil {
		m.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		m.t.Fatalf("watch: %s", resp.Status)
	}
	m.t.Cleanup(func() { resp.Body.Close() })
	out := make(chan fleet.Change, 10000)
	go func() {
		defer close(out)
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			var c fleet.Change
			if json.Unmarshal(scan.Bytes(), &c) == nil {
				out <- c
			}
		}
	}()
	return out
}

func until(t testing.TB, changes <-chan fleet.Change, what string, ok func(fleet.Change) bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case c, open := <-changes:
			if !open {
				t.Fatalf("%s: the watch has ended", what)
			}
			if ok(c) {
				return
			}
		case <-limit:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// From the PUT of a unit that is to be launched to the line of the watch that says
// it is active, over the API, the store on this machine's disk, and an init system
// that starts everything at once.
func BenchmarkLaunch(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("machines=%d", n), func(b *testing.B) {
			c := newCluster(b, n, nil)
			m := c.first()
			changes := m.follow("")
			until(b, changes, "synced", func(c fleet.Change) bool { return c.Synced })
			var took []time.Duration
			for b.Loop() {
				name := fmt.Sprintf("u%d.service", len(took))
				began := time.Now()
				m.launch(name)
				until(b, changes, name, func(c fleet.Change) bool {
					return c.State != nil && c.State.Name == name && c.State.SystemdActiveState == "active"
				})
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// A hundred units at once on three machines.
func BenchmarkLaunch100(b *testing.B) {
	c := newCluster(b, 3, nil)
	m := c.first()
	changes := m.follow("")
	until(b, changes, "synced", func(c fleet.Change) bool { return c.Synced })
	round := 0
	for b.Loop() {
		round++
		for i := range 100 {
			m.launch(fmt.Sprintf("r%d-u%d.service", round, i))
		}
		active := map[string]bool{}
		until(b, changes, "all active", func(c fleet.Change) bool {
			if c.State != nil && c.State.SystemdActiveState == "active" {
				active[c.State.Name] = true
			}
			return len(active) == 100
		})
	}
}
