package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/unit"
)

// The protocol on DIR/run/supervisor.sock is HTTP with JSON bodies; what goes on
// for long is a stream of JSON values. An older client or server has to work with
// a newer one: fields and paths are added, never changed.
//
//	GET    /v1/self              Self
//	GET    /v1/units             {NAME: TEXT}
//	PUT    /v1/units/NAME        the text
//	DELETE /v1/units/NAME
//	POST   /v1/reload
//	POST   /v1/jobs              [unit.Job] -> stream of wireOutcome
//	POST   /v1/status            [NAME] -> [unit.Status]
//	GET    /v1/watch             stream of unit.Status; the first value is empty
//	GET    /v1/show/NAME         shown
//	POST   /v1/log               unit.LogQuery -> stream of wireEntry
//	POST   /v1/kill-unit         NAME
//	POST   /v1/guard             guard
//	POST   /v1/shutdown
//	POST   /v1/kill
//
// Errors have status 400 and a wireError.

// Self is what a supervisor says of itself.
type Self struct {
	PID     int
	Version string
	Dir     string
}

type wireError struct {
	Message string
	Hints   []string `json:",omitempty"`
	Refused bool     `json:",omitempty"` // it is a unit.ErrRefused
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	return &wireError{Message: err.Error(), Hints: fault.Hints(err), Refused: errors.Is(err, unit.ErrRefused)}
}

func (e *wireError) err() error {
	if e == nil {
		return nil
	}
	err := errors.New(e.Message)
	if e.Refused {
		err = refusal{err}
	}
	for i := range e.Hints {
		err = fault.Hint(err, "%s", e.Hints[len(e.Hints)-1-i])
	}
	return err
}

type wireOutcome struct {
	Job    unit.Job
	Result unit.Result
	Error  *wireError `json:",omitempty"`
}

// wireEntry is an entry, or the error that ended the reading.
type wireEntry struct {
	unit.LogEntry
	Error *wireError `json:",omitempty"`
}

type shown struct {
	Code int
	Text string
}

func (s *Supervisor) socket() string { return SocketPath(s.cfg.Dir) }

// Listen opens the socket that Dial finds. The supervisor's lock must be held, so
// it belongs between Serve's ready and its end.
func (s *Supervisor) Listen() (net.Listener, error) {
	_ = os.Remove(s.socket()) // of a supervisor that was killed
	l, err := net.Listen("unix", s.socket())
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	if err := os.Chmod(s.socket(), 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	return l, nil
}

// Answer serves clients until the supervisor has ended.
func (s *Supervisor) Answer(l net.Listener) error {
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-s.done
		// What waits for the end of a shutdown gets its answer.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

func (s *Supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(w, r)
			switch {
			case err != nil:
				w.WriteHeader(http.StatusBadRequest)
				_ = json.NewEncoder(w).Encode(toWire(err))
			case v != nil:
				_ = json.NewEncoder(w).Encode(v)
			}
		})
	}
	handle("GET /v1/self", func(http.ResponseWriter, *http.Request) (any, error) {
		return Self{PID: os.Getpid(), Version: applet.Version, Dir: s.cfg.Dir}, nil
	})
	handle("GET /v1/units", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return s.Installed(r.Context())
	})
	handle("PUT /v1/units/{name}", s.servePut)
	handle("DELETE /v1/units/{name}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.Remove(r.Context(), r.PathValue("name"))
	})
	handle("POST /v1/reload", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.Reload(r.Context())
	})
	handle("POST /v1/jobs", s.serveJobs)
	handle("POST /v1/status", s.serveStatus)
	handle("GET /v1/watch", s.serveWatch)
	handle("GET /v1/show/{name}", s.serveShow)
	handle("POST /v1/log", s.serveLog)
	handle("POST /v1/kill-unit", func(w http.ResponseWriter, r *http.Request) (any, error) {
		name, err := decodeBody[string](w, r)
		if err != nil {
			return nil, err
		}
		return nil, s.KillUnit(r.Context(), name)
	})
	handle("POST /v1/guard", s.serveGuard)
	handle("POST /v1/shutdown", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.Shutdown(r.Context())
	})
	handle("POST /v1/kill", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.Kill(r.Context())
	})
	return mux
}

// maxBody bounds a request: a unit file has at most a megabyte.
const maxBody = 8 << 20

func (s *Supervisor) servePut(w http.ResponseWriter, r *http.Request) (any, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("read unit file: %w", err)
	}
	return nil, s.Install(r.Context(), r.PathValue("name"), string(text))
}

func decodeBody[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&v)
	if err != nil {
		err = fmt.Errorf("read request: %w", err)
	}
	return v, err
}

// stream writes JSON values, each at once.
type stream struct {
	enc   *json.Encoder
	flush func() error
}

func newStream(w http.ResponseWriter) stream {
	return stream{json.NewEncoder(w), http.NewResponseController(w).Flush}
}

func (st stream) send(v any) error {
	if err := st.enc.Encode(v); err != nil {
		return err
	}
	return st.flush()
}

func (s *Supervisor) serveJobs(w http.ResponseWriter, r *http.Request) (any, error) {
	list, err := decodeBody[[]unit.Job](w, r)
	if err != nil {
		return nil, err
	}
	st := newStream(w)
	for o := range s.Run(r.Context(), list) {
		if st.send(wireOutcome{o.Job, o.Result, toWire(o.Err)}) != nil {
			break // nobody listens; the jobs go on
		}
	}
	return nil, nil
}

func (s *Supervisor) serveStatus(w http.ResponseWriter, r *http.Request) (any, error) {
	names, err := decodeBody[[]string](w, r)
	if err != nil {
		return nil, err
	}
	return s.Status(r.Context(), names...)
}

func (s *Supervisor) serveWatch(w http.ResponseWriter, r *http.Request) (any, error) {
	ch, err := s.Watch(r.Context())
	if err != nil {
		return nil, err
	}
	st := newStream(w)
	// The empty one tells the client that the watch has begun.
	err = st.send(unit.Status{})
	for status := range ch {
		if err == nil {
			err = st.send(status)
		}
	}
	return nil, nil
}

func (s *Supervisor) serveShow(_ http.ResponseWriter, r *http.Request) (any, error) {
	var b strings.Builder
	code, err := s.Show(r.Context(), &b, r.PathValue("name"))
	return shown{code, b.String()}, err
}

func (s *Supervisor) serveLog(w http.ResponseWriter, r *http.Request) (any, error) {
	q, err := decodeBody[unit.LogQuery](w, r)
	if err != nil {
		return nil, err
	}
	st := newStream(w)
	if q.Follow {
		_ = st.flush() // the client waits for nothing but entries
	}
	err = s.ReadLog(r.Context(), q, func(e unit.LogEntry) error {
		return st.send(wireEntry{LogEntry: e})
	})
	if err != nil {
		_ = st.send(wireEntry{Error: toWire(err)})
	}
	return nil, nil
}
