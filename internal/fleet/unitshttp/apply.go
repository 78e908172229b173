package unitshttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

// Limits of POST apply: the body in bytes, and how many units it may name.
const (
	maxApplyBody  = 16 << 20
	maxApplyUnits = 2000
)

// intent is one unit of POST apply, found to be in order.
type intent struct {
	name  string
	text  unitfile.Bundle
	hash  string
	want  model.State
	state bool // want was given
	req   model.Requirements
}

// problems is what is wrong with a request, unit by unit.
type problems []fleet.Problem

func (p problems) Error() string {
	if len(p) == 1 {
		return p.text(0)
	}
	return fmt.Sprintf("%d problems: %s, and others", len(p), p.text(0))
}

func (p problems) text(i int) string {
	if p[i].Unit == "" {
		return p[i].Message
	}
	return p[i].Unit + ": " + p[i].Message
}

// readIntents judges every unit of a request and tells every problem.
func readIntents(units []fleet.Unit) ([]intent, error) {
	var out []intent
	var bad problems
	seen := map[string]bool{}
	for _, u := range units {
		in, wrong := readIntent(u)
		if seen[u.Name] {
			wrong = append(wrong, "it is given twice")
		}
		seen[u.Name] = true
		for _, msg := range wrong {
			bad = append(bad, fleet.Problem{Unit: u.Name, Message: msg})
		}
		out = append(out, in)
	}
	if len(bad) > 0 {
		return nil, bad
	}
	slices.SortFunc(out, func(a, b intent) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func readIntent(u fleet.Unit) (in intent, wrong []string) {
	if err := unitfile.CheckName(u.Name); err != nil {
		return in, []string{err.Error()}
	}
	in.name = u.Name
	if u.DesiredState != "" {
		want, err := model.ParseState(u.DesiredState)
		switch {
		case err != nil:
			wrong = append(wrong, "invalid desiredState: "+err.Error())
		case want != model.Inactive && unitfile.IsTemplate(u.Name):
			wrong = append(wrong, fmt.Sprintf("cannot activate template %q", u.Name))
		}
		in.want, in.state = want, true
	}
	text, err := bundleOf(u)
	switch {
	case err != nil:
		return in, append(wrong, err.Error())
	case len(text.Main.Options) == 0:
		return in, append(wrong, "it has no options")
	}
	req, _, refused := model.ParseRequirements(u.Name, text.Effective())
	for _, p := range refused {
		wrong = append(wrong, p.String())
	}
	in.text, in.hash, in.req = text, text.Hash(), req
	return in, wrong
}

// plan is what it takes to carry intents out.
type plan struct {
	writes  []registry.UnitWrite
	changes []fleet.UnitChange
}

// planApply compares intents, in order of name, with what there is. With follow the
// instances of a template get its new text: see followers.
func planApply(v *registry.View, intents []intent, follow bool) plan {
	var p plan
	named := map[string]bool{}
	for _, in := range intents {
		named[in.name] = true
	}
	for _, in := range intents {
		u, exists := v.Unit(in.name)
		change, write := in.compare(u, exists)
		write.Rev = v.ObjectRev(in.name)
		if follow && unitfile.IsTemplate(in.name) {
			for _, i := range followers(v, in.name, change) {
				if named[i.Name] {
					continue
				}
				change.Instances = append(change.Instances, i.Name)
				p.writes = append(p.writes, registry.UnitWrite{Name: i.Name, Text: write.Text, Rev: v.ObjectRev(i.Name)})
			}
		}
		p.changes = append(p.changes, change)
		if change.Action != fleet.ActionUnchanged {
			p.writes = append(p.writes, write)
		}
	}
	return p
}

// compare says what becomes of the unit that there is.
func (in intent) compare(u model.Unit, exists bool) (fleet.UnitChange, registry.UnitWrite) {
	want := in.want
	if !in.state && exists {
		want = u.Desired
	}
	text := registry.Text{Canonical: in.text.String(), Hash: in.hash}
	change := fleet.UnitChange{Name: in.name, Action: fleet.ActionUnchanged, DesiredState: want.String(), FromHash: u.Hash, ToHash: in.hash}
	write := registry.UnitWrite{Name: in.name, Want: want, SetState: !exists || want != u.Desired}
	switch {
	case !exists:
		change.Action, change.FromHash, write.Text = fleet.ActionCreate, "", text
	case u.Hash != in.hash:
		change.Action, write.Text = fleet.ActionChange, text
	case want > u.Desired:
		change.Action = fleet.ActionStart
	case want < u.Desired:
		change.Action = fleet.ActionStop
	}
	return change, write
}

// followers are the instances that take over the new text of a template, in order of
// name: those that have the text it had. A template that is new is followed by all
// instances if they have one text in common, for then they were made of one file.
func followers(v *registry.View, template string, change fleet.UnitChange) []model.Unit {
	if change.Action != fleet.ActionChange && change.Action != fleet.ActionCreate {
		return nil
	}
	instances := slices.DeleteFunc(v.Units(), func(u model.Unit) bool {
		of, _ := unitfile.TemplateOf(u.Name)
		return of != template
	})
	had := change.FromHash
	if change.Action == fleet.ActionCreate && len(instances) > 0 {
		had = instances[0].Hash
		if slices.ContainsFunc(instances, func(u model.Unit) bool { return u.Hash != had }) {
			return nil
		}
	}
	return slices.DeleteFunc(instances, func(u model.Unit) bool { return u.Hash != had || had == change.ToHash })
}

// evicts is what all units together are to push off their machines, and do not bear
// beside them.
func evicts(intents []intent) (replaced, conflicting []string) {
	for _, in := range intents {
		replaced = append(replaced, in.req.Replaces...)
		conflicting = append(conflicting, in.req.Conflicts...)
	}
	return replaced, conflicting
}

func (s *Server) apply(w http.ResponseWriter, r *http.Request) error {
	var body fleet.ApplyRequest
	if err := decodeLimited(w, r, maxApplyBody, &body); err != nil {
		return err
	}
	if len(body.Units) > maxApplyUnits {
		return refuse(http.StatusRequestEntityTooLarge, "%d units in one request: at most %d", len(body.Units), maxApplyUnits)
	}
	if err := checkWhy(body.Why); err != nil {
		return err
	}
	if body.DryRun {
		p, err := s.planFor(r.Context(), body)
		if err != nil {
			return err
		}
		reply(w, http.StatusOK, fleet.ApplyReport{Changes: p.changes})
		return nil
	}
	req := access.Request{Kind: access.Units, Doing: "apply units"}
	var report fleet.ApplyReport
	err := s.audited(r, req, act{what: "apply"}, func(ctx context.Context, by string) ([]act, error) {
		p, err := s.applied(ctx, whoOf(r), body)
		report.Changes = p.changes
		return p.acts(body.Why), err
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, report)
	return nil
}

func (s *Server) planFor(ctx context.Context, body fleet.ApplyRequest) (plan, error) {
	intents, err := readIntents(body.Units)
	if err != nil {
		return plan{}, err
	}
	v, err := s.all.Read(ctx)
	if err != nil {
		return plan{}, err
	}
	p := planApply(v, intents, body.Follow)
	if i := slices.IndexFunc(p.changes, func(c fleet.UnitChange) bool { return c.Action != fleet.ActionCreate }); body.New && i >= 0 {
		return p, refuse(http.StatusConflict, "unit %s: %w", p.changes[i].Name, registry.ErrUnitExists)
	}
	return p, rollsFit(v, p.writes)
}

// rollsFit refuses changes of units that run whose roll could not be written down: it
// keeps each text that it may have to put back.
func rollsFit(v *registry.View, writes []registry.UnitWrite) error {
	rolls := map[string]model.Roll{}
	for _, w := range writes {
		u, ok := v.Unit(w.Name)
		if !ok || w.Text.Hash == "" || w.Text.Hash == u.Hash || u.Desired != model.Launched {
			continue
		}
		group := model.GroupOf(w.Name)
		r, ok := rolls[group]
		if !ok {
			r = model.Roll{Group: group, From: map[string]string{}, To: map[string]string{}, Texts: map[string]string{}}
			rolls[group] = r
		}
		r.From[w.Name], r.To[w.Name], r.Texts[u.Hash] = u.Hash, w.Text.Hash, u.Text
	}
	for _, group := range slices.Sorted(maps.Keys(rolls)) {
		r := rolls[group]
		if n := registry.RollSize(r) + rollSpare; n > registry.MaxRoll {
			return refuse(http.StatusRequestEntityTooLarge, "%w", fault.Hint(
				fmt.Errorf("the roll of %s would change %d units from %d different texts: its record would take %d bytes, of %d at most", group, len(r.To), len(r.Texts), n, registry.MaxRoll),
				"apply a part of these units, wait until that roll is done, then go on"))
		}
	}
	return nil
}

// rollSpare is left in the record of a roll for what it keeps beside the texts: what
// is being changed, and the last lines of a log.
const rollSpare = 64 << 10

// applied plans and writes, anew when a unit has changed in between.
func (s *Server) applied(ctx context.Context, who access.Who, body fleet.ApplyRequest) (p plan, err error) {
	intents, err := readIntents(body.Units)
	if err != nil {
		return p, err
	}
	if body.New {
		return s.created(ctx, who, body, intents)
	}
	for range maxRaces {
		var v *registry.View
		if v, err = s.all.Read(ctx); err != nil {
			return p, err
		}
		p = planApply(v, intents, body.Follow)
		if err = access.Decide(who, p.request(intents)); err != nil {
			return p, err
		}
		if err = rollsFit(v, p.writes); err != nil {
			return p, err
		}
		err = s.Store.Apply(ctx, p.writes, who.Name, cmp.Or(body.Why, "apply"))
		if !errors.Is(err, registry.ErrStale) {
			return p, err
		}
	}
	return p, refuse(http.StatusConflict, "units change all the time: %w", err)
}

// created writes units of which none may be there: nothing has to be read for that.
func (s *Server) created(ctx context.Context, who access.Who, body fleet.ApplyRequest, intents []intent) (plan, error) {
	p := planApply(s.Store.NewView(), intents, false)
	if err := access.Decide(who, p.request(intents)); err != nil {
		return p, err
	}
	err := s.Store.Apply(ctx, p.writes, who.Name, body.Why)
	if errors.Is(err, registry.ErrUnitExists) || errors.Is(err, registry.ErrStale) {
		err = refuse(http.StatusConflict, "%w", err)
	}
	return p, err
}

// request is what carrying the plan out takes: what stays as it is takes nothing.
func (p plan) request(intents []intent) access.Request {
	req := access.Request{Kind: access.Units, Doing: "apply units"}
	req.Evicts, req.Conflicts = evicts(intents)
	for _, w := range p.writes {
		req.Units = append(req.Units, w.Name)
	}
	return req
}

// words for the audit log.
var applied = map[fleet.Action]string{
	fleet.ActionCreate: "created, ", fleet.ActionChange: "text changed, ",
	fleet.ActionStart: "set to ", fleet.ActionStop: "set to ",
}

func (p plan) acts(why string) (out []act) {
	for _, c := range p.changes {
		if c.Action == fleet.ActionUnchanged {
			continue
		}
		out = append(out, act{unit: c.Name, what: applied[c.Action] + c.DesiredState, why: why})
		out = append(out, followed(c, why)...)
	}
	return out
}

// followed are the acts on the instances that follow a template.
func followed(c fleet.UnitChange, why string) (out []act) {
	for _, i := range c.Instances {
		out = append(out, act{unit: i, what: "text changed with " + c.Name, why: why})
	}
	return out
}
