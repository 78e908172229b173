package plan

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

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"flotilla/internal/cloudinit/config"
)

var update = flag.Bool("update", false, "write the plans of testdata anew")

// Each file of testdata is a machine and what happens to it: documents (options of the
// run are in the section's name), reboots, changes by others. What follows a document
// is the plan for it and what it says; then the plan is carried out on a model, and the
// same document has to leave nothing to do.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files:", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			have := machine()
			var made Plan
			for i, f := range ar.Files {
				text := string(f.Data)
				switch name, args, _ := strings.Cut(f.Name, " "); name {
				case "have":
					for line := range strings.Lines(text) {
						setUp(t, &have, strings.TrimSpace(line))
					}
				case "boot":
					reboot(&have)
				case "document":
					want := wanted(t, text, args)
					made = Make(want, have)
					carry(&have, made)
					if rest := Make(want, have); len(rest.Steps) > 0 {
						t.Errorf("%s: still to do when all is done:\n%s", args, planText(rest))
					}
				case "plan":
					if *update {
						ar.Files[i].Data = []byte(planText(made))
					} else if d := cmp.Diff(text, planText(made)); d != "" {
						t.Errorf("plan (-want +got):\n%s", d)
					}
				case "contents":
					for line := range strings.Lines(text) {
						p, content, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
						if got := strconv.Quote(string(have.Files[p].Content)); got != content {
							t.Errorf("%s holds %s, want %s", p, got, content)
						}
					}
				default:
					t.Fatalf("section %q", f.Name)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func machine() Snapshot {
	return Snapshot{
		Live: true, Boot: "boot1", Hostname: "m1", StaticHostname: "m1", Runner: "root:root",
		Files: map[string]Entry{}, Users: map[string]Account{}, Groups: map[string]uint32{}, Units: map[string]Unit{},
	}
}

// setUp reads one line: "file PATH MODE OWNER TEXT", "link PATH TARGET", "user NAME
// SHELL", "group NAME", "unit NAME [active] [missing] [ENABLED]", "image".
func setUp(t *testing.T, have *Snapshot, line string) {
	f := strings.Fields(line)
	switch f[0] {
	case "file":
		mode, err := strconv.ParseUint(f[2], 8, 32)
		text, err2 := strconv.Unquote(strings.SplitN(line, " ", 5)[4])
		if err != nil || err2 != nil {
			t.Fatal(line, err, err2)
		}
		have.Files[f[1]] = Entry{Content: []byte(text), Mode: uint32(mode), Owner: f[3]}
	case "link":
		have.Files[f[1]] = Entry{Link: f[2], Mode: 0o777, Owner: "root:root"}
	case "gone":
		delete(have.Files, f[1])
	case "user":
		have.Users[f[1]] = Account{Home: "/home/" + f[1], Shell: f[2], HasHome: true}
	case "keys":
		u := have.Users[f[1]]
		u.AuthorizedKeys += strings.SplitN(line, " ", 3)[2] + "\n"
		have.Users[f[1]] = u
	case "group":
		have.Groups[f[1]] = 100
	case "image":
		have.Live, have.Boot = false, ""
	case "unit":
		u := have.Units[f[1]]
		for _, w := range f[2:] {
			u.Active = u.Active && w != "inactive" || w == "active"
			u.Missing = u.Missing || w == "missing"
			if !slices.Contains([]string{"active", "inactive", "missing"}, w) {
				u.Enabled = w
			}
		}
		have.Units[f[1]] = u
	default:
		t.Fatalf("line %q", line)
	}
}

// wanted reads a document; of the section's arguments "prune" is an option and the
// others are NAME=VALUE: an address, or hostname or key of the data source.
func wanted(t *testing.T, text, args string) Wanted {
	want := Wanted{Scratch: "/var/lib/coreos-cloudinit"}
	if strings.HasPrefix(text, "#!") {
		want.Scripts = []string{text}
	} else {
		doc, findings := config.Parse(text)
		for _, f := range findings {
			if f.Severity == config.Error {
				t.Logf("%s", f)
			}
		}
		want.Document = doc
	}
	for _, a := range strings.Fields(args) {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "prune":
			want.Prune = true
		case "hostname":
			want.Hostname = value
		case "key":
			want.SSHKeys = append(want.SSHKeys, value)
		default:
			want.Addrs = append(want.Addrs, Variable{name, value})
		}
	}
	return want
}

func planText(p Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	for _, n := range p.Notes {
		kind := "note"
		if n.Problem {
			kind = "problem"
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", kind, n.Target, n.Text)
	}
	return b.String()
}

// carry is a model of a machine: what steps do to it.
func carry(have *Snapshot, p Plan) {
	have.Record = p.Before
	for _, s := range p.Steps {
		carryStep(have, s)
		have.Record = have.Record.After(s, have.Boot)
	}
}

func carryStep(have *Snapshot, s Step) {
	switch s.Kind {
	case Hostname:
		have.Hostname, have.StaticHostname = s.Target, s.Target
	case AddUser:
		have.Users[s.Target] = Account{Home: "/home/" + s.Target, HasHome: true, Gecos: s.User.Gecos,
			Shell: s.User.Shell, Groups: s.User.Groups, PasswordHash: "*"}
	case Password:
		u := have.Users[s.Target]
		u.PasswordHash = s.User.PasswordHash
		have.Users[s.Target] = u
	case Keys:
		u := have.Users[s.Target]
		u.AuthorizedKeys, u.Sets = MergeKeys(u.AuthorizedKeys, u.Sets, s.Set, s.Keys), withSet(u.Sets, s.Set, s.Keys)
		if len(s.Keys) == 0 {
			delete(u.Sets, s.Set)
		}
		have.Users[s.Target] = u
	case WriteTo:
		owner := s.Owner
		if owner == "" {
			owner = have.Runner
		}
		have.Files[s.Target] = Entry{Content: s.New, Mode: s.Mode, Owner: owner}
	case Mask:
		have.Files[s.Target] = Entry{Link: "/dev/null", Mode: 0o777, Owner: have.Runner}
	case Remove, Unmask:
		delete(have.Files, s.Target)
	case Enable, Disable, Command:
		carryUnit(have, s)
	}
}

func carryUnit(have *Snapshot, s Step) {
	u := have.Units[s.Target]
	switch {
	case s.Kind == Enable:
		u.Enabled = "enabled"
	case s.Kind == Disable:
		u.Enabled = "disabled"
	case s.Verb == "stop":
		u.Active = false
	default:
		u.Active = true
	}
	have.Units[s.Target] = u
}

// reboot empties /run, starts what is enabled and gives the boot a new id.
func reboot(have *Snapshot) {
	n, _ := strconv.Atoi(strings.TrimPrefix(have.Boot, "boot"))
	have.Boot = fmt.Sprintf("boot%d", n+1)
	maps.DeleteFunc(have.Files, func(p string, _ Entry) bool { return strings.HasPrefix(p, "/run/") })
	for name, u := range have.Units {
		u.Active = u.Enabled == "enabled"
		have.Units[name] = u
	}
}

// A run that is cut after any step, run again, ends as one that is not cut; also if the
// machine has rebooted in between, but for what a reboot takes away.
func TestCutAnywhere(t *testing.T) {
	const first, second = "testdata/cut_before.yaml", "testdata/cut_after.yaml"
	before, after := document(t, first), document(t, second)
	for _, start := range []struct {
		name string
		docs []Wanted
	}{{"blank", nil}, {"changed", []Wanted{before}}} {
		whole := ready(start.docs)
		carry(&whole, Make(after, whole))
		steps := len(Make(after, ready(start.docs)).Steps)
		if steps < 8 {
			t.Fatalf("%s: only %d steps", start.name, steps)
		}
		for cut := range steps + 1 {
			// saved: the record had been written when the run was cut.
			for _, saved := range []bool{true, false} {
				have := ready(start.docs)
				cutRun(&have, Make(after, have), cut, saved)
				carry(&have, Make(after, have))
				if d := cmp.Diff(settled(after, whole), settled(after, have)); d != "" {
					t.Errorf("%s, cut at step %d of %d, last record saved: %v (-whole +cut):\n%s", start.name, cut, steps, saved, d)
				}
				if rest := Make(after, have); len(rest.Steps) > 0 {
					t.Errorf("%s, cut at step %d: still to do:\n%s", start.name, cut, planText(rest))
				}
			}
		}
	}
}

// ready is a machine on which documents were applied.
func ready(docs []Wanted) Snapshot {
	have := machine()
	have.Units["docker.service"] = Unit{Active: true, Enabled: "enabled"}
	for _, d := range docs {
		carry(&have, Make(d, have))
	}
	return have
}

// cutRun carries out the first steps of a plan.
func cutRun(have *Snapshot, p Plan, steps int, saved bool) {
	have.Record = p.Before
	for i, s := range p.Steps[:steps] {
		carryStep(have, s)
		if i < steps-1 || saved {
			have.Record = have.Record.After(s, have.Boot)
		}
	}
}

// settled is a machine with the record that the next run begins with: it has nothing
// about what is not on the machine any more.
func settled(want Wanted, s Snapshot) Snapshot {
	s.Record = Make(want, s).Before
	return s
}

func document(t *testing.T, file string) Wanted {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc, findings := config.Parse(string(text))
	if len(findings) > 0 {
		t.Fatalf("%s: %v", file, findings)
	}
	return Wanted{Document: doc, Prune: true, Addrs: []Variable{{"COREOS_PRIVATE_IPV4", "10.0.0.5"}}}
}

func TestMergeKeys(t *testing.T) {
	for _, c := range []struct {
		name, auth string
		sets       map[string]string
		keys       []string
		want       string
	}{
		{"into nothing", "", nil, []string{"a"}, "a\n"},
		{"beside the user's own", "mine\n", nil, []string{"a"}, "mine\na\n"},
		{"replaced where it was", "mine\nold\nmore\n", map[string]string{"s": "old\n"}, []string{"new"}, "mine\nmore\nnew\n"},
		{"another set has it too", "old\n", map[string]string{"s": "old\n", "t": "old\n"}, nil, "old\n"},
		{"taken back", "mine\nold\n", map[string]string{"s": "old\n"}, nil, "mine\n"},
		{"no line break at the end", "mine", nil, []string{"a"}, "mine\na\n"},
		{"comments and blank lines stay", "# x\n\nmine\n", nil, []string{"a"}, "# x\n\nmine\na\n"},
		{"cut before the set was written", "new\n", map[string]string{"s": "old\n"}, []string{"new"}, "new\n"},
	} {
		if got := MergeKeys(c.auth, c.sets, "s", c.keys); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBadNames(t *testing.T) {
	for _, p := range []string{"etc/x", "/etc/../x", "/", "/etc/", "", "/a\x00b", "../x"} {
		if badPath(p) == "" {
			t.Errorf("path %q is taken", p)
		}
	}
	for _, u := range []string{"../../etc/cron.d/x", "a/b.service", "x", "", ".network", "a b.link", "-.x"} {
		if badUnit(u) == "" {
			t.Errorf("unit %q is taken", u)
		}
	}
	for _, u := range []config.User{{}, {Name: "-r"}, {Name: "a:b"}, {Name: "a", PasswordHash: "x\nroot:y"}, {Name: "a", Gecos: "x:y"}} {
		if badUser(u) == "" {
			t.Errorf("user %+v is taken", u)
		}
	}
}

func TestMergeTakesTheLastValue(t *testing.T) {
	got := Merge([]config.Document{
		{Hostname: "a", SSHAuthorizedKeys: []string{"1"}, CoreOS: config.CoreOS{Etcd: config.Options{{Name: "addr", Variable: "ETCD_ADDR", Value: "x"}, {Name: "name", Variable: "ETCD_NAME", Value: "n"}}}},
		{Hostname: "b", SSHAuthorizedKeys: []string{"2"}, CoreOS: config.CoreOS{Etcd: config.Options{{Name: "addr", Variable: "ETCD_ADDR", Value: "y"}}}},
	})
	want := config.Document{Hostname: "b", SSHAuthorizedKeys: []string{"1", "2"}, CoreOS: config.CoreOS{
		Etcd: config.Options{{Name: "addr", Variable: "ETCD_ADDR", Value: "y"}, {Name: "name", Variable: "ETCD_NAME", Value: "n"}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
