package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flotilla/api/keys"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/v2http"
)

// headerTimeout is how long a request may take to arrive as far as its header. The
// front is as patient with the first bytes of a connection.
const headerTimeout = 5 * time.Minute

// idleTimeout is how long a connection may wait for its next request.
const idleTimeout = 5 * time.Minute

// reception is where clients arrive for the member's whole life. While no engine
// takes part in the cluster it answers itself, and says why.
type reception struct {
	front  *front.Front
	http   *http.Server
	lane   *v2http.Lane            // answers what is simple before it comes to http
	now    atomic.Pointer[servers] // nil: closed
	shut   *grpc.Server            // answers gRPC while closed
	failed chan error              // the HTTP server ended by itself; buffered
	wg     sync.WaitGroup

	mu  sync.Mutex
	why string // it is closed
}

// newReception opens the front's doors; nobody but the reception answers yet.
func newReception(f *front.Front, log *slog.Logger) *reception {
	r := &reception{front: f, failed: make(chan error, 1), why: "the store is starting"}
	r.http = &http.Server{
		Handler:           r,
		ConnContext:       front.ConnContext,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // complaints about clients
		IdleTimeout:       idleTimeout,
	}
	r.lane = v2http.NewLane(f.HTTP(), front.Plain, r.enter)
	r.wg.Go(func() {
		err := r.http.Serve(r.lane)
		if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			r.failed <- fmt.Errorf("HTTP server: %w", err)
		}
	})
	r.answerGRPC()
	f.Serve()
	return r
}

// answerGRPC refuses every call with the reason, as something to be tried again.
func (r *reception) answerGRPC() {
	r.shut = grpc.NewServer(grpc.Creds(front.Credentials()), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Unavailable, "etcdserver: "+r.reason())
	}))
	shut, from := r.shut, r.front.GRPC()
	r.wg.Go(func() { shut.Serve(from) }) // ends with Stop
}

// say sets why the reception is closed. It is told again with every change.
func (r *reception) say(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = why
}

func (r *reception) reason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// open lets clients in to s.
func (r *reception) open(s *servers) {
	shut := r.shut
	r.wg.Go(func() { // clients are told to connect anew; those that do not are cut off
		defer time.AfterFunc(stopGrace, shut.Stop).Stop()
		shut.GracefulStop()
	})
	s.start(r.front.GRPC())
	r.now.Store(s)
}

// close answers clients itself from now on and lets those who are in finish.
func (r *reception) close(s *servers, why string) {
	r.say(why)
	r.now.Store(nil)
	s.stop()
	r.answerGRPC()
}

// end stops listening. A store that was open has been closed before.
func (r *reception) end() {
	r.front.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	r.wg.Go(func() { r.lane.Shutdown(ctx) })
	if r.http.Shutdown(ctx) != nil {
		r.http.Close()
	}
	r.shut.Stop()
	r.wg.Wait()
}

// ServeHTTP hands a request to the store if it is open.
func (r *reception) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if s := r.now.Load(); s != nil && s.calls.enter() {
		defer s.calls.leave()
		s.http.ServeHTTP(w, req)
		return
	}
	r.away(w, req)
}

// enter lets a simple request in to the store if it is open, to everybody, and
// serves that host.
func (r *reception) enter(host string) v2http.Desk {
	s := r.now.Load()
	if s == nil || !s.guard.Open() || !allowedHost(s.engine, host) || !s.calls.enter() {
		return nil
	}
	return s
}

// away answers for a store that is not there: what asks about its health gets the
// reason, the key space the error that a store without a quorum gives.
func (r *reception) away(w http.ResponseWriter, req *http.Request) {
	why := r.reason()
	path := req.URL.Path
	switch {
	case path == "/health":
		answer(w, http.StatusServiceUnavailable, struct {
			Health string `json:"health"`
			Reason string `json:"reason"`
		}{"false", why})
	case path == "/livez":
		fmt.Fprintln(w, "ok") // the process is well: to restart it helps nothing
	case path == "/version":
		answer(w, http.StatusOK, struct {
			Server  string `json:"etcdserver"`
			Cluster string `json:"etcdcluster"`
		}{version.Version, "not_decided"})
	case path == "/v2/keys" || strings.HasPrefix(path, "/v2/keys/"):
		e := keys.NewError(keys.CodeRaftInternal, why, 0)
		answer(w, e.Status(), e)
	default:
		answer(w, http.StatusServiceUnavailable, struct {
			Message string `json:"message"`
		}{why})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // an error is a client that went away
}
