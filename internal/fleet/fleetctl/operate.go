package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// cordoning is the flags of cordon and drain.
type cordoning struct {
	why     string
	noBlock bool
}

func (s *session) cordon() *cobra.Command {
	o := &cordoning{}
	cmd := &cobra.Command{
		Use:   "cordon MACHINE...",
		Short: "place nothing new on machines; what is there stays",
		Long: "Place nothing new on machines, until uncordon. What is there stays.\n\n" +
			"  fleetctl cordon 148a18ff --why 'new disk'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeMachines,
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			return s.eachMachine(ctx, args, func(id string) error { return s.doCordon(ctx, id, false, o.why) })
		}),
	}
	cmd.Flags().StringVar(&o.why, "why", "", "the reason, for others to read")
	return cmd
}

func (s *session) uncordon() *cobra.Command {
	return &cobra.Command{
		Use:               "uncordon MACHINE...",
		Short:             "let units be placed on machines again",
		Long:              "Let units be placed on machines again. What has left does not come back by itself: see rebalance.\n\n  fleetctl uncordon 148a18ff",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeMachines,
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			return s.eachMachine(ctx, args, func(id string) error {
				if err := s.client.Uncordon(ctx, id); err != nil {
					return sentence("Error uncordoning machine %s: %w", shortID(id, false), err)
				}
				s.say("Machine %s takes units again", shortID(id, false))
				return nil
			})
		}),
	}
}

// eachMachine does something with every machine that the arguments name, after all of
// them have been found. One that is not present can be named by its whole id.
func (s *session) eachMachine(ctx context.Context, args []string, do func(id string) error) error {
	var ids []string
	var errs []error
	for _, arg := range args {
		id, err := s.anyMachineID(ctx, arg)
		ids, errs = append(ids, id), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s.each("", err)
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if err := do(id); err != nil {
			return err
		}
	}
	return nil
}

// anyMachineID is machineID, for machines that are not present as well.
func (s *session) anyMachineID(ctx context.Context, given string) (string, error) {
	if given == "" {
		return "", fault.Usage("a machine's id is empty")
	}
	id, err := s.machineID(ctx, given)
	if err != nil && isWholeID(given) && s.client != nil {
		return given, nil
	}
	return id, err
}

func isWholeID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

func (s *session) doCordon(ctx context.Context, id string, drain bool, why string) error {
	if err := s.client.Cordon(ctx, id, drain, why); err != nil {
		return sentence("Error cordoning machine %s: %w", shortID(id, false), err)
	}
	if !drain {
		s.say("Machine %s takes no new units", shortID(id, false))
	}
	return nil
}

func (s *session) drain() *cobra.Command {
	o := &cordoning{}
	cmd := &cobra.Command{
		Use:   "drain MACHINE",
		Short: "move all units off a machine, one by one, and place nothing new there",
		Long: "Move all units off a machine, one by one, each started elsewhere before it is stopped here\n" +
			"(singletons are stopped first), and place nothing new there until uncordon. Ends when the\n" +
			"machine is empty; says what stays and why: global units and those bound to the machine,\n" +
			"and, with exit code 1, those that fit nowhere else.\n\n" +
			"  fleetctl what-if drain 148a18ff\n" +
			"  fleetctl drain 148a18ff --why 'new kernel'\n" +
			"  fleetctl uncordon 148a18ff",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeMachines,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doDrain(ctx, o, args[0]) }),
	}
	cmd.Flags().StringVar(&o.why, "why", "", "the reason, for others to read")
	cmd.Flags().BoolVar(&o.noBlock, "no-block", false, "do not wait")
	return cmd
}

func (s *session) doDrain(ctx context.Context, o *cordoning, machine string) error {
	id, err := s.anyMachineID(ctx, machine)
	if err != nil {
		return err
	}
	w, err := s.watch(ctx)
	if err != nil {
		return sentence(noUnits, err)
	}
	defer w.stop()
	if err := s.doCordon(ctx, id, true, o.why); err != nil {
		return err
	}
	if o.noBlock {
		s.say("Asked machine %s to be drained", shortID(id, false))
		return nil
	}
	stuck, err := s.stuckOn(ctx, id)
	if err != nil {
		return err
	}
	err = s.until(ctx, w, func(pic *picture) (string, bool) {
		left := leaving(pic, id, stuck)
		text := fmt.Sprintf("machine %s to be empty: %s left", shortID(id, false), count(len(left), "unit"))
		if len(left) > 0 {
			text += ", " + left[0] + " is next"
		}
		return text, len(left) == 0
	})
	if err != nil {
		if again, e := s.stuckOn(ctx, id); e == nil {
			stuck = again
		}
		s.reportStays(w.pic, id, stuck)
		return err
	}
	return s.drained(w.pic, id, stuck)
}

// stays is a unit that a drain leaves where it is.
type stays struct {
	why   string
	bound bool // it is to be there: it belongs to that machine
}

// stuckOn is the units that have nowhere to go from a machine. A server that cannot
// say is waited for as if there were none.
func (s *session) stuckOn(ctx context.Context, id string) (map[string]stays, error) {
	out := map[string]stays{}
	report, err := s.client.WhatIf(ctx, []string{id}, nil)
	if isClassic(err) {
		return out, nil
	}
	if err != nil {
		return nil, sentence("Error asking what stays on machine %s: %w", shortID(id, false), err)
	}
	for _, st := range report.Stuck {
		if st.From != id {
			continue
		}
		u, err := s.client.Unit(ctx, st.Unit)
		if err != nil && !errors.Is(err, fleet.ErrNotExist) {
			return nil, sentence("Error retrieving unit %s: %w", st.Unit, err)
		}
		f := bundleOf(u).Effective()
		out[st.Unit] = stays{why: st.Why, bound: isGlobal(f) || len(f.Fleet(unitfile.MachineID)) > 0}
	}
	return out, nil
}

// leaving is the units, sorted, that have yet to go from a machine: placed there, or
// not at rest there. Global units have no place of their own.
func leaving(pic *picture, id string, stuck map[string]stays) []string {
	var left []string
	for name, u := range pic.units {
		if _, stays := stuck[name]; stays || u.CurrentState == "" {
			continue
		}
		st, reported := pic.states[name][id]
		if u.MachineID == id || reported && !atRest(st) {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	return left
}

func (s *session) reportStays(pic *picture, id string, stuck map[string]stays) (helpless int) {
	for _, name := range sortedKeys(stuck) {
		if _, here := pic.states[name][id]; !here && pic.units[name].MachineID != id {
			continue
		}
		s.say("Unit %s stays: %s", name, orDash(model.OneLine(stuck[name].why)))
		if !stuck[name].bound {
			helpless++
		}
	}
	return helpless
}

func (s *session) drained(pic *picture, id string, stuck map[string]stays) error {
	helpless := s.reportStays(pic, id, stuck)
	if helpless > 0 {
		return fault.Hint(fmt.Errorf("%s of machine %s can go nowhere else", count(helpless, "unit"), shortID(id, false)),
			"'fleetctl why UNIT' says what each machine lacks; they leave as soon as one of them can take them")
	}
	s.say("Machine %s is drained", shortID(id, false))
	return nil
}

func (s *session) why() *cobra.Command {
	f := &format{}
	cmd := &cobra.Command{
		Use:   "why UNIT",
		Short: "say of each machine whether it may run a unit, rule by rule",
		Long: "Say of each machine whether it may run a unit, rule by rule and with numbers: pass, FAIL,\n" +
			"or less where a rule only has other machines go before this one.\n\n" +
			"  fleetctl why web@3",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doWhy(ctx, f, args[0]) }),
	}
	f.flags(cmd, "text|json")
	return cmd
}

func (s *session) doWhy(ctx context.Context, f *format, arg string) error {
	asJSON, err := f.asJSON("text")
	if err != nil {
		return err
	}
	name, err := unitArg(arg)
	if err != nil {
		return err
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	why, err := c.Why(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrNotExist) && !isClassic(err):
		return s.unknown(ctx, name)
	case err != nil:
		return sentence("Unable to say why of unit %s: %w", name, err)
	case asJSON:
		return cli.JSON(s.env.Stdout, why)
	}
	s.sayWhy(why)
	return nil
}

func (s *session) sayWhy(why api.Why) {
	switch {
	case why.Global:
		s.say("%s is global and on %s", why.Unit, count(len(why.Placed), "machine"))
	case len(why.Placed) > 0:
		s.say("%s is on %s", why.Unit, shortID(why.Placed[0], false))
	case why.Desired == inactive:
		s.say("%s is on no machine: nobody has asked for it to be loaded or started", why.Unit)
	default:
		s.say("%s is on no machine", why.Unit)
	}
	if why.Reason != "" {
		s.say("  %s", model.OneLine(why.Reason))
	}
	if why.Held != "" {
		s.say("  it stays there, wherever else it may run, since moves are held: %s", model.OneLine(why.Held))
		s.say("  bring the machines back; those that will not return: 'fleetctl forget MACHINE' (see hold_fraction, a setting of fleetd)")
	}
	colour := s.colours()
	for _, v := range why.Verdicts {
		verdict := colour(green, "yes")
		if !v.OK {
			verdict = colour(red, "no")
		}
		here := ""
		if slices.Contains(why.Placed, v.Machine) {
			here = ", it is here"
		}
		s.say("\n%s%s: %s%s", shortID(v.Machine, false), named(v.Hostname), verdict, here)
		for _, r := range v.Rules {
			mark := colour(green, "pass")
			switch {
			case r.OK:
			case v.OK:
				mark = colour(yellow, "less") // a soft rule: others go before it
			default:
				mark = colour(red, "FAIL")
			}
			s.say("  %s  %-15s  %s", mark, r.Rule, model.OneLine(r.Why))
		}
	}
}

// named is a host name behind an id.
func named(hostname string) string {
	if hostname == "" {
		return ""
	}
	return " (" + hostname + ")"
}

func (s *session) whatIf() *cobra.Command {
	f := &format{}
	cmd := &cobra.Command{
		Use:   "what-if drain|lose MACHINE...",
		Short: "say what would move where, and what would not fit, without doing it",
		Long: "Say what would move where, and what would not fit, if machines were drained or lost.\n" +
			"Nothing is done. The exit code is 1 if some unit would be left without a machine.\n\n" +
			"  fleetctl what-if drain 148a18ff\n" +
			"  fleetctl what-if lose 148a18ff 2444264c",
		ValidArgsFunction: s.completeWhatIf,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doWhatIf(ctx, f, args) }),
	}
	f.flags(cmd, "text|json")
	return cmd
}

func (s *session) doWhatIf(ctx context.Context, f *format, args []string) error {
	asJSON, err := f.asJSON("text")
	if err != nil {
		return err
	}
	if len(args) < 2 || args[0] != "drain" && args[0] != "lose" {
		return fault.Hint(fault.Usage("what-if takes drain or lose, and machines"), "fleetctl what-if drain|lose MACHINE...")
	}
	var ids []string
	if err := s.eachMachine(ctx, args[1:], func(id string) error { ids = append(ids, id); return nil }); err != nil {
		return err
	}
	var drain, lose []string
	if args[0] == "drain" {
		drain = ids
	} else {
		lose = ids
	}
	report, err := s.client.WhatIf(ctx, drain, lose)
	if err != nil {
		return sentence("Unable to say what would be: %w", err)
	}
	if err := s.sayMoves(ctx, asJSON, report, "would move"); err != nil || len(report.Stuck) == 0 {
		return err
	}
	return fault.Code(fault.ExitFailed, fault.ErrSilent)
}

// sayMoves prints what goes where, and what cannot.
func (s *session) sayMoves(ctx context.Context, asJSON bool, report api.WhatIf, verb string) error {
	if asJSON {
		report.Moves, report.Stuck = list(report.Moves), list(report.Stuck)
		return cli.JSON(s.env.Stdout, report)
	}
	machines, err := machinesByID(ctx, s.client)
	if err != nil {
		return sentence("Error retrieving list of active machines from fleet API (%w)", err)
	}
	var rows [][]string
	for _, m := range report.Moves {
		rows = append(rows, []string{m.Unit, machineCell(m.From, machines, false), machineCell(m.To, machines, false), orDash(model.OneLine(m.Why))})
	}
	for _, m := range report.Stuck {
		rows = append(rows, []string{m.Unit, machineCell(m.From, machines, false), "nowhere", orDash(model.OneLine(m.Why))})
	}
	if len(rows) > 0 {
		if err := cli.WriteTable(s.env.Stdout, []string{"UNIT", "FROM", "TO", "WHY"}, rows); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%s %s", count(len(report.Moves), "unit"), verb)
	if n := len(report.Stuck); n > 0 {
		text += fmt.Sprintf(", %d would have no place", n)
	}
	s.say("%s.", text)
	if report.Held != "" {
		s.say("At first nothing would: %s", model.OneLine(report.Held))
	}
	return nil
}

// rebalancing is the flags of rebalance.
type rebalancing struct {
	format
	dryRun bool
	max    int
}

func (s *session) rebalance() *cobra.Command {
	r := &rebalancing{}
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "move units from full machines to emptier ones; nothing does that by itself",
		Long: "Move units from full machines to emptier ones, one unless --max says more. Nothing is moved\n" +
			"for the sake of balance without this.\n\n" +
			"  fleetctl rebalance --dry-run --max 10\n" +
			"  fleetctl rebalance --max 10",
		Args: noArgs,
		RunE: s.reporting(func(ctx context.Context, _ []string) error { return s.doRebalance(ctx, r) }),
	}
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "say what would move, and move nothing")
	cmd.Flags().IntVar(&r.max, "max", 1, "how many units to move at most")
	r.format.flags(cmd, "text|json")
	return cmd
}

func (s *session) doRebalance(ctx context.Context, r *rebalancing) error {
	asJSON, err := r.asJSON("text")
	if err != nil {
		return err
	}
	if r.max < 1 {
		return fault.Usage("--max %d: want 1 or more", r.max)
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	report, err := c.Rebalance(ctx, api.RebalanceRequest{DryRun: r.dryRun, Max: r.max})
	if err != nil {
		return sentence("Unable to rebalance: %w", err)
	}
	verb := "would move"
	if !r.dryRun {
		verb = "will move"
	}
	return s.sayMoves(ctx, asJSON, report, verb)
}

// confirming is the flags of commands that ask before they do something.
type confirming struct{ yes bool }

func (c *confirming) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
}

func (s *session) adopt() *cobra.Command {
	c := &confirming{}
	machine := ""
	cmd := &cobra.Command{
		Use:   "adopt UNIT --machine MACHINE",
		Short: "take over a unit that runs on a machine already, without a restart",
		Long: "Take over a unit that runs on a machine already, without a restart: its file and drop-ins\n" +
			"become the cluster's, and it may move from then on.\n\n" +
			"  fleetctl adopt nginx --machine 148a18ff",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions, // the cluster does not know the unit yet
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			if machine == "" {
				return fault.Usage("adopt wants --machine: where the unit runs")
			}
			name, err := unitArg(args[0])
			if err != nil {
				return err
			}
			return s.doAdopt(ctx, c, name, machine)
		}),
	}
	cmd.Flags().StringVar(&machine, "machine", "", "where it runs (id or its beginning, address, host name)")
	c.flags(cmd)
	return cmd
}

func (s *session) doAdopt(ctx context.Context, c *confirming, name, machine string) error {
	id, err := s.machineID(ctx, machine)
	if err == nil {
		err = s.confirm(c.yes, fmt.Sprintf("Make %s of machine %s a unit of the cluster?", name, shortID(id, false)))
	}
	if err != nil {
		return err
	}
	if err := s.slowly("machine "+shortID(id, false)+" to hand over "+name, func() error { return s.client.Adopt(ctx, name, id) }); err != nil {
		return sentence("Unable to adopt unit %s: %w", name, err)
	}
	s.say("Unit %s of machine %s belongs to the cluster", name, shortID(id, false))
	return nil
}

func (s *session) eject() *cobra.Command {
	c := &confirming{}
	cmd := &cobra.Command{
		Use:   "eject UNIT...",
		Short: "leave units to their machines as ordinary units, running, and forget them",
		Long: "Leave units to the machines that run them, as ordinary unit files in /etc/systemd/system,\n" +
			"running on and enabled if they have an [Install] section; the cluster forgets them.\n\n" +
			"  fleetctl eject hello",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doEject(ctx, c, args) }),
	}
	c.flags(cmd)
	return cmd
}

func (s *session) doEject(ctx context.Context, c *confirming, args []string) error {
	names, err := s.statusNames(ctx, args)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := s.unit(ctx, name); errors.Is(err, fleet.ErrNotExist) {
			return s.unknown(ctx, name)
		} else if err != nil {
			return sentence("Error retrieving unit %s: %w", name, err)
		}
	}
	if err := s.confirm(c.yes, fmt.Sprintf("Leave %s to where they are, and forget them?", strings.Join(names, " "))); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.slowly("the machine of "+name+" to take it over", func() error { return s.client.Eject(ctx, name) }); err != nil {
			return sentence("Unable to eject unit %s: %w", name, err)
		}
		s.say("Unit %s is its machine's own", name)
	}
	return nil
}

// slowly does something that may take long, and says what it waits for meanwhile.
func (s *session) slowly(what string, do func() error) error {
	start := time.Now()
	show := newProgress(s.env.Stderr, start)
	defer show.clear()
	done := make(chan error, 1)
	go func() { done <- do() }()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case now := <-ticker.C:
			show.update(now, what)
		}
	}
}
