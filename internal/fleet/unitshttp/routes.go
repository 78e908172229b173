package unitshttp

import (
	"net/http"
	"strings"

	"flotilla/api/fleet"
)

type handler func(http.ResponseWriter, *http.Request) error

// route is a resource: a path below the API's prefix, where * stands for one
// segment (the path value "name"), and what may be done to it. Whatever is not a
// GET decides by itself who may do it: see audited.
type route struct {
	path    string
	methods []method
}

type method struct {
	verb string
	do   handler
}

func (s *Server) resources() []route {
	const get, put, post, patch, remove = http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete
	return []route{
		{"/discovery", []method{{get, s.discovery}}},
		{"/machines", []method{{get, s.listMachines}, {patch, s.patchMachines}}},
		{"/units", []method{{get, s.listUnits}}},
		{"/units/*", []method{{get, s.getUnit}, {put, s.putUnit}, {remove, s.destroyUnit}}},
		{"/units/*/journal", []method{{get, s.journal}}},
		{"/units/*/status", []method{{get, s.status}}},
		{"/units/*/history", []method{{get, s.history}}},
		{"/units/*/why", []method{{get, s.why}}},
		{"/what-if", []method{{get, s.whatIf}}},
		{"/rebalance", []method{{post, s.rebalance}}},
		{"/units/*/rollback", []method{{post, s.rollback}}},
		{"/state", []method{{get, s.listStates}}},
		{"/state/*", []method{{get, s.getState}}},
		{"/watch", []method{{get, s.watch}}},
		{"/adopt", []method{{post, s.adopt}}},
		{"/eject", []method{{post, s.eject}}},
		{"/apply", []method{{post, s.apply}}},
		{"/rolls", []method{{get, s.listRolls}}},
		{"/rolls/*", []method{{get, s.getRoll}, {post, s.askRoll}}},
		{"/machines/*", []method{{remove, s.forget}}},
		{"/machines/*/cordon", []method{{put, s.cordon}, {remove, s.uncordon}}},
		{"/logs", []method{{get, s.logs}}},
		{"/engine", []method{{get, s.engine}}},
		{"/store", []method{{get, s.store}}},
		{"/events", []method{{get, s.events}}},
		{"/whoami", []method{{get, s.whoami}}},
	}
}

// find returns the handler of a request. Paths are matched as they are: a slash too
// many is another path.
func (s *Server) find(r *http.Request) (handler, error) {
	path, ok := below(r.URL.Path)
	switch {
	case r.URL.Path == "/", ok && path == "":
		return nil, refuse(http.StatusMethodNotAllowed, "")
	case !ok:
		return nil, refuse(http.StatusNotFound, "")
	}
	for _, one := range s.routes {
		name, ok := match(one.path, path)
		if !ok {
			continue
		}
		r.SetPathValue("name", name)
		for _, m := range one.methods {
			if m.verb == r.Method {
				return m.do, nil
			}
		}
		return nil, one.notAllowed()
	}
	return nil, refuse(http.StatusNotFound, "")
}

// notAllowed is the answer to a method that the resource does not have, in the words
// of the original: it answered otherwise for its description alone.
func (one route) notAllowed() error {
	if one.path == "/discovery" {
		return refuse(http.StatusBadRequest, "only HTTP GET supported against this resource")
	}
	verbs := make([]string, len(one.methods))
	for i, m := range one.methods {
		verbs[i] = m.verb
	}
	words := verbs[len(verbs)-1]
	if rest := verbs[:len(verbs)-1]; len(rest) > 0 {
		words = strings.Join(rest, ", ") + " and " + words
	}
	return refuse(http.StatusMethodNotAllowed, "only %s supported against this resource", words)
}

// match reports whether a path has the form of a pattern, and what its * stands for:
// one segment that is not empty.
func match(pattern, path string) (string, bool) {
	before, after, wild := strings.Cut(pattern, "*")
	if !wild {
		return "", pattern == path
	}
	name, ok := strings.CutPrefix(path, before)
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, after)
	return name, ok && name != "" && !strings.Contains(name, "/")
}

// below cuts off the prefix of the API, in its present or its older name.
func below(path string) (string, bool) {
	for _, prefix := range []string{fleet.Prefix, fleet.PrefixAlpha} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return rest, true
		}
	}
	return "", false
}
