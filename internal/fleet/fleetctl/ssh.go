package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/tunnel"
	"flotilla/internal/unitfile"
)

// sshing is the flags of ssh.
type sshing struct {
	machine, unit string
	forwardAgent  bool
	port          int
}

func (s *session) ssh() *cobra.Command {
	o := &sshing{}
	cmd := &cobra.Command{
		Use:   "ssh [MACHINE|UNIT] [COMMAND...]",
		Short: "open a shell, or run a command, on a machine or on the one that runs a unit",
		Long: "Open a shell, or run a command, on a machine (its id, the beginning of it, or its address)\n" +
			"or on the machine that runs a unit. The command's exit code is that of fleetctl; 255 is\n" +
			"that the machine cannot be reached. Flags of the command go after it:\n\n" +
			"  fleetctl ssh hello\n" +
			"  fleetctl ssh 32a89c4b systemctl --failed\n" +
			"  fleetctl ssh --unit hello journalctl -n 50",
		ValidArgsFunction: s.completeTargets,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doSSH(ctx, o, args) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.machine, "machine", "", "the machine (id, its beginning, or address); all arguments are the command")
	f.StringVar(&o.unit, "unit", "", "the machine that runs this unit; all arguments are the command")
	f.BoolVarP(&o.forwardAgent, "forward-agent", "A", false, "let the machine use the SSH agent here")
	f.BoolVar(&o.forwardAgent, "A", false, "same as --forward-agent")
	_ = f.MarkHidden("A") // it exists: defined above
	f.IntVar(&o.port, "ssh-port", 0, "port of SSH on the machine (default: what ~/.ssh/config says, else 22)")
	return cmd
}

func (s *session) doSSH(ctx context.Context, o *sshing, args []string) error {
	if err := checkPort(o.port); err != nil {
		return err
	}
	if o.machine != "" && o.unit != "" {
		return fault.Usage("--machine and --unit: give one of them")
	}
	m, args, err := s.sshTarget(ctx, o, args)
	if err != nil {
		return err
	}
	return s.sshRun(ctx, m, o.port, tunnel.Command{Line: strings.Join(args, " "), ForwardAgent: o.forwardAgent})
}

func checkPort(port int) error {
	if port < 0 || port > 65535 {
		return fault.Usage("--ssh-port %d: want a number from 1 to 65535", port)
	}
	return nil
}

// keepRemoteCommand puts "--" before the command that ssh is to run on a machine, and
// has it as it was typed: its flags are not ours. args are raw with long flags and
// commands written out.
func keepRemoteCommand(root *cobra.Command, args, raw []string) []string {
	at := commandIndex(root.PersistentFlags(), args)
	if at < 0 || args[at] != "ssh" {
		return args
	}
	cmd, _, err := root.Find([]string{"ssh"})
	if err != nil {
		return args
	}
	ours := pflag.NewFlagSet("ssh", pflag.ContinueOnError)
	ours.AddFlagSet(root.PersistentFlags())
	ours.AddFlagSet(cmd.Flags())
	word := func(from int) int {
		i := commandIndex(ours, args[from:])
		if i < 0 {
			return -1
		}
		return from + i
	}
	i := word(at + 1)
	named := i > 0 && slices.ContainsFunc(args[at+1:i], func(a string) bool {
		name, _, _ := strings.Cut(a, "=")
		return name == "--machine" || name == "--unit"
	})
	if i > 0 && !named {
		i = word(i + 1)
	}
	if i < 0 {
		return args
	}
	return slices.Concat(args[:i], []string{"--"}, raw[i:])
}

// sshTarget is the machine that is meant, and the arguments that are the command.
func (s *session) sshTarget(ctx context.Context, o *sshing, args []string) (api.Machine, []string, error) {
	word, rest := "", args
	if o.machine == "" && o.unit == "" {
		if len(args) == 0 {
			return api.Machine{}, nil, sentence("Unable to proceed: one machine or unit must be provided")
		}
		word, rest = args[0], args[1:]
	}
	c, err := s.api()
	if err != nil {
		return api.Machine{}, nil, err
	}
	machines, err := c.Machines(ctx)
	if err != nil {
		return api.Machine{}, nil, sentence("Error retrieving list of active machines from fleet API (%w)", err)
	}
	m, err := s.findTarget(ctx, machines, o, word)
	if err != nil {
		return api.Machine{}, nil, sentence("Unable to proceed: %w", err)
	}
	return m, rest, nil
}

// findTarget looks for the machine by --machine, by --unit, or by a word that may be
// either.
func (s *session) findTarget(ctx context.Context, machines []api.Machine, o *sshing, word string) (api.Machine, error) {
	if o.machine != "" {
		return oneMachine(o.machine, machinesLike(o.machine, machines))
	}
	name := first(o.unit, word)
	at, unitErr := s.machineOfUnit(ctx, name, machines)
	if o.unit != "" {
		return at, unitErr
	}
	like := machinesLike(word, machines)
	isUnit := !errors.Is(unitErr, errNoTarget)
	switch {
	case isUnit && len(like) > 0:
		return api.Machine{}, fault.Hint(fmt.Errorf("%q is a machine and a unit", word), "say which is meant: --machine %s or --unit %s", word, word)
	case isUnit:
		return at, unitErr
	case len(like) > 0:
		return oneMachine(word, like)
	}
	return api.Machine{}, fault.Hint(unitErr, "'fleetctl list-machines' and 'fleetctl list-units' show what there is")
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// errNoTarget: there is no unit, or no machine, of that name.
var errNoTarget = errors.New("could not find matching unit or machine")

// machinesLike are the machines with the address or host name, or whose id begins so.
func machinesLike(given string, machines []api.Machine) []api.Machine {
	begin, _, _ := strings.Cut(given, "...")
	var like []api.Machine
	for _, m := range machines {
		switch {
		case given == "":
		case m.ID == given, m.PrimaryIP == given:
			return []api.Machine{m}
		case begin != "" && strings.HasPrefix(m.ID, begin):
			like = append(like, m)
		}
	}
	return like
}

func oneMachine(given string, like []api.Machine) (api.Machine, error) {
	switch len(like) {
	case 0:
		return api.Machine{}, fault.Hint(fmt.Errorf("%w: %s", errNoTarget, given), "'fleetctl list-machines' shows those that are present")
	case 1:
		return like[0], nil
	}
	var ids []string
	for _, m := range like {
		ids = append(ids, m.ID)
	}
	return api.Machine{}, fault.Hint(errors.New("found more than one machine"), "%s begins %s", given, strings.Join(ids, ", "))
}

// machineOfUnit is the machine that a unit is on. A global unit has one only where it
// is on no other.
func (s *session) machineOfUnit(ctx context.Context, name string, machines []api.Machine) (api.Machine, error) {
	name = unitfile.Complete(name)
	if unitfile.CheckName(name) != nil {
		return api.Machine{}, errNoTarget
	}
	u, err := s.unit(ctx, name)
	if errors.Is(err, fleet.ErrNotExist) {
		return api.Machine{}, errNoTarget
	}
	if err != nil {
		return api.Machine{}, err
	}
	ids, err := s.unitMachines(ctx, u, "")
	switch {
	case err != nil:
		return api.Machine{}, err
	case len(ids) == 0:
		return api.Machine{}, fault.Hint(fmt.Errorf("unit %s is on no machine", name), "'fleetctl start %s' starts it", name)
	case len(ids) > 1:
		return api.Machine{}, fault.Hint(errors.New("global units unsupported"), "%s is on several machines; choose one with --machine: %s", name, strings.Join(ids, " "))
	}
	i := slices.IndexFunc(machines, func(m api.Machine) bool { return m.ID == ids[0] })
	if i < 0 {
		return api.Machine{}, fmt.Errorf("unit %s is on machine %s, which is not present", name, shortID(ids[0], false))
	}
	return machines[i], nil
}

// sshRun runs a command on a machine with our streams, as the process that we are:
// its exit code is ours.
func (s *session) sshRun(ctx context.Context, m api.Machine, port int, cmd tunnel.Command) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.env.Stdin, s.env.Stdout, s.env.Stderr
	code, err := s.execOn(ctx, m, port, cmd)
	switch {
	case err != nil:
		return fault.Code(code, err)
	case code != 0:
		return fault.Code(code, fault.ErrSilent)
	}
	return nil
}

// execOn runs a command on a machine and returns its exit code.
func (s *session) execOn(ctx context.Context, m api.Machine, port int, cmd tunnel.Command) (int, error) {
	if s.isHere(m) {
		return s.runHere(cmd)
	}
	return s.runThere(ctx, m, port, cmd)
}

// machineIDFile tells which machine this is: machine-id(5).
var machineIDFile = "/etc/machine-id"

// isHere reports whether a machine is this one, and we are there who we are here: then
// there is no need of a server, a key and a network to run something on it.
func (s *session) isHere(m api.Machine) bool {
	if s.global.reach.tunnel != "" {
		return false
	}
	b, err := os.ReadFile(machineIDFile)
	if err != nil || strings.TrimSpace(string(b)) != m.ID {
		return false
	}
	if s.global.reach.user == "" {
		return true
	}
	u, err := user.Current()
	return err == nil && u.Username == s.global.reach.user
}

// runHere runs a command on this machine. The terminal's signals reach it by
// themselves, and it decides what they mean.
func (s *session) runHere(cmd tunnel.Command) (int, error) {
	c := exec.Command("/bin/sh", "-c", cmd.Line)
	if cmd.Line == "" {
		c = exec.Command(first(s.env.Getenv("SHELL"), "/bin/sh"))
	}
	if f, ok := cmd.Stdin.(*os.File); ok { // anything else would have to end before the command can
		c.Stdin = f
	}
	c.Stdout, c.Stderr = cmd.Stdout, cmd.Stderr
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		return tunnel.ExitNoAnswer, fmt.Errorf("run a command on this machine: %w", err)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == syscall.SIGTERM { // was for us alone
					_ = c.Process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	}()
	err := c.Wait()
	close(done)
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil // as shells say it
	}
	if c.ProcessState.Exited() {
		return c.ProcessState.ExitCode(), nil
	}
	return tunnel.ExitNoAnswer, fmt.Errorf("run a command on this machine: %w", err)
}

// runThere runs a command on a machine by SSH, through the tunnel if there is one.
func (s *session) runThere(ctx context.Context, m api.Machine, port int, cmd tunnel.Command) (int, error) {
	if m.PrimaryIP == "" {
		return fault.ExitFailed, fault.Hint(sentence("Could not determine address of machine."), "machine %s publishes none: public_ip in its fleet.conf is one", shortID(m.ID, false))
	}
	cfg, err := s.sshConfig(tunnel.Address{Host: m.PrimaryIP})
	if err != nil {
		return fault.ExitFailed, err
	}
	cfg.Port = port
	if cfg.Via, err = s.through(ctx); err != nil {
		return fault.ExitFailed, err
	}
	client, err := tunnel.Dial(ctx, cfg)
	if err != nil {
		return tunnel.ExitNoAnswer, sentence("Unable to SSH to remote host: %w", err)
	}
	defer client.Close()
	if cmd.Line == "" {
		if t := tunnel.TerminalOf(s.env.Stdin, s.env.Stderr); t != nil {
			screen, restore, err := t.Raw(s.env.Getenv("TERM"))
			if err != nil {
				return fault.ExitFailed, err
			}
			defer restore()
			cmd.Screen = screen
		}
	}
	return client.Run(ctx, cmd)
}
