package unitshttp

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

func (s *Server) listUnits(w http.ResponseWriter, r *http.Request) error {
	page, err := s.pageOf(r)
	if err != nil {
		return err
	}
	v, err := s.all.Read(r.Context())
	if err != nil {
		return err
	}
	units, next := cut(v.Units(), page)
	out := fleet.UnitPage{NextPageToken: next}
	for _, u := range units {
		out.Units = append(out.Units, whole(v, u))
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (s *Server) getUnit(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	v, err := s.Store.ReadUnit(r.Context(), name)
	if err != nil {
		return err
	}
	u, ok := v.Unit(name)
	if !ok {
		return registry.ErrNoUnit
	}
	reply(w, http.StatusOK, whole(v, u))
	return nil
}

func (s *Server) destroyUnit(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	req := access.Request{Kind: access.Units, Doing: "destroy units", Units: []string{name}}
	err := s.audited(r, req, act{unit: name, what: "destroy"}, func(ctx context.Context, _ string) ([]act, error) {
		return []act{{unit: name, what: "destroyed"}}, s.Store.Destroy(ctx, name)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// wish is a PUT taken apart.
type wish struct {
	name    string
	text    unitfile.Bundle
	options bool // the request has options
	desired string
	restart bool
}

// maxRaces is how often a PUT is judged anew because the unit came or went between
// the look and the write.
const maxRaces = 5

func (s *Server) putUnit(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	req := access.Request{Kind: access.Units, Doing: "change units", Units: []string{name}}
	status := 0
	err := s.audited(r, req, act{unit: name, what: "change"}, func(ctx context.Context, _ string) ([]act, error) {
		wish, err := readWish(w, r, name)
		if err != nil {
			return nil, err
		}
		for range maxRaces {
			var done string
			status, done, err = s.grant(ctx, whoOf(r), wish)
			if !errors.Is(err, registry.ErrUnitExists) && !errors.Is(err, registry.ErrNoUnit) {
				return []act{{unit: name, what: done}}, err
			}
		}
		return nil, err
	})
	if err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}

// readWish does all that can be said of a PUT without looking into the store.
func readWish(w http.ResponseWriter, r *http.Request, name string) (wish, error) {
	if err := checkContentType(r.Header.Values("Content-Type")); err != nil {
		return wish{}, err
	}
	var body fleet.Unit
	if err := decodeBody(w, r, &body); err != nil {
		return wish{}, err
	}
	if body.Name != "" && body.Name != name {
		return wish{}, refuse(http.StatusBadRequest, "name in URL %q differs from unit name in request body %q", name, body.Name)
	}
	if err := unitfile.CheckName(name); err != nil {
		return wish{}, refuse(http.StatusBadRequest, "%w", err)
	}
	text, err := bundleOf(body)
	if err != nil {
		return wish{}, refuse(http.StatusBadRequest, "%w", err)
	}
	return wish{name: name, text: text, options: len(body.Options) > 0, desired: body.DesiredState, restart: body.Restart}, nil
}

func checkContentType(values []string) error {
	if len(values) != 1 {
		return refuse(http.StatusUnsupportedMediaType, "expected 1 Content-Type, got %d", len(values))
	}
	kind, _, err := mime.ParseMediaType(values[0])
	if err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "only acceptable Content-Type is application/json")
	}
	return nil
}

// decodeBody reads a JSON body of bounded size.
func decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	return decodeLimited(w, r, maxBody, v)
}

// decodeOptional is decodeBody for a request that need not have a body.
func decodeOptional(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	return decodeBody(w, r, v)
}

func decodeLimited(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(v)
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		what := "the body"
		if kind.Field != "" {
			what = kind.Field
		}
		return refuse(http.StatusBadRequest, "unable to decode body: %s is of the wrong kind: %s", what, kind.Value)
	}
	if err != nil && !errors.As(err, &large) {
		return refuse(http.StatusBadRequest, "unable to decode body: %v", err)
	}
	return err
}

// grant judges a PUT by what there is, carries it out and returns the status and
// what was done. It fails with ErrUnitExists or ErrNoUnit when that has changed
// meanwhile.
func (s *Server) grant(ctx context.Context, who access.Who, p wish) (int, string, error) {
	v, err := s.Store.ReadJob(ctx, p.name)
	if err != nil {
		return 0, "", err
	}
	u, exists := v.Unit(p.name)
	if exists && (!p.options || p.text.Hash() == u.Hash) {
		return s.grantState(ctx, p)
	}
	text, want, err := p.check(who)
	if err != nil {
		return 0, "", err
	}
	write, done := s.Store.Create, "created, "+want.String()
	if exists {
		write, done = s.Store.Replace, "text replaced, "+want.String()
	}
	return http.StatusCreated, done, write(ctx, p.name, text, want, who.Name, "")
}

// grantState sets what is wanted of a unit that exists.
func (s *Server) grantState(ctx context.Context, p wish) (int, string, error) {
	if p.desired == "" {
		return 0, "", refuse(http.StatusConflict, "must provide DesiredState to update existing unit")
	}
	want, err := p.state()
	if err != nil {
		return 0, "", err
	}
	if p.restart {
		if want != model.Launched {
			return 0, "", refuse(http.StatusBadRequest, "restart goes with desiredState launched alone, not %q", p.desired)
		}
		return http.StatusNoContent, "restarted", s.Store.Restart(ctx, p.name)
	}
	return http.StatusNoContent, "set to " + want.String(), s.Store.SetDesired(ctx, p.name, want)
}

// check judges the text and the state of a unit that is to be written.
func (p wish) check(who access.Who) (registry.Text, model.State, error) {
	if !p.options {
		return registry.Text{}, 0, refuse(http.StatusConflict, "unit does not exist and options field empty")
	}
	req, _, problems := model.ParseRequirements(p.name, p.text.Effective())
	if len(problems) > 0 {
		msgs := make([]string, len(problems))
		for i, problem := range problems {
			msgs[i] = problem.String()
		}
		return registry.Text{}, 0, refuse(http.StatusBadRequest, "%s", strings.Join(msgs, "; "))
	}
	want, err := p.state()
	if err != nil {
		return registry.Text{}, 0, err
	}
	may := access.Request{Kind: access.Units, Doing: "change units", Units: []string{p.name}, Evicts: req.Replaces, Conflicts: req.Conflicts}
	if err := access.Decide(who, may); err != nil {
		return registry.Text{}, 0, err
	}
	return registry.Text{Canonical: p.text.String(), Hash: p.text.Hash()}, want, nil
}

// state is the desired state of a PUT; empty means inactive.
func (p wish) state() (model.State, error) {
	if p.desired == "" {
		return model.Inactive, nil
	}
	want, err := model.ParseState(p.desired)
	if err != nil {
		return want, refuse(http.StatusBadRequest, "invalid desiredState: %v", err)
	}
	if want != model.Inactive && unitfile.IsTemplate(p.name) {
		return want, refuse(http.StatusBadRequest, "cannot activate template %q", p.name)
	}
	return want, nil
}

func (s *Server) listStates(w http.ResponseWriter, r *http.Request) error {
	page, err := s.pageOf(r)
	if err != nil {
		return err
	}
	v, err := s.Store.ReadStates(r.Context())
	if err != nil {
		return err
	}
	q := r.URL.Query()
	var all []model.UnitState
	for _, st := range v.States() {
		if matches(q.Get("unitName"), st.Unit) && matches(q.Get("machineID"), st.Machine) {
			all = append(all, st)
		}
	}
	states, next := cut(all, page)
	out := fleet.UnitStatePage{NextPageToken: next}
	for _, st := range states {
		out.States = append(out.States, stateOf(st))
	}
	reply(w, http.StatusOK, out)
	return nil
}

// matches applies a filter; an empty one lets everything through.
func matches(filter, value string) bool { return filter == "" || filter == value }

// getState answers with one state of a unit: that of the first machine.
func (s *Server) getState(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	v, err := s.Store.ReadStatesOf(r.Context(), name)
	if err != nil {
		return err
	}
	states := v.StatesOf(name)
	if len(states) == 0 {
		return refuse(http.StatusNotFound, "unit state does not exist")
	}
	reply(w, http.StatusOK, stateOf(states[0]))
	return nil
}
