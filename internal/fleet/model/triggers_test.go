package model

import (
	"testing"

	"flotilla/internal/unitfile"
)

// A unit that starts another has to be with it, unless it says otherwise itself.
func TestTriggers(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"tidy.timer", "[Timer]\nOnCalendar=daily\n", "tidy.service"},
		{"tidy.timer", "[Timer]\nUnit=sweep.service\n", "sweep.service"},
		{"tidy.timer", "[Timer]\nUnit=\n", "tidy.service"},
		{"tidy@3.timer", "[Timer]\nOnCalendar=daily\n", "tidy@3.service"},
		{"tidy@3.timer", "[Timer]\nUnit=sweep@%i.service\n", "sweep@3.service"},
		{"tidy.timer", "[Timer]\nUnit=%N-all.target\n", "tidy-all.target"},
		{"inbox.path", "[Path]\nPathExists=/in\n", "inbox.service"},
		{"inbox.path", "[Path]\nUnit=sort.service\n", "sort.service"},
		{"inbox.path", "[Timer]\nUnit=sort.service\n", "inbox.service"},
		{"echo.socket", "[Socket]\nListenStream=7\n", "echo.service"},
		{"echo.socket", "[Socket]\nService=reply.service\n", "reply.service"},
		{"echo.socket", "[Socket]\nAccept=no\n", "echo.service"},
		{"echo.socket", "[Socket]\nAccept=yes\n", ""},
		{"data.automount", "[Automount]\nWhere=/data\n", "data.mount"},
		{"data.mount", "[Mount]\nWhere=/data\n", ""},
		{"tidy.service", "[Service]\nUnit=x.service\n", ""},
		{"tidy@.timer", "[Timer]\nOnCalendar=daily\n", ""},
		{"tidy.timer", "[Timer]\nUnit=sweep@.service\n", ""},
		{"tidy.timer", "[Timer]\nUnit=tidy.timer\n", ""},
		{"tidy.timer", "[Timer]\nOnCalendar=daily\n[X-Fleet]\nGlobal=true\n", ""},
		{"tidy.timer", "[Timer]\nOnCalendar=daily\n[X-Fleet]\nConflicts=tidy.*\n", ""},
		{"tidy.timer", "[Timer]\nOnCalendar=daily\n[X-Fleet]\nReplaces=tidy.service\n", ""},
		{"tidy.timer", "[Timer]\nOnCalendar=daily\n[X-Fleet]\nMachineOf=db.service\n", "tidy.service"},
	} {
		f, err := unitfile.Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if req, _, _ := ParseRequirements(c.name, f); req.Triggers != c.want {
			t.Errorf("%s triggers %q, want %q:\n%s", c.name, req.Triggers, c.want, c.text)
		}
	}
}
