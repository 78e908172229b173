package applet

import (
	"context"
	"strings"
	"testing"
)

func table(ran *string) Table {
	run := func(name string) func(context.Context, Env) int {
		return func(_ context.Context, env Env) int {
			*ran = name + " " + strings.Join(env.Args, ",") + " as " + env.Called + ", " + env.NameOr(name)
			return 7
		}
	}
	return Table{
		{Name: "etcd", Group: "Store", Summary: "the store", Run: run("etcd")},
		{Name: "fleetctl", Group: "Units", Summary: "its command line", Run: run("fleetctl")},
		{Name: "cloudinit", Aliases: []string{"coreos-cloudinit"}, Group: "Machines", Summary: "documents", Run: run("cloudinit")},
	}
}

func TestPick(t *testing.T) {
	for _, c := range []struct {
		argv0 string
		args  []string
		ran   string
		code  int
	}{
		{"/usr/bin/etcd", []string{"--name", "a"}, "etcd --name,a as etcd, etcd", 7},
		{"flotilla", []string{"etcd", "--name"}, "etcd --name as flotilla etcd, etcd", 7},
		{"flotilla-1.2", []string{"fleetctl"}, "fleetctl  as flotilla-1.2 fleetctl, fleetctl", 7},
		{"./coreos-cloudinit", []string{"-validate"}, "cloudinit -validate as coreos-cloudinit, coreos-cloudinit", 7},
		{"flotilla", []string{"cloudinit"}, "cloudinit  as flotilla cloudinit, cloudinit", 7},
		{"flotilla", []string{"help", "etcd"}, "etcd --help as flotilla etcd, etcd", 7},
		{"flotilla", nil, "", 0},
		{"flotilla", []string{"version"}, "", 0},
		{"flotilla", []string{"fletctl"}, "", 2},
	} {
		var ran string
		var out, errs strings.Builder
		code := table(&ran).Main(t.Context(), c.argv0, Env{Args: c.args, Stdout: &out, Stderr: &errs})
		if ran != c.ran || code != c.code {
			t.Errorf("%s %v: ran %q code %d, want %q code %d", c.argv0, c.args, ran, code, c.ran, c.code)
		}
	}
}

func TestUnknownNamesTheNearest(t *testing.T) {
	var ran string
	var errs strings.Builder
	table(&ran).Main(t.Context(), "flotilla", Env{Args: []string{"fletctl"}, Stderr: &errs})
	want := "flotilla: unknown command \"fletctl\"\nhint: did you mean \"fleetctl\"?\nhint: there are: etcd fleetctl cloudinit\n"
	if errs.String() != want {
		t.Errorf("got\n%swant\n%s", errs.String(), want)
	}
}

// Only what there is gets a link, and only under a name that people know.
func TestLinks(t *testing.T) {
	var ran string
	var out strings.Builder
	table(&ran).Main(t.Context(), "flotilla", Env{Args: []string{"__links"}, Stdout: &out})
	if want := "coreos-cloudinit\netcd\nfleetctl\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
