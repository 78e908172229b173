// Package unitshttp is the HTTP API of fleet, version 1, and the resources that
// were added to it: GET watch, GET units/NAME/journal, GET units/NAME/status.
//
// Reads are linearizable: what one daemon has answered, every other one knows.
package unitshttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// maxBody is the largest request body that is read, in bytes: a unit file of the
// largest size allowed, as a list of short options.
const maxBody = 4 << 20

// Config is what a server needs to know.
type Config struct {
	Machine    string        // id of the machine it runs on
	Hostname   string        // of that machine: told in log lines
	Version    string        // told in the Server header
	TokenLimit int           // entries on a page; 0 means 100
	Patience   time.Duration // for the first answer of the store to a watch; 0 means 3 s
}

// Local is the logs and statuses of this machine's units.
type Local interface {
	unit.LogReader
	Show(ctx context.Context, w io.Writer, name string) (int, error)
}

// Peers asks other machines for theirs.
type Peers interface {
	ReadLog(ctx context.Context, m model.Machine, q unit.LogQuery, emit func(unit.LogEntry) error) error
	Show(ctx context.Context, m model.Machine, w io.Writer, name string) (int, error)
}

// Deps is what a server gets from outside.
type Deps struct {
	Store *registry.Registry
	Local Local
	Peers Peers // nil: other machines are not asked
	// Problem is why this machine takes no part in the cluster: then every
	// resource answers 503. nil function: never.
	Problem func() error
	Metrics http.Handler // GET /metrics; nil: there is none
	Log     *slog.Logger
}

// Server answers the API's requests. Make it with New.
type Server struct {
	cfg Config
	Deps
}

// New makes a server.
func New(cfg Config, deps Deps) *Server {
	if cfg.TokenLimit == 0 {
		cfg.TokenLimit = 100
	}
	if cfg.Patience == 0 {
		cfg.Patience = 3 * time.Second
	}
	return &Server{cfg: cfg, Deps: deps}
}

var _ http.Handler = (*Server)(nil)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "fleetd/"+s.cfg.Version)
	if r.URL.Path == "/metrics" && s.Metrics != nil {
		s.Metrics.ServeHTTP(w, r)
		return
	}
	if err := s.route(w, r); err != nil {
		s.fail(w, r, err)
	}
}

// route finds the resource. Paths are matched as they are: a slash too many is
// another path.
func (s *Server) route(w http.ResponseWriter, r *http.Request) error {
	if s.Problem != nil {
		if err := s.Problem(); err != nil {
			return refuse(http.StatusServiceUnavailable, "fleet server takes no part in the cluster: %v", err)
		}
	}
	path, ok := below(r.URL.Path)
	if !ok {
		if r.URL.Path == "/" {
			return refuse(http.StatusMethodNotAllowed, "")
		}
		return refuse(http.StatusNotFound, "")
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "":
		return refuse(http.StatusMethodNotAllowed, "")
	case path == "/discovery":
		return s.discovery(w, r)
	case path == "/machines":
		return s.machines(w, r)
	case path == "/units":
		return only(r, s.listUnits, w, http.MethodGet)
	case path == "/state":
		return only(r, s.listStates, w, http.MethodGet)
	case path == "/watch":
		return only(r, s.watch, w, http.MethodGet)
	case len(parts) == 2 && parts[0] == "units" && parts[1] != "":
		return s.unit(w, r, parts[1])
	case len(parts) == 2 && parts[0] == "state" && parts[1] != "":
		return only(r, s.named(parts[1], s.getState), w, http.MethodGet)
	case len(parts) == 3 && parts[0] == "units" && parts[2] == "journal":
		return only(r, s.named(parts[1], s.journal), w, http.MethodGet)
	case len(parts) == 3 && parts[0] == "units" && parts[2] == "status":
		return only(r, s.named(parts[1], s.status), w, http.MethodGet)
	}
	return refuse(http.StatusNotFound, "")
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

type handler func(http.ResponseWriter, *http.Request) error

func only(r *http.Request, h handler, w http.ResponseWriter, method string) error {
	if r.Method != method {
		return refuse(http.StatusMethodNotAllowed, "only %s supported against this resource", method)
	}
	return h(w, r)
}

func (s *Server) named(name string, h func(http.ResponseWriter, *http.Request, string) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error { return h(w, r, name) }
}

// refusal is an answer that is an error of the request's.
type refusal struct {
	status int
	msg    string
}

func (e *refusal) Error() string { return e.msg }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, msg: fmt.Sprintf(format, args...)}
}

// fail answers with an error: what kind decides the status.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	body := fleet.Error{Code: http.StatusInternalServerError, Message: err.Error()}
	var no *refusal
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &no):
		body.Code = no.status
	case errors.As(err, &large):
		body.Code = http.StatusRequestEntityTooLarge
		body.Message = fmt.Sprintf("request body too large: more than %d bytes", large.Limit)
	case errors.Is(err, registry.ErrNoUnit):
		body.Code, body.Message = http.StatusNotFound, "unit does not exist"
	case errors.Is(err, registry.ErrAway):
		body.Code = http.StatusServiceUnavailable
		body.Message = "fleet server unable to communicate with etcd: " + err.Error()
	case r.Context().Err() != nil:
		return // nobody listens any more
	default:
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if hints := fault.Hints(err); len(hints) > 0 {
		body.Hint = strings.Join(hints, "; ")
	}
	reply(w, body.Code, fleet.ErrorBody{Error: body})
}

// reply writes a JSON answer.
func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b) // an error is the client's going away
}
