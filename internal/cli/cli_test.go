package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

func testRoot() *cobra.Command {
	root := &cobra.Command{Use: "fleetctl"}
	tunnel := root.PersistentFlags().String("tunnel", "", "")
	list := &cobra.Command{Use: "list-units", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		fmt.Fprintln(c.OutOrStdout(), "tunnel="+*tunnel)
		if *tunnel == "bad" {
			return fault.Hint(errors.New("dial bad: refused"), "start it")
		}
		return nil
	}}
	list.Flags().Bool("all", false, "")
	list.Flags().Bool("none", false, "")
	list.Flags().Int("lines", 10, "")
	list.MarkFlagsMutuallyExclusive("all", "none")
	root.AddCommand(list, &cobra.Command{Use: "start UNIT...", Args: cobra.MinimumNArgs(1), Run: func(*cobra.Command, []string) {}})
	return root
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args        string
		code        int
		out, errOut string
	}{
		{"-tunnel 10.10.1.1 list-units", 0, "tunnel=10.10.1.1\n", ""},
		{"list-units -tunnel=x", 0, "tunnel=x\n", ""},
		{"list-units --tunnel bad", 1, "tunnel=bad\n", "fleetctl: dial bad: refused\nhint: start it\n"},
		{"list-unit", 2, "", "fleetctl: unknown command \"list-unit\"\nhint: did you mean \"list-units\"?\n"},
		{"list-units --tunel x", 2, "", "fleetctl: unknown flag: --tunel\nhint: see 'fleetctl list-units --help'\nhint: did you mean --tunnel?\n"},
		{"list-units --all --none", 2, "", "fleetctl: --all, --none: only one of these at a time\nhint: see 'fleetctl list-units --help'\n"},
		{"list-units --lines x", 2, "", "fleetctl: --lines=x: not a whole number\nhint: see 'fleetctl list-units --help'\n"},
		{"list-units --lines 99999999999999999999", 2, "", "fleetctl: --lines=99999999999999999999: too large a number\nhint: see 'fleetctl list-units --help'\n"},
		{"start", 2, "", "fleetctl: requires at least 1 arg(s), only received 0\nhint: usage: fleetctl start UNIT... [flags]\n"},
	} {
		var out, errs strings.Builder
		code := Run(t.Context(), applet.Env{Args: strings.Fields(c.args), Stdout: &out, Stderr: &errs}, testRoot())
		if code != c.code || out.String() != c.out || errs.String() != c.errOut {
			t.Errorf("%s: code %d\nstdout %q\nstderr %q\nwant %d\n%q\n%q", c.args, code, out.String(), errs.String(), c.code, c.out, c.errOut)
		}
	}
}

// Help and hints can be typed as they are, whatever the program was called as.
func TestCalledAs(t *testing.T) {
	for _, c := range []struct{ called, args, out, errOut string }{
		{"coreos-cloudinit", "--nonesuch", "", "coreos-cloudinit: unknown flag: --nonesuch\nhint: see 'coreos-cloudinit --help'\n"},
		{"flotilla fleetctl", "start", "", "fleetctl: requires at least 1 arg(s), only received 0\nhint: usage: flotilla fleetctl start UNIT... [flags]\n"},
		{"flotilla fleetctl", "start --help", "Usage:\n  flotilla fleetctl start UNIT... [flags]\n", ""},
	} {
		var out, errs strings.Builder
		Run(t.Context(), applet.Env{Called: c.called, Args: strings.Fields(c.args), Stdout: &out, Stderr: &errs}, testRoot())
		if !strings.HasPrefix(out.String(), c.out) || errs.String() != c.errOut {
			t.Errorf("%s %s:\nstdout %q\nstderr %q\nwant\n%q\n%q", c.called, c.args, out.String(), errs.String(), c.out, c.errOut)
		}
	}
}

// A program without commands has no list of them to offer.
func TestUnexpectedArgument(t *testing.T) {
	var errs strings.Builder
	code := Run(t.Context(), applet.Env{Args: []string{"x"}, Stderr: &errs}, &cobra.Command{Use: "locksmithd", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {}})
	want := "locksmithd: unexpected argument \"x\"\nhint: see 'locksmithd --help'\n"
	if code != fault.ExitUsage || errs.String() != want {
		t.Errorf("code %d, got\n%swant\n%s", code, errs.String(), want)
	}
}

func TestSingleDashLeavesTheRestAlone(t *testing.T) {
	got := strings.Join(SingleDash(testRoot(), strings.Fields("-n5 -x -tunnel a - -- -tunnel b")), " ")
	if want := "-n5 -x --tunnel a - -- -tunnel b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableFillsWithTabs(t *testing.T) {
	var b strings.Builder
	err := WriteTable(&b, []string{"UNIT", "MACHINE", "ACTIVE"}, [][]string{{"hello.service", "282f949f.../10.0.0.1", "active"}})
	want := "UNIT\t\tMACHINE\t\t\tACTIVE\nhello.service\t282f949f.../10.0.0.1\tactive\n"
	if err != nil || b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// A program is described without being run.
func TestDescribe(t *testing.T) {
	ours := applet.Applet{Run: func(ctx context.Context, env applet.Env) int { return Run(ctx, env, testRoot()) }}
	if cmd, _ := Describe(t.Context(), ours); cmd == nil || cmd.Name() != "fleetctl" {
		t.Errorf("described as %v", cmd)
	}
	other := applet.Applet{Run: func(_ context.Context, env applet.Env) int {
		fmt.Fprintln(env.Stdout, env.Args[0])
		return 0
	}}
	if cmd, help := Describe(t.Context(), other); cmd != nil || help != "--help\n" {
		t.Errorf("described as %v, %q", cmd, help)
	}
}
