package sched

import (
	"fmt"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
)

// large is a cluster of the largest size that is aimed at: groups of instances that
// keep apart, groups that follow them, and some global units.
func large(machines, units int) *world {
	w := newWorld()
	for i := range machines {
		id := fmt.Sprintf("%032x", i)
		w.machines[id] = model.Machine{ID: id, Metadata: map[string]string{"zone": fmt.Sprint(i % 3)}}
	}
	for i := range units {
		switch {
		case i < 5:
			w.submit(fmt.Sprintf("global%d.service", i), []string{"Global=true"})
		case i%3 == 0:
			w.submit(fmt.Sprintf("web%d@%d.service", i/60, i), []string{"Conflicts=%p@*"})
		case i%3 == 1:
			w.submit(fmt.Sprintf("side%d@%d.service", i/60, i), []string{fmt.Sprintf("MachineOf=web%d@%d.service", (i-1)/60, i-1)})
		default:
			w.submit(fmt.Sprintf("job%d.service", i), []string{fmt.Sprintf("MachineMetadata=zone=%d", i%7%3)})
		}
	}
	return w
}

func BenchmarkDecide(b *testing.B) {
	empty := large(500, 10_000)
	first := Decide(empty.snapshot())
	settled := large(500, 10_000)
	settled.carryOut(first.Decisions)
	one := large(500, 10_000)
	one.carryOut(first.Decisions)
	one.submit("new.service", nil)
	loss := large(500, 10_000)
	loss.carryOut(first.Decisions)
	for i := range 50 {
		id := fmt.Sprintf("%032x", i)
		delete(loss.machines, id)
		loss.lost[id] = loss.now.Add(-time.Minute)
	}
	nowhere := large(500, 10_000)
	nowhere.carryOut(first.Decisions)
	for i := range 1000 {
		nowhere.submit(fmt.Sprintf("nowhere%d.service", i), []string{"MachineMetadata=zone=moon"})
	}
	for _, c := range []struct {
		name string
		w    *world
	}{{"all new", empty}, {"nothing to do", settled}, {"one new", one}, {"a tenth lost", loss}, {"a thousand nowhere", nowhere}} {
		b.Run(c.name, func(b *testing.B) {
			s := c.w.snapshot()
			b.ReportAllocs()
			for b.Loop() {
				Decide(s)
			}
		})
	}
}

// settled is a cluster of 20 units to a machine that has nothing to do.
func settled(machines, units int) (*told, *world) {
	w, c := large(machines, units), newTold()
	c.tell(w)
	w.carryOut(c.Decide(w.snapshot().Moment()).Decisions)
	c.tell(w)
	c.Decide(w.snapshot().Moment())
	return c, w
}

// What one change costs a cluster that is told of it: it must not matter how large
// the cluster is.
func BenchmarkCluster(b *testing.B) {
	for _, size := range []struct{ machines, units int }{{50, 1000}, {500, 10_000}} {
		c, w := settled(size.machines, size.units)
		moment := w.snapshot().Moment()
		unit := model.NewUnit("new.service", "[Service]\nExecStart=/bin/true\n", model.Launched, 1<<40)
		b.Run(fmt.Sprintf("one new of %d", size.units), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.SetUnit(unit)
				if r := c.Decide(moment); len(r.Decisions) != 1 {
					b.Fatal(tell(r))
				}
				c.RemoveUnit(unit.Name)
				c.Decide(moment)
			}
		})
		b.Run(fmt.Sprintf("one new of %d, a tenth of them nowhere", size.units), func(b *testing.B) {
			for i := range size.units / 10 {
				text := "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMachineMetadata=zone=moon\n"
				c.SetUnit(model.NewUnit(fmt.Sprintf("nowhere%d.service", i), text, model.Launched, 1<<39))
			}
			c.Decide(moment)
			for b.Loop() {
				c.SetUnit(unit)
				c.Decide(moment)
				c.RemoveUnit(unit.Name)
				c.Decide(moment)
			}
			for i := range size.units / 10 {
				c.RemoveUnit(fmt.Sprintf("nowhere%d.service", i))
			}
		})
		id := fmt.Sprintf("%032x", size.machines/2)
		lost := moment
		lost.Lost = map[string]time.Time{id: lost.Now.Add(-time.Minute)}
		b.Run(fmt.Sprintf("one machine lost of %d", size.machines), func(b *testing.B) {
			for b.Loop() {
				c.RemoveMachine(id)
				if r := c.Decide(lost); len(r.Decisions) < 20 {
					b.Fatal(tell(r))
				}
				b.StopTimer()
				c.SetMachine(w.machines[id])
				c.Decide(moment)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("one machine more than %d", size.machines), func(b *testing.B) {
			for b.Loop() {
				c.SetMachine(model.Machine{ID: "new"})
				c.Decide(moment)
				b.StopTimer()
				c.RemoveMachine("new")
				c.Decide(moment)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkForecast(b *testing.B) {
	_, w := settled(500, 10_000)
	s := w.snapshot()
	id := fmt.Sprintf("%032x", 250)
	b.Run("what if one of 500 is drained", func(b *testing.B) {
		for b.Loop() {
			if f := WhatIf(s, []string{id}, nil); len(f.Moves) == 0 {
				b.Fatal(f)
			}
		}
	})
	b.Run("what if one of 500 is lost", func(b *testing.B) {
		for b.Loop() {
			if f := WhatIf(s, nil, []string{id}); len(f.Moves) == 0 {
				b.Fatal(f)
			}
		}
	})
	b.Run("why, of 10000", func(b *testing.B) {
		for b.Loop() {
			Explain(s, "job2.service")
		}
	})
	b.Run("rebalance 10000", func(b *testing.B) {
		for b.Loop() {
			Rebalance(s, 10)
		}
	})
}
