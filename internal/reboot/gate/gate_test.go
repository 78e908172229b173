package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func entries(names ...string) (out []Entry) {
	for _, n := range names {
		e := Entry{Unit: strings.TrimLeft(n, "*>"), Desired: "launched", Gen: 1}
		if strings.HasPrefix(n, "*") {
			e.Stays = "a global unit"
		}
		e.Leaving = strings.HasPrefix(n, ">")
		out = append(out, e)
	}
	return out
}

func TestDrained(t *testing.T) {
	limits := Limits{Timeout: 10 * time.Minute, Stuck: 30 * time.Second}
	base := Fleet{Present: true, Others: []string{"b"}, Led: true}
	with := func(change func(*Fleet)) Fleet { f := base; change(&f); return f }
	for _, c := range []struct {
		name           string
		f              Fleet
		elapsed, still time.Duration
		done           bool
		why            string
	}{
		{"no fleet", Fleet{}, 0, 0, true, "fleet runs nothing here"},
		{"empty", base, 0, 0, true, "nothing is here that could run elsewhere"},
		{"a global unit", with(func(f *Fleet) { f.Entries = entries("*log") }), 0, 0, true, "nothing is here that could run elsewhere"},
		{"one to leave", with(func(f *Fleet) { f.Entries = entries("*log", "web") }), 0, 0, false, "web to leave"},
		{"one is on its way", with(func(f *Fleet) { f.Entries = entries(">web") }), 0, 0, false, "web to leave"},
		{"many", with(func(f *Fleet) { f.Entries = entries("a", "b", "c", "d", "e", "f") }), 0, 0, false, "a, b, c, d and 2 more units to leave"},
		{"alone", with(func(f *Fleet) { f.Entries, f.Others = entries("web"), nil }), 0, 0, true, "there is no other machine for web"},
		{"no engine", with(func(f *Fleet) { f.Entries, f.Led = entries("web"), false }), 0, 0, false, "no engine leads that would move web"},
		{"held", with(func(f *Fleet) { f.Entries, f.Held = entries("web"), "3 of 4 machines are away" }), 0, 0, false,
			"web to leave, but moves are held: 3 of 4 machines are away"},
		{"nobody takes it", with(func(f *Fleet) { f.Entries = entries("web") }), time.Minute, 30 * time.Second, true, "no other machine has taken web for 30s"},
		{"too late", with(func(f *Fleet) { f.Entries = entries(">web") }), 10 * time.Minute, 0, true, "web did not leave within 10m0s"},
	} {
		if done, why := c.f.Drained(c.elapsed, c.still, limits); done != c.done || why != c.why {
			t.Errorf("%s: %t, %q; want %t, %q", c.name, done, why, c.done, c.why)
		}
	}
}

// Time counts only while units could leave and none does.
func TestStill(t *testing.T) {
	two := Fleet{Present: true, Led: true, Entries: entries("a", "b")}
	one := Fleet{Present: true, Led: true, Entries: entries("b")}
	moves := Fleet{Present: true, Led: true, Entries: entries(">b")}
	stops := Fleet{Present: true, Led: true, Entries: []Entry{{Unit: "b", Desired: "loaded"}}, States: map[string]State{"b": {Active: "deactivating"}}}
	held := one
	held.Held = "x"
	unled := one
	unled.Led = false
	var s Still
	at := time.Duration(0)
	for i, c := range []struct {
		f    Fleet
		want int // seconds
	}{
		{two, 0}, {two, 10}, {two, 20}, {one, 0}, {one, 10}, {moves, 0}, {moves, 0}, {one, 0}, {one, 10},
		{held, 0}, {one, 10}, {unled, 0}, {one, 10}, {stops, 0}, {stops, 0},
	} {
		if got := s.Look(c.f, at); got != time.Duration(c.want)*time.Second {
			t.Errorf("look %d: %v, want %d s", i, got, c.want)
		}
		at += 10 * time.Second
	}
}

func TestUnwell(t *testing.T) {
	web := entries("web")
	loaded := []Entry{{Unit: "web", Desired: "loaded", Gen: 1}}
	for _, c := range []struct {
		name string
		f    Fleet
		want []string
	}{
		{"no fleet", Fleet{}, nil},
		{"fleetd is not there", Fleet{Entries: web}, []string{"fleetd of this machine has not joined the cluster"}},
		{"nor is it after a drain", Fleet{Cordon: &Cordon{Ours: true}}, []string{"fleetd of this machine has not joined the cluster"}},
		{"somebody has cordoned a machine without fleet", Fleet{Cordon: &Cordon{}}, nil},
		{"nothing to run", Fleet{Present: true}, nil},
		{"active", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "active", Gen: 1}}}, nil},
		{"reloading", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "reloading", Gen: 2}}}, nil},
		{"ended well", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "inactive", Gen: 1}}}, nil},
		{"unknown", Fleet{Present: true, Entries: web}, []string{"web has not been started"}},
		{"not yet", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "inactive"}}}, []string{"web is to be started"}},
		{"starting", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "activating", Gen: 1}}}, []string{"web is activating"}},
		{"failed", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "failed", Gen: 1}}}, []string{"web is failed"}},
		{"refused", Fleet{Present: true, Entries: web, States: map[string]State{"web": {Active: "inactive", Gen: 1, Message: "no such user"}}}, []string{"web is inactive: no such user"}},
		{"only loaded", Fleet{Present: true, Entries: loaded}, nil},
		{"leaves", Fleet{Present: true, Entries: entries(">web")}, nil},
	} {
		if got := c.f.Unwell(); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestLocal(t *testing.T) {
	for _, c := range []struct {
		l    Local
		want string
	}{
		{Local{System: "running"}, ""},
		{Local{System: "degraded"}, ""},
		{Local{System: "starting"}, "the system is starting"},
		{Local{System: "stopping"}, "the system is stopping"},
		{Local{System: "maintenance"}, "the system is maintenance"},
		{Local{}, "systemd does not say how it is"},
		{Local{System: "running", BootComplete: "active"}, ""},
		{Local{System: "running", BootComplete: "inactive"}, "boot-complete.target is inactive"},
	} {
		if got := strings.Join(c.l.Unwell(), "; "); got != c.want {
			t.Errorf("%+v: %q", c.l, got)
		}
	}
}

func TestBootComplete(t *testing.T) {
	for _, c := range []struct{ shown, want string }{
		{"", ""},
		{"LoadState=not-found\nActiveState=inactive\n", ""},
		{"LoadState=loaded\nActiveState=inactive\nRequiredBy=\nWantedBy=\n", ""},
		{"LoadState=loaded\nActiveState=inactive\nRequiredBy=systemd-bless-boot.service\n", "inactive"},
		{"ActiveState=active\nWantedBy=multi-user.target\nLoadState=loaded\n", "active"},
	} {
		if got := bootComplete(c.shown); got != c.want {
			t.Errorf("%q: %q", c.shown, got)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		text string
		want Entry
	}{
		{`{"text":"[Service]\nExecStart=/bin/true\n","desired":"launched","gen":4}`, Entry{Unit: "u", Desired: "launched", Gen: 4}},
		{`{"text":"[X-Fleet]\nGlobal=true\n","desired":"launched"}`, Entry{Unit: "u", Desired: "launched", Stays: "a global unit"}},
		{`{"text":"[X-Fleet]\nGlobal=true\nGlobal=no\n","leaving":true}`, Entry{Unit: "u", Leaving: true}},
		{`{"text":"[Service]\nA=b\n#### 10-a.conf\n[X-Fleet]\nGlobal=yes\n"}`, Entry{Unit: "u", Stays: "a global unit"}},
		{`{"text":"[X-Fleet]\nMachineID=abc\n"}`, Entry{Unit: "u", Stays: "bound to this machine by MachineID"}},
		{`{"text":"[Service"}`, Entry{Unit: "u", Stays: "its text cannot be read"}},
		{`nonsense`, Entry{Unit: "u", Stays: "its record cannot be read"}},
	} {
		if diff := cmp.Diff(c.want, decodeEntry("u", c.text)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.text, diff)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"text":"[X-Fleet]\nGlobal=true\n","desired":"launched","gen":1}`)
	f.Add(`{"activeState":"active","drain":true,"by":"locksmithd","before":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if e := decodeEntry("u", text); e.Unit != "u" {
			t.Errorf("%+v", e)
		}
		_ = decodeState(text)
		if c := decodeCordon(text); c == nil || c.Ours != (c.By == by) {
			t.Errorf("%+v", c)
		}
		_ = bootComplete(text)
	})
}

func TestHooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"10-yes": 0o755, "20-no": 0o755, "30-mute": 0o755, "40-open": 0o757, "50-data": 0o644, ".hidden": 0o755, "60-old~": 0o755,
	} {
		script := "#!/bin/sh\nexit 0\n"
		switch name {
		case "20-no":
			script = "#!/bin/sh\necho looking\necho \"the raid  is rebuilt ($FLOTILLA_REBOOT_WHY)\" >&2\nexit 3\n"
		case "30-mute", "40-open", "50-data", ".hidden", "60-old~":
			script = "#!/bin/sh\nexit 7\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	got := Hooks(t.Context(), dir, "FLOTILLA_REBOOT_WHY=updated: libc6")
	want := []string{
		"20-no: the raid is rebuilt (updated: libc6)", "30-mute: exit status 7", "40-open: others than its owner may write it, so it is not run",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := Hooks(t.Context(), filepath.Join(dir, "none")); len(got) > 0 {
		t.Errorf("without a directory: %q", got)
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for range 100 {
		tl.Write([]byte(strings.Repeat("x", 1000) + "\n"))
	}
	tl.Write([]byte("the end\n"))
	if got := tl.String(); len(got) > tailSize || lastLine(got) != "the end" {
		t.Errorf("%d bytes, ending in %q", len(got), lastLine(got))
	}
}
