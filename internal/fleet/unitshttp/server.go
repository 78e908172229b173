// Package unitshttp is the HTTP API of fleet, version 1, and the resources that
// were added to it; docs/formats/fleet-api.md lists both.
//
// Reads are linearizable: what one daemon has answered, every other one knows. Who
// may do what is decided by package access; each change is one line "audit" of the
// log and an event, with who asked for it and from where, whether it was done or
// not.
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
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
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
	Policy     sched.Policy  // of this machine's engine, for forecasts
	Patience   time.Duration // for the first answer of the store to a watch; 0 means 3 s
}

// Local is what this machine can say and do about its units.
type Local = peer.Local

// Peers asks other machines about theirs.
type Peers interface {
	Adopt(ctx context.Context, m model.Machine, name string) (text string, err error)
	Eject(ctx context.Context, m model.Machine, name string) error
	ReadLog(ctx context.Context, m model.Machine, q peer.Query, emit func(unit.LogEntry) error) error
	Show(ctx context.Context, m model.Machine, w io.Writer, name string) (int, error)
}

// Deps is what a server gets from outside.
type Deps struct {
	Store *registry.Registry
	Local Local
	// Who finds out who sends a request; an error is for whom nothing is allowed.
	Who func(*http.Request) (access.Who, error)
	// Events takes note of what requests have changed, and does not block; nil:
	// the log alone has it.
	Events func(model.Event)
	Peers  Peers // nil: other machines are not asked
	// Problem is why this machine takes no part in the cluster: then every
	// resource answers 503. nil function: never.
	Problem func() error
	Metrics http.Handler // GET /metrics; nil: there is none
	Log     *slog.Logger
}

// Server answers the API's requests. Make it with New.
type Server struct {
	cfg    Config
	routes []route
	all    *registry.Kept // for what takes more than a unit, or the machines
	unmet  *unmet
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
	s := &Server{cfg: cfg, unmet: newUnmet(), Deps: deps}
	if deps.Store != nil {
		s.all = deps.Store.Keep()
	}
	s.routes = s.resources()
	return s
}

var _ http.Handler = (*Server)(nil)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "fleetd/"+s.cfg.Version)
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	who, err := s.Who(r)
	if err != nil {
		s.Log.Warn("request refused", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "why", err)
		return refuse(http.StatusForbidden, "%w", err)
	}
	r = r.WithContext(withWho(r.Context(), who))
	if r.Method == http.MethodGet {
		if err := access.Decide(who, access.Request{Kind: access.Read, Doing: "read"}); err != nil {
			return err
		}
	}
	if r.URL.Path == "/metrics" && s.Metrics != nil {
		s.Metrics.ServeHTTP(w, r)
		return nil
	}
	if s.Problem != nil {
		if err := s.Problem(); err != nil {
			return refuse(http.StatusServiceUnavailable, "fleet server takes no part in the cluster: %w", err)
		}
	}
	do, err := s.find(r)
	if err != nil {
		return err
	}
	return do(w, r)
}

// refusal is an answer that is an error of the request's.
type refusal struct {
	status int
	error  // its text is the message; its hints are told
}

func (e *refusal) Unwrap() error { return e.error }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, error: fmt.Errorf(format, args...)}
}

// fail answers with an error: what kind decides the status.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	body := fleet.Error{Code: http.StatusInternalServerError, Message: err.Error()}
	var no *refusal
	var large *http.MaxBytesError
	var denied *access.Denied
	var bad problems
	switch {
	case errors.As(err, &bad):
		body.Code, body.Problems = http.StatusBadRequest, bad
	case errors.As(err, &denied):
		body.Code = http.StatusForbidden
	case errors.As(err, &no):
		body.Code = no.status
	case errors.As(err, &large):
		body.Code = http.StatusRequestEntityTooLarge
		body.Message = fmt.Sprintf("request body too large: more than %d bytes", large.Limit)
	case errors.Is(err, registry.ErrNoUnit):
		body.Code, body.Message = http.StatusNotFound, "unit does not exist"
	case errors.Is(err, registry.ErrDenied):
		body.Code = http.StatusForbidden
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
