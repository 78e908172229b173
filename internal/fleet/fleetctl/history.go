package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// versioning is the flags of history.
type versioning struct {
	listing
	diff string
}

func (s *session) history() *cobra.Command {
	v := &versioning{}
	cmd := &cobra.Command{
		Use:   "history UNIT [N]",
		Short: "list the texts that a unit has had, and how they differ",
		Long: "List the texts that a unit has had, newest first; those of a unit that was destroyed stay for\n" +
			"a day. The present one is marked with a star.\n\n" +
			"  fleetctl history hello\n" +
			"  fleetctl history hello --diff 3      version 3 against the present one\n" +
			"  fleetctl history hello --diff 3 5    version 3 against version 5",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doHistory(ctx, v, args) }),
	}
	v.flags(cmd, []string{"seq", "when", "by", "hash", "why"}, "seq,when,by,hash,why")
	cmd.Flags().StringVar(&v.diff, "diff", "", "show how version N differs from the present one, or from a second one")
	return cmd
}

func (s *session) doHistory(ctx context.Context, v *versioning, args []string) error {
	if len(args) == 0 || len(args) > 1 && v.diff == "" || len(args) > 2 {
		return fault.Hint(fault.Usage("history takes one unit, and with --diff N a second version"), "fleetctl history UNIT [--diff N [M]]")
	}
	name, err := unitArg(args[0])
	if err != nil {
		return err
	}
	if v.diff != "" {
		return s.historyDiff(ctx, v, name, args[1:])
	}
	return show(ctx, s, &v.listing, listed[api.Version]{
		failed: "Error retrieving history of unit " + name + ": %w",
		rows:   func(c *fleet.Client) ([]api.Version, error) { return c.History(ctx, name) },
		columns: func(*fleet.Client) (map[string]column[api.Version], error) {
			return map[string]column[api.Version]{
				"seq": func(r api.Version) string {
					if r.Present {
						return strconv.Itoa(r.Seq) + "*"
					}
					return strconv.Itoa(r.Seq)
				},
				"when": func(r api.Version) string { return timeCell(r.At) },
				"by":   func(r api.Version) string { return orDash(r.By) },
				"hash": func(r api.Version) string { return hashCell(r.Hash, v.full) },
				"why":  func(r api.Version) string { return orDash(model.OneLine(r.Why)) },
			}, nil
		},
	})
}

// versionDiff is the JSON of history --diff.
type versionDiff struct {
	Unit string `json:"unit"`
	From int    `json:"from"`
	To   int    `json:"to"`
	Diff string `json:"diff"`
}

func (s *session) historyDiff(ctx context.Context, v *versioning, name string, second []string) error {
	asJSON, err := v.asJSON("table")
	if err != nil {
		return err
	}
	versions, err := s.versions(ctx, name)
	if err != nil {
		return err
	}
	from, err := versionNamed(versions, v.diff)
	if err != nil {
		return err
	}
	to := versions[max(0, slices.IndexFunc(versions, func(v api.Version) bool { return v.Present }))]
	if len(second) > 0 {
		if to, err = versionNamed(versions, second[0]); err != nil {
			return err
		}
	}
	d, err := diffVersions(name, from, to)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.JSON(s.env.Stdout, versionDiff{Unit: name, From: from.Seq, To: to.Seq, Diff: d})
	}
	s.printDiff(d)
	return nil
}

func (s *session) versions(ctx context.Context, name string) ([]api.Version, error) {
	c, err := s.api()
	if err != nil {
		return nil, err
	}
	versions, err := c.History(ctx, name)
	if err == nil && len(versions) == 0 {
		err = errors.New("it has none")
	}
	if err != nil {
		return nil, sentence("Error retrieving history of unit %s: %w", name, err)
	}
	return versions, nil
}

func versionNamed(versions []api.Version, word string) (api.Version, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 {
		return api.Version{}, fault.Usage("version %q: want a number from 1", word)
	}
	i := slices.IndexFunc(versions, func(v api.Version) bool { return v.Seq == n })
	if i < 0 {
		var there []string
		for _, v := range versions {
			there = append(there, strconv.Itoa(v.Seq))
		}
		return api.Version{}, fault.Hint(fmt.Errorf("there is no version %d", n), "there are: %s", strings.Join(there, " "))
	}
	return versions[i], nil
}

func diffVersions(name string, from, to api.Version) (string, error) {
	a, err := unitfile.ParseBundle(from.Text)
	if err != nil {
		return "", fmt.Errorf("version %d: %w", from.Seq, err)
	}
	b, err := unitfile.ParseBundle(to.Text)
	if err != nil {
		return "", fmt.Errorf("version %d: %w", to.Seq, err)
	}
	return bundleDiff(name, strconv.Itoa(from.Seq), strconv.Itoa(to.Seq), a, b), nil
}

// rollingBack is the flags of rollback.
type rollingBack struct {
	action
	why string
}

func (s *session) rollback() *cobra.Command {
	r := &rollingBack{action: action{verb: "rollback", doing: "rolling back", goal: launched}}
	cmd := &cobra.Command{
		Use:   "rollback UNIT [N]",
		Short: "give a unit a text that it has had: the one before, or version N",
		Long: "Give a unit, or a template and its instances, a text that it has had: the one before the\n" +
			"present, or version N of 'fleetctl history'. It is a new version, and rolls over what runs.\n\n" +
			"  fleetctl rollback hello\n" +
			"  fleetctl rollback web@.service 3",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doRollback(ctx, r, args) }),
	}
	r.waitFlags(cmd)
	cmd.Flags().StringVar(&r.why, "why", "", "the reason, for the history")
	return cmd
}

func (s *session) doRollback(ctx context.Context, r *rollingBack, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return fault.Hint(fault.Usage("rollback takes a unit and perhaps a version"), "fleetctl rollback UNIT [N]")
	}
	name, err := unitArg(args[0])
	if err != nil {
		return err
	}
	versions, err := s.versions(ctx, name)
	if err != nil {
		return err
	}
	present := slices.IndexFunc(versions, func(v api.Version) bool { return v.Present })
	to, err := rollbackTarget(versions, present, args[1:])
	if err != nil {
		return err
	}
	if present >= 0 {
		d, err := diffVersions(name, versions[present], to)
		if err != nil {
			return err
		}
		s.printDiff(d)
	}
	w, err := s.watch(ctx)
	if err != nil {
		return sentence(noUnits, err)
	}
	defer w.stop()
	report, err := s.client.Rollback(ctx, name, api.RollbackRequest{Seq: to.Seq, Follow: true, Why: r.why})
	if err != nil {
		return sentence("Error rolling back unit %s: %w", name, err)
	}
	s.say("Unit %s has the text of version %d again", name, to.Seq)
	return s.followChanges(ctx, &r.action, w, report)
}

// rollbackTarget is the version that the arguments name, or the newest before the
// present one with another text that did not have to be taken back; of a unit that is
// gone it is the last.
func rollbackTarget(versions []api.Version, present int, args []string) (api.Version, error) {
	if len(args) > 0 {
		return versionNamed(versions, args[0])
	}
	spoilt := map[string]bool{} // hashes of texts that a roll went back from
	if present >= 0 {
		spoilt[versions[present].Hash] = true
	}
	for i := 1; i < len(versions); i++ {
		if strings.HasPrefix(versions[i-1].Why, "reverted") {
			spoilt[versions[i].Hash] = true
		}
	}
	for _, v := range versions[present+1:] {
		if !spoilt[v.Hash] {
			return v, nil
		}
	}
	return api.Version{}, fault.Hint(errors.New("there is no version before the present one"),
		"'fleetctl history UNIT' has those that there are; name one to go to it all the same")
}
