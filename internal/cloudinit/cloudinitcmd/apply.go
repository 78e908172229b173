package cloudinitcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/cloudinit/apply"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
	"flotilla/internal/fault"
)

// runApply reads the first source and makes the machine what its document asks for.
func (p *program) runApply(ctx context.Context, sources []source.Source) error {
	if os.Geteuid() != 0 && p.root == "/" {
		return fault.Hint(errors.New("this machine can be changed by root alone"), "try -dry-run, or -root=DIR")
	}
	h, err := apply.Open(ctx, p.root, p.cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	s, err := p.first(ctx, sources)
	if err != nil {
		return err
	}
	unlock, err := p.store(h).Lock(ctx, func() { p.say("waiting for another run to end") })
	if err != nil {
		// Two runs at once are better than a machine without keys.
		p.say("%s: %v", p.name(), err)
		unlock = func() {}
	}
	defer unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	in, made, err := p.planFrom(ctx, h, s)
	if err != nil {
		return err
	}
	return p.carry(ctx, h, in, made)
}

// carry carries the plan out and keeps a result of it, from the beginning on.
func (p *program) carry(ctx context.Context, h *apply.Host, in *input, made plan.Plan) error {
	store := p.store(h)
	r := apply.Result{Version: applet.Version, Source: in.from, Started: time.Now().UTC(), Boot: h.Boot, State: apply.Running,
		Errors: texts(in.errs), Findings: in.findings, Notes: made.Notes}
	if !p.json() {
		p.showInput(in)
		p.showNotes(made)
	}
	var errs []error
	if len(made.Steps) > 0 {
		errs = append(errs, store.SaveResult(r))
	}
	var err error
	r.Steps, err = apply.Carry(ctx, machine{h, store, p.say}, made, apply.Options{
		Boot: h.Boot, Queued: h.NoBlock, Begin: p.begin, End: p.end,
	})
	errs = append(errs, err)
	r.Ended = time.Now().UTC()
	r.State = stateOf(r, p.failedBefore(in, made) || errors.Join(errs...) != nil)
	errs = append(errs, store.SaveResult(r))
	if err := errors.Join(errs...); err != nil {
		r.State, r.Errors = apply.HasFailed, append(r.Errors, err.Error())
		fault.Print(p.env.Stderr, p.name(), err)
	}
	return p.conclude(r)
}

// machine is a host with its record.
type machine struct {
	*apply.Host
	store apply.Store
	say   func(format string, args ...any)
}

// patience is how long a command may take before it is said what is waited for.
const patience = 5 * time.Second

// Do says what is waited for if a command takes long: a member of a new cluster is not
// ready before the others are there.
func (m machine) Do(ctx context.Context, s plan.Step) error {
	if s.Kind != plan.Command {
		return m.Host.Do(ctx, s)
	}
	done := make(chan error, 1)
	go func() { done <- m.Host.Do(ctx, s) }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		m.say("waiting for %s to %s; how far it is: systemctl status %s", s.Target, s.Verb, s.Target)
	}
	return <-done
}

func (m machine) Save(r plan.Record) error { return m.store.Save(r) }

func (p *program) begin(s plan.Step) {
	if !p.json() {
		fmt.Fprintln(p.env.Stdout, s)
	}
}

// slow is how long a step may take before it is said how long it took.
const slow = time.Second

func (p *program) end(s plan.Step, o apply.Outcome) {
	switch {
	case o.Status == apply.Failed || o.Status == apply.Skipped:
		what := fmt.Sprintf("%s %s", s.Kind, s.Target)
		if s.Kind == plan.Command {
			what = s.Verb + " " + s.Target
		}
		p.say("%s: %s: %s: %s", p.name(), what, o.Status, o.Error)
	case p.json():
	case o.Elapsed >= slow:
		fmt.Fprintf(p.env.Stdout, "         %s after %s\n", o.Status, o.Elapsed.Round(100*time.Millisecond))
	}
}

func stateOf(r apply.Result, failed bool) apply.RunState {
	state := apply.Succeeded
	if len(r.Steps) == 0 {
		state = apply.Unchanged
	}
	if failed {
		state = apply.HasFailed
	}
	for _, o := range r.Steps {
		switch o.Status {
		case apply.Failed, apply.Skipped:
			state = apply.HasFailed
		case apply.NotReached:
			return apply.WasCut
		}
	}
	return state
}

func (p *program) conclude(r apply.Result) error {
	if p.json() {
		if err := cli.JSON(p.env.Stdout, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(p.env.Stdout, summary(r))
	}
	if r.State == apply.HasFailed || r.State == apply.WasCut {
		return fault.Code(fault.ExitFailed, fault.ErrSilent)
	}
	return nil
}

// summary is a run in one line.
func summary(r apply.Result) string {
	counts := map[apply.Status]int{}
	for _, o := range r.Steps {
		counts[o.Status]++
	}
	text := "nothing to do"
	if len(r.Steps) > 0 {
		text = fmt.Sprintf("%d of %d changes made", counts[apply.Done]+counts[apply.Queued], len(r.Steps))
	}
	for _, s := range []apply.Status{apply.Queued, apply.Failed, apply.Skipped, apply.NotReached} {
		if counts[s] > 0 {
			text += fmt.Sprintf(", %d %s", counts[s], s)
		}
	}
	if r.State == apply.HasFailed && counts[apply.Failed] == 0 {
		text += "; something was wrong before, see above"
	}
	return text
}

// showStatus says how the last runs ended. It fails if one of them did.
func (p *program) showStatus() error {
	t, err := apply.OpenTree(p.root)
	if err != nil {
		return err
	}
	defer t.Close()
	results, err := apply.Results(t, p.workspace)
	if err != nil {
		return err
	}
	if p.json() {
		err = cli.JSON(p.env.Stdout, results)
	} else {
		p.printResults(results)
	}
	for _, r := range results {
		if err == nil && (r.State == apply.HasFailed || r.State == apply.WasCut) {
			err = fault.Code(fault.ExitFailed, fault.ErrSilent)
		}
	}
	return err
}
