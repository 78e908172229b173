// Package cli is what our command lines share: how flags are written, how errors
// and exit codes come out, and the classic tables.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
)

// capture is the key of where Run leaves the command, in place of running it.
type capture struct{}

// Describe returns how a program is used, for manuals: its commands, and for a program
// that does not use Run, nil and what it answers to --help.
func Describe(ctx context.Context, a applet.Applet) (*cobra.Command, string) {
	var cmd *cobra.Command
	var help strings.Builder
	a.Run(context.WithValue(ctx, capture{}, &cmd), applet.Env{Args: []string{"--help"}, Stdout: &help, Stderr: io.Discard})
	return cmd, help.String()
}

// Run executes cmd with the arguments and streams of env and returns the exit
// code. Long flags may be written with one dash, as the classic tools did
// (-tunnel). Errors are printed by fault.Print under the name that the program was
// called by, else the root command's; what cobra itself complains of (flags,
// arguments, commands) is a usage error.
func Run(ctx context.Context, env applet.Env, cmd *cobra.Command) int {
	if into, ok := ctx.Value(capture{}).(**cobra.Command); ok {
		*into = cmd
		return fault.ExitOK
	}
	cmd.SetArgs(SingleDash(cmd, env.Args))
	cmd.SetIn(env.Stdin)
	cmd.SetOut(env.Stdout)
	cmd.SetErr(env.Stderr)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.CompletionOptions.HiddenDefaultCmd = true
	// Cobra offers "unknown command" with its own suggestions; ours is below.
	cmd.DisableSuggestions = true
	callAs(cmd, env.Called)
	completeWithoutPackage(cmd, env.Args)
	wrapUsage(cmd)
	err := cmd.ExecuteContext(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "unknown command ") {
		err = unknownCommand(cmd, err)
	}
	fault.Print(env.Stderr, env.NameOr(cmd.Name()), err)
	return fault.ExitCode(err)
}

// callAs makes help and hints say what was typed to call the program: there may be no
// link of any other name.
func callAs(root *cobra.Command, called string) {
	if called == "" {
		return
	}
	if root.Annotations == nil {
		root.Annotations = map[string]string{}
	}
	root.Annotations[cobra.CommandDisplayNameAnnotation] = called
}

// wrapUsage makes errors about flags and arguments usage errors, for cmd and all
// commands below it.
func wrapUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.Code(fault.ExitUsage, fault.Hint(flagError(c, err), "see '%s --help'", c.CommandPath()))
	})
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fault.Code(fault.ExitUsage, fault.Hint(err, "usage: %s", c.UseLine()))
			}
			// Cobra looks at these after the arguments, and calls them no usage errors.
			err := errors.Join(c.ValidateRequiredFlags(), exclusive(c.ValidateFlagGroups()))
			return fault.Code(fault.ExitUsage, fault.Hint(err, "see '%s --help'", c.CommandPath()))
		}
	}
	for _, sub := range cmd.Commands() {
		wrapUsage(sub)
	}
}

var groupError = regexp.MustCompile(`^if any flags in the group .* are set none of the others can be; \[(.*)\] were all set$`)

// exclusive names the flags of an error that exclude each other.
func exclusive(err error) error {
	if err == nil {
		return nil
	}
	m := groupError.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	return fmt.Errorf("--%s: only one of these at a time", strings.Join(strings.Fields(m[1]), ", --"))
}

// flagError names the flag nearest to an unknown one, and what is wrong with a number.
func flagError(c *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	var number *strconv.NumError
	if errors.As(err, &bad) && errors.As(err, &number) {
		why := "not a whole number"
		if errors.Is(number, strconv.ErrRange) {
			why = "too large a number"
		}
		return fmt.Errorf("--%s=%s: %s", bad.GetFlag().Name, bad.GetValue(), why)
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := fault.Nearest(unknown.GetSpecifiedName(), names); near != "" {
		return fault.Hint(err, "did you mean --%s?", near)
	}
	return err
}

func unknownCommand(cmd *cobra.Command, err error) error {
	_, rest, found := strings.Cut(err.Error(), "\"")
	name, _, _ := strings.Cut(rest, "\"")
	if !found {
		return fault.Code(fault.ExitUsage, err)
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	err = fmt.Errorf("unknown command %q", name)
	switch near := fault.Nearest(name, names); {
	case len(names) == 0:
		err = fault.Hint(fmt.Errorf("unexpected argument %q", name), "see '%s --help'", cmd.CommandPath())
	case near != "":
		err = fault.Hint(err, "did you mean %q?", near)
	default:
		err = fault.Hint(err, "there are: %s", strings.Join(names, " "))
	}
	return fault.Code(fault.ExitUsage, err)
}

// SingleDash rewrites -name and -name=value to --name and --name=value for every
// long flag that cmd or a command below it knows. What follows "--" stays, and so
// does a short flag with its value attached (-n5) where no long flag has that
// name.
func SingleDash(cmd *cobra.Command, args []string) []string {
	long := map[string]bool{"help": true, "version": true}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		add := func(f *pflag.Flag) { long[f.Name] = true }
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(cmd)
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			name, _, _ := strings.Cut(a[1:], "=")
			if len(name) > 1 && (long[name] || cmd.Flags().Lookup(name) != nil) { // Lookup knows other spellings
				a = "-" + a
			}
		}
		out = append(out, a)
	}
	return out
}

// JSON writes v indented, with a newline at the end.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
