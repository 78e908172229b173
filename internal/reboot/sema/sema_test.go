package sema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/reboot/sema"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// play carries a story out, one operation a line, and returns what is stored after
// each: "take a", "take-for 20 a" (minutes), "acquire a", "acquire-by-hand a rebooting", "refresh a rebooting",
// "release a", "give-back a", "fail a", "lose a", "max 2", "stop-after 0", "resume",
// "classic" (a write by a classic client).
func play(t *testing.T, s sema.Semaphore, story string) (sema.Semaphore, string) {
	t.Helper()
	var log strings.Builder
	for line := range strings.Lines(strings.TrimSpace(story)) {
		f := strings.Fields(line)
		arg := func(i int) string {
			if i < len(f) {
				return f[i]
			}
			return ""
		}
		var n int
		fmt.Sscan(arg(1), &n)
		var next sema.Semaphore
		var err error
		switch f[0] {
		case "take":
			next, err = s.Take(arg(1), sema.Detail{Phase: sema.Phase(arg(2))})
		case "take-for":
			next, err = s.Take(arg(2), sema.Detail{Timeout: 60 * n})
		case "acquire":
			next, err = s.Acquire(arg(1), sema.Detail{Phase: sema.Phase(arg(2))})
		case "acquire-by-hand":
			next, err = s.AcquireByHand(arg(1), sema.Detail{Phase: sema.Phase(arg(2))})
		case "give-back":
			next, err = s.GiveBack(arg(1))
		case "refresh":
			next, err = s.Refresh(arg(1), sema.Detail{Phase: sema.Phase(arg(2))})
		case "release":
			next, err = s.Release(arg(1))
		case "fail":
			next, err = s.Fail(arg(1), "unhealthy", noon)
		case "lose":
			next, err = s.Lose(arg(1), s.Mark(arg(1)), "silent", noon)
		case "max":
			next, err = s.SetMax(n)
		case "stop-after":
			next, err = s.SetStopAfter(n)
		case "resume":
			next, err = s.Resume()
		case "classic":
			next, err = classicWrite(t, s), nil
		default:
			t.Fatalf("no such operation: %s", line)
		}
		if err != nil {
			fmt.Fprintf(&log, "%s: %v\n", strings.TrimSpace(line), err)
			continue
		}
		s = next
		fmt.Fprintf(&log, "%s: %s\n", strings.TrimSpace(line), brief(s))
	}
	return s, log.String()
}

// brief is a semaphore on a line: free/max, holders with their phases, casualties.
func brief(s sema.Semaphore) string {
	out := fmt.Sprintf("%d/%d", s.Free(), s.Max)
	for _, h := range s.Holders {
		d, ok := s.Details[h]
		if !ok {
			d.Phase = "?"
		}
		out += fmt.Sprintf(" %s=%s", h, d.Phase)
	}
	for _, c := range s.Bad {
		out += fmt.Sprintf(" bad:%s", c.Machine)
	}
	if s.Stopped != nil {
		out += " stopped"
	}
	return out
}

// classicWrite is what a classic client does to a value: it reads the three fields
// that it knows and writes them back.
func classicWrite(t *testing.T, s sema.Semaphore) sema.Semaphore {
	t.Helper()
	var classic struct {
		Semaphore int      `json:"semaphore"`
		Max       int      `json:"max"`
		Holders   []string `json:"holders"`
	}
	if err := json.Unmarshal(s.Encode(), &classic); err != nil {
		t.Fatal(err)
	}
	if classic.Semaphore != classic.Max-len(classic.Holders) {
		t.Errorf("semaphore %d is not max %d less %d holders", classic.Semaphore, classic.Max, len(classic.Holders))
	}
	raw, err := json.Marshal(classic)
	if err != nil {
		t.Fatal(err)
	}
	next, err := sema.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestStories(t *testing.T) {
	for _, c := range []struct{ name, story, want string }{
		{"one at a time", `
take a
take b
release a
take b
release a
release b`, `
take a: 0/1 a=draining
take b: semaphore is at 0
release a: 1/1
take b: 0/1 b=draining
release a: holder does not exist
release b: 1/1`},
		{"a full semaphore says so to its holder, too", `
take a
take a
max 2
take a`, `
take a: 0/1 a=draining
take a: semaphore is at 0
max 2: 1/2 a=draining
take a: holder exists`},
		{"lowering max throws nobody out", `
max 2
take a
take b
max 1
max -1
release a
take c
release b
take c`, `
max 2: 2/2
take a: 1/2 a=draining
take b: 0/2 a=draining b=draining
max 1: -1/1 a=draining b=draining
max -1: max is a number from 0 on, not -1
release a: 0/1 b=draining
take c: semaphore is at 0
release b: 1/1
take c: 0/1 c=draining`},
		{"a reboot that goes well", `
take a
refresh a rebooting
refresh a checking
refresh a
release a
refresh a`, `
take a: 0/1 a=draining
refresh a rebooting: 0/1 a=rebooting
refresh a checking: 0/1 a=checking
refresh a: 0/1 a=checking
release a: 1/1
refresh a: holder does not exist`},
		{"a machine that never returns stops all, and one command goes on", `
take a
refresh a rebooting
lose a
take b
refresh a
resume
take b
resume`, `
take a: 0/1 a=draining
refresh a rebooting: 0/1 a=rebooting
lose a: 0/1 a=lost bad:a stopped
take b: stopped: a: silent
refresh a: holder has been given up
resume: 1/1
take b: 0/1 b=draining
resume: not stopped`},
		{"the classic command goes on, too", `
take a
lose a
release a
take b`, `
take a: 0/1 a=draining
lose a: 0/1 a=lost bad:a stopped
release a: 1/1
take b: 0/1 b=draining`},
		{"unhealthy counts like lost", `
take a
fail a
take b
resume
fail a`, `
take a: 0/1 a=draining
fail a: 0/1 a=bad bad:a stopped
take b: stopped: a: unhealthy
resume: 1/1
fail a: holder does not exist`},
		{"a good one ends a row", `
stop-after 2
take a
fail a
take b
release b
take c
lose c
take d
fail d
take e`, `
stop-after 2: 1/1
take a: 0/1 a=draining
fail a: 1/1 bad:a
take b: 0/1 b=draining bad:a
release b: 1/1
take c: 0/1 c=draining
lose c: 1/1 bad:c
take d: 0/1 d=draining bad:c
fail d: 0/1 d=bad bad:c bad:d stopped
take e: stopped: c: silent; d: unhealthy`},
		{"a late return takes its own casualty away", `
stop-after 2
max 2
take a
take b
lose a
lose b
release a
take c`, `
stop-after 2: 1/1
max 2: 2/2
take a: 1/2 a=draining
take b: 0/2 a=draining b=draining
lose a: 1/2 b=draining bad:a
lose b: 1/2 b=lost bad:a bad:b stopped
release a: 2/2 bad:b
take c: 1/2 c=draining bad:b`},
		{"another's good end does not lift a stop", `
max 2
take a
take b
lose a
release b
take b`, `
max 2: 2/2
take a: 1/2 a=draining
take b: 0/2 a=draining b=draining
lose a: 0/2 a=lost b=draining bad:a stopped
release b: 1/2 a=lost bad:a stopped
take b: stopped: a: silent`},
		{"another number does not lift a stop, either", `
max 2
take a
take b
lose a
stop-after 3
release b
release a`, `
max 2: 2/2
take a: 1/2 a=draining
take b: 0/2 a=draining b=draining
lose a: 0/2 a=lost b=draining bad:a stopped
stop-after 3: 0/2 a=lost b=draining bad:a stopped
release b: 1/2 a=lost bad:a stopped
release a: 2/2`},
		{"never stop", `
stop-after 0
take a
lose a
take b
fail b
take c
release a
resume
resume`, `
stop-after 0: 1/1
take a: 0/1 a=draining
lose a: 1/1 bad:a
take b: 0/1 b=draining bad:a
fail b: 1/1 bad:a bad:b
take c: 0/1 c=draining bad:a bad:b
release a: 0/1 c=draining bad:b
resume: 0/1 c=draining
resume: not stopped`},
		{"what a person holds is not the machine's", `
take a by-hand
acquire a draining
refresh a rebooting
fail a
give-back a
give-back b
acquire-by-hand a rebooting
acquire a draining
give-back a
acquire-by-hand b rebooting`, `
take a by-hand: 0/1 a=by-hand
acquire a draining: holder exists
refresh a rebooting: holder exists
fail a: holder exists
give-back a: 0/1 a=by-hand
give-back b: 0/1 a=by-hand
acquire-by-hand a rebooting: 0/1 a=rebooting
acquire a draining: 0/1 a=draining
give-back a: 1/1
acquire-by-hand b rebooting: 0/1 b=rebooting`},
		{"nobody watches what a person holds", `
take a by-hand
lose a
release a`, `
take a by-hand: 0/1 a=by-hand
lose a: holder has given a sign of life
release a: 1/1`},
		{"a classic client drops what it does not know; a sign of life fills it in again", `
max 2
take a
refresh a rebooting
classic
refresh a checking
classic
lose a
classic
take b
lose a`, `
max 2: 2/2
take a: 1/2 a=draining
refresh a rebooting: 1/2 a=rebooting
classic: 1/2 a=?
refresh a checking: 1/2 a=checking
classic: 1/2 a=?
lose a: 1/2 a=lost bad:a stopped
classic: 1/2 a=?
take b: 0/2 a=? b=draining
lose a: 0/2 a=lost b=draining bad:a stopped`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, got := play(t, sema.New(), c.story)
			if diff := cmp.Diff(strings.TrimSpace(c.want), strings.TrimSpace(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A write whose answer was lost is written again and is no second one.
func TestTakeTwiceIsOnce(t *testing.T) {
	d := sema.Detail{Boot: "b1", Since: noon}
	once, err := sema.New().Take("a", d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := once.Take("a", d)
	if err != nil || string(again.Encode()) != string(once.Encode()) {
		t.Errorf("again: %v, %s", err, again.Encode())
	}
	d.Since = noon.Add(time.Second)
	if _, err := once.Take("a", d); !errors.Is(err, sema.ErrFull) {
		t.Errorf("another take: %v", err)
	}
}

// An operation makes a new value: the old one stays, whatever is done to the new.
func TestValuesAreApart(t *testing.T) {
	s, _ := play(t, sema.New(), "max 3\ntake a\ntake b\nstop-after 2\nfail b\ntake c")
	before := string(s.Encode())
	for _, story := range []string{"release a", "lose a", "take d", "refresh a checking", "resume", "release b", "fail c"} {
		play(t, s, story)
		if now := string(s.Encode()); now != before {
			t.Fatalf("%s changed the value it was made from\nbefore %s\nafter  %s", story, before, now)
		}
	}
}

func TestLoseComparesTheEntry(t *testing.T) {
	s, _ := play(t, sema.New(), "take a")
	seen := s.Mark("a")
	alive, _ := play(t, s, "refresh a")
	if _, err := alive.Lose("a", seen, "silent", noon); !errors.Is(err, sema.ErrChanged) {
		t.Errorf("error %v", err)
	}
	if _, err := alive.Lose("b", "", "silent", noon); !errors.Is(err, sema.ErrNotHolder) {
		t.Errorf("error %v", err)
	}
}

func TestDiff(t *testing.T) {
	s, _ := play(t, sema.New(), "max 2\ntake a\ntake b")
	for _, c := range []struct {
		story   string
		changes []string
		results []string
	}{
		{"release a", []string{"a gave its slot back: good"}, []string{"good"}},
		{"refresh a rebooting", []string{"a is rebooting"}, nil},
		{"lose a", []string{"a is lost", "stopped: a: silent"}, nil},
		{"stop-after 0\nfail b", []string{"b gave its slot back: bad: unhealthy"}, []string{"bad: unhealthy"}},
		{"max 5", []string{"max is 5, was 2"}, nil},
	} {
		after, _ := play(t, s, c.story)
		var results []string
		for _, r := range sema.Ended(s, after, noon) {
			results = append(results, r.Result)
		}
		if got := sema.Changes(s, after); !slices.Equal(got, c.changes) || !slices.Equal(results, c.results) {
			t.Errorf("%s: %q, %q", c.story, got, results)
		}
	}
	stopped, _ := play(t, s, "lose a")
	after, _ := play(t, stopped, "resume")
	if got := sema.Changes(stopped, after); !slices.Equal(got, []string{"a gave its slot back: lost: silent", "goes on"}) {
		t.Errorf("resume: %q", got)
	}
}
