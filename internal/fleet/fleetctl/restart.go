package fleetctl

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
)

// restarting is restart: an action with an order.
type restarting struct {
	action
	atOnce int // of the instances of a template
}

func (s *session) restart() *cobra.Command {
	r := &restarting{action: action{verb: "restart", doing: "restarting", goal: launched}}
	cmd := &cobra.Command{
		Use:   "restart UNIT|PATTERN...",
		Short: "stop and start units where they are, the instances of a template one after the other",
		Long: "Stop and start units on the machines that they are on. Of the instances of a template the\n" +
			"next is restarted when the one before is active again; when one does not come back, the\n" +
			"rest is left alone.\n\n" +
			"  fleetctl restart hello\n" +
			"  fleetctl restart --parallel 2 'web@*'",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doRestart(ctx, r, args) }),
	}
	cmd.Flags().IntVar(&r.atOnce, "parallel", 1, "how many instances of a template at a time")
	r.waitFlags(cmd)
	return cmd
}

func (s *session) doRestart(ctx context.Context, r *restarting, args []string) error {
	if r.atOnce < 1 {
		return fault.Usage("--parallel %d: want 1 or more", r.atOnce)
	}
	if len(args) == 0 {
		s.warn("No units given")
		return nil
	}
	w, err := s.watchNamed(ctx, args)
	if err != nil {
		return sentence(noUnits, err)
	}
	defer w.stop()
	sel, err := choose(args, w.pic.names())
	if err != nil {
		return err
	}
	names, err := s.restartable(w.pic, sel)
	if err != nil || len(names) == 0 {
		return err
	}
	reached, err := s.restartWaves(ctx, r, w, names)
	if len(reached) > 0 {
		s.warn("Successfully restarted units %v.", reached)
	}
	return err
}

// restartable is the units that were chosen and can be restarted. To name one that
// cannot is an error; a pattern passes over it.
func (s *session) restartable(pic *picture, sel selection) (names []string, err error) {
	if len(sel.names) == 0 {
		s.warn("Units not found in registry")
		return nil, nil
	}
	for _, name := range sel.unknown {
		s.warn("Unit %s not found in registry, passed over", name)
	}
	for _, name := range sel.names {
		u := pic.units[name]
		idle := u.CurrentState == inactive || u.CurrentState == "" && u.DesiredState == inactive
		switch {
		case !idle:
			names = append(names, name)
		case !sel.byGlob[name]:
			err = errors.Join(err, fault.Hint(sentence("Unable to restart unit %s in state inactive", name),
				"'fleetctl start %s' starts it", name))
		}
		if u.Generation == 0 && !idle {
			return nil, fault.Hint(errors.New("this server cannot restart units"), "'fleetctl stop %s', then 'fleetctl start %s'", name, name)
		}
	}
	if err != nil {
		return nil, s.each("", err)
	}
	return names, nil
}

// restartWaves restarts some units of each group, waits for them, and goes on with
// the next; a group of which one failed is left alone from then on.
func (s *session) restartWaves(ctx context.Context, r *restarting, w *watching, names []string) (reached []string, failed error) {
	atOnce := r.atOnce
	if r.noBlock {
		atOnce = len(names)
	}
	broken := map[string]bool{}
	var left []string
	for len(names) > 0 {
		var wave []string
		wave, names = nextWave(names, atOnce)
		w.takeWaiting()
		var requests []*request
		for _, name := range wave {
			u := w.pic.units[name]
			requests = append(requests, &request{
				want:   want{unit: name, goal: launched, before: u.Generation},
				put:    &api.Unit{Name: name, DesiredState: launched, Restart: true},
				global: u.CurrentState == "",
			})
		}
		s.send(ctx, requests, parallel)
		there, err := s.follow(ctx, &r.action, w, requests)
		reached = append(reached, there...)
		if err == nil {
			continue
		}
		failed = err
		for _, name := range wave {
			if !slices.Contains(there, name) {
				broken[model.GroupOf(name)] = true
			}
		}
		names = slices.DeleteFunc(names, func(name string) bool {
			if broken[model.GroupOf(name)] || ctx.Err() != nil {
				left = append(left, name)
				return true
			}
			return false
		})
	}
	if len(left) > 0 {
		s.warn("Not restarted: %v", left)
	}
	return reached, failed
}

// nextWave takes the first n units of every group.
func nextWave(names []string, n int) (wave, rest []string) {
	taken := map[string]int{}
	for _, name := range names {
		g := model.GroupOf(name)
		if taken[g]++; taken[g] > n {
			rest = append(rest, name)
			continue
		}
		wave = append(wave, name)
	}
	return wave, rest
}
