package sema_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/reboot/sema"
)

// A story of an observer: each line is a minute and an index, then an operation on
// the semaphore or nothing; the output is whom the observer takes for dead.
func TestObserver(t *testing.T) {
	for _, c := range []struct{ name, story, want string }{
		{"silent for the whole time-out", `
0 1 take a
1 1
9 1
10 1`, "10: a silent 10m0s"},
		{"a sign of life begins anew", `
0 1 take a
9 1
10 2 refresh a
19 2
20 2`, "20: a silent 10m0s"},
		{"time in which the store was not seen does not count", `
0 1 take a
8 1
30 1
31 1
32 1`, "32: a silent 10m0s"},
		{"a store restored from a backup begins anew", `
0 1 take a
5 30 refresh a
14 2
15 2
23 2
24 2`, "24: a silent 10m0s"},
		{"it counts from its own first look", `
100 7 take a
105 7
110 7`, "110: a silent 10m0s"},
		{"a person's slot is nobody's business", `
0 1 take a by-hand
10 1
20 1`, ""},
		{"each holder has its own time", `
0 1 take a
5 2 take b
9 3 refresh a
14 3
15 3
19 3`, "15: b silent 10m0s\n19: a silent 10m0s\n19: b silent 14m0s"},
		{"a holder without details is watched, too", `
0 1 take a
1 2 classic
10 2
11 2`, "11: a silent 10m0s"},
		{"one that gives no signs of life has the time it asked for", `
0 1 take-for 20 a
0 2 take b
9 2
10 2
19 2
20 2`, "10: b silent 10m0s\n19: b silent 19m0s\n20: a silent 20m0s\n20: b silent 20m0s"},
		{"who gave the slot back and took it anew is another", `
0 1 take a
5 2 release a
6 3 take a
10 3
15 3
16 3`, "16: a silent 10m0s"},
		{"a casualty is none again", `
0 1 take a
9 1
10 1
10 2 lose a
20 2`, "10: a silent 10m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := play(t, sema.New(), "max 2")
			o := sema.Observer{Timeout: 10 * time.Minute, MaxGap: 9 * time.Minute}
			var got strings.Builder
			for line := range strings.Lines(strings.TrimSpace(c.story)) {
				var minute, index int
				fmt.Sscan(line, &minute, &index)
				if f := strings.Fields(line); len(f) > 2 {
					s, _ = play(t, s, strings.Join(f[2:], " "))
				}
				for _, x := range o.Look(s, uint64(index), time.Duration(minute)*time.Minute) {
					fmt.Fprintf(&got, "%d: %s silent %v\n", minute, x.Machine, x.Silent)
					if _, err := s.Lose(x.Machine, x.Mark, "silent", noon); err != nil {
						t.Errorf("%d: %v", minute, err)
					}
				}
			}
			if diff := cmp.Diff(c.want, strings.TrimSpace(got.String())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever an entry asks for, its slot is not held for ever.
func TestObserverEndsAllPatience(t *testing.T) {
	s, _ := play(t, sema.New(), "take-for 99999999999 a")
	var o sema.Observer
	var now time.Duration
	for ; len(o.Look(s, 1, now)) == 0 && now < 48*time.Hour; now += sema.MaxGap {
	}
	if now != sema.MaxTimeout {
		t.Errorf("taken for dead after %v", now)
	}
}

// Whatever an observer's clock says, a machine that is sure of its slot has not been
// taken for dead.
func TestTenure(t *testing.T) {
	var none sema.Tenure
	if none.Sure(0) {
		t.Error("sure without ever having held")
	}
	var h sema.Tenure
	h.Wrote(10 * time.Minute)
	for at, want := range map[time.Duration]bool{9 * time.Minute: false, 10 * time.Minute: true, 17 * time.Minute: true, 18 * time.Minute: false} {
		if h.Sure(at) != want {
			t.Errorf("after %v: %t", at, !want)
		}
	}
}
