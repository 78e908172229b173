package rollout

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"flotilla/internal/fleet/model"
)

var update = flag.Bool("update", false, "write what the scenarios decide instead of comparing it")

// world is a store and machines, as far as Plan can see them.
type world struct {
	now      time.Time
	machines map[string]bool
	lost     map[string]time.Time
	units    map[string]model.Unit
	places   map[string]model.Placement
	states   map[string]model.UnitState
	rolls    map[string]model.Roll
	rev      int64
}

func newWorld() *world {
	return &world{
		now: at(0), machines: map[string]bool{}, lost: map[string]time.Time{}, units: map[string]model.Unit{},
		places: map[string]model.Placement{}, states: map[string]model.UnitState{}, rolls: map[string]model.Roll{},
	}
}

func at(seconds int) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds) * time.Second)
}

func (w *world) snapshot() Snapshot {
	return Snapshot{
		Now: w.now, LeaderSince: at(-3600), Lost: w.lost,
		Present: func(m string) bool { return w.machines[m] },
		Units:   slices.Collect(maps.Values(w.units)), Placements: slices.Collect(maps.Values(w.places)),
		States: slices.Collect(maps.Values(w.states)), Rolls: slices.Collect(maps.Values(w.rolls)),
	}
}

// carryOut does what the engine and sched do with a plan. It returns the entries
// that took a new text.
func (w *world) carryOut(r Result) (changed []string) {
	for _, roll := range r.Put {
		w.rev++
		roll.Rev = w.rev
		for _, m := range []*map[string]string{&roll.From, &roll.To, &roll.Texts} {
			if len(*m) == 0 {
				*m = nil // as the store keeps it
			}
		}
		if len(roll.Since) == 0 {
			roll.Since = nil
		}
		w.rolls[roll.Group] = roll
	}
	for _, group := range r.Remove {
		delete(w.rolls, group)
	}
	for _, key := range slices.Sorted(maps.Keys(w.places)) {
		p := w.places[key]
		u, ok := w.units[p.Unit]
		if !ok {
			delete(w.places, key)
			delete(w.states, key)
			continue
		}
		p.Desired = u.Desired
		if p.Hash != u.Hash && r.Allow(p.Unit, p.Machine) {
			p.Text, p.Hash, p.Watched = u.Text, u.Hash, r.Watch(p.Unit)
			changed = append(changed, key)
		}
		w.places[key] = p
	}
	for _, back := range r.Reverts {
		u := w.units[back.Unit]
		w.units[back.Unit] = model.NewUnit(back.Unit, back.Text, u.Desired, u.Gen)
	}
	return changed
}

// textOf is the text of a version.
func textOf(version string, options []string) string {
	text := "[Service]\nExecStart=/bin/web " + version + "\n"
	fleet := ""
	for _, o := range options {
		if strings.HasPrefix(o, "Type=") {
			text += o + "\n"
		} else {
			fleet += o + "\n"
		}
	}
	if fleet != "" {
		text += "[X-Fleet]\n" + fleet
	}
	return text
}

func versionOf(text string) string {
	_, rest, _ := strings.Cut(text, "/bin/web ")
	v, _, _ := strings.Cut(rest, "\n")
	return v
}

// command carries out one line of a scenario; plan is the reader's business.
//
//	machine ID...                      they are present, again if they were lost
//	lose ID                            its lease ends
//	unit NAME VERSION [OPTION...]      it exists, launched; options of [X-Fleet], and Type
//	text GLOB VERSION [OPTION...]      another text of those that match
//	on UNIT MACHINE                    it runs there, with its present text
//	is UNIT MACHINE ACTIVE [HEALTH [WHY]]   the machine says so of the text it was given
//	log UNIT MACHINE LINE              a line of the unit's log
//	move UNIT FROM TO                  sched takes it elsewhere, with the text it has
//	stop|start|destroy NAME
//	pause|resume|revert GROUP BY
//	at SECONDS
func (w *world) command(line string) error {
	f := strings.Fields(line)
	switch f[0] {
	case "machine":
		for _, id := range f[1:] {
			w.machines[id] = true
			delete(w.lost, id)
		}
	case "lose":
		delete(w.machines, f[1])
		w.lost[f[1]] = w.now
		maps.DeleteFunc(w.states, func(_ string, s model.UnitState) bool { return s.Machine == f[1] })
	case "unit":
		desired := model.Launched
		if strings.Contains(f[1], "@.") {
			desired = model.Inactive
		}
		w.units[f[1]] = model.NewUnit(f[1], textOf(f[2], f[3:]), desired, 1)
	case "text":
		for name, u := range w.units {
			if ok, _ := path.Match(f[1], name); ok {
				w.units[name] = model.NewUnit(name, textOf(f[2], f[3:]), u.Desired, u.Gen)
			}
		}
	case "on":
		u := w.units[f[1]]
		w.places[model.RollKey(f[1], f[2])] = model.Placement{Unit: f[1], Machine: f[2], Text: u.Text, Hash: u.Hash, Desired: u.Desired}
		return w.command("is " + f[1] + " " + f[2] + " active")
	case "is":
		key := model.RollKey(f[1], f[2])
		s := model.UnitState{Unit: f[1], Machine: f[2], Hash: w.places[key].Hash, Active: f[3]}
		if len(f) > 4 {
			s.Health, s.HealthWhy = model.Health(f[4]), strings.Join(f[5:], " ")
		}
		w.states[key] = s
	case "log":
		key := model.RollKey(f[1], f[2])
		s := w.states[key]
		s.Log += strings.Join(f[3:], " ") + "\n"
		w.states[key] = s
	case "move":
		p := w.places[model.RollKey(f[1], f[2])]
		delete(w.places, model.RollKey(f[1], f[2]))
		p.Machine = f[3]
		w.places[model.RollKey(f[1], f[3])] = p
	case "stop", "start":
		u := w.units[f[1]]
		w.units[f[1]] = model.NewUnit(u.Name, u.Text, map[string]model.State{"start": model.Launched, "stop": model.Loaded}[f[0]], 2)
	case "destroy":
		delete(w.units, f[1])
	case "pause", "resume", "revert":
		r := w.rolls[f[1]]
		r.Asked, r.AskedBy = f[0], f[2]
		w.rolls[f[1]] = r
	case "at":
		n, err := strconv.Atoi(f[1])
		w.now = at(n)
		return err
	default:
		return fmt.Errorf("unknown command %q", f[0])
	}
	return nil
}

// plan plans and carries out until nothing more comes of it, and tells what did.
func (w *world) plan(t *testing.T) string {
	var b strings.Builder
	for range 6 {
		r := Plan(w.snapshot())
		for _, e := range r.Events {
			fmt.Fprintf(&b, "> event %s", e.Unit)
			if e.Machine != "" {
				fmt.Fprintf(&b, " %s", e.Machine)
			}
			fmt.Fprintf(&b, ": %s", e.What)
			if e.Why != "" {
				fmt.Fprintf(&b, " # %s", e.Why)
			}
			if e.By != "" {
				fmt.Fprintf(&b, " (%s)", e.By)
			}
			b.WriteString("\n")
		}
		for _, back := range r.Reverts {
			fmt.Fprintf(&b, "> write %s %s # %s\n", back.Unit, versionOf(back.Text), back.Why)
		}
		for _, key := range w.carryOut(r) {
			p := w.places[key]
			watched := ""
			if p.Watched {
				watched = " watched"
			}
			fmt.Fprintf(&b, "> change %s to %s%s\n", key, versionOf(p.Text), watched)
		}
		for _, roll := range r.Put {
			fmt.Fprintf(&b, "> roll %s %s # %s\n", roll.Group, roll.State, roll.Why)
			for _, line := range roll.Log {
				fmt.Fprintf(&b, ">   | %s\n", line)
			}
		}
		for _, group := range r.Remove {
			fmt.Fprintf(&b, "> roll %s forgotten\n", group)
		}
		if len(r.Put)+len(r.Remove)+len(r.Reverts) > 0 {
			continue
		}
		if !r.Wake.IsZero() {
			fmt.Fprintf(&b, "> wake at %d\n", r.Wake.Unix()-at(0).Unix())
		}
		if b.Len() == 0 {
			return "> nothing\n"
		}
		return b.String()
	}
	t.Errorf("it never comes to rest:\n%s", b.String())
	return b.String()
}

// A file is stories: each is commands that change the cluster, and "plan", which
// plans, carries out, and is followed by what happened in lines that begin with ">".
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range a.Files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+f.Name, func(t *testing.T) {
				got := play(t, string(f.Data))
				if got != string(f.Data) && !*update {
					t.Errorf("the story went:\n%s", got)
				}
				a.Files[i].Data = []byte(got)
			})
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(a), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

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
		case line == "plan":
			out.WriteString(w.plan(t))
		default:
			if err := w.command(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return out.String()
}
