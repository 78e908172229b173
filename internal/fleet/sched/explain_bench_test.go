package sched

import (
	"fmt"
	"testing"
)

// What fleetctl why and what-if cost in a cluster of the largest size: a person waits
// for them.
func BenchmarkExplain(b *testing.B) {
	w := large(500, 10_000)
	w.carryOut(Decide(w.snapshot()).Decisions)
	s := w.snapshot()
	lost := fmt.Sprintf("%032x", 7)
	b.Run("why", func(b *testing.B) {
		for b.Loop() {
			if got := Explain(s, "job2000.service"); len(got) != 500 {
				b.Fatalf("%d verdicts", len(got))
			}
		}
	})
	b.Run("what-if drain", func(b *testing.B) {
		for b.Loop() {
			if f := WhatIf(s, []string{lost}, nil); len(f.Moves) < 20 {
				b.Fatalf("%d moves", len(f.Moves))
			}
		}
	})
	b.Run("what-if lose", func(b *testing.B) {
		for b.Loop() {
			WhatIf(s, nil, []string{lost})
		}
	})
	b.Run("rebalance", func(b *testing.B) {
		for b.Loop() {
			Rebalance(s, 10)
		}
	})
}
