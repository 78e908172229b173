package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
)

func (s *session) forget() *cobra.Command {
	c := &confirming{}
	cmd := &cobra.Command{
		Use:   "forget MACHINE...",
		Short: "forget machines that are away and will not return: their units go elsewhere at once",
		Long: "Forget machines that are away and will not return. Their units are placed elsewhere at once,\n" +
			"and they count no more among the machines: when more than half of these are away at the same\n" +
			"time (hold_fraction) all moves are held, until machines are back or forgotten.\n\n" +
			"A machine that is cut off and runs on all the same keeps its ordinary units until the store\n" +
			"hears from it; then it stops them. A singleton it has stopped by itself if its fleetd works,\n" +
			"and nobody can know that: make sure that the machine is off. One that is present is refused.\n\n" +
			"  fleetctl doctor\n" +
			"  fleetctl forget 148a18ff",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: s.completeAway,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doForget(ctx, c, args) }),
	}
	c.flags(cmd)
	return cmd
}

func (s *session) doForget(ctx context.Context, yes *confirming, args []string) error {
	c, err := s.api()
	if err != nil {
		return err
	}
	machines, err := c.Machines(ctx)
	if err != nil {
		return sentence("Error retrieving list of active machines from fleet API (%w)", err)
	}
	units, err := c.Units(ctx)
	if err != nil {
		return sentence(noUnits, err)
	}
	on := awayWith(machines, units)
	ids, err := pickAllAway(args, machines, on)
	if err != nil {
		return err
	}
	if err := s.confirm(yes.yes, forgetQuestion(ids, on)); err != nil {
		return err
	}
	for _, id := range ids {
		units, err := c.Forget(ctx, id)
		if isClassic(err) {
			return fmt.Errorf("this server cannot forget machines")
		}
		if err != nil {
			return sentence("Error forgetting machine %s: %w", shortID(id, false), err)
		}
		s.say("Machine %s is forgotten; to be placed elsewhere: %s", shortID(id, false), orDash(strings.Join(units, " ")))
	}
	return nil
}

// awayWith is the machines that are away and have units, each with these. Global units
// have no place of their own.
func awayWith(machines []api.Machine, units []api.Unit) map[string][]api.Unit {
	present := map[string]bool{}
	for _, m := range machines {
		present[m.ID] = true
	}
	on := map[string][]api.Unit{}
	for _, u := range units {
		if u.MachineID != "" && !present[u.MachineID] {
			on[u.MachineID] = append(on[u.MachineID], u)
		}
	}
	return on
}

// pickAllAway is the machines that are meant, each once; the error has everything that is
// wrong.
func pickAllAway(given []string, machines []api.Machine, on map[string][]api.Unit) (ids []string, _ error) {
	var errs []error
	for _, one := range given {
		id, err := pickAway(one, machines, on)
		ids, errs = append(ids, id), append(errs, err)
	}
	slices.Sort(ids)
	return slices.Compact(ids), errors.Join(errs...)
}

// pickAway is the machine that is meant: one that is away with units, by its id or the
// beginning of that, or any that is not present by its whole id.
func pickAway(given string, machines []api.Machine, on map[string][]api.Unit) (string, error) {
	begin, _, _ := strings.Cut(given, "...")
	var fits, all []string
	for _, id := range sortedKeys(on) {
		all = append(all, shortID(id, false))
		if begin != "" && strings.HasPrefix(id, begin) {
			fits = append(fits, id)
		}
	}
	present, err := pickMachine(given, machines)
	switch {
	case len(fits) > 1:
		return "", fmt.Errorf("%d machines that are away have an id that begins with %s", len(fits), begin)
	case len(fits) == 1 && err != nil:
		return fits[0], nil
	case err == nil && present != "":
		return "", fault.Hint(fmt.Errorf("machine %s is present", shortID(present, false)),
			"'fleetctl drain %s' empties it; once it is off it can be forgotten", shortID(present, false))
	case isWholeID(given):
		return given, nil
	}
	return "", fault.Hint(fmt.Errorf("no machine %s is away with units", given), "those are: %s", first(strings.Join(all, " "), "none"))
}

// forgetQuestion says what forgetting the machines means.
func forgetQuestion(ids []string, on map[string][]api.Unit) string {
	var names, short, singletons []string
	for _, id := range ids {
		short = append(short, shortID(id, false))
		for _, u := range on[id] {
			names = append(names, u.Name)
			if model.NewUnit(u.Name, bundleOf(u).String(), model.Inactive, 0).Req.Singleton {
				singletons = append(singletons, u.Name)
			}
		}
	}
	question := fmt.Sprintf("Forget %s for good", strings.Join(short, " "))
	if len(names) > 0 {
		question += ", and start elsewhere what is there: " + strings.Join(names, " ")
	}
	if len(singletons) > 0 {
		question += fmt.Sprintf("\n(%s may run once only, and may run there still: make sure that the machine is off)", strings.Join(singletons, " "))
	}
	return question + "?"
}

// completeAway offers the machines that are away and have units.
func (s *session) completeAway(cmd *cobra.Command, _ []string, typed string) (fits []string, _ cobra.ShellCompDirective) {
	s.completing(cmd.Context(), func(ctx context.Context, c *fleet.Client) {
		machines, err := c.Machines(ctx)
		units, unitsErr := c.Units(ctx)
		if err != nil || unitsErr != nil {
			return // a shell has nowhere to show an error
		}
		on := awayWith(machines, units)
		for _, id := range sortedKeys(on) {
			if strings.HasPrefix(id, typed) {
				fits = append(fits, id+"\taway, "+count(len(on[id]), "unit"))
			}
		}
	})
	return fits, cobra.ShellCompDirectiveNoFileComp
}
