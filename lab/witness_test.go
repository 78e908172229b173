package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flotilla/internal/lab/machines"
)

// singleUnit says every 50 ms where it is alive, to a file that all machines share: what
// it writes is the truth, whoever can reach whom.
const singleUnit = `[Service]
ExecStart=/bin/sh -c "while :; do echo %H $$INVOCATION_ID $$(date +%%s%%N) >>` + machines.Shared + `/single; sleep 0.05; done"

[X-Fleet]
Singleton=true
`

// span is one run of the unit, from its first word to its last.
type span struct {
	machine, run string
	first, last  time.Time
}

func (s span) String() string {
	return fmt.Sprintf("on %s from %s to %s", s.machine, s.first.Format("15:04:05.000"), s.last.Format("15:04:05.000"))
}

// spans reads what the unit has written: lines of machine, run and nanoseconds since
// 1970. A line that is not whole yet is the last one, and left out.
func spans(text string) ([]span, error) {
	byRun := map[string]*span{}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("the unit wrote %q", line)
		}
		ns, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the unit wrote %q: %w", line, err)
		}
		at := time.Unix(0, ns)
		s := byRun[f[1]]
		if s == nil {
			s = &span{machine: f[0], run: f[1], first: at, last: at}
			byRun[f[1]] = s
		}
		if at.After(s.last) {
			s.last = at
		}
	}
	var out []span
	for _, s := range byRun {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b span) int { return a.first.Compare(b.first) })
	return out, nil
}

// verdict is what the runs of a unit amount to, in the order in which they began.
type verdict struct {
	twice time.Duration // the longest time that two of them lasted side by side
	pause time.Duration // the longest time in which there was none
}

func judge(runs []span) verdict {
	var v verdict
	for i, a := range runs {
		for _, b := range runs[i+1:] {
			end := a.last
			if b.last.Before(end) {
				end = b.last
			}
			v.twice = max(v.twice, end.Sub(b.first))
		}
	}
	for i := 1; i < len(runs); i++ {
		until := runs[0].last
		for _, r := range runs[:i] {
			if r.last.After(until) {
				until = r.last
			}
		}
		v.pause = max(v.pause, runs[i].first.Sub(until))
	}
	return v
}

func TestJudge(t *testing.T) {
	const text = `m1 a 1000000000
m1 a 2000000000
m2 b 5000000000
m1 a 2050000000
m2 b 9000000000
m3 c 8500000000
m3 c 90000`
	runs, err := spans(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(runs) != 3 || runs[0].machine != "m1" || runs[2].last != time.Unix(8, 500e6) {
		t.Errorf("runs: %v", runs)
	}
	for _, c := range []struct {
		name string
		runs []span
		want verdict
	}{
		{"none", nil, verdict{}},
		{"one", runs[:1], verdict{}},
		{"one after the other", runs[:2], verdict{pause: 2950 * time.Millisecond}},
		{"one within the other", runs, verdict{pause: 2950 * time.Millisecond}}, // c ends where it began
	} {
		if got := judge(c.runs); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	at := func(s float64) time.Time { return time.Unix(0, int64(s*1e9)) }
	side := []span{{"m1", "a", at(1), at(10)}, {"m2", "b", at(4), at(6)}, {"m3", "c", at(12), at(13)}}
	if got, want := judge(side), (verdict{twice: 2 * time.Second, pause: 2 * time.Second}); got != want {
		t.Errorf("side by side: %+v, want %+v", got, want)
	}
	if _, err := spans("m1 a\n"); err == nil {
		t.Error("half a line was taken")
	}
}

// single starts the unit that may run once at most, and waits for its first word.
func (c *cluster) single() {
	c.Helper()
	if err := os.RemoveAll(filepath.Join(lab.SharedDir(), "single")); err != nil {
		c.Fatal(err)
	}
	c.submit("single.service", singleUnit)
	c.fleetctl("start", "single.service")
	c.eventually(30*time.Second, "single.service speaks", func() error {
		_, err := os.Stat(filepath.Join(lab.SharedDir(), "single"))
		return err
	})
}

// spoken is every run of the singleton so far.
func (c *cluster) spoken() []span {
	c.Helper()
	text, err := os.ReadFile(filepath.Join(lab.SharedDir(), "single"))
	if err != nil {
		c.Fatal(err)
	}
	runs, err := spans(string(text))
	if err != nil {
		c.Fatal(err)
	}
	return runs
}

// never2 fails the test if the singleton has run twice at once, and tells for how long
// it did not run at all. Its last word must be fresh: it runs now.
func (c *cluster) never2(what string) {
	c.Helper()
	c.eventually(30*time.Second, "single.service runs", func() error {
		runs := c.spoken()
		for _, r := range runs {
			if time.Since(r.last) < time.Second {
				return nil
			}
		}
		return fmt.Errorf("its runs: %v", runs)
	})
	runs := c.spoken()
	v := judge(runs)
	c.Logf("%s: single.service ran %d times, never for %.1f s, twice at once for %.3f s: %v", what, len(runs), v.pause.Seconds(), v.twice.Seconds(), runs)
	if v.twice > 0 {
		c.Errorf("%s: single.service ran twice at once for %v: %v", what, v.twice, runs)
	}
}
