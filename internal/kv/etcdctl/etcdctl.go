package etcdctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

// The classic exit codes; 0 is success.
const (
	exitUsage       = 1 // wrong arguments, and every failure of "member"
	exitUnreachable = 2 // no endpoint answered when the member list was asked for
	exitUnknown     = 3 // no such command
	exitStore       = 4 // the store refused, or went away
	exitUnhealthy   = 5 // cluster-health: not all members are healthy
)

// Applet is the program.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "etcdctl",
		Group:     "Store",
		Summary:   "read, write and watch keys (v2)",
		Completes: true,
		Run:       run,
	}
}

// command is one command, or with sub a group of them.
type command struct {
	name, args, summary string
	sub                 []command
	// flags declares the command's own flags; nil for none.
	flags func(*flag.FlagSet)
	// atMost is how many arguments it reads. More are ignored, as they always
	// were, unless they look like flags. 0 means any number.
	atMost int
	// foreign is the number of the operand from which on all arguments, flags too,
	// are another program's; 0 is none.
	foreign int
	// offline commands do not ask for the member list before they run.
	offline bool
	// local commands need no store at all.
	local bool
	// hidden commands are not in the help.
	hidden bool
	// check refuses arguments before the store is asked anything; nil if any will do.
	check func([]string) error
	run   func(context.Context, *session, []string) error
}

// commands makes them anew for each run, since they hold the values of their flags.
func commands() []command {
	return []command{
		setCommand(), mkCommand(), updateCommand(), getCommand(), lsCommand(),
		mkdirCommand(), setdirCommand(), updatedirCommand(), rmCommand(), rmdirCommand(),
		watchCommand(), execWatchCommand(), clusterHealthCommand(), memberCommand(),
		backupCommand(), importCommand(), completionCommand(), completeCommand(),
		authCommand(), userCommand(), roleCommand(),
	}
}

func run(ctx context.Context, env applet.Env) int {
	s := newSession(env)
	err := s.main(ctx, env.Args)
	s.report(err)
	return fault.ExitCode(err)
}

// main reads global flags and the command, and runs it.
func (s *session) main(ctx context.Context, args []string) error {
	if err := s.global.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			s.help(s.env.Stdout)
			return nil
		}
		fmt.Fprintf(s.env.Stdout, "Incorrect Usage. %v\n\n", err)
		s.help(s.env.Stdout)
		return fault.Code(exitUsage, said{nearestFlag(err, s.global)})
	}
	switch args = s.global.Args(); {
	case s.version:
		fmt.Fprintf(s.env.Stdout, "etcdctl version: %s\nAPI version: 2\n", applet.Version)
		return nil
	case len(args) == 0:
		s.help(s.env.Stdout)
		return nil
	case args[0] == "help" || args[0] == "h":
		return s.helpOn(args[1:])
	case args[0] == "__complete" || args[0] == "__completeNoDesc":
		s.answerShell(ctx, args[1:])
		return nil
	}
	return s.dispatch(ctx, s.env.CalledOr("etcdctl"), commands(), args)
}

// dispatch runs the command that args begin with.
func (s *session) dispatch(ctx context.Context, path string, among []command, args []string) error {
	c, ok := find(among, args[0])
	if !ok {
		return unknownCommand(args[0], among)
	}
	path += " " + c.name
	if c.sub != nil {
		if len(args) == 1 || args[1] == "help" || args[1] == "--help" || args[1] == "-h" {
			helpGroup(s.env.Stdout, path, c)
			return nil
		}
		return s.dispatch(ctx, path, c.sub, args[1:])
	}
	fs := flagsWithGlobal(c, s.global)
	operands, err := parse(fs, args[1:], c.atMost, c.foreign)
	if errors.Is(err, flag.ErrHelp) {
		helpCommand(s.env.Stdout, path, c)
		return nil
	}
	if err != nil {
		fmt.Fprintf(s.env.Stdout, "Incorrect Usage: %v\n\n", err)
		helpCommand(s.env.Stdout, path, c)
		return fault.Code(exitUsage, said{nearestFlag(err, fs)})
	}
	if !s.knownOutput() {
		return nil
	}
	if c.check != nil {
		if err := c.check(operands); err != nil {
			return err
		}
	}
	if c.local {
		return c.run(ctx, s, operands)
	}
	if err := s.connect(ctx, c.offline); err != nil {
		return err
	}
	defer s.client.Close()
	return c.run(ctx, s, operands)
}

// flagsWithGlobal is the command's flags together with the global ones it does not
// use a name of.
func flagsWithGlobal(c command, global *flag.FlagSet) *flag.FlagSet {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if c.flags != nil {
		c.flags(fs)
	}
	global.VisitAll(func(f *flag.Flag) {
		if fs.Lookup(f.Name) == nil {
			fs.Var(f.Value, f.Name, f.Usage)
		}
	})
	return fs
}

func find(among []command, name string) (command, bool) {
	for _, c := range among {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

func unknownCommand(name string, among []command) error {
	err := error(said{classic(fmt.Sprintf("No help topic for '%s'", name))})
	var names []string
	for _, c := range among {
		if !c.hidden {
			names = append(names, c.name)
		}
	}
	if near := fault.Nearest(name, names); near != "" {
		err = fault.Hint(err, "did you mean %q?", near)
	} else {
		err = fault.Hint(err, "there are: %s", strings.Join(names, " "))
	}
	return fault.Code(exitUnknown, err)
}

// said is an error that is printed as it is, without "Error: ".
type said struct{ error }

func (e said) Unwrap() error { return e.error }

// classic is an error in the classic client's words, which begin with a capital
// letter where they like.
type classic string

func (e classic) Error() string { return string(e) }

// badUsage is wrong arguments, in the classic form.
func badUsage(format string, args ...any) error {
	return fault.Code(exitUsage, fmt.Errorf(format, args...))
}

// report writes an error the classic way: "Error:" and two blanks, then hints.
func (s *session) report(err error) {
	if err == nil || errors.Is(err, fault.ErrSilent) {
		return
	}
	w := s.env.Stderr
	var plain said
	var away *keys.UnreachableError
	switch {
	case errors.As(err, &away):
		reportAway(w, away)
	case errors.As(err, &plain):
		fmt.Fprintln(w, plain)
	default:
		fmt.Fprintf(w, "Error:  %v\n", err)
	}
	for _, h := range fault.Hints(err) {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}

// reportAway writes that no endpoint answered: first as the classic client did,
// each reason twice, then what was tried and for how long.
func reportAway(w io.Writer, e *keys.UnreachableError) {
	fmt.Fprint(w, "Error:  client: etcd cluster is unavailable or misconfigured")
	var again, tried []string
	for i, t := range e.Tries {
		fmt.Fprintf(w, "; error #%d: %v\n", i, t.Err)
		again = append(again, fmt.Sprintf("error #%d: %v\n", i, t.Err))
		tried = append(tried, t.Endpoint)
	}
	fmt.Fprintf(w, "\n%s\n", strings.Join(again, ""))
	fmt.Fprintf(w, "hint: tried %s; waited %v\n", strings.Join(tried, ", "), max(e.Waited.Round(time.Millisecond), time.Millisecond))
	fmt.Fprintln(w, "hint: 'flotilla up' or 'flotilla etcd' starts a store; --endpoints or ETCDCTL_ENDPOINTS says where another is")
}

// fromStore attaches the exit code of what the store refused.
func fromStore(err error) error { return fault.Code(exitStore, err) }
