package sched

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

var update = flag.Bool("update", false, "write what the scenarios decide instead of comparing it")

// place is a unit on a machine, as a key.
type place struct{ unit, machine string }

// world is a cluster that decisions are carried out on: the store and what the
// machines say, as far as Decide can see them.
type world struct {
	now, leader time.Time
	policy      Policy
	seen        int
	rev         int64 // of the store: generations are revisions
	machines    map[string]model.Machine
	gone        map[string]model.Machine // lost machines, to come back
	lost        map[string]time.Time
	units       map[string]model.Unit
	placements  map[place]model.Placement
	states      map[place]model.UnitState
	rolls       bool     // random stories have rolls in them
	allow       []string // unit globs; nil: all
	watch       []string // unit globs
	asks        []model.Ask
}

func newWorld() *world {
	w := &world{
		machines: map[string]model.Machine{}, gone: map[string]model.Machine{}, lost: map[string]time.Time{},
		units: map[string]model.Unit{}, placements: map[place]model.Placement{}, states: map[place]model.UnitState{},
	}
	w.leader = at(-3600)
	w.now = at(0)
	return w
}

func at(seconds int) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds) * time.Second)
}

func (w *world) snapshot() Snapshot {
	return Snapshot{
		Now: w.now, LeaderSince: w.leader, Policy: w.policy, Seen: w.seen, Lost: maps.Clone(w.lost),
		Machines:   slices.Collect(maps.Values(w.machines)),
		Units:      slices.Collect(maps.Values(w.units)),
		Placements: slices.Collect(maps.Values(w.placements)),
		States:     slices.Collect(maps.Values(w.states)),
		Allow:      w.mayFollow(),
		Watch:      func(unit string) bool { return matchAny(w.watch, unit) },
		Asks:       slices.Clone(w.asks),
	}
}

func (w *world) mayFollow() func(unit, machine string) bool {
	if w.allow == nil {
		return nil
	}
	allow := w.allow
	return func(unit, machine string) bool { return matchAny(allow, unit+"/"+machine) }
}

// carryOut writes the decisions to the schedule.
func (w *world) carryOut(ds []Decision) {
	for _, d := range ds {
		key := place{d.Entry.Unit, d.Entry.Machine}
		if d.Op == Release {
			delete(w.placements, key)
			delete(w.states, key)
			continue
		}
		w.rev++
		d.Entry.Rev = w.rev
		w.placements[key] = d.Entry
	}
}

// command carries out one line of a scenario; decide is the reader's business.
//
//	machine ID [KEY=VALUE...]     a machine joins, comes back, or changes its metadata;
//	                              cores=, memory=, cordon[=WHY] and drain[=WHY] are of its own
//	lose ID                       its lease ends
//	unit NAME [load] [OPTION=VALUE...]   submitted and started; options of [X-Fleet], and
//	                              Type, MemoryMax and CPUQuota of [Service], Unit of [Timer]
//	                              and [Path], Service and Accept of [Socket]
//	start|load|unload|destroy NAME
//	is NAME MACHINE ACTIVE        the machine reports the generation it was given as carried out
//	hears NAME MACHINE            and that it goes by the entry as it is now
//	wiped                         the store has lost the schedule; the machines run on
//	at SECONDS
//	elected | forget              a new engine, which has seen no machine leave
//	allow [UNIT/MACHINE GLOB...]  the only entries that may take a changed text; ** all
//	watch [UNIT GLOB...]          the units to be watched when they change
//	ask rebalance N | ask adopt UNIT MACHINE
//	move-after DURATION | hold FRACTION | seen N
func (w *world) command(line string) error {
	f := strings.Fields(line)
	switch f[0] {
	case "machine":
		m, err := parseMachine(f[1], f[2:])
		if err != nil {
			return err
		}
		w.machines[m.ID] = m
		delete(w.lost, m.ID)
	case "lose":
		w.gone[f[1]] = w.machines[f[1]]
		delete(w.machines, f[1])
		w.lost[f[1]] = w.now
		maps.DeleteFunc(w.states, func(p place, _ model.UnitState) bool { return p.machine == f[1] })
	case "unit":
		w.submit(f[1], f[2:])
	case "start", "load", "unload":
		w.rev++
		u, ok := w.units[f[1]]
		if !ok {
			break
		}
		w.units[f[1]] = model.NewUnit(u.Name, u.Text,
			map[string]model.State{"start": model.Launched, "load": model.Loaded, "unload": model.Inactive}[f[0]], w.rev)
	case "destroy":
		delete(w.units, f[1])
	case "is":
		p := w.placements[place{f[1], f[2]}]
		w.states[place{f[1], f[2]}] = model.UnitState{Unit: f[1], Machine: f[2], Hash: p.Hash, Gen: p.Gen, Load: "loaded", Active: f[3]}
	case "hears":
		key := place{f[1], f[2]}
		st := w.states[key]
		st.Heard = w.placements[key].Rev
		w.states[key] = st
	case "wiped":
		clear(w.placements)
	case "at":
		n, err := strconv.Atoi(f[1])
		w.now = at(n)
		return err
	case "elected":
		w.leader = w.now
		w.lost = map[string]time.Time{}
	case "allow":
		w.allow = append([]string{}, f[1:]...)
		if slices.Contains(w.allow, "**") {
			w.allow = nil
		}
	case "watch":
		w.watch = f[1:]
	case "ask":
		w.ask(f[1:])
	case "move-after":
		d, err := time.ParseDuration(f[1])
		w.policy.MoveAfter = d
		return err
	case "hold":
		v, err := strconv.ParseFloat(f[1], 64)
		w.policy.HoldFraction = v
		return err
	case "seen":
		n, err := strconv.Atoi(f[1])
		w.seen = n
		return err
	default:
		return fmt.Errorf("unknown command %q", f[0])
	}
	return nil
}

func (w *world) ask(f []string) {
	a := model.Ask{ID: fmt.Sprintf("ask%d", len(w.asks)+1), Kind: model.AskKind(f[0])}
	if a.Kind == model.Adopt {
		a.Unit, a.Machine = f[1], f[2]
	} else {
		a.Max, _ = strconv.Atoi(f[1])
	}
	w.asks = append(w.asks, a)
}

// did takes note of what was done that was asked for.
func (w *world) did(r Result) {
	w.carryOut(r.Decisions)
	w.asks = slices.DeleteFunc(w.asks, func(a model.Ask) bool { return slices.Contains(r.DoneAsks, a.ID) })
}

func parseMachine(id string, words []string) (m model.Machine, err error) {
	m = model.Machine{ID: id, Metadata: map[string]string{}}
	for _, word := range words {
		switch k, v, _ := strings.Cut(word, "="); k {
		case "cores":
			m.Cores, err = unitfile.ParseCores(v)
		case "memory":
			var n uint64
			n, err = unitfile.ParseBytes(v)
			m.Memory = int64(n)
		case "cordon", "drain":
			m.Cordon = &model.Cordon{Drain: k == "drain", Why: v}
		default:
			m.Metadata[k] = v
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// unitText is a unit file of the type that the name says.
func unitText(name string) string {
	switch _, _, typ := unitfile.Split(name); typ {
	case "timer":
		return "[Timer]\nOnCalendar=daily\n"
	case "path":
		return "[Path]\nPathExists=/in\n"
	case "socket":
		return "[Socket]\nListenStream=7\n"
	}
	return "[Service]\nExecStart=/bin/true\n"
}

func (w *world) submit(name string, options []string) {
	w.rev++
	desired := model.Launched
	text := unitText(name)
	fleet := ""
	for _, o := range options {
		switch {
		case o == "load":
			desired = model.Loaded
		case strings.HasPrefix(o, "Type="), strings.HasPrefix(o, "MemoryMax="), strings.HasPrefix(o, "CPUQuota="),
			strings.HasPrefix(o, "Unit="), strings.HasPrefix(o, "Service="), strings.HasPrefix(o, "Accept="):
			text += o + "\n"
		default:
			fleet += o + "\n"
		}
	}
	if fleet != "" {
		text += "[" + unitfile.FleetSection + "]\n" + fleet
	}
	w.units[name] = model.NewUnit(name, text, desired, w.rev)
}

// tell is a result as scenarios show it.
func tell(r Result) string {
	var b strings.Builder
	for _, d := range r.Decisions {
		fmt.Fprintf(&b, "> %-7s %s %s%s # %s\n", d.Op, d.Entry.Machine, d.Entry.Unit, watched(d), d.Why)
	}
	for _, u := range r.Unplaced {
		fmt.Fprintf(&b, "> nowhere %s # %s\n", u.Unit, u.Why)
	}
	for _, id := range r.DoneAsks {
		fmt.Fprintf(&b, "> done    %s # %s\n", id, r.Answers[id])
	}
	for _, d := range r.Drains {
		fmt.Fprintf(&b, "> drain   %s: %d left", d.Machine, d.Left)
		for _, unit := range d.Moving {
			fmt.Fprintf(&b, ", %s moves", unit)
		}
		for _, n := range d.Stuck {
			fmt.Fprintf(&b, ", %s cannot (%s)", n.Unit, n.Why)
		}
		for _, n := range d.Stays {
			fmt.Fprintf(&b, ", %s stays (%s)", n.Unit, n.Why)
		}
		b.WriteString("\n")
	}
	if r.Held != "" {
		fmt.Fprintf(&b, "> held # %s\n", r.Held)
	}
	if !r.Wake.IsZero() {
		fmt.Fprintf(&b, "> wake at %d\n", r.Wake.Unix()-at(0).Unix())
	}
	if b.Len() == 0 {
		return "> nothing\n"
	}
	return b.String()
}

func tellVerdict(v MachineVerdict) string {
	var b strings.Builder
	word := map[bool]string{true: "yes", false: "no"}
	here := map[bool]string{true: ", the unit is here"}
	fmt.Fprintf(&b, "> %s: %s%s\n", v.Machine, word[v.OK], here[v.Here])
	for _, r := range v.Rules {
		soft := map[bool]string{true: " (soft)"}
		fmt.Fprintf(&b, ">   %-3s %s%s: %s\n", word[r.OK], r.Rule, soft[r.Soft], r.Why)
	}
	return b.String()
}

// whatIf asks about "drain A lose B lose C".
func (w *world) whatIf(f []string) Forecast {
	ids := map[string][]string{}
	for pair := range slices.Chunk(f, 2) {
		ids[pair[0]] = append(ids[pair[0]], pair[1])
	}
	return WhatIf(w.snapshot(), ids["drain"], ids["lose"])
}

func tellForecast(f Forecast) string {
	var b strings.Builder
	for _, m := range f.Moves {
		fmt.Fprintf(&b, "> would move %s %s to %s # %s\n", m.Unit, m.From, m.To, m.Why)
	}
	for _, m := range f.Stuck {
		fmt.Fprintf(&b, "> would be stuck %s on %s # %s\n", m.Unit, m.From, m.Why)
	}
	if f.Held != "" {
		fmt.Fprintf(&b, "> would be held # %s\n", f.Held)
	}
	if b.Len() == 0 {
		return "> would change nothing\n"
	}
	return b.String()
}

func watched(d Decision) string {
	if d.Entry.Watched {
		return " watched"
	}
	return ""
}

// A scenario is a story: commands change the cluster, "decide" decides, carries the
// decisions out and is followed by what was decided in lines that begin with ">".
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("the story went:\n%s", got)
			}
		})
	}
}

// play returns the scenario with what is decided in it now.
func play(t *testing.T, text string) string {
	w := newWorld()
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line)
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			if line == "# ---" { // the next story
				w = newWorld()
			}
		case line == "decide":
			r := Decide(w.snapshot())
			out.WriteString(tell(r))
			w.did(r)
			if again := Decide(w.snapshot()); len(again.Decisions) > 0 {
				t.Errorf("carried out, still to do:\n%s", tell(again))
			}
		case strings.HasPrefix(line, "why "):
			for _, v := range Explain(w.snapshot(), line[len("why "):]) {
				out.WriteString(tellVerdict(v))
			}
		case strings.HasPrefix(line, "what-if "):
			out.WriteString(tellForecast(w.whatIf(strings.Fields(line)[1:])))
		case strings.HasPrefix(line, "rebalance "):
			n, _ := strconv.Atoi(line[len("rebalance "):])
			out.WriteString(tellForecast(Forecast{Moves: Rebalance(w.snapshot(), n)}))
		default:
			if err := w.command(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return out.String()
}
