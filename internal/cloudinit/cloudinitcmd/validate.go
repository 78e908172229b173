package cloudinitcmd

import (
	"context"
	"fmt"
	"slices"

	"flotilla/internal/cli"
	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/source"
	"flotilla/internal/fault"
)

// verdict is what is wrong with one document.
type verdict struct {
	Document string    `json:"document"`
	Findings []finding `json:"findings"`
}

// finding is one, and where its lines are counted from: the document, or a part of it.
type finding struct {
	config.Finding
	in string
}

// place is FILE:LINE:COLUMN, and the key that stands there.
func (f finding) place() string {
	at := fmt.Sprintf("%s:%d", f.in, f.Line)
	if f.Column > 0 {
		at += fmt.Sprintf(":%d", f.Column)
	}
	if f.Key != "" {
		at += ", " + f.Key
	}
	return at
}

func (v *verdict) add(part string, findings []config.Finding) {
	in := v.Document
	if part != "" {
		in += " (" + part + ")"
	}
	for _, f := range inPart(part, findings) {
		v.Findings = append(v.Findings, finding{f, in})
	}
}

// runValidate says what is wrong with documents. It looks at them as they are written:
// variables have values on a machine only.
func (p *program) runValidate(ctx context.Context, sources []source.Source, files []string) error {
	var verdicts []verdict
	if len(sources) > 0 {
		s, err := p.first(ctx, sources)
		if err != nil {
			return err
		}
		v, err := validate(ctx, s)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	for _, name := range files {
		s := source.File(name)
		if err := s.Available(ctx); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		v, err := validate(ctx, s)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	return p.showVerdicts(verdicts)
}

func validate(ctx context.Context, s source.Source) (verdict, error) {
	data, err := s.UserData(ctx)
	if err != nil {
		return verdict{}, fmt.Errorf("read %s: %w", s.Name(), err)
	}
	v := verdict{Document: s.Name(), Findings: []finding{}}
	parts, findings := config.Open(data)
	v.add("", findings)
	for _, part := range parts {
		_, found := readPart(part)
		v.add(part.Name, found)
	}
	return v, nil
}

// readPart reads one part that is a document, or that is nothing known, for which the
// parser has the right words.
func readPart(part config.Part) (config.Document, []config.Finding) {
	if part.Kind == config.CloudConfig || part.Kind == config.Unknown {
		return config.Parse(part.Text)
	}
	return config.Document{}, nil
}

// inPart says which part of several findings are about.
func inPart(name string, findings []config.Finding) []config.Finding {
	if name == "" {
		return findings
	}
	out := slices.Clone(findings)
	for i := range out {
		out[i].Message = name + ": " + out[i].Message
	}
	return out
}

func (p *program) showVerdicts(verdicts []verdict) error {
	var err error
	if p.json() {
		err = cli.JSON(p.env.Stdout, verdicts)
	}
	bad := false
	for _, v := range verdicts {
		bad = bad || len(v.Findings) > 0
		for _, f := range v.Findings {
			if p.json() {
				continue
			}
			if len(verdicts) > 1 {
				fmt.Fprintf(p.env.Stdout, "%s: ", v.Document)
			}
			fmt.Fprintf(p.env.Stdout, "%s\n    at %s\n", f, f.place())
		}
	}
	if err == nil && bad {
		return fault.Code(fault.ExitFailed, fault.ErrSilent)
	}
	return err
}
