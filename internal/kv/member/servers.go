package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"flotilla/internal/kv/front"
	"flotilla/internal/kv/mvcc"
)

// stopGrace is how long requests that run may take to finish when the member
// stops.
const stopGrace = time.Second

// headerTimeout is how long a request may take to arrive as far as its header. The
// front is as patient with the first bytes of a connection.
const headerTimeout = 5 * time.Minute

// servers is the gRPC and the HTTP server behind the front.
type servers struct {
	front  *front.Front
	grpc   *grpc.Server
	http   *http.Server
	calls  *inflight          // unary gRPC calls that run
	unwait context.CancelFunc // ends the v2 watches
	json   *jsonGateway       // nil if it is off
	failed chan error         // one of the two ended by itself; buffered
	wg     sync.WaitGroup
}

func (m *Member) newServers(e *embed.Etcd, store *mvcc.Store, f *front.Front) (*servers, error) {
	cfg := e.Config()
	s := &servers{
		front:  f,
		calls:  newInflight(),
		failed: make(chan error, 2),
	}
	s.grpc = newGRPC(e.Server, &cfg, s.calls)
	if cfg.EnableGRPCGateway {
		var err error
		if s.json, err = newJSONGateway(f); err != nil {
			return nil, fmt.Errorf("start the JSON gateway: %w", err)
		}
	}
	stopping, unwait := context.WithCancel(context.Background())
	s.unwait = unwait
	s.http = &http.Server{
		Handler:           m.handler(e.Server, &cfg, store, s.json, stopping),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), // complaints about clients
	}
	return s, nil
}

// newGRPC is the v3 API as the engine serves it, on connections that the front has
// accepted.
func newGRPC(server *etcdserver.EtcdServer, cfg *embed.Config, calls *inflight) *grpc.Server {
	opts := []grpc.ServerOption{grpc.Creds(front.Credentials())}
	if cfg.GRPCKeepAliveMinTime > 0 {
		opts = append(opts, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: cfg.GRPCKeepAliveMinTime}))
	}
	if cfg.GRPCKeepAliveInterval > 0 && cfg.GRPCKeepAliveTimeout > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: cfg.GRPCKeepAliveInterval, Timeout: cfg.GRPCKeepAliveTimeout,
		}))
	}
	gs := v3rpc.Server(server, nil, calls.intercept, opts...)
	client := v3client.New(server)
	v3electionpb.RegisterElectionServer(gs, v3election.NewElectionServer(client))
	v3lockpb.RegisterLockServer(gs, v3lock.NewLockServer(client))
	return gs
}

func (s *servers) start() {
	s.run("HTTP server", func() error { return s.http.Serve(s.front.HTTP()) })
	s.run("gRPC server", func() error { return s.grpc.Serve(s.front.GRPC()) })
	s.front.Serve()
}

func (s *servers) run(name string, serve func() error) {
	s.wg.Go(func() {
		err := serve()
		if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return
		}
		s.failed <- fmt.Errorf("%s: %w", name, err)
	})
}

// stop ends both servers: watches at once, other requests within stopGrace.
func (s *servers) stop() {
	s.front.Close()
	s.unwait()
	if s.json != nil {
		s.json.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	s.wg.Go(s.grpc.GracefulStop) // tells the clients; returns at Stop at the latest
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.calls.wait(ctx)
	s.grpc.Stop()
	s.wg.Wait()
}

// endWatches lets a request end when the member stops. Only watches are ended:
// whatever else runs is short and shall get its answer.
func endWatches(next http.Handler, stopping context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.RawQuery, "wait=") {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stopping, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// inflight counts unary gRPC calls. Streams (watches, lease renewals) never end by
// themselves, so a stop does not wait for them.
type inflight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed while n is 0
}

func newInflight() *inflight {
	c := &inflight{idle: make(chan struct{})}
	close(c.idle)
	return c
}

func (c *inflight) add(d int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		c.idle = make(chan struct{})
	}
	c.n += d
	if c.n == 0 {
		close(c.idle)
	}
}

func (c *inflight) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c.add(1)
	defer c.add(-1)
	return next(ctx, req)
}

// wait returns when no call runs or ctx is done.
func (c *inflight) wait(ctx context.Context) {
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
