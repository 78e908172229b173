package nodeplan

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"flotilla/internal/fleet/model"
)

var update = flag.Bool("update", false, "write the plans of the scenarios instead of comparing them")

// Each scenario of testdata has the sections want, have and plan. Lines are
//
//	want: UNIT TEXT STATE GEN [leaving|restart]
//	have: UNIT [file TEXT] [ACTIVESTATE] [done STATE GEN TEXT] [reload] [busy] [starting] [refused TEXT]
//	      [singleton unclaimed|asked|claimed] [own]
//	plan: OP [UNIT] # WHY
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sections := map[string]*txtar.File{}
			for i := range a.Files {
				sections[a.Files[i].Name] = &a.Files[i]
			}
			want := readWant(t, string(sections["want"].Data))
			have := readHave(t, string(sections["have"].Data))
			plan := Plan(want, have)
			if *update {
				sections["plan"].Data = []byte(format(plan))
				if err := os.WriteFile(file, txtar.Format(a), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got, want := format(plan), string(sections["plan"].Data); got != want {
				t.Errorf("plan:\n%swant:\n%s", got, want)
			}
			carryOut(want, have, plan)
			rest := Plan(want, have)
			if claimed(plan) {
				carryOut(want, have, rest)
				rest = Plan(want, have)
			}
			if len(rest) > 0 {
				t.Errorf("carried out, still to do:\n%s", format(rest))
			}
		})
	}
}

func format(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%s # %s\n", strings.TrimSpace(fmt.Sprintf("%-7s %s", s.Op, s.Unit)), s.Why)
	}
	return b.String()
}

func lines(section string) [][]string {
	var out [][]string
	for line := range strings.Lines(section) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out
}

func readWant(t *testing.T, section string) map[string]Want {
	t.Helper()
	want := map[string]Want{}
	for _, f := range lines(section) {
		want[f[0]] = Want{Unit: f[0], Hash: f[1], Desired: state(t, f[2]), Gen: number(t, f[3]),
			Leaving: len(f) > 4 && f[4] == "leaving", Restart: len(f) > 4 && f[4] == "restart"}
	}
	return want
}

func readHave(t *testing.T, section string) map[string]Have {
	t.Helper()
	have := map[string]Have{}
	for _, f := range lines(section) {
		var h Have
		for w := f[1:]; len(w) > 0; {
			n := 1
			switch w[0] {
			case "file":
				h.Installed, h.Hash, n = true, w[1], 2
			case "done":
				h.DoneState, h.DoneGen, h.DoneHash, n = state(t, w[1]), number(t, w[2]), w[3], 4
			case "refused":
				h.Refused, n = w[1], 2
			case "singleton":
				h.Singleton, h.Claim, n = true, map[string]Claiming{"asked": Asked, "claimed": Claimed}[w[1]], 2
			case "own":
				h.Own = true
			case "reload":
				h.NeedReload = true
			case "busy":
				h.Busy = true
			case "starting":
				h.Starting = true
			default:
				h.Active = w[0]
			}
			w = w[n:]
		}
		have[f[0]] = h
	}
	return have
}

func state(t *testing.T, s string) model.State {
	t.Helper()
	v, err := model.ParseState(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// claimed reports whether a plan claims a unit, which is followed by its start.
func claimed(plan []Step) bool {
	return slices.ContainsFunc(plan, func(s Step) bool { return s.Op == Claim })
}

// carryOut is a model of an agent on systemd: a unit that is loaded keeps its text
// until a reload, and every job succeeds.
func carryOut(want map[string]Want, have map[string]Have, plan []Step) {
	for _, s := range plan {
		w, wanted := want[s.Unit]
		h := have[s.Unit]
		switch s.Op {
		case Stop:
			h.Active, h.Starting = "inactive", false
			if wanted {
				h.DoneGen, h.DoneState = w.Gen, model.Loaded
			}
		case Remove:
			delete(have, s.Unit)
			continue
		case Install, Adopt:
			h.NeedReload = h.NeedReload || h.Active != "" && h.Active != "inactive"
			h.Installed, h.Hash = true, w.Hash
		case Reload:
			for name, h := range have {
				h.NeedReload = false
				have[name] = h
			}
			continue
		case Claim:
			h.Claim = Claimed
		case Start, Restart:
			h.Active, h.DoneGen, h.DoneState, h.DoneHash = "active", w.Gen, model.Launched, w.Hash
			h.Starting = false
		case Record:
			h.DoneGen, h.DoneState = w.Gen, w.Desired
			if w.Desired == model.Launched {
				h.DoneHash = w.Hash
			}
		}
		have[s.Unit] = h
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomSnapshots(seed uint64) (map[string]Want, map[string]Have) {
	r := rand.New(rand.NewPCG(seed, 1))
	want, have := map[string]Want{}, map[string]Have{}
	for i := range 6 {
		name := fmt.Sprintf("u%d.service", i)
		if r.IntN(4) > 0 {
			want[name] = Want{Unit: name, Hash: pick(r, "h1", "h2"), Gen: int64(1 + r.IntN(3)),
				Desired: pick(r, model.Loaded, model.Launched), Leaving: r.IntN(6) == 0}
		}
		if r.IntN(4) > 0 {
			h := Have{Installed: r.IntN(4) > 0, Active: pick(r, "", "inactive", "failed", "active", "activating"),
				NeedReload: r.IntN(5) == 0, DoneGen: int64(r.IntN(4)), DoneHash: pick(r, "", "h1", "h2"),
				Busy: r.IntN(8) == 0, Starting: r.IntN(6) == 0, Refused: pick(r, "", "", "", "h2"),
				Own: r.IntN(8) == 0, Singleton: r.IntN(4) == 0, Claim: pick(r, Unclaimed, Asked, Claimed)}
			h.DoneState = pick(r, model.Inactive, model.Loaded, model.Launched)
			if h.Installed {
				h.Hash = pick(r, "h1", "h2")
			}
			have[name] = h
		}
	}
	return want, have
}

// Whatever the two snapshots are, carrying the plan out leaves nothing to do,
// except that a file that was changed while its unit was at rest may turn out to
// need a reload.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(5000) {
		want, have := randomSnapshots(seed)
		plan := Plan(want, have)
		carryOut(want, have, plan)
		rest := Plan(want, have)
		if claimed(plan) {
			carryOut(want, have, rest)
			rest = Plan(want, have)
		}
		if len(rest) == 1 && rest[0].Op == Reload {
			carryOut(want, have, rest)
			rest = Plan(want, have)
		}
		if len(rest) > 0 {
			t.Fatalf("seed %d: still to do:\n%s", seed, format(rest))
		}
	}
}

// What is running is stopped only if the schedule does not hold it or wants it
// loaded, and started again only for another text.
func TestPlanStopsNothingWithoutNeed(t *testing.T) {
	for seed := range uint64(5000) {
		want, have := randomSnapshots(seed)
		for _, s := range Plan(want, have) {
			w, wanted := want[s.Unit]
			h := have[s.Unit]
			switch {
			case s.Op == Stop && wanted && (w.Desired == model.Launched || w.Leaving),
				s.Op == Start && h.Singleton && h.Claim != Claimed,
				s.Op == Start && h.Starting,
				s.Op == Restart && h.Installed && h.Hash == w.Hash && h.DoneHash == w.Hash,
				s.Op != Reload && (h.Busy || w.Leaving):
				t.Fatalf("seed %d: %v of a unit that is to run on", seed, s)
			}
		}
	}
}

// A unit's steps do not depend on what other units are like.
func TestPlanIsPerUnit(t *testing.T) {
	for seed := range uint64(1000) {
		want, have := randomSnapshots(seed)
		together := map[Step]bool{}
		for _, s := range Plan(want, have) {
			together[s] = true
		}
		n := 0
		alone := map[Step]bool{}
		for i := range 6 {
			name := fmt.Sprintf("u%d.service", i)
			w, h := map[string]Want{}, map[string]Have{}
			if v, ok := want[name]; ok {
				w[name] = v
			}
			if v, ok := have[name]; ok {
				h[name] = v
			}
			for _, s := range Plan(w, h) {
				alone[s] = true
				if !together[s] {
					n++
				}
			}
		}
		if n > 0 || len(alone) != len(together) {
			t.Fatalf("seed %d: alone %v, together %v", seed, alone, together)
		}
	}
}
