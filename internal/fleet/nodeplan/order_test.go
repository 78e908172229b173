package nodeplan

import (
	"strings"
	"testing"

	"flotilla/internal/fleet/model"
)

func TestStartOrder(t *testing.T) {
	for _, c := range []struct {
		name, units, want string
	}{
		{"by name where nothing is said", "b: a:", "a b"},
		{"after", "a:After=b.service b: c:", "b a c"},
		{"before", "a: c:Before=a.service", "c a"},
		{"a chain", "a:After=b.service b:After=c.service c:", "c b a"},
		{"units that are not started now mean nothing", "a:After=network.target b:", "a b"},
		{"a circle", "a:After=b.service b:After=a.service", "b a"},
	} {
		want := map[string]Want{}
		var names []string
		for _, u := range strings.Fields(c.units) {
			name, line, _ := strings.Cut(u, ":")
			name += ".service"
			want[name] = Want{Unit: name, Text: "[Unit]\n" + line + "\n"}
			names = append(names, name)
		}
		got := strings.ReplaceAll(strings.Join(inStartOrder(names, want), " "), ".service", "")
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// An instance names its neighbour by %i, as a sidekick does.
func TestStartOrderOfASidekick(t *testing.T) {
	names := []string{"announce@1.service", "web@1.service"}
	want := map[string]Want{
		"announce@1.service": {Text: "[Unit]\nAfter=web@%i.service\n"},
		"web@1.service":      {Text: "[Service]\nExecStart=/bin/true\n"},
	}
	if got := strings.Join(inStartOrder(names, want), " "); got != "web@1.service announce@1.service" {
		t.Errorf("got %s", got)
	}
}

// By a schedule that may be old, what is down since the machine started comes up,
// and nothing else happens.
func TestReviveStartsAndNothingElse(t *testing.T) {
	launched := func(name, hash string) Want { return Want{Unit: name, Hash: hash, Desired: model.Launched, Gen: 1} }
	want := map[string]Want{
		"down.service":    launched("down.service", "h1"),
		"stopped.service": launched("stopped.service", "h1"),
		"newer.service":   launched("newer.service", "h1"),
		"foreign.service": launched("foreign.service", "h1"),
	}
	have := map[string]Have{
		"stopped.service": {Installed: true, Hash: "h1", Active: "inactive", DoneGen: 2, DoneState: model.Loaded},
		"newer.service":   {Installed: true, Hash: "h2", Active: "active", DoneGen: 2, DoneState: model.Launched, DoneHash: "h2"},
		"foreign.service": {Installed: true, Hash: "h2", Active: "active"},
		"unknown.service": {Installed: true, Hash: "h1", Active: "active", DoneGen: 1, DoneState: model.Launched},
	}
	if got := format(Revive(want, have)); got != "install down.service # placed here\nstart   down.service # its desired state is launched\n" {
		t.Errorf("got\n%s", got)
	}
}
