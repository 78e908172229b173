package fleetctl

import (
	"maps"
	"testing"

	api "flotilla/api/fleet"
	"flotilla/internal/unitfile"
)

func TestActivated(t *testing.T) {
	var units []local
	for name, text := range map[string]string{
		"tidy.timer":         "[Timer]\nOnCalendar=daily\n",
		"tidy.service":       "[Service]\nExecStart=/bin/true\n",
		"night.timer":        "[Timer]\nOnCalendar=daily\nUnit=report.service\n",
		"night.service":      "[Service]\nExecStart=/bin/true\n", // its timer starts another
		"report.service":     "[Service]\nExecStart=/bin/true\n",
		"web.socket":         "[Socket]\nListenStream=80\nService=front.service\n",
		"front.service":      "[Service]\nExecStart=/bin/true\n",
		"in.path":            "[Path]\nPathExists=/in\n",
		"in.service":         "[Service]\nExecStart=/bin/true\n",
		"copy@a.timer":       "[Timer]\nOnCalendar=daily\nUnit=copier@%i.service\n",
		"copier@a.service":   "[Service]\nExecStart=/bin/true\n",
		"echo.socket":        "[Socket]\nListenStream=7\nAccept=yes\n",
		"echo@.service":      "[Service]\nExecStart=/bin/cat\n",
		"lone.timer":         "[Timer]\nOnCalendar=daily\n", // its service is not among them
		"plain.service":      "[Service]\nExecStart=/bin/true\n",
		"dropped.timer":      "[Timer]\nOnCalendar=daily\nUnit=plain.service\n\n[Timer]\nUnit=tidy.service\n", // the last counts
		"templated@.timer":   "[Timer]\nOnCalendar=daily\n",
		"templated@.service": "[Service]\nExecStart=/bin/true\n",
	} {
		f, err := unitfile.ParseBundle(text)
		if err != nil {
			t.Fatal(err)
		}
		units = append(units, local{name: name, text: f})
	}
	want := map[string]string{
		"report.service": "night.timer", "front.service": "web.socket",
		"in.service": "in.path", "copier@a.service": "copy@a.timer",
	}
	got := activated(units, nil)
	if by := got["tidy.service"]; by != "tidy.timer" && by != "dropped.timer" {
		t.Errorf("tidy.service is started by %q", by)
	}
	delete(got, "tidy.service")
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestActivatedByTheCluster(t *testing.T) {
	timer := func(name, desired, starts string) api.Unit {
		return api.Unit{Name: name, DesiredState: desired, Options: []api.UnitOption{{Section: "Timer", Name: "Unit", Value: starts}}}
	}
	text := func(s string) unitfile.Bundle {
		f, err := unitfile.ParseBundle(s)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	units := []local{
		{name: "tidy.service", text: text("[Service]\nExecStart=/bin/true\n")},
		{name: "report.service", text: text("[Service]\nExecStart=/bin/true\n")},
		{name: "idle.service", text: text("[Service]\nExecStart=/bin/true\n")},
		{name: "moved.timer", text: text("[Timer]\nUnit=other.service\n")},
	}
	got := activated(units, []api.Unit{
		timer("nightly.timer", launched, "tidy.service"),
		timer("idle.timer", inactive, "idle.service"),    // submitted, and on no machine
		timer("moved.timer", launched, "report.service"), // until now
	})
	if want := map[string]string{"tidy.service": "nightly.timer"}; !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
