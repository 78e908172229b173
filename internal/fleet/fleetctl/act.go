package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// parallel is how many requests are under way at once: enough to keep the daemon
// busy, few enough for its limits.
const parallel = 16

// action is a command that changes what units are to be.
type action struct {
	verb  string // in the sentences: start
	doing string // in the errors: starting
	goal  string
	// replaces reports whether --replace may exchange the text of a unit with that
	// desired state; nil: the command has no --replace.
	replaces func(desired string) bool

	replace  bool
	noBlock  bool
	attempts int
}

func (s *session) submit() *cobra.Command {
	a := &action{verb: "submit", doing: "submitting", goal: inactive,
		replaces: func(d string) bool { return d == inactive }}
	return s.bringing(a, "submit UNIT...", "give units to the cluster, to be loaded or started later")
}

func (s *session) load() *cobra.Command {
	a := &action{verb: "load", doing: "loading", goal: loaded,
		replaces: func(d string) bool { return d == inactive || d == loaded }}
	return s.bringing(a, "load UNIT...", "choose machines for units and load them there, not started")
}

func (s *session) start() *cobra.Command {
	a := &action{verb: "start", doing: "starting", goal: launched,
		replaces: func(string) bool { return true }}
	return s.bringing(a, "start UNIT...", "start units, and wait until they run")
}

func (s *session) bringing(a *action, use, short string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, ValidArgsFunction: s.completeUnitsAndFiles,
		RunE: s.reporting(func(ctx context.Context, args []string) error { return s.bring(ctx, a, args) })}
	cmd.Flags().BoolVar(&a.replace, "replace", false, "give the cluster the local file's text if it has another")
	if a.goal != inactive {
		a.waitFlags(cmd)
		return cmd
	}
	s.oldFlag(cmd.Flags(), "sign", "units have no signatures; certificates say who may change them", nil).NoOptDefVal = "true"
	return cmd
}

func (a *action) waitFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.noBlock, "no-block", false, "do not wait")
	cmd.Flags().IntVar(&a.attempts, "block-attempts", 0,
		"wait at most this many times 2 s; 0: until it is done, fails, or nothing has happened for "+quiet.String())
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case a.attempts < 0:
			return fault.Usage("--block-attempts %d: want 0 or more", a.attempts)
		case a.noBlock && a.attempts > 0:
			return fault.Usage("--no-block and --block-attempts: give one of them")
		}
		return nil
	}
}

// bring makes the cluster know the units and asks for them to be what the action
// says. Nothing is sent unless every argument is good.
func (s *session) bring(ctx context.Context, a *action, args []string) error {
	if len(args) == 0 {
		s.warn("No units given")
		return nil
	}
	w, err := s.watchNamed(ctx, args)
	if err != nil {
		return sentence("Error creating units: %w", err)
	}
	defer w.stop()
	units, err := s.lookup(ctx, a, w.pic, args)
	if err != nil {
		return s.each("Error creating units: ", err)
	}
	for _, u := range units {
		if a.goal != inactive && unitfile.IsTemplate(u.name) {
			err = errors.Join(err, fault.Hint(fmt.Errorf("cannot activate template %q", u.name),
				"%s an instance of it, such as %s", a.verb, instanceOf(u.name)))
		}
	}
	if err != nil {
		return s.each("Error "+a.doing+" units: ", err)
	}
	return s.ask(ctx, a, w, units)
}

// instanceOf is an example of a template's instances.
func instanceOf(template string) string {
	prefix, _, typ := unitfile.Split(template)
	return prefix + "@1." + typ
}

// lookup finds every unit that the arguments name.
func (s *session) lookup(ctx context.Context, a *action, pic *picture, args []string) ([]found, error) {
	names, err := expandBraces(args)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range names {
		if !isGlob(n) {
			all = append(all, n)
			continue
		}
		sel, err := choose([]string{n}, pic.names())
		if err != nil {
			return nil, err
		}
		if len(sel.names) == 0 {
			return nil, fmt.Errorf("no unit in Registry matches %s", n)
		}
		all = append(all, sel.names...)
	}
	f := &finder{s: s, client: s.client, known: pic.units, fetched: map[string]unitfile.Bundle{}}
	if a.replace {
		f.replace = a.replaces
	}
	return f.find(ctx, all)
}

// each reports every error of a joined error on its own, all behind the same words,
// and returns what makes the command fail. What is wrong with a template is said once,
// however many of its instances were named.
func (s *session) each(prefix string, err error) error {
	if code := fault.ExitCode(err); code == fault.ExitUsage {
		return err
	}
	said := map[string]bool{}
	for _, e := range split(err) {
		if said[e.Error()] {
			continue
		}
		said[e.Error()] = true
		var bad *unitfile.ParseError
		if errors.As(e, &bad) {
			s.report(e) // each of its lines begins with the file
			continue
		}
		s.report(fmt.Errorf("%s%w", prefix, e))
	}
	return fault.Code(fault.ExitFailed, fault.ErrSilent)
}

// split takes a joined error apart.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

// request is what is sent about one unit.
type request struct {
	want
	put     *api.Unit // nil with destroy: delete; nil without: nothing to send, only to wait for
	destroy bool
	create  bool
	global  bool
	lasting bool  // not waited for: it may take for ever
	err     error // the server refused it
	missing bool  // to be destroyed and not there any more
}

// ask sends what has to be sent about the units, and waits.
func (s *session) ask(ctx context.Context, a *action, w *watching, units []found) error {
	var requests []*request
	for _, u := range units {
		if r := a.request(u, w.pic); r != nil {
			requests = append(requests, r)
		}
	}
	if n := abreast(units); n == 1 {
		s.send(ctx, requests, n)
	} else {
		s.send(ctx, s.create(ctx, requests), n)
	}
	for _, r := range requests {
		if r.err == nil && r.create && !r.global {
			fmt.Fprintf(s.env.Stdout, "Unit %s inactive\n", r.unit)
		}
	}
	if a.goal == inactive {
		return s.refused(a, requests)
	}
	_, err := s.follow(ctx, a, w, requests)
	return err
}

// request is what brings a unit to the action's goal; nil if it is there.
func (a *action) request(f found, pic *picture) *request {
	u := pic.units[f.name]
	r := &request{want: want{unit: f.name, goal: a.goal, before: u.Generation}, global: f.exists && u.CurrentState == ""}
	r.failedBefore = pic.states[f.name][u.MachineID].SystemdActiveState == "failed"
	if f.file != nil {
		r.create = !f.exists
		r.global = isGlobal(f.file.Effective())
		r.hash = f.file.Hash()
		r.changes(pic)
		r.put = putOf(f.name, a.goal, *f.file)
		return r
	}
	if a.goal == inactive {
		return nil // submitting what the cluster has changes nothing
	}
	if due(a.goal, u, pic.states[f.name]) {
		r.put = &api.Unit{Name: f.name, DesiredState: a.goal}
		return r
	}
	r.before = 0 // asked before, and perhaps not there yet
	if r.global || judge(r.want, pic).kind == done {
		return nil
	}
	return r
}

// changes notes what the new text of a unit that is there takes: what runs is rolled
// over, and so is a global unit, which is waited for then.
func (r *request) changes(pic *picture) {
	r.rolledBefore = pic.endedRoll(r.unit)
	r.want.global = r.global && len(pic.running(r.unit)) > 0 && pic.units[r.unit].DesiredState == launched && pic.units[r.unit].Generation > 0
}

// abreast is how many of the requests about the units may be under way at once. Each is
// placed as soon as it is there, so that of units which say where others may be, the
// first named is to come first; a handful goes in order whatever they say.
func abreast(units []found) int {
	const handful = parallel
	if len(units) <= handful || slices.ContainsFunc(units, minds) {
		return 1
	}
	return parallel
}

// minds tells whether a unit's text, where it is at hand, says where it may be beside
// others.
func minds(f found) bool {
	if f.file == nil {
		return false
	}
	text := f.file.Effective()
	return len(text.Fleet(unitfile.Conflicts))+len(text.Fleet(unitfile.MachineOf)) > 0
}

// together is how many new units are made by one request.
const together = 100

// create makes those of the units that are new, many in one request, and returns the
// requests that have to be sent one by one: those about others, and all those of a group
// that the server did not take, because it knows no such request or one unit is refused.
func (s *session) create(ctx context.Context, requests []*request) (rest []*request) {
	var fresh []*request
	for _, r := range requests {
		if r.create && r.put != nil {
			fresh = append(fresh, r)
		} else {
			rest = append(rest, r)
		}
	}
	for group := range slices.Chunk(fresh, together) {
		body := api.ApplyRequest{New: true}
		for _, r := range group {
			body.Units = append(body.Units, *r.put)
		}
		if _, err := s.client.Apply(ctx, body); err != nil {
			rest = append(rest, group...)
		}
	}
	return rest
}

// send sends requests in order, with so many under way at once, and notes how each one
// went.
func (s *session) send(ctx context.Context, requests []*request, abreast int) {
	var g errgroup.Group
	g.SetLimit(abreast)
	for _, r := range requests {
		g.Go(func() error {
			switch {
			case r.destroy:
				r.err = s.client.Destroy(ctx, r.unit)
				if errors.Is(r.err, fleet.ErrNotExist) {
					r.err, r.missing = nil, true
				}
			case r.put != nil:
				_, r.err = s.client.Put(ctx, *r.put)
			}
			return nil // every request counts for itself
		})
	}
	_ = g.Wait() // never an error: see above
}

// refused reports the requests that the server refused.
func (s *session) refused(a *action, requests []*request) error {
	var err error
	said := map[string]bool{}
	for _, r := range requests {
		if r.err == nil {
			continue
		}
		doing := a.doing
		if r.create {
			doing = "creating"
		}
		err = fault.Code(fault.ExitFailed, fault.ErrSilent)
		// A server that is away refuses a hundred units with the same words.
		if text := r.err.Error(); !said[text] {
			said[text] = true
			s.report(sentence("Error %s units: %s: %w", doing, r.unit, r.err))
		}
	}
	return err
}

// follow says what became of requests that the server took: at once for global
// units and with --no-block, else when the unit is where it was asked to be. It
// returns the units that came there, in the order they were asked.
func (s *session) follow(ctx context.Context, a *action, w *watching, requests []*request) (reached []string, err error) {
	err = s.refused(a, requests)
	var wants []want
	for _, r := range requests {
		switch {
		case r.err != nil || r.missing:
		case r.destroy && !a.noBlock:
			wants = append(wants, r.want)
		case r.destroy:
			fmt.Fprintf(s.env.Stdout, "Destroyed %s\n", r.unit)
		case r.global && !r.want.global:
			fmt.Fprintf(s.env.Stdout, "Triggered global unit %s %s\n", r.unit, a.verb)
		case a.noBlock || r.lasting:
			fmt.Fprintf(s.env.Stdout, "Triggered unit %s %s\n", r.unit, a.verb)
		default:
			wants = append(wants, r.want)
		}
	}
	if len(wants) == 0 {
		return nil, err
	}
	var bad []outcome
	there := map[string]bool{}
	waitErr := s.wait(ctx, w, wants, limits{attempts: a.attempts}, func(o outcome) {
		if o.timedOut > 0 || o.kind == failed {
			bad = append(bad, o)
			delete(there, o.unit)
			return
		}
		there[o.unit] = true
		fmt.Fprintln(s.env.Stdout, reachedSentence(o, w.pic))
	})
	if len(bad) > 0 {
		s.failures(ctx, a, w.pic, bad)
	}
	if waitErr != nil {
		s.report(sentence("Error waiting for units: %w", waitErr))
	}
	if len(bad) > 0 || waitErr != nil {
		err = fault.Code(fault.ExitFailed, fault.ErrSilent)
	}
	for _, w := range wants {
		if there[w.unit] {
			reached = append(reached, w.unit)
		}
	}
	return reached, err
}

// reachedSentence is what is said of a unit that is where it was asked to be.
func reachedSentence(o outcome, pic *picture) string {
	switch o.goal {
	case gone:
		return "Destroyed " + o.unit
	case inactive:
		return fmt.Sprintf("Unit %s inactive", o.unit)
	}
	if o.global {
		return fmt.Sprintf("Unit %s %s on %s", o.unit, o.goal, count(len(pic.running(o.unit)), "machine"))
	}
	return fmt.Sprintf("Unit %s %s on %s", o.unit, o.goal, pic.machine(o.machine))
}

// count is "1 machine", "2 machines".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (s *session) stop() *cobra.Command {
	a := &action{verb: "stop", doing: "stopping", goal: loaded}
	return s.taking(a, "stop UNIT|PATTERN...", "stop units; they stay loaded on their machines")
}

func (s *session) unload() *cobra.Command {
	a := &action{verb: "unload", doing: "unloading", goal: inactive}
	return s.taking(a, "unload UNIT|PATTERN...", "stop units and take them off their machines")
}

func (s *session) destroy() *cobra.Command {
	a := &action{verb: "destroy", doing: "destroying", goal: gone}
	return s.taking(a, "destroy UNIT|PATTERN...", "stop units and make the cluster forget them")
}

func (s *session) taking(a *action, use, short string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, ValidArgsFunction: s.completeUnits,
		RunE: s.reporting(func(ctx context.Context, args []string) error { return s.take(ctx, a, args) })}
	a.waitFlags(cmd)
	return cmd
}

// take stops, unloads or destroys units that the cluster knows. Names that it does
// not know are told and passed over.
func (s *session) take(ctx context.Context, a *action, args []string) error {
	if len(args) == 0 {
		s.warn("No units given")
		return nil
	}
	w, err := s.watchNamed(ctx, args)
	if err != nil {
		return sentence("Error retrieving list of units from repository: %w", err)
	}
	defer w.stop()
	sel, err := choose(args, w.pic.names())
	if err != nil {
		return err
	}
	if len(sel.names) == 0 {
		s.warn("Units not found in registry")
		return nil
	}
	for _, name := range sel.unknown {
		s.warn("Unit %s not found in registry, passed over", name)
	}
	requests, err := s.takeRequests(a, w.pic, sel)
	if err != nil {
		return err
	}
	s.send(ctx, requests, parallel)
	reached, err := s.follow(ctx, a, w, requests)
	if past := map[string]string{"stop": "stopped", "unload": "unloaded"}[a.verb]; past != "" && len(reached) > 0 {
		s.warn("Successfully %s units %v.", past, reached)
	}
	return err
}

// takeRequests is what has to be sent about the units. Stopping by name what is on
// no machine is an error, and then nothing is sent at all.
func (s *session) takeRequests(a *action, pic *picture, sel selection) ([]*request, error) {
	var requests []*request
	var refused []string
	for _, name := range sel.names {
		u := pic.units[name]
		r := &request{want: want{unit: name, goal: a.goal, before: u.Generation}, global: u.CurrentState == ""}
		r.destroy = a.goal == gone
		switch {
		case r.destroy:
		case a.verb == "stop" && u.CurrentState == inactive && u.DesiredState == launched:
			// It waits for a machine: it must not start when there is one.
			r.put, r.lasting = &api.Unit{Name: name, DesiredState: a.goal}, true
		case a.verb == "stop" && u.CurrentState == inactive:
			if !sel.byGlob[name] {
				refused = append(refused, name)
			}
			continue
		case !due(a.goal, u, pic.states[name]):
			continue
		default:
			r.put = &api.Unit{Name: name, DesiredState: a.goal}
		}
		requests = append(requests, r)
	}
	for _, name := range refused {
		s.warn("Unable to stop unit %s in state inactive", name)
	}
	if len(refused) > 0 {
		return nil, fault.Code(fault.ExitFailed, fault.ErrSilent)
	}
	return requests, nil
}

// failures reports the units that did not come where they were asked to, with the
// end of their logs where these may say why.
func (s *session) failures(ctx context.Context, a *action, pic *picture, bad []outcome) {
	var hints []string
	told := map[string]bool{} // rolls
	for _, o := range bad {
		hint := ""
		switch {
		case o.roll != "" && told[o.roll]:
		case o.roll != "":
			told[o.roll] = true
			s.rollFailure(a.failing(o.unit), pic, pic.rolls[o.roll])
		case o.timedOut > 0:
			s.warn("%stimed out waiting for unit %s to report state %s: after %d s it still waits for %s",
				a.failing(o.unit), o.unit, o.goal, int(o.timedOut.Seconds()), o.text)
			hint = "the request stands: 'fleetctl list-units' and 'fleetctl list-unit-files' show how far it has come"
		case o.machine == "":
			s.warn("%sunit %s: %s", a.failing(o.unit), o.unit, o.text)
			if u := pic.units[o.unit]; u.DesiredState == o.goal {
				hint = fmt.Sprintf("the request stands, and is met as soon as a machine can; 'fleetctl unload %s' takes it back", o.unit)
			}
		default:
			s.warn("%sunit %s %s", a.failing(o.unit), o.unit, o.text)
			if o.logs {
				s.tail(ctx, o.unit, o.refused)
			}
		}
		if hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	for _, h := range hints {
		s.warn("hint: %s", h)
	}
}

// rollFailure says why a roll went back, with the failing unit's last words.
func (s *session) rollFailure(before string, pic *picture, r api.Roll) {
	s.warn("%sthe roll of %s went back to the text before: %s", before, r.Group, orDash(model.OneLine(r.Why)))
	if r.Failed == "" {
		return
	}
	s.warn("Unit %s failed with the new text on %s:", r.Failed, orDash(pic.machine(r.Machine)))
	for _, line := range r.Log {
		s.warn("  %s", line)
	}
}

// failing is how the sentence about a failed wait begins.
func (a *action) failing(unit string) string {
	switch a.verb {
	case "stop", "unload", "destroy":
		return fmt.Sprintf("Failed to %s units [%s]. err: ", a.verb, unit)
	}
	return "Error waiting for units: "
}
