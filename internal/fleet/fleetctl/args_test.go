package fleetctl

import (
	"slices"
	"strings"
	"testing"

	api "flotilla/api/fleet"
	"flotilla/internal/unitfile"
)

func TestBraces(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"hello", "hello"},
		{"hello@{1..3}", "hello@1 hello@2 hello@3"},
		{"hello@{3..1}.service", "hello@3.service hello@2.service hello@1.service"},
		{"hello@{08..10}", "hello@08 hello@09 hello@10"},
		{"hello@{1..9..4}", "hello@1 hello@5 hello@9"},
		{"hello@{9..1..4}", "hello@9 hello@5 hello@1"},
		{"hello@{-1..1}", "hello@-1 hello@0 hello@1"},
		{"hello@{a..c}", "hello@a hello@b hello@c"},
		{"{web,db}@{1,2}", "web@1 web@2 db@1 db@2"},
		{"a{b,c{1..2}}", "ab ac1 ac2"},
		{"a{,b}", "a ab"},
		{"a{b}c", "a{b}c"},
		{"a{1..}", "a{1..}"},
		{"a{1..2..0}", "a{1..2..0}"},
		{"a{b,c", "a{b,c"},
		{"a}{1..2}", "a}1 a}2"},
		{"{a}{1..2}", "{a}1 {a}2"},
	} {
		got, ok := braces(c.in, maxExpansion)
		if !ok || strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %q %v, want %q", c.in, strings.Join(got, " "), ok, c.want)
		}
	}
}

func TestBracesHaveALimit(t *testing.T) {
	for _, in := range []string{"{1..10001}", "{1..1000000000}", "{1..200}{1..200}", strings.Repeat("{a,b}", 40)} {
		if names, ok := braces(in, maxExpansion); ok {
			t.Errorf("%s: %d names", in, len(names))
		}
	}
	if names, ok := braces("{1..100}{1..100}", maxExpansion); !ok || len(names) != maxExpansion {
		t.Errorf("exactly the limit: %d names, %v", len(names), ok)
	}
}

func FuzzBraces(f *testing.F) {
	for _, s := range []string{"a", "a{1..3}", "{a,{b,c}}", "{a..z..5}", "{{}}", "{,}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, ok := braces(s, 100)
		if ok && (len(names) == 0 || len(names) > 100) {
			t.Errorf("%q gives %d names", s, len(names))
		}
		if !strings.Contains(s, "{") && (len(names) != 1 || names[0] != s) {
			t.Errorf("%q gives %q", s, names)
		}
	})
}

func TestChoose(t *testing.T) {
	known := []string{"a.service", "hello@1.service", "hello@2.service", "tick.timer"}
	sel, err := choose([]string{"hello@2", "hello@*", "b", "*.timer", "hello@{1..2}"}, known)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(sel.names, " "); got != "hello@2.service hello@1.service tick.timer" {
		t.Errorf("names: %s", got)
	}
	if got := strings.Join(sel.unknown, " "); got != "b.service" {
		t.Errorf("unknown: %s", got)
	}
	if sel.byGlob["hello@1.service"] || !sel.byGlob["tick.timer"] {
		t.Errorf("named plainly counts more than a pattern: %v", sel.byGlob)
	}
}

func TestPickMachine(t *testing.T) {
	machines := []api.Machine{{ID: "282f949f0000000000000000000000a1", PrimaryIP: "10.0.0.1", Hostname: "m1"},
		{ID: "282f94a00000000000000000000000a2", PrimaryIP: "10.0.0.9"}, {ID: "50000000000000000000000000000000", PrimaryIP: "10.0.0.9"}}
	for _, c := range []struct{ given, want, fails string }{
		{"282f949f0000000000000000000000a1", "282f949f0000000000000000000000a1", ""},
		{"282f949f", "282f949f0000000000000000000000a1", ""},
		{"282f949f...", "282f949f0000000000000000000000a1", ""},
		{"282f949f.../10.0.0.1", "282f949f0000000000000000000000a1", ""},
		{"10.0.0.1", "282f949f0000000000000000000000a1", ""},
		{"m1", "282f949f0000000000000000000000a1", ""},
		{"10.0.0.9", "", "machine 10.0.0.9 is ambiguous"}, // all machines of one laptop
		{"282f94", "", "machine 282f94 is ambiguous"},
		{"77", "", "no machine 77 is present"},
		{"...", "", "no machine ... is present"},
	} {
		got, err := pickMachine(c.given, machines)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && err.Error() != c.fails {
			t.Errorf("%s: got %q, %v", c.given, got, err)
		}
	}
}

// Whoever says where others may be is placed in its turn, and so is a handful.
func TestAbreast(t *testing.T) {
	const conflicts = "[X-Fleet]\nConflicts=web@*.service\n"
	for _, c := range []struct {
		name, text string
		units      int
		want       int
	}{
		{"a handful", "[Service]\n", parallel, 1},
		{"many", "[Service]\n", parallel + 1, parallel},
		{"many that conflict", conflicts, 100, 1},
		{"many in the spelling of old", "[X-Fleet]\nX-Conflicts=web@*.service\n", 100, 1},
		{"many beside another", "[X-Fleet]\nMachineOf=db.service\n", 100, 1},
		{"many with a drop-in that says so", "[Service]\n#### 10-apart.conf\n" + conflicts, 100, 1},
	} {
		text, err := unitfile.ParseBundle(c.text)
		if err != nil {
			t.Fatal(err)
		}
		units := slices.Repeat([]found{{name: "web@1.service", file: &text}}, c.units)
		if got := abreast(units); got != c.want {
			t.Errorf("%s: %d at once, want %d", c.name, got, c.want)
		}
	}
	if got := abreast(make([]found, 100)); got != parallel {
		t.Errorf("many whose text the cluster has: %d at once, want %d", got, parallel)
	}
}
