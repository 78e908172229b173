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
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
)

func (s *session) rolls() *cobra.Command {
	l := &listing{}
	cmd := &cobra.Command{
		Use:   "rolls",
		Short: "list the changes that go over running units a few at a time, and the last ones",
		Long: "List the rolls: changes of the text of units that run, a few at a time.\n\n" +
			"  fleetctl rolls\n" +
			"  fleetctl rolls --fields group,state,why",
		Args: noArgs,
		RunE: s.reporting(func(ctx context.Context, _ []string) error { return s.doRolls(ctx, l) }),
	}
	l.flags(cmd, []string{"group", "state", "changed", "started", "by", "why"}, "group,state,changed,started,ended,by,failed,machine,asked,why")
	return cmd
}

func (s *session) doRolls(ctx context.Context, l *listing) error {
	return show(ctx, s, l, listed[api.Roll]{
		failed: "Error retrieving rolls: %w",
		rows:   func(c *fleet.Client) ([]api.Roll, error) { return c.Rolls(ctx) },
		columns: func(*fleet.Client) (map[string]column[api.Roll], error) {
			return map[string]column[api.Roll]{
				"group":   func(r api.Roll) string { return r.Group },
				"state":   func(r api.Roll) string { return r.State },
				"changed": func(r api.Roll) string { return fmt.Sprintf("%d/%d", r.Changed, r.Total) },
				"started": func(r api.Roll) string { return timeCell(r.Started) },
				"ended":   func(r api.Roll) string { return timeCell(r.Ended) },
				"by":      func(r api.Roll) string { return orDash(r.By) },
				"failed":  func(r api.Roll) string { return orDash(r.Failed) },
				"machine": func(r api.Roll) string { return orDash(shortID(r.Machine, l.full)) },
				"asked":   func(r api.Roll) string { return orDash(r.Asked) },
				"why":     func(r api.Roll) string { return orDash(model.OneLine(r.Why)) },
			}, nil
		},
	})
}

// timeCell is a time of day where the person is; "-" for none.
func timeCell(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// rollGoals are the states that end the wait for each action.
var rollGoals = map[string][]string{
	"pause":  {"paused", "done", "reverted"},
	"resume": {"rolling", "done", "reverted"},
	"revert": {"reverted"},
}

func (s *session) roll() *cobra.Command {
	noBlock := false
	cmd := &cobra.Command{
		Use:   "roll pause|resume|revert GROUP",
		Short: "hold a roll, let it go on, or take it back",
		Long: "Hold a roll, let it go on, or put the texts before back. GROUP is the template, or the unit\n" +
			"that is by itself, as 'fleetctl rolls' shows it.\n\n" +
			"  fleetctl roll pause web@.service",
		ValidArgsFunction: s.completeRoll,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doRoll(ctx, noBlock, args) }),
	}
	cmd.Flags().BoolVar(&noBlock, "no-block", false, "do not wait until the roll is in that state")
	return cmd
}

func (s *session) doRoll(ctx context.Context, noBlock bool, args []string) error {
	if len(args) != 2 || rollGoals[args[0]] == nil {
		return fault.Hint(fault.Usage("roll takes an action and a group"), "fleetctl roll pause|resume|revert GROUP; 'fleetctl rolls' shows the groups")
	}
	name, err := unitArg(args[1])
	if err != nil {
		return err
	}
	verb, group := args[0], model.GroupOf(name)
	w, err := s.watch(ctx)
	if err != nil {
		return sentence("Error retrieving rolls: %w", err)
	}
	defer w.stop()
	if r, ok := w.pic.rolls[group]; ok && r.Final() {
		return fault.Hint(fmt.Errorf("the roll of %s is over: %s", group, r.State), "'fleetctl rollback' gives units the text before: see 'fleetctl history'")
	}
	if err := s.client.AskRoll(ctx, group, verb); err != nil {
		return sentence("Unable to %s the roll of %s: %w", verb, group, err)
	}
	if noBlock {
		s.say("Asked the roll of %s to %s", group, verb)
		return nil
	}
	var r api.Roll
	err = s.until(ctx, w, func(pic *picture) (string, bool) {
		r = pic.rolls[group]
		return fmt.Sprintf("the roll of %s to %s: it is %s, %d of %d changed", group, verb, orDash(r.State), r.Changed, r.Total),
			r.Asked == "" && slices.Contains(rollGoals[verb], r.State)
	})
	if err != nil {
		return err
	}
	s.say("Roll of %s: %s, %d of %d changed", group, r.State, r.Changed, r.Total)
	return nil
}

// until waits for a condition of the picture, and says what it waits for. It gives up
// when nothing has changed for as long as a wait for units would.
func (s *session) until(ctx context.Context, w *watching, met func(*picture) (text string, done bool)) error {
	start := time.Now()
	w.observer.attend(nil)
	show := newProgress(s.env.Stderr, start)
	defer show.clear()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last, since := "", start
	for {
		text, done := met(w.pic)
		now := time.Now()
		if text != last {
			last, since = text, now
		}
		switch {
		case done:
			return nil
		case w.lost != nil && now.Sub(w.lostAt) > awayLimit:
			return fmt.Errorf("gave up waiting for %s: %w", text, w.lost)
		case now.Sub(since) > quiet:
			return fault.Hint(fmt.Errorf("gave up waiting for %s: nothing has changed for %s", text, quiet), "the request stands; 'fleetctl doctor' may say what is the matter")
		}
		show.update(now, text)
		select {
		case u, open := <-w.observer.out:
			w.takeAll(u, open)
		case <-ticker.C:
		case <-ctx.Done():
			return errors.New("interrupted while waiting for " + text)
		}
	}
}

// completeRoll offers the actions, then the groups.
func (s *session) completeRoll(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"pause", "resume", "revert"}, cobra.ShellCompDirectiveNoFileComp
	}
	var groups []string
	s.completing(cmd.Context(), func(ctx context.Context, c *fleet.Client) {
		rolls, _ := c.Rolls(ctx) // a shell has nowhere to show an error
		for _, r := range rolls {
			if strings.HasPrefix(r.Group, typed) && len(args) == 1 {
				groups = append(groups, r.Group)
			}
		}
	})
	return groups, cobra.ShellCompDirectiveNoFileComp
}
