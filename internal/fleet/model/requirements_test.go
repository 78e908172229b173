package model

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"flotilla/internal/unitfile"
)

func parse(t *testing.T, fleet string) unitfile.File {
	t.Helper()
	f, err := unitfile.Parse("[Service]\nExecStart=/bin/true\n[X-Fleet]\n" + fleet)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParseRequirements(t *testing.T) {
	f := parse(t, `
MachineOf="db@%i.service" "cache.service"
MachineMetadata="region=%i" "disk=ssd"
MachineMetadata=disk=nvme
Conflicts=%p@* batch.*
X-Conflicts=old-%N.service
Replaces=none
Global=yes
Global=no
`)
	got, notices, _ := ParseRequirements("web@eu.service", f)
	want := Requirements{
		MachineOf: []string{"db@eu.service", "cache.service"},
		Metadata:  map[string][]string{"region": {"eu"}, "disk": {"ssd", "nvme"}},
		Conflicts: []string{"web@*", "batch.*", "old-web@eu.service"},
		Replaces:  []string{"none"},
		Roll:      RollPolicy{MaxUnavailable: 1, HealthyAfter: DefaultHealthyAfter, HealthyTimeout: DefaultHealthyTimeout},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], "X-Conflicts is an old spelling") {
		t.Errorf("notices %q", notices)
	}
}

func TestOwnOptions(t *testing.T) {
	service := "[Service]\nExecStart=/bin/true\nCPUQuota=150%\nMemoryHigh=1G\nMemoryMax=2G\n"
	for _, c := range []struct {
		text string
		want Requirements
	}{
		{service, Requirements{Cores: 1500, Memory: 2 << 30}},
		{service + "[X-Fleet]\nCores=0.25\nMemory=64M\n", Requirements{Cores: 250, Memory: 64 << 20}},
		{"[Service]\nMemoryMax=infinity\nMemoryHigh=1M\n", Requirements{Memory: 1 << 20}},
		{"[X-Fleet]\nSingleton=true\nMoveAfter=never\nStrategy=pack\nSpread=rack\nPrefers=\"disk=ssd\" \"zone=%i\"\n",
			Requirements{Singleton: true, MoveAfter: -1, Pack: true, SpreadKey: "rack", Prefers: []string{"disk=ssd", "zone=1"}}},
		{"[X-Fleet]\nGlobal=true\nMaxRunning=2\n", Requirements{Global: true, MaxRunning: 2}},
	} {
		c.want.Roll = RollPolicy{MaxUnavailable: 1, HealthyAfter: DefaultHealthyAfter, HealthyTimeout: DefaultHealthyTimeout}
		u := NewUnit("web@1.service", c.text, Launched, 1)
		if u.Bad != "" || !reflect.DeepEqual(u.Req, c.want) {
			t.Errorf("%s\ngot  %+v (%s)\nwant %+v", c.text, u.Req, u.Bad, c.want)
		}
	}
	u := NewUnit("web.service", "[Service]\nA=b\n#### a.conf\n[X-Fleet]\nMaxUnavailable=3\nHealthCheck=tcp://:80\nHealthyAfter=5s\nHealthyTimeout=2min\n", Launched, 1)
	want := RollPolicy{MaxUnavailable: 3, HealthCheck: "tcp://:80", HealthyAfter: 5 * time.Second, HealthyTimeout: 2 * time.Minute}
	if u.Req.Roll != want || u.Bad != "" {
		t.Errorf("from a drop-in: %+v (%s)", u.Req.Roll, u.Bad)
	}
}

func TestGlobalWords(t *testing.T) {
	for value, want := range map[string]bool{
		"true": true, "YES": true, "1": true, "on": true, "T": true,
		"false": false, "no": false, "0": false, "y": false, "": false,
	} {
		req, _, _ := ParseRequirements("a.service", parse(t, "Global="+value+"\n"))
		if req.Global != want {
			t.Errorf("Global=%s is %v", value, req.Global)
		}
	}
}

func TestCombinations(t *testing.T) {
	for _, c := range []struct {
		fleet string
		want  []string // in order
	}{
		{"Global=true\nConflicts=a.*\nMachineMetadata=a=b\n", nil},
		{"MachineOf=a.service\nConflicts=b.*\nMachineMetadata=a=b\n", nil},
		{"MachineOf=a.service\nConflicts=a*\n", []string{`unresolvable requirements: peer "a.service" matches conflict "a*"`}},
		{"MachineOf=a.service\nReplaces=a*\n", []string{`unresolvable requirements: peer "a.service" matches replace "a*"`}},
		{"MachineID=1\nMachineOf=a.service\n", []string{"MachineID cannot be used with Peers"}},
		{"MachineID=1\nConflicts=a\n", []string{"MachineID cannot be used with Conflicts"}},
		{"MachineID=1\nGlobal=true\n", []string{"MachineID cannot be used with Global"}},
		{"MachineID=1\nReplaces=a\n", []string{"MachineID cannot be used with Replaces"}},
		{"Global=true\nMachineOf=a.service\n", []string{"Global cannot be used with Peers"}},
		{"Global=true\nReplaces=a\n", []string{"Global cannot be used with Replaces"}},
		{"Conflicts=a\nReplaces=b\n", []string{"Conflicts cannot be used with Replaces"}},
		{"Global=true\nConflicts=me.*\n", []string{`Global cannot be used with Conflicts of itself: "me.*" matches "me.service"`}},
		{"MachineOf=me.service\n", []string{`MachineOf names the unit itself: "me.service"`}},
		{"Global=true\nSingleton=true\n", []string{"Singleton cannot be used with Global"}},
		{"MaxRunning=1\n", []string{"MaxRunning is for Global units"}},
		{"MachineID=1\nGlobal=true\nMachineOf=a.service\nConflicts=b\nReplaces=c\n", []string{
			"MachineID cannot be used with Peers", "MachineID cannot be used with Conflicts",
			"MachineID cannot be used with Global", "MachineID cannot be used with Replaces",
			"Global cannot be used with Peers", "Global cannot be used with Replaces",
			"Conflicts cannot be used with Replaces"}},
	} {
		_, _, problems := ParseRequirements("me.service", parse(t, c.fleet))
		var got []string
		for _, p := range problems {
			got = append(got, p.Msg)
			if p.Line == 0 {
				t.Errorf("%q: no line for %q", c.fleet, p.Msg)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q:\ngot  %q\nwant %q", c.fleet, got, c.want)
		}
	}
}

func TestMatchGlob(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"web.service", "web.service", true},
		{"web.service", "web.services", false},
		{"web@*", "web@1.service", true},
		{"web@*", "web", false},
		{"*", "anything.timer", true},
		{"*.timer", "anything.timer", true},
		{"web@[12].service", "web@2.service", true},
		{"web@?.service", "web@12.service", false},
		{"web@[1.service", "web@1.service", false},
		{`a\*.service`, "a*.service", true},
		{"*", "a/b", false},
		{`a\x2db.service`, `a\x2db.service`, true},
		{`a\\x2db.service`, `a\x2db.service`, true},
		{`mnt-*\x2dset.mount`, `mnt-data\x2dset.mount`, true},
		{`a\x2d*`, `a\x2db.service`, true},
		{`a\x2db.service`, `ax2db.service`, false},
	} {
		if got := MatchGlob(c.glob, c.name); got != c.want {
			t.Errorf("MatchGlob(%q, %q) = %v", c.glob, c.name, got)
		}
	}
}

func TestMatchMachine(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for want, ok := range map[string]bool{id: true, "01234567": true, "0123": false, "": false, id[:16]: false} {
		if MatchMachine(want, id) != ok {
			t.Errorf("MatchMachine(%q) = %v", want, !ok)
		}
	}
}

func TestNewUnit(t *testing.T) {
	const text = "# c\n[Service]\nExecStart = /bin/true\n"
	const canonical = "[Service]\nExecStart=/bin/true\n"
	for _, c := range []struct {
		name, text string
		desired    State
		bad        string // "" for a good unit, else part of Bad
	}{
		{"a.service", text, Launched, ""},
		{"a@.service", text, Inactive, ""},
		{"a@.service", text, Loaded, `cannot activate template "a@.service"`},
		{"a.service", text, State(7), "unknown desired state"},
		{"a", text, Launched, `must contain "."`},
		{"a.service", "", Launched, "no options"},
		{"a.service", "[Service\nx", Launched, "1:1: unable to find end of section"},
		{"a.service", text + "[X-Fleet]\nGlobal=true\nMachineOf=b.service\n", Launched, "Global cannot be used with Peers"},
		{"a.service", text + "[X-Fleet]\nFoo=1\n", Launched, "unknown option"},
	} {
		u := NewUnit(c.name, c.text, c.desired, 3)
		if u.Bad == "" != (c.bad == "") || !strings.Contains(u.Bad, c.bad) {
			t.Errorf("%s %q: Bad = %q, want %q", c.name, c.text, u.Bad, c.bad)
		}
		if u.Hash != unitfile.HashText(u.Text) || c.bad == "" && u.Text != canonical || u.Gen != 3 {
			t.Errorf("%+v", u)
		}
	}
}

func TestCurrent(t *testing.T) {
	p := Placement{Machine: "m", Unit: "a.service", Desired: Launched, Gen: 5}
	for _, c := range []struct {
		name string
		p    Placement
		s    UnitState
		want State
	}{
		{"nowhere", Placement{}, UnitState{}, Inactive},
		{"nothing said yet", p, UnitState{}, Inactive},
		{"said by another machine", p, UnitState{Unit: "a.service", Machine: "n", Gen: 5}, Inactive},
		{"not started yet", p, UnitState{Unit: "a.service", Machine: "m", Gen: 4}, Loaded},
		{"started", p, UnitState{Unit: "a.service", Machine: "m", Gen: 5}, Launched},
	} {
		if got := Current(c.p, c.s); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestStateText(t *testing.T) {
	for _, s := range []State{Inactive, Loaded, Launched} {
		text, err := s.MarshalText()
		var back State
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%v becomes %s becomes %v", s, text, back)
		}
	}
	if _, err := ParseState("bogus"); err == nil {
		t.Error("bogus is a state")
	}
}

// Requirements are read from whatever is in the store without a panic, and never
// make a unit usable that has a problem.
func FuzzNewUnit(f *testing.F) {
	f.Add("a@1.service", "[X-Fleet]\nConflicts=[\nMachineOf=\"\nGlobal=maybe\n", 2)
	f.Add("a@.service", "[Service]\nA=b\n[X-Fleet]\nMachineMetadata=%i=%n\n", 0)
	f.Fuzz(func(t *testing.T, name, text string, desired int) {
		u := NewUnit(name, text, State(desired), 1)
		bundle, err := unitfile.ParseBundle(text)
		parsed := bundle.Effective()
		if (err != nil || unitfile.CheckName(name) != nil) && u.Bad == "" {
			t.Fatalf("%q with %q is usable", name, text)
		}
		if err == nil && len(unitfile.Check(name, parsed)) > 0 && u.Bad == "" {
			t.Fatalf("%q with %q has problems and is usable", name, text)
		}
	})
}

// A text that was taken when nobody looked at the names of sections goes on as it did.
func TestStoredUnitWithAStraySection(t *testing.T) {
	u := NewUnit("a.service", "[Service]\nExecStart=/bin/true\n\n[ X-Fleet]\nGlobal=true\n", Launched, 1)
	if u.Bad != "" || u.Req.Global {
		t.Errorf("bad %q, global %v", u.Bad, u.Req.Global)
	}
}
