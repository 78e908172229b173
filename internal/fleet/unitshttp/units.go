package unitshttp

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

func (s *Server) listUnits(w http.ResponseWriter, r *http.Request) error {
	page, err := s.pageOf(r)
	if err != nil {
		return err
	}
	v, err := s.Store.Read(r.Context(), registry.Everything)
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

// unit is the resource of one unit.
func (s *Server) unit(w http.ResponseWriter, r *http.Request, name string) error {
	switch r.Method {
	case http.MethodGet:
		return s.getUnit(w, r, name)
	case http.MethodPut:
		return s.putUnit(w, r, name)
	case http.MethodDelete:
		if err := s.Store.Destroy(r.Context(), name); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return refuse(http.StatusMethodNotAllowed, "only GET, PUT and DELETE supported against this resource")
}

func (s *Server) getUnit(w http.ResponseWriter, r *http.Request, name string) error {
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

// wish is a PUT taken apart.
type wish struct {
	name    string
	file    unitfile.File
	options bool // the request has options
	desired string
	restart bool
}

// maxRaces is how often a PUT is judged anew because the unit came or went between
// the look and the write.
const maxRaces = 5

func (s *Server) putUnit(w http.ResponseWriter, r *http.Request, name string) error {
	wish, err := readWish(w, r, name)
	if err != nil {
		return err
	}
	for range maxRaces {
		var status int
		status, err = s.grant(r, wish)
		if err == nil {
			w.WriteHeader(status)
			return nil
		}
		if !errors.Is(err, registry.ErrUnitExists) && !errors.Is(err, registry.ErrNoUnit) {
			return err
		}
	}
	return err
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
		return wish{}, refuse(http.StatusBadRequest, "%v", err)
	}
	file, err := fileOf(body.Options)
	if err != nil {
		return wish{}, refuse(http.StatusBadRequest, "%v", err)
	}
	return wish{name: name, file: file, options: len(body.Options) > 0, desired: body.DesiredState, restart: body.Restart}, nil
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
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v)
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

// grant judges a PUT by what there is, carries it out and returns the status. It
// fails with ErrUnitExists or ErrNoUnit when that has changed meanwhile.
func (s *Server) grant(r *http.Request, p wish) (int, error) {
	v, err := s.Store.ReadJob(r.Context(), p.name)
	if err != nil {
		return 0, err
	}
	u, exists := v.Unit(p.name)
	if exists && (!p.options || p.file.Hash() == u.Hash) {
		return s.grantState(r, p)
	}
	text, want, err := p.check()
	if err != nil {
		return 0, err
	}
	write := s.Store.Create
	if exists {
		write = s.Store.Replace
	}
	return http.StatusCreated, write(r.Context(), p.name, text, want, "", "")
}

// grantState sets what is wanted of a unit that exists.
func (s *Server) grantState(r *http.Request, p wish) (int, error) {
	if p.desired == "" {
		return 0, refuse(http.StatusConflict, "must provide DesiredState to update existing unit")
	}
	want, err := p.state()
	if err != nil {
		return 0, err
	}
	if p.restart {
		if want != model.Launched {
			return 0, refuse(http.StatusBadRequest, "restart goes with desiredState launched alone, not %q", p.desired)
		}
		return http.StatusNoContent, s.Store.Restart(r.Context(), p.name)
	}
	return http.StatusNoContent, s.Store.SetDesired(r.Context(), p.name, want)
}

// check judges the text and the state of a unit that is to be written.
func (p wish) check() (registry.Text, model.State, error) {
	if !p.options {
		return registry.Text{}, 0, refuse(http.StatusConflict, "unit does not exist and options field empty")
	}
	_, _, problems := model.ParseRequirements(p.name, p.file)
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
	return registry.Text{Canonical: p.file.String(), Hash: p.file.Hash()}, want, nil
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
func (s *Server) getState(w http.ResponseWriter, r *http.Request, name string) error {
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
