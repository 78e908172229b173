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
		{"exec --name x m1 ls -l", 2, "lab: exec takes no --name: the lab is in the name of the machine\n"},
		{"exec --name x m1", 2, "hint: the machines of the lab x are x1, x2 and so on: flotilla lab exec x1\n"},
		{"kill -name=x m1", 2, "the machines of the lab x are x1, x2 and so on: flotilla lab kill x1\n"},
		{"cut web", 2, "lab: \"web\" is the name of no machine\nhint: the machines of the lab web are web1, web2 and so on"},
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

// What has to be typed again can be copied.
func TestTyped(t *testing.T) {
	for _, c := range []struct {
		called string
		args   []string
		want   string
	}{
		{"", []string{"up", "3"}, "flotilla lab up 3"},
		{"fl lab", []string{"exec", "m1", "sh", "-c", "echo it's $HOME"}, `fl lab exec m1 sh -c 'echo it'\''s $HOME'`},
		{"fl lab", []string{"exec", "m1", "echo", ""}, "fl lab exec m1 echo ''"},
	} {
		if got := typed(applet.Env{Called: c.called, Args: c.args}); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
