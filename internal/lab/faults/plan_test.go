package faults

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlanIsAFunctionOfTheSeed(t *testing.T) {
	a, b, other := Plan(7, 10*time.Minute, Kinds()), Plan(7, 10*time.Minute, Kinds()), Plan(8, 10*time.Minute, Kinds())
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("the same seed plans something else:\n%s", diff)
	}
	if cmp.Equal(a, other) {
		t.Error("two seeds plan the same")
	}
	if len(a) < 25 {
		t.Errorf("ten minutes have but %d steps", len(a))
	}
}

// A longer run begins as the shorter one does.
func TestPlanGoesOn(t *testing.T) {
	short, long := Plan(7, 2*time.Minute, Kinds()), Plan(7, 10*time.Minute, Kinds())
	if diff := cmp.Diff(short, long[:len(short)]); diff != "" {
		t.Error(diff)
	}
}

// Whatever the seed: steps do not overlap, rest and the end are kept, and every kind
// comes once before one comes twice.
func TestPlanProperties(t *testing.T) {
	for seed := range uint64(300) {
		length := time.Duration(seed*4) * time.Second
		kinds := Kinds()[:1+seed%uint64(len(Kinds()))]
		steps := Plan(seed, length, kinds)
		checkTimes(t, seed, steps, length)
		count := map[Kind]int{}
		for _, s := range steps {
			for _, f := range s.Faults {
				count[f.Kind]++
			}
		}
		least, most := 1<<30, 0
		for _, k := range kinds {
			least, most = min(least, count[k]), max(most, count[k])
			delete(count, k)
		}
		if most-least > 1 || len(count) > 0 {
			t.Errorf("seed %d: a kind came %d times, another %d times; not to choose from: %v", seed, most, least, count)
		}
	}
}

func checkTimes(t *testing.T, seed uint64, steps []Step, length time.Duration) {
	t.Helper()
	free := firstFault
	for _, s := range steps {
		if s.At < free || s.For < shortest || s.For > longest || s.At+s.For+lastRest > length {
			t.Errorf("seed %d: a step at %v for %v: free from %v, end %v", seed, s.At, s.For, free, length)
		}
		free = s.At + s.For + leastRest
	}
}

func TestNoKindsNoPlan(t *testing.T) {
	if got := Plan(1, time.Hour, nil); got != nil {
		t.Errorf("planned %v", got)
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		name   string
		leader int
		faults []Fault
		want   [][]int
	}{
		{"the leader", 1, []Fault{{Cut, Leader, 5}}, [][]int{{1}}},
		{"nobody leads", -1, []Fault{{Cut, Leader, 5}}, [][]int{{2}}},
		{"a follower", 1, []Fault{{Cut, Follower, 0}}, [][]int{{2}}},
		{"the other follower", 1, []Fault{{Cut, Follower, 1}}, [][]int{{0}}},
		{"two of three", 0, []Fault{{Cut, Majority, 2}}, [][]int{{2, 0}}},
		{"all", 0, []Fault{{Cut, All, 0}}, [][]int{{0, 1, 2}}},
		{"no machine twice", 1, []Fault{{Cut, Leader, 0}, {Pause, Leader, 1}}, [][]int{{1}, {2}}},
		{"what is left", 1, []Fault{{Cut, Leader, 0}, {Pause, All, 0}}, [][]int{{1}, {0, 2}}},
		{"nothing is left", 1, []Fault{{Cut, All, 0}, {Pause, Leader, 0}}, [][]int{{0, 1, 2}, nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, targets(Step{Faults: c.faults}, c.leader, 3)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every kind can be done, and is described.
func TestLevers(t *testing.T) {
	for _, k := range Kinds() {
		if levers[k].begin == nil {
			t.Errorf("%s cannot be begun", k)
		}
	}
}

func TestCgroupsOf(t *testing.T) {
	for _, c := range []struct{ name, text, v1, v2 string }{
		{"both versions", "7:blkio:/lab-m1\n2:cpu,cpuacct:/lab-m1\n0::/lab-m1/payload/init.scope\n", "/lab-m1", "/lab-m1/payload"},
		{"version 2 alone", "0::/machine.slice/m1.scope/payload/init.scope\n", "", "/machine.slice/m1.scope/payload"},
		{"nothing", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v1, v2 := cgroupsOf(c.text, "cpu"); v1 != c.v1 || v2 != c.v2 {
				t.Errorf("got %q and %q, want %q and %q", v1, v2, c.v1, c.v2)
			}
		})
	}
}
