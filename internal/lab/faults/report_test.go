package faults

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What a person reads of a run of a minute.
func TestPrint(t *testing.T) {
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	r := Report{Seed: 3, For: second(60), Took: second(61), Watchers: 2, Events: 9, Resumed: 4, Behind: []string{"m1 stream by 7"},
		Verdict: Verdict{Keys: 3, Wrong: []string{"/k"}}, Violations: []string{"something"},
		Injected: []Injected{
			{Step: Step{Faults: []Fault{{Kind: Cut}, {Kind: Cut}}}, What: []string{"cut of m1", "cut of m2"}, Began: second(10), Ended: second(20), Recovered: second(2)},
			{Step: Step{Faults: []Fault{{Kind: Pause}}}, What: []string{"pause of m1"}, Began: second(30), Ended: second(35), Recovered: -1},
		}}
	ms := func(at int) Call { return call(at-1, at, setA, wrote(aAt5, nil)) }
	r.count([]Call{ms(9_000), ms(21_000), ms(33_000), ms(59_000), call(0, 1, read1, refused(100, 4)), call(0, 1, setB, unknown)}, 5)
	var b strings.Builder
	r.Print(&b)
	const want = `seed 3: 60.0 s of faults, 61.0 s in all
requests         6: 4 carried out, 1 refused, 1 without an answer; 5 more were never sent
                 get 1, set 5
faults           3 in 2 steps, 0 steps failed
                   steps machines  longest without write     longest to recover
  cut                  1        2                 12.0 s                  2.0 s
  pause                1        1                 26.0 s 0.0 s, 1 not before next
linearizable     3 files, 1 ARE NOT, 0 undecided: /k
watches          2 watchers, 9 changes told, 4 times resumed
                 still behind at the end: m1 stream by 7 changes
without a write  26.0 s at most, from 33.0 s on
violations       1
  something
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &b, want)
	}
}

func TestSound(t *testing.T) {
	for name, c := range map[string]struct {
		r    Report
		want bool
	}{
		"nothing wrong":       {Report{}, true},
		"a violation":         {Report{Violations: []string{"x"}}, false},
		"undecided":           {Report{Verdict: Verdict{Undecided: []string{"/k"}}}, false},
		"a fault that failed": {Report{Injected: []Injected{{Err: errors.New("no")}}}, false},
		"not recovered yet":   {Report{Injected: []Injected{{Recovered: -1}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.r.Sound(); got != c.want {
				t.Errorf("sound: %v", got)
			}
		})
	}
}
