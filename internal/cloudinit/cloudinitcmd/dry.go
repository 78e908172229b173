package cloudinitcmd

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"flotilla/internal/cli"
	"flotilla/internal/cloudinit/apply"
	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
	"flotilla/internal/fault"
)

// preview is a plan as JSON.
type preview struct {
	Source   string           `json:"source"`
	Changes  int              `json:"changes"`
	Errors   []string         `json:"errors,omitempty"`
	Findings []config.Finding `json:"findings,omitempty"`
	Notes    []plan.Note      `json:"notes,omitempty"`
	Steps    []previewStep    `json:"steps"`
}

type previewStep struct {
	Kind   plan.Kind `json:"kind"`
	Target string    `json:"target"`
	Verb   string    `json:"verb,omitempty"`
	Set    string    `json:"set,omitempty"`
	Why    string    `json:"why"`
	Mode   string    `json:"mode,omitempty"`
	Owner  string    `json:"owner,omitempty"`
	Diff   string    `json:"diff,omitempty"`
}

// runDry shows the plan.
func (p *program) runDry(ctx context.Context, sources []source.Source) error {
	h, err := apply.Open(ctx, p.root, p.cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	in, made, err := p.plan(ctx, h, sources)
	if err != nil {
		return err
	}
	if p.json() {
		err = cli.JSON(p.env.Stdout, asPreview(in, made))
	} else {
		p.showInput(in)
		p.showNotes(made)
		p.showPlan(made)
	}
	switch {
	case err != nil:
		return err
	case p.failedBefore(in, made):
		return fault.Code(fault.ExitFailed, fault.ErrSilent)
	case len(made.Steps) > 0:
		return fault.Code(exitChanges, fault.ErrSilent)
	}
	return nil
}

// plan reads the first source and makes the plan for the machine.
func (p *program) plan(ctx context.Context, h *apply.Host, sources []source.Source) (*input, plan.Plan, error) {
	s, err := p.first(ctx, sources)
	if err != nil {
		return nil, plan.Plan{}, err
	}
	return p.planFrom(ctx, h, s)
}

func (p *program) planFrom(ctx context.Context, h *apply.Host, s source.Source) (*input, plan.Plan, error) {
	record, err := p.store(h).Load()
	if err != nil {
		// Keys have to get onto the machine whatever has become of its disk.
		p.say("%v: going on as if nothing had been run before", err)
	}
	in := p.read(ctx, s, record)
	have, err := h.Look(ctx, in.want, record)
	if err != nil {
		return nil, plan.Plan{}, err
	}
	return in, plan.Make(in.want, have), nil
}

func (p *program) store(h *apply.Host) apply.Store {
	return apply.Store{Tree: h.Tree, Dir: p.workspace, Name: p.record}
}

// failedBefore reports whether something has gone wrong before the first step.
func (p *program) failedBefore(in *input, made plan.Plan) bool {
	if in.bad || made.Problems() > 0 {
		return !p.ignoreFailure
	}
	return len(in.errs) > 0
}

// showInput says what is wrong with the source and its document.
func (p *program) showInput(in *input) {
	for _, err := range in.errs {
		fault.Print(p.env.Stderr, p.name(), err)
	}
	for _, f := range in.findings {
		p.say("%s", f)
	}
}

func (p *program) showNotes(made plan.Plan) {
	for _, n := range made.Notes {
		kind := "note"
		if n.Problem {
			kind = "error"
		}
		p.say("%s: %s: %s", kind, n.Target, n.Text)
	}
}

func (p *program) showPlan(made plan.Plan) {
	if len(made.Steps) == 0 {
		fmt.Fprintln(p.env.Stdout, "nothing to do")
		return
	}
	for _, s := range made.Steps {
		fmt.Fprintln(p.env.Stdout, s)
		for line := range strings.Lines(stepDiff(s)) {
			fmt.Fprint(p.env.Stdout, "    ", line)
		}
	}
}

func asPreview(in *input, made plan.Plan) preview {
	out := preview{Source: in.from, Changes: len(made.Steps), Errors: texts(in.errs), Findings: in.findings,
		Notes: made.Notes, Steps: []previewStep{}}
	for _, s := range made.Steps {
		ps := previewStep{Kind: s.Kind, Target: s.Target, Verb: s.Verb, Set: s.Set, Why: s.Why, Owner: s.Owner, Diff: stepDiff(s)}
		if s.Mode != 0 {
			ps.Mode = fmt.Sprintf("%04o", s.Mode)
		}
		out.Steps = append(out.Steps, ps)
	}
	return out
}

func texts(errs []error) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

// stepDiff is the change of a file in the unified format; "" for other steps.
func stepDiff(s plan.Step) string {
	switch s.Kind {
	case plan.WriteTo, plan.Keys, plan.Remove:
	default:
		return ""
	}
	from, to := s.Target, s.Target
	if s.Kind == plan.Keys {
		from, to = "authorized_keys", "authorized_keys"
	}
	if !s.Existed {
		from = "/dev/null"
	}
	if s.Kind == plan.Remove {
		to = "/dev/null"
	}
	var b strings.Builder
	if s.Existed && s.Kind == plan.WriteTo && s.OldLink == "" && s.OldMode != s.Mode {
		fmt.Fprintf(&b, "mode %04o becomes %04o\n", s.OldMode, s.Mode)
	}
	if !utf8.Valid(s.Old) || !utf8.Valid(s.New) {
		if !bytes.Equal(s.Old, s.New) {
			fmt.Fprintf(&b, "binary: %d bytes become %d\n", len(s.Old), len(s.New))
		}
		return b.String()
	}
	d := diff.Diff(from, s.Old, to, s.New)
	_, d, _ = bytes.Cut(d, []byte("\n")) // "diff A B", which only says the names again
	b.Write(d)
	return b.String()
}
