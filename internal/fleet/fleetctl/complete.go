package fleetctl

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flotilla/client/fleet"
)

// completeLimit is how long a shell waits for unit names: a person has pressed a
// key.
const completeLimit = time.Second

// completeUnits offers the units that the cluster knows.
func (s *session) completeUnits(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return s.unitsWith(cmd.Context(), typed), cobra.ShellCompDirectiveNoFileComp
}

// completeUnitsAndFiles offers the units that the cluster knows, and files where
// none fits.
func (s *session) completeUnitsAndFiles(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return s.unitsWith(cmd.Context(), typed), cobra.ShellCompDirectiveDefault
}

// unitsWith is the known units that begin with typed; none if the server does not
// answer, since a shell has nowhere to show an error.
func (s *session) unitsWith(ctx context.Context, typed string) []string {
	ctx, cancel := context.WithTimeout(ctx, completeLimit)
	defer cancel()
	s.ctx, s.unattended = ctx, true
	names, err := s.unitNames(ctx)
	if err != nil {
		return nil
	}
	var fits []string
	for _, n := range names {
		if strings.HasPrefix(n, typed) {
			fits = append(fits, n)
		}
	}
	return fits
}

// completing runs do with a client, within the time that a shell waits. Nothing is
// asked or told on the way.
func (s *session) completing(ctx context.Context, do func(context.Context, *fleet.Client)) {
	ctx, cancel := context.WithTimeout(ctx, completeLimit)
	defer cancel()
	s.ctx, s.unattended = ctx, true
	if c, err := s.api(); err == nil {
		do(ctx, c)
	}
}

// completeTargets offers what ssh goes to: machines and units.
func (s *session) completeTargets(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 { // the rest is the command's
		return nil, cobra.ShellCompDirectiveDefault
	}
	fits := append(s.unitsWith(cmd.Context(), typed), s.machinesWith(cmd.Context(), typed)...)
	return fits, cobra.ShellCompDirectiveNoFileComp
}

// completeMachines offers the machines that are present.
func (s *session) completeMachines(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return s.machinesWith(cmd.Context(), typed), cobra.ShellCompDirectiveNoFileComp
}

// completeWhatIf offers what can be supposed, then machines.
func (s *session) completeWhatIf(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"drain", "lose"}, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeMachines(cmd, args, typed)
}

// machinesWith is the present machines whose id begins with typed, each with what
// helps to tell it from the others.
func (s *session) machinesWith(ctx context.Context, typed string) (fits []string) {
	s.completing(ctx, func(ctx context.Context, c *fleet.Client) {
		machines, _ := c.Machines(ctx) // a shell has nowhere to show an error
		for _, m := range machines {
			if strings.HasPrefix(m.ID, typed) {
				fits = append(fits, m.ID+"\t"+strings.TrimSpace(m.Hostname+" "+m.PrimaryIP))
			}
		}
	})
	return fits
}

// completeFlags has the shell offer what the values of a command's flags can be.
func (s *session) completeFlags(cmd *cobra.Command) {
	words := func(list ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	for name, offer := range map[string]cobra.CompletionFunc{
		"machine":  s.completeMachines,
		"unit":     s.completeUnits,
		"priority": words(priorities...),
		"since":    words("10min", "1h", "today", "yesterday"),
	} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, offer) // once for each flag
		}
	}
	if f := cmd.Flags().Lookup("output"); f != nil {
		_ = cmd.RegisterFlagCompletionFunc("output", words(strings.Split(f.Usage, "|")...)) // as above
	}
	if f := cmd.Flags().Lookup("fields"); f != nil {
		_, all, _ := strings.Cut(f.Usage, "columns, of ")
		_ = cmd.RegisterFlagCompletionFunc("fields", listOf(strings.Split(all, ","))) // as above
	}
}

// listOf offers the items that can follow in a list with commas.
func listOf(items []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		var fits []string
		for _, item := range items {
			if strings.HasPrefix(before+item, typed) {
				fits = append(fits, before+item)
			}
		}
		return fits, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}
