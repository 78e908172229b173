package fleetctl

import (
	"strings"
	"testing"

	api "flotilla/api/fleet"
)

func TestPickAway(t *testing.T) {
	whole := strings.Repeat("9", 32)
	machines := []api.Machine{{ID: "aa11"}, {ID: "bb22", PrimaryIP: "10.0.0.2"}}
	units := []api.Unit{
		{Name: "a.service", MachineID: "aa11"}, {Name: "b.service", MachineID: "cc33"}, {Name: "c.service", MachineID: "cc33"},
		{Name: "d.service", MachineID: "cd44"}, {Name: "e.service"},
	}
	on := awayWith(machines, units)
	if len(on) != 2 || len(on["cc33"]) != 2 {
		t.Errorf("away are %v", on)
	}
	for given, want := range map[string]string{
		"cc33": "cc33", "cc": "cc33", "cc33...": "cc33", whole: whole,
		"c":        "2 machines that are away have an id that begins with c",
		"aa":       "machine aa11 is present",
		"10.0.0.2": "machine bb22 is present",
		"ff":       "no machine ff is away with units",
		"":         "no machine  is away with units",
	} {
		got, err := pickAway(given, machines, on)
		if err != nil {
			got = strings.ReplaceAll(err.Error(), "...", "")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestForgetQuestion(t *testing.T) {
	on := map[string][]api.Unit{"cc33": {
		{Name: "a.service"},
		{Name: "b.service", Options: []api.UnitOption{{Section: "X-Fleet", Name: "Singleton", Value: "true"}}},
	}}
	got := forgetQuestion([]string{"cc33"}, on)
	for _, want := range []string{"Forget cc33", "start elsewhere what is there: a.service b.service\n", "(b.service may run once only, and may run there still: make sure that the machine is off)?"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	if got := forgetQuestion([]string{"dd"}, on); strings.Contains(got, "elsewhere") {
		t.Errorf("got %q", got)
	}
}
