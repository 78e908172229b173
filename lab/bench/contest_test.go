package main

import (
	"strings"
	"testing"
	"time"
)

func TestScore(t *testing.T) {
	took, err := sortOut("took 1000\ntook 4000\nother words\ntook 3000\ntook 3000\ntook 2000\ntook 4000\n", 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	s := score{contest{what: "a start", rounds: 3, others: []runner{{name: "swarm"}}}, took}
	if got, want := strings.Join(strings.Fields(s.String()), " "), "a start 2ms swarm 4ms 0.50 (0.25 to 1.00 of 3 rounds)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := sortOut("took 1\ntook 2\ntook 3\n", 2, 2); err == nil {
		t.Error("a time is missing, and nobody says so")
	}
	if got := quantile([]time.Duration{3, 1, 2}, 0.99); got != 3 {
		t.Errorf("p99 of three is %v", got)
	}
}
