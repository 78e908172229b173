package lab

import (
	"slices"
	"strings"
	"testing"

	"flotilla/internal/applet"
)

func TestExecLeavesTheCommandAlone(t *testing.T) {
	for args, want := range map[string]string{
		"exec m1 find / -name x":    "exec -- m1 find / -name x",
		"exec m1 -- ls -o json":     "exec -- m1 ls -o json",
		"exec --help":               "exec --help",
		"exec":                      "exec",
		"up 3 -name demo --cluster": "up 3 -name demo --cluster",
	} {
		if got := keepCommand(strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: got %q", args, got)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		err  string
	}{
		{"up", 2, "accepts 1 arg(s)"},
		{"up three", 2, "\"three\" is not a number of machines"},
		{"status -o yaml", 2, "no output format \"yaml\""},
		{"exec m1", 2, "requires at least 2 arg(s)"},
		{"kil m1", 2, "did you mean \"kill\"?"},
		{"demo --on theatre", 2, "no stage \"theatre\""},
		{"--help", 0, ""},
	} {
		var out, errs strings.Builder
		env := applet.Env{Args: strings.Fields(c.args), Stdout: &out, Stderr: &errs}
		if code := Applet().Run(t.Context(), env); code != c.code || !strings.Contains(errs.String(), c.err) {
			t.Errorf("%s: code %d, %s", c.args, code, errs.String())
		}
	}
}
