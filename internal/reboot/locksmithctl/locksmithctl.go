// Package locksmithctl is the program of that name: it shows the reboot lock and
// changes it by hand. The classic commands have their classic words and exit codes,
// without the classic faults; resume, history, set-stop-after and groups are ours.
package locksmithctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/lifecycle"
	"flotilla/internal/systemd/login"
	"flotilla/internal/systemd/updateengine"
)

// Machine is what the commands need of the machine they run on.
type Machine interface {
	ID() (string, error)     // as in /etc/machine-id
	BootID() (string, error) // of the kernel that runs
	Hostname() string        // "" if it has none
	IsRoot() bool

	// Reboot has the machine reboot, after what runs has been stopped.
	Reboot(ctx context.Context) error
	// Blockers is who forbids a reboot, and why.
	Blockers(ctx context.Context) ([]string, error)
	// SendNeedReboot says in the update engine's name that a reboot is needed.
	SendNeedReboot(ctx context.Context) error
}

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "locksmithctl",
		Group:     "Machines",
		Summary:   "show and change the lock that machines reboot by",
		Completes: true,
		Run: func(ctx context.Context, env applet.Env) int {
			return Run(ctx, env, thisMachine{})
		},
	}
}

// Run runs the program on a machine.
func Run(ctx context.Context, env applet.Env, m Machine) int {
	s := &session{env: env, machine: m}
	root := s.root()
	if name := s.unknown(root, env.Args); name != "" {
		fmt.Fprintln(env.Stdout, "unknown subcommand")
		if near := fault.Nearest(name, names(root)); near != "" {
			fmt.Fprintf(env.Stderr, "hint: did you mean %q?\n", near)
		}
		return fault.ExitUsage
	}
	return cli.Run(ctx, env, root)
}

// unknown is the first word that is neither a flag nor the name of a command, if it
// stands where a command is to stand.
func (s *session) unknown(root *cobra.Command, args []string) string {
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		return ""
	}
	c, rest, err := root.Find(cli.SingleDash(root, args))
	if err == nil && c != root {
		return ""
	}
	if err := root.ParseFlags(rest); err != nil || root.Flags().NArg() == 0 {
		return "" // cobra says what is wrong with the flags
	}
	return root.Flags().Arg(0)
}

func names(root *cobra.Command) []string {
	var out []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

func (s *session) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "locksmithctl",
		Short: "show and change the lock that machines reboot by",
		Long: "Machines that reboot take a slot of a lock in the store, and give it back when they\n" +
			"are up and well. locksmithctl shows the lock and changes it by hand.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if version {
				fmt.Fprintf(c.OutOrStdout(), "locksmithctl version %s\n", applet.Version)
				return nil
			}
			return c.Help()
		},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return s.fromEnvironment(c) },
	}
	s.flags(root.PersistentFlags())
	if err := root.RegisterFlagCompletionFunc("group", s.completeGroup); err != nil {
		panic(err) // there is no such flag: a mistake in this file
	}
	root.PersistentFlags().BoolVar(&version, "version", false, "print the version")
	root.AddCommand(s.status(), s.lock(), s.unlock(), s.setMax(), s.reboot(), s.sendNeedReboot(),
		s.resume(), s.setStopAfter(), s.history(), s.groups())
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultHelpCmd() // cobra adds it late: unknown has to find it
	root.CompletionOptions.HiddenDefaultCmd = true
	root.InitDefaultCompletionCmd()
	return root
}

// helpCommand is "help [COMMAND]", with the classic exit code for a topic that there
// is none of.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "say what a command is for",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return root.Help()
			}
			c, rest, err := root.Find(args)
			if err != nil || c == root || len(rest) > 0 {
				err := fmt.Errorf("no help for %q", strings.Join(args, " "))
				return fault.Hint(err, "there are: %s", strings.Join(names(root), " "))
			}
			return c.Help()
		},
	}
}

// usage is wrong arguments of a command, with the classic exit code.
func usage(c *cobra.Command, format string, args ...any) error {
	return fault.Hint(fault.Code(fault.ExitFailed, fmt.Errorf(format, args...)), "usage: %s", c.UseLine())
}

// failed reports an error in the classic words: "Error locking: WHY".
func (s *session) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(s.env.Stderr, "Error %s: %v\n", doing, err)
	for _, h := range fault.Hints(err) {
		fmt.Fprintf(s.env.Stderr, "hint: %s\n", h)
	}
	return fault.Code(fault.ExitFailed, fault.ErrSilent)
}

// thisMachine is the machine that the program runs on.
type thisMachine struct{}

var _ Machine = thisMachine{}

func (thisMachine) ID() (string, error) { return readLine("/etc/machine-id") }

func (thisMachine) BootID() (string, error) { return lifecycle.BootID() }

func (thisMachine) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // it is for people alone
	}
	return name
}

func (thisMachine) IsRoot() bool { return os.Geteuid() == 0 }

func (thisMachine) Reboot(ctx context.Context) error {
	m := login.New("")
	defer m.Close()
	return m.Reboot(ctx)
}

func (thisMachine) Blockers(ctx context.Context) ([]string, error) {
	m := login.New("")
	defer m.Close()
	return m.Blockers(ctx)
}

func (thisMachine) SendNeedReboot(ctx context.Context) error {
	e := updateengine.New("")
	defer e.Close()
	return e.SendNeedReboot(ctx)
}

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(b))
	if line == "" {
		return "", errors.New(path + " is empty")
	}
	return line, nil
}
