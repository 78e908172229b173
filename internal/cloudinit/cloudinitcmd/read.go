package cloudinitcmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/netconf"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
)

// input is what a source gave, made into what is wanted of the machine, and all that
// was wrong on the way. It is never wrong as a whole: a bad document still leaves the
// host name and the keys that the source itself gives.
type input struct {
	want     plan.Wanted
	from     string // what was read
	findings []config.Finding
	errs     []error // of the source: metadata, network configuration, imported keys
	bad      bool    // the user data could not be read, or is wrong somewhere
}

// read reads a source. record says which addresses of the environment are no news.
func (p *program) read(ctx context.Context, s source.Source, record plan.Record) *input {
	in := &input{from: s.Type() + " " + s.Name()}
	meta, err := s.Metadata(ctx)
	if err != nil {
		in.errs = append(in.errs, fmt.Errorf("metadata of %s: %w", in.from, err))
	}
	in.want = plan.Wanted{
		Hostname: meta.Hostname, KeySet: p.keySet, Scratch: p.workspace, Prune: p.prune,
	}
	for _, name := range slices.Sorted(maps.Keys(meta.SSHKeys)) {
		in.want.SSHKeys = append(in.want.SSHKeys, meta.SSHKeys[name])
	}
	in.network(p.from.ConvertNetconf, meta.NetworkConfig)

	data, err := s.UserData(ctx)
	if err != nil {
		in.errs, in.bad = append(in.errs, fmt.Errorf("user data of %s: %w", in.from, err)), true
		in.want.Prune = false // what is not known to be gone is not taken back
		return in
	}
	parts, findings := config.Open(data)
	in.found("", findings)
	vars := p.addresses(meta, parts, record)
	in.documents(parts, vars.values)
	for _, name := range slices.Sorted(maps.Keys(vars.values)) {
		in.want.Addrs = append(in.want.Addrs, plan.Variable{Name: variable(name), Value: vars.values[name]})
	}
	in.want.Origins = vars.detected
	in.want.Prune = in.want.Prune && !in.bad
	p.importKeys(ctx, in)
	return in
}

func (in *input) found(part string, findings []config.Finding) {
	for _, f := range inPart(part, findings) {
		in.findings = append(in.findings, f)
		in.bad = in.bad || f.Severity == config.Error
	}
}

// documents reads the parts: documents are merged, scripts come after them in order.
func (in *input) documents(parts []config.Part, vars config.Vars) {
	var docs []config.Document
	for _, part := range parts {
		text, unknown := config.Substitute(part.Text, vars)
		in.found(part.Name, unknown)
		switch {
		case part.Kind == config.Ignition:
			in.found(part.Name, []config.Finding{{Line: 1, Severity: config.Info, Message: "is a document of Ignition: nothing is done"}})
		case part.Kind == config.Script && len(unknown) > 0:
			in.found(part.Name, []config.Finding{{Line: 1, Severity: config.Error, Message: "the script is not run: a variable of it has no value"}})
		case part.Kind == config.Script:
			in.want.Scripts = append(in.want.Scripts, text)
		default:
			part.Text = text
			doc, findings := readPart(part)
			in.found(part.Name, findings)
			docs = append(docs, doc)
		}
	}
	in.want.Document = plan.Merge(docs)
}

// network converts the description of the network that the source gives.
func (in *input) network(format string, description []byte) {
	if format == "" || len(description) == 0 {
		return
	}
	files, ignored, err := netconf.Convert(format, description)
	if err != nil {
		in.errs = append(in.errs, err)
	}
	for _, text := range ignored {
		in.findings = append(in.findings, config.Finding{Severity: config.Info, Message: "network configuration: " + text})
	}
	for _, f := range files {
		in.want.Network = append(in.want.Network, config.Unit{Name: f.Name, Content: f.Content, Runtime: true})
	}
}

// variable is the name that an address has in the environment.
func variable(name string) string { return "COREOS_" + strings.ToUpper(name) }
