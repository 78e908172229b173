package fleetctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// Why a change that has to be agreed to was not made.
var (
	errNobody = fault.Hint(errors.New("not done: there is no terminal to ask on"),
		"--yes does it without asking")
	errDeclined = errors.New("not done")
)

// applying is the flags of apply.
type applying struct {
	action
	format
	yes, dryRun, submit bool
	why                 string
}

func (s *session) apply() *cobra.Command {
	a := &applying{action: action{verb: "apply", doing: "applying", goal: launched}}
	cmd := &cobra.Command{
		Use:   "apply DIR|FILE...",
		Short: "make units be as their files are: shows the plan and the difference, asks, does it",
		Long: "Make units be as their files are, with the drop-ins beside them (hello.service.d/*.conf),\n" +
			"and started; a template is stored, and its instances get its new text. A service that a\n" +
			".timer, .socket or .path starts is only loaded. Units that are not among the\n" +
			"files stay as they are. Shows the plan and the difference, and asks.\n\n" +
			"What runs with another text is changed a few at a time (MaxUnavailable=, one by default),\n" +
			"the next when the one before is healthy. When one is not, all go back to the text before,\n" +
			"and the exit code is 1. Interrupted, this goes on without us: see 'fleetctl rolls'.\n\n" +
			"  fleetctl apply ./units\n" +
			"  fleetctl apply --yes web@.service db.service",
		Args: cobra.MinimumNArgs(1),
		RunE: s.reporting(func(ctx context.Context, args []string) error { return s.doApply(ctx, a, args) }),
	}
	f := cmd.Flags()
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&a.dryRun, "dry-run", false, "show the plan and the difference, change nothing")
	f.BoolVar(&a.submit, "submit", false, "leave alone what is wanted of the units: new ones are not started")
	f.StringVar(&a.why, "why", "", "the reason, for the history")
	a.waitFlags(cmd)
	a.format.flags(cmd, "text|json")
	return cmd
}

// local is a unit as its files say.
type local struct {
	name, path string
	text       unitfile.Bundle
}

// applyPlan is what applying would do, for people and programs.
type applyPlan struct {
	Changes []api.UnitChange  `json:"changes"`
	Diffs   map[string]string `json:"diffs,omitempty"` // unified, by unit
	Applied bool              `json:"applied"`
	// StartedBy is the units that others of them start, so that they are loaded only.
	StartedBy map[string]string `json:"startedBy,omitempty"`
	units     map[string]local
	failed    map[string]bool // units that are to run and failed: they will be started again
}

func (s *session) doApply(ctx context.Context, a *applying, args []string) error {
	asJSON, err := a.asJSON("text")
	if err != nil {
		return err
	}
	if asJSON && !a.yes && !a.dryRun {
		return fault.Usage("--output json goes with --yes or --dry-run: the question would be in its way")
	}
	units, err := s.localUnits(args)
	if err != nil {
		return s.each("", err)
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	stdout := s.env.Stdout
	if asJSON {
		s.env.Stdout = s.env.Stderr // what is said on the way
	}
	startedBy, err := a.startedBy(ctx, c, units)
	if err != nil {
		return sentence(noUnits, err)
	}
	req := a.request(units, startedBy)
	plan, err := s.plan(ctx, c, &req, units, startedBy)
	if err == nil {
		err = s.carryOut(ctx, a, plan, req)
	}
	if asJSON && plan != nil {
		return errors.Join(err, cli.JSON(stdout, plan))
	}
	return err
}

// startedBy is which of the units others start, unless they are only to be stored.
func (a *applying) startedBy(ctx context.Context, c *fleet.Client, units []local) (map[string]string, error) {
	if a.submit {
		return nil, nil
	}
	cluster, err := clusterUnits(ctx, c, units)
	return activated(units, cluster), err
}

// request asks for the units to be as their files are.
func (a *applying) request(units []local, startedBy map[string]string) api.ApplyRequest {
	req := api.ApplyRequest{Follow: true, DryRun: true, Why: a.why}
	for _, u := range units {
		desired := launched
		if a.submit || unitfile.IsTemplate(u.name) || startedBy[u.name] != "" {
			desired = ""
		}
		req.Units = append(req.Units, *putOf(u.name, desired, u.text))
	}
	return req
}

// localUnits reads every unit that the arguments name, and tells everything that is
// wrong with any.
func (s *session) localUnits(args []string) ([]local, error) {
	var units []local
	var errs []error
	at := map[string]string{}
	for _, arg := range args {
		paths, err := unitFilesAt(arg)
		errs = append(errs, err)
		for _, path := range paths {
			name := filepath.Base(path)
			if before, twice := at[name]; twice {
				if before != path {
					errs = append(errs, fmt.Errorf("%s: there is a %s already: %s", path, name, before))
				}
				continue
			}
			at[name] = path
			text, err := readBundle(name, path)
			errs = append(errs, err)
			if err == nil {
				s.notices(path, text)
			}
			units = append(units, local{name: name, path: path, text: text})
		}
	}
	slices.SortFunc(units, func(a, b local) int { return cmp.Compare(a.name, b.name) })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return units, nil
}

// unitFilesAt is the unit file, or those of the directory, that an argument means.
// What is no unit file by its name is passed over in a directory, hidden files and
// directories too; drop-ins without their unit file are an error.
func unitFilesAt(arg string) (paths []string, err error) {
	st, err := os.Stat(arg)
	if err != nil {
		return nil, err
	}
	if bad := misplaced(arg); bad != nil {
		return nil, bad
	}
	if !st.IsDir() {
		return []string{filepath.Clean(arg)}, nil
	}
	entries, err := os.ReadDir(arg)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(arg, e.Name())
		of, isDropIns := strings.CutSuffix(e.Name(), ".d")
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case isDropIns && unitfile.CheckName(of) == nil:
			if !hasUnitFile(arg, of) {
				errs = append(errs, fault.Hint(fmt.Errorf("%s: drop-ins without a unit file", path), "put %s beside it: as the cluster has it, with 'fleetctl cat %s'", of, of))
			}
		case unitfile.CheckName(e.Name()) == nil && isFile(arg, e.Name()):
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 && len(errs) == 0 {
		errs = append(errs, fault.Hint(fmt.Errorf("%s: there is no unit file in it", arg), "they end in .service, .timer, .socket, .path, .mount, ..."))
	}
	return paths, errors.Join(errs...)
}

// hasUnitFile reports whether drop-ins of a unit have a file to go with: its own, or
// its template's.
func hasUnitFile(dir, name string) bool {
	template, _ := unitfile.TemplateOf(name)
	return isFile(dir, name) || isFile(dir, template)
}

// plan asks what applying would change, and how the texts differ.
func (s *session) plan(ctx context.Context, c *fleet.Client, req *api.ApplyRequest, units []local, startedBy map[string]string) (*applyPlan, error) {
	p := &applyPlan{Diffs: map[string]string{}, StartedBy: startedBy, units: map[string]local{}}
	for _, u := range units {
		p.units[u.name] = u
	}
	report, err := c.Apply(ctx, *req)
	if err == nil && p.loadActivated(req, report.Changes) {
		report, err = c.Apply(ctx, *req)
	}
	if err != nil {
		return nil, s.applyError(p, err)
	}
	p.Changes = list(report.Changes)
	if err := p.findFailed(ctx, c, req.Units); err != nil {
		return nil, sentence(noUnits, err)
	}
	texts := make([]unitfile.Bundle, len(p.Changes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, change := range p.Changes {
		if change.Action == api.ActionChange {
			g.Go(func() error {
				u, err := c.Unit(ctx, change.Name)
				texts[i] = bundleOf(u)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, sentence("Error retrieving units: %w", err)
	}
	for i, change := range p.Changes {
		switch change.Action {
		case api.ActionCreate, api.ActionChange:
			p.Diffs[change.Name] = bundleDiff(change.Name, "cluster", "local", texts[i], p.units[change.Name].text)
		}
	}
	return p, nil
}

// findFailed notes which of the units have failed though they are to run. Those whose
// text stays are started again; so are those that get another one, and instances.
func (p *applyPlan) findFailed(ctx context.Context, c *fleet.Client, asked []api.Unit) error {
	p.failed = map[string]bool{}
	if !slices.ContainsFunc(asked, func(u api.Unit) bool { return u.DesiredState == launched || unitfile.IsTemplate(u.Name) }) {
		return nil
	}
	states, err := c.States(ctx, fleet.StateFilter{})
	down := map[string]bool{}
	for _, st := range states {
		down[st.Name] = down[st.Name] || st.SystemdActiveState == "failed"
	}
	for i, change := range p.Changes {
		for _, name := range append([]string{change.Name}, change.Instances...) {
			if down[name] && (name != change.Name || change.DesiredState == launched) {
				p.failed[name] = true
			}
		}
		if p.failed[change.Name] && change.Action == api.ActionUnchanged {
			p.Changes[i].Action = api.ActionStart
		}
	}
	return err
}

// startFailed asks anew for what has failed to be started, of the units that a request
// was about, and returns which they are. The server takes a failed unit for one that has
// been started.
func (s *session) startFailed(ctx context.Context, report api.ApplyReport, pic *picture) (again map[string]bool, err error) {
	again = map[string]bool{}
	var errs []error
	for _, c := range report.Changes {
		for _, name := range append([]string{c.Name}, c.Instances...) {
			if pic.units[name].DesiredState != launched || !pic.failed(name) || name == c.Name && c.DesiredState != launched {
				continue
			}
			again[name] = true
			if _, err := s.client.Put(ctx, api.Unit{Name: name, DesiredState: launched}); err != nil {
				errs = append(errs, sentence("Error starting units: %s: %w", name, err))
			}
		}
	}
	return again, errors.Join(errs...)
}

// applyError words what the server refused: every problem, under the file that it is
// in.
func (s *session) applyError(p *applyPlan, err error) error {
	var refused *fleet.Error
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.Code == 404 && refused.Message == "":
		return fault.Hint(errors.New("this server cannot apply units"), "'fleetctl start --replace UNIT...' changes them one by one")
	case len(refused.Problems) == 0:
		return sentence("Error applying units: %w", err)
	}
	var errs []error
	for _, problem := range refused.Problems {
		errs = append(errs, fmt.Errorf("%s: %s", cmp.Or(p.units[problem.Unit].path, problem.Unit), problem.Message))
	}
	return s.each("", errors.Join(errs...))
}

// carryOut shows the plan, has it agreed to, does it, and follows it to its end.
func (s *session) carryOut(ctx context.Context, a *applying, p *applyPlan, req api.ApplyRequest) error {
	p.show(s)
	changing := slices.ContainsFunc(p.Changes, func(c api.UnitChange) bool { return c.Action != api.ActionUnchanged })
	switch {
	case !changing:
		s.say("Nothing to do.")
		return nil
	case a.dryRun:
		return nil
	}
	if err := s.confirm(a.yes, "Do this?"); err != nil {
		return err
	}
	w, err := s.watch(ctx)
	if err != nil {
		return sentence(noUnits, err)
	}
	defer w.stop()
	req.DryRun = false
	report, err := s.client.Apply(ctx, req)
	if err != nil {
		return s.applyError(p, err)
	}
	p.Applied = true
	p.Changes = list(report.Changes)
	return s.followChanges(ctx, &a.action, w, report)
}

// show prints the plan as a table, and the differences.
func (p *applyPlan) show(s *session) {
	var rows [][]string
	for _, c := range p.Changes {
		rows = append(rows, []string{c.Name, string(c.Action), orDash(c.DesiredState), orDash(strings.Join(c.Instances, " "))})
	}
	_ = cli.WriteTable(s.env.Stdout, []string{"UNIT", "ACTION", "DSTATE", "FOLLOWED-BY"}, rows)
	for _, c := range p.Changes {
		if by := p.StartedBy[c.Name]; by != "" && c.DesiredState == loaded {
			s.say("%s is only loaded: %s starts it.", c.Name, by)
		}
	}
	for _, name := range sortedKeys(p.Diffs) {
		s.say("")
		s.printDiff(p.Diffs[name])
	}
	if len(p.Diffs) > 0 {
		s.say("")
	}
}

// followChanges waits for what a request has changed, as start and stop do, and for
// the rolls that it began.
// What has failed is started again.
func (s *session) followChanges(ctx context.Context, a *action, w *watching, report api.ApplyReport) error {
	again, err := s.startFailed(ctx, report, w.pic)
	if err != nil {
		return s.each("", err)
	}
	var requests []*request
	for _, c := range report.Changes {
		names := []string{c.Name}
		if unitfile.IsTemplate(c.Name) {
			names = c.Instances
		}
		if c.Action == api.ActionUnchanged && !again[c.Name] {
			continue
		}
		for _, name := range names {
			if r := s.changed(ctx, name, c, w.pic); r != nil {
				if again[name] {
					r.before, r.failedBefore = w.pic.units[name].Generation, true
				}
				requests = append(requests, r)
			}
		}
	}
	_, err = s.follow(ctx, a, w, requests)
	return err
}

// changed is what is waited for of one unit; nil for one that is not to run.
func (s *session) changed(ctx context.Context, name string, c api.UnitChange, pic *picture) *request {
	u, exists := pic.units[name]
	desired := c.DesiredState
	if name != c.Name {
		desired = u.DesiredState // an instance follows its template's text alone
	}
	r := &request{want: want{unit: name, goal: desired, there: exists}}
	if c.Action == api.ActionCreate {
		s.say("Unit %s created", name)
	}
	if desired == inactive && u.DesiredState == inactive || unitfile.IsTemplate(name) || desired == "" {
		return nil
	}
	if desired != u.DesiredState {
		r.before = u.Generation // the request is a newer one
	}
	if c.Action == api.ActionCreate || c.Action == api.ActionChange {
		r.hash = c.ToHash
	}
	r.global = exists && u.CurrentState == ""
	if !exists {
		if now, err := s.client.Unit(ctx, name); err == nil {
			r.global = isGlobalUnit(now)
		}
	}
	if exists && r.hash != "" {
		r.changes(pic)
	}
	return r
}

// say prints a line on standard output.
func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.env.Stdout, format+"\n", args...)
}
