// Package lab is the program "flotilla lab": real systemd machines on this machine,
// and the demonstration.
package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/lab/demo"
	"flotilla/internal/lab/machines"
)

const defaultPrefix = machines.DefaultPrefix

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "lab",
		Group:     "First try",
		Summary:   "real systemd machines on this machine",
		Completes: true,
		Run: func(ctx context.Context, env applet.Env) int {
			typed := typed(env)
			env.Args = keepCommand(env.Args)
			// A terminal that closes, or a reader of ours that has seen enough, must
			// not leave half a lab behind.
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			return cli.Run(ctx, env, root(lab{env, typed}))
		},
	}
}

// keepCommand puts "--" after "exec", so that what follows is left alone: the
// command's flags are not ours.
func keepCommand(args []string) []string {
	if len(args) < 2 || args[0] != "exec" || args[1] == "" || args[1][0] == '-' {
		return args
	}
	rest := args[2:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	return append([]string{"exec", "--", args[1]}, rest...)
}

// lab is one call of the program.
type lab struct {
	applet.Env
	typed string // the whole command line, to be typed again
}

// plain is a word that a shell takes as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:=,@%+-]+$`)

// typed is the command line, as a shell takes it.
func typed(env applet.Env) string {
	words := []string{env.CalledOr("flotilla lab")}
	for _, a := range env.Args {
		if !plain.MatchString(a) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

func root(env lab) *cobra.Command {
	root := &cobra.Command{
		Use: "lab",
		// There is no link of this name: help says what to type.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "flotilla lab"},
		Short:       "real systemd machines on this machine",
		Long: `Boots machines with a real systemd, journal, network and (where installed) Docker
on this machine, and breaks them. Needs root, systemd-container, dbus and iproute2.
Nothing of them can be reached from outside; their disks are in memory.`,
		Example: `  flotilla lab up 3 --cluster
  flotilla lab exec m1 fleetctl list-machines
  flotilla lab kill m2
  flotilla lab status
  flotilla lab down`,
	}
	root.AddCommand(upCommand(env), clusterCommand(env), statusCommand(env), execCommand(env), downCommand(env), demo.Command(env.Env),
		faultCommand(env, "cut", "take the cable out: the machine runs on and reaches nobody", "is cut off", (*machines.Lab).Cut),
		faultCommand(env, "heal", "put the cable back in", "is reachable", (*machines.Lab).Heal),
		faultCommand(env, "kill", "cut the power; the disk stays", "is off", (*machines.Lab).Kill),
		faultCommand(env, "reboot", "reboot, as its own user would, and wait until it is up again", "is up again", (*machines.Lab).Reboot),
		faultCommand(env, "stayoff", "make its next reboot a power-off: it does not come back", "stays off when it next goes down",
			func(l *machines.Lab, _ context.Context, m string) error { return l.StayOff(m) }),
		faultCommand(env, "boot", "power on, with the same disk and machine id", "", (*machines.Lab).Boot),
		readdressCommand(env),
		faultCommand(env, "freeze", "stop every process of the machine where it is", "is frozen",
			func(l *machines.Lab, _ context.Context, m string) error { return l.Freeze(m) }),
		faultCommand(env, "thaw", "let a frozen machine go on", "goes on",
			func(l *machines.Lab, _ context.Context, m string) error { return l.Thaw(m) }),
	)
	return root
}

// inspect looks at this machine. Who is not root can do nothing with labs, not even see
// them.
func (env lab) inspect() (machines.Host, error) {
	host, err := machines.Inspect()
	if err != nil {
		return host, err
	}
	host.Typed = env.typed
	if !host.Root {
		return host, host.Check()
	}
	return host, nil
}

// labOf returns the lab that a machine is of by its name.
func labOf(env lab, machine string) (*machines.Lab, error) {
	prefix := machines.Of(machine)
	if prefix == machine {
		return nil, fault.Hint(fault.Usage("%q is the name of no machine", machine),
			"the machines of the lab %s are %[1]s1, %[1]s2 and so on; 'flotilla lab status' shows those of all labs", cmp.Or(machine, defaultPrefix))
	}
	return open(env, prefix)
}

// machinesOf makes a command take names of machines, and answer to --name, which the
// commands for whole labs have, with what it takes instead.
func machinesOf(cmd *cobra.Command) *cobra.Command {
	var name string
	cmd.Flags().StringVar(&name, "name", "", "")
	_ = cmd.Flags().MarkHidden("name") // the flag is there
	count := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("name") {
			return count(cmd, args)
		}
		return fault.Hint(fault.Usage("%s takes no --name: the lab is in the name of the machine", cmd.Name()),
			"the machines of the lab %s are %[1]s1, %[1]s2 and so on: %s %[1]s1", name, cmd.CommandPath())
	}
	return cmd
}

// open returns the lab with this prefix; its progress goes to stderr.
func open(env lab, prefix string) (*machines.Lab, error) {
	host, err := env.inspect()
	if err != nil {
		return nil, err
	}
	return machines.New(prefix, host, func(format string, args ...any) {
		fmt.Fprintf(env.Stderr, format+"\n", args...)
	})
}

func upCommand(env lab) *cobra.Command {
	var prefix string
	var cluster, blank bool
	var put []string
	cmd := &cobra.Command{
		Use:   "up N",
		Short: "boot N machines",
		Long: `Boots N machines, which are called m1, m2 and so on, or with --name web: web1, web2 and so on.
If it fails or is interrupted it takes away what it has made.`,
		Example: `  flotilla lab up 3 --cluster
  flotilla lab up 2 --name web --put /etc/hostname:/etc/booted-by`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return fault.Usage("%q is not a number of machines", args[0])
			}
			options, err := options(blank, put)
			if err != nil {
				return err
			}
			l, err := open(env, prefix)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := l.Up(cmd.Context(), n, options...); err != nil {
				return err
			}
			if cluster {
				if err := startCluster(cmd.Context(), l); err != nil {
					return err
				}
			}
			fmt.Fprintf(env.Stderr, "ready after %s; next: flotilla lab exec %s1 bash\n", since(began), prefix)
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "name", defaultPrefix, "`PREFIX` of the machines' names, and the name of the lab")
	cmd.Flags().BoolVar(&cluster, "cluster", false, "also install this binary in them and start store and fleet")
	cmd.Flags().BoolVar(&blank, "blank", false, "nothing of ours in them, nor the distribution's etcd: for a package to be installed")
	cmd.Flags().StringArrayVar(&put, "put", nil, "`FILE:PATH`: every machine has the file at the path before it boots; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("cluster", "blank")
	return cmd
}

// options are the machines' by what was typed.
func options(blank bool, put []string) ([]machines.Option, error) {
	var out []machines.Option
	if blank {
		out = append(out, machines.Blank)
	}
	for _, p := range put {
		from, to, ok := strings.Cut(p, ":")
		if !ok || !filepath.IsAbs(to) {
			return nil, fault.Usage("--put takes FILE:PATH with an absolute path, not %q", p)
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("put a file into the machines: %w", err)
		}
		st, err := os.Stat(from)
		if err != nil {
			return nil, fmt.Errorf("put a file into the machines: %w", err)
		}
		out = append(out, machines.With(to, text, st.Mode().Perm()))
	}
	return out, nil
}

func clusterCommand(env lab) *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "install this binary in the machines and start store and fleet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := open(env, prefix)
			if err != nil {
				return err
			}
			return startCluster(cmd.Context(), l)
		},
	}
	cmd.Flags().StringVar(&prefix, "name", defaultPrefix, "the lab whose machines are called `PREFIX`1, PREFIX2...")
	return cmd
}

func statusCommand(env lab) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "the machines of all labs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fault.Usage("no output format %q: there is json", output)
			}
			all, err := statusOfAll(cmd.Context(), env)
			if err != nil {
				return err
			}
			if output == "json" {
				return cli.JSON(cmd.OutOrStdout(), all)
			}
			if len(all) == 0 {
				fmt.Fprintln(env.Stderr, "no lab is up; 'flotilla lab up 3' boots one of three machines")
			}
			var rows [][]string
			for _, s := range all {
				rows = append(rows, []string{s.Name, s.Address, s.Power, s.Network, orDash(s.System), boots(s.Boots)})
			}
			return cli.WriteTable(cmd.OutOrStdout(), []string{"MACHINE", "ADDRESS", "POWER", "NETWORK", "SYSTEM", "BOOTS"}, rows)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FORMAT`: json")
	return cmd
}

func statusOfAll(ctx context.Context, env lab) ([]machines.Status, error) {
	host, err := env.inspect()
	if err != nil {
		return nil, err
	}
	labs, err := machines.Labs()
	if err != nil {
		return nil, err
	}
	all := []machines.Status{}
	for _, prefix := range labs {
		l, err := machines.New(prefix, host, nil)
		if err != nil {
			return nil, err
		}
		s, err := l.Status(ctx)
		if err != nil {
			return nil, fault.Hint(err, "flotilla lab down --name %s takes away what is left of it", prefix)
		}
		all = append(all, s...)
	}
	return all, nil
}

// boots is how many there have been; a machine that is off cannot be asked.
func boots(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func execCommand(env lab) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec MACHINE COMMAND [ARG...]",
		Short: "run a command in a machine; its exit code is ours",
		Long: `Runs a command in a machine, as root. The lab is in the name of the machine: m1 is of the
lab m, web1 of the one that "up --name web" has made. What follows the machine is the
command's own, flags too.`,
		Example: `  flotilla lab exec m1 fleetctl list-machines
  flotilla lab exec m1 journalctl -u fleet -n 20
  flotilla lab exec m1 bash`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := labOf(env, args[0])
			if err != nil {
				return err
			}
			err = l.Exec(cmd.Context(), args[0], machines.Streams{In: env.Stdin, Out: env.Stdout, Err: env.Stderr}, args[1:]...)
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return fault.Code(exitCode(exit), fault.ErrSilent)
			}
			if errors.Is(err, exec.ErrNotFound) {
				return fault.Code(127, err) // as in a shell
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false)
	return machinesOf(cmd)
}

// exitCode is the command's own; 128 and the signal if one ended it, as in a shell.
func exitCode(e *exec.ExitError) int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return e.ExitCode()
}

func downCommand(env lab) *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "take a lab away: complete, and safe to repeat",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := open(env, prefix)
			if err != nil {
				return err
			}
			return l.Down(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&prefix, "name", defaultPrefix, "the lab whose machines are called `PREFIX`1, PREFIX2...")
	return cmd
}

// faultCommand is a command that does one thing to each of the machines named.
func faultCommand(env lab, name, short, done string, do func(*machines.Lab, context.Context, string) error) *cobra.Command {
	return machinesOf(&cobra.Command{
		Use:     name + " MACHINE...",
		Short:   short,
		Example: "  flotilla lab " + name + " m2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, machine := range args {
				l, err := labOf(env, machine)
				if err != nil {
					return err
				}
				began := time.Now()
				if err := do(l, cmd.Context(), machine); err != nil {
					return err
				}
				if done != "" {
					fmt.Fprintf(env.Stderr, "%s %s after %s\n", machine, done, since(began))
				}
			}
			return nil
		},
	})
}

func readdressCommand(env lab) *cobra.Command {
	return machinesOf(&cobra.Command{
		Use:   "readdress MACHINE...",
		Short: "give machines that are off other addresses",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			byLab := map[string][]string{}
			for _, machine := range args {
				byLab[machines.Of(machine)] = append(byLab[machines.Of(machine)], machine)
			}
			for _, names := range byLab {
				l, err := labOf(env, names[0])
				if err != nil {
					return err
				}
				if err := l.Readdress(cmd.Context(), names...); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// startCluster installs the program that runs: what is tried is what is at hand.
func startCluster(ctx context.Context, l *machines.Lab) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	return l.Cluster(ctx, self)
}

// since is the time passed, as people say it.
func since(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }
