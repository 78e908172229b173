package member

import (
	"context"
	"errors"
	"fmt"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"flotilla/internal/kv/front"
	"flotilla/internal/kv/gate"
	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2http"
)

// stopGrace is how long requests that run may take to finish when the member
// stops.
const stopGrace = time.Second

// servers is what answers clients while an engine runs: the v3 API, and the handler
// of the v2 API and what is beside it.
type servers struct {
	grpc   *grpc.Server
	engine *etcdserver.EtcdServer
	guard  *gate.Gate
	keys   *v2http.Handler
	http   http.Handler
	alive  context.Context    // until hurry
	calls  *inflight          // requests that run, but for gRPC streams
	unwait context.CancelFunc // ends the v2 watches
	hurry  context.CancelFunc // ends all other HTTP requests
	json   *jsonGateway       // nil if it is off
	failed chan error         // the gRPC server ended by itself; buffered
	wg     sync.WaitGroup
}

func (m *Member) newServers(e *embed.Etcd, store *mvcc.Store, guard *gate.Gate, f *front.Front) (*servers, error) {
	cfg := e.Config()
	s := &servers{engine: e.Server, guard: guard, calls: newInflight(), failed: make(chan error, 1)}
	s.grpc = newGRPC(e.Server, &cfg, guard, s.calls)
	if cfg.EnableGRPCGateway {
		var err error
		if s.json, err = newJSONGateway(f); err != nil {
			return nil, fmt.Errorf("start the JSON gateway: %w", err)
		}
	}
	stopping, unwait := context.WithCancel(context.Background())
	hurrying, hurry := context.WithCancel(context.Background())
	s.unwait, s.hurry, s.alive = unwait, hurry, hurrying
	s.keys = v2http.New(m.v2Config(e.Server, &cfg, store, guard))
	s.http = endWith(front.ShowTLS(m.handler(e.Server, &cfg, s.keys, guard, s.json, stopping)), hurrying)
	return s, nil
}

// Keys, Context and Leave are for requests on the lane, which have entered s.calls.
func (s *servers) Keys() *v2http.Handler    { return s.keys }
func (s *servers) Context() context.Context { return s.alive }
func (s *servers) Leave()                   { s.calls.leave() }

var _ v2http.Desk = (*servers)(nil)

// newGRPC is the v3 API as the engine serves it, on connections that the front has
// accepted.
func newGRPC(server *etcdserver.EtcdServer, cfg *embed.Config, guard *gate.Gate, calls *inflight) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(guard.Unary), grpc.ChainStreamInterceptor(guard.Stream),
		grpc.Creds(front.Credentials()),
	}
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

// start begins to take gRPC connections from the front.
func (s *servers) start(from net.Listener) {
	s.wg.Go(func() {
		if err := s.grpc.Serve(from); err != nil && !errors.Is(err, net.ErrClosed) {
			s.failed <- fmt.Errorf("gRPC server: %w", err)
		}
	})
}

// stop ends watches at once and other requests within stopGrace. No new ones come
// in: the reception has been told.
func (s *servers) stop() {
	s.unwait()
	if s.json != nil {
		s.json.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	s.wg.Go(s.grpc.GracefulStop) // tells the clients; returns at Stop at the latest
	s.calls.wait(ctx)
	s.hurry()
	s.grpc.Stop()
	s.calls.close()
	s.wg.Wait()
}

// endWatches lets a request end when the member stops. Only watches are ended:
// whatever else runs is short and shall get its answer.
func endWatches(next http.Handler, stopping context.Context) http.Handler {
	ending := endWith(next, stopping)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.RawQuery, "wait=") {
			next.ServeHTTP(w, r)
			return
		}
		ending.ServeHTTP(w, r)
	})
}

// endWith ends requests when ctx is done.
func endWith(next http.Handler, done context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(done, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// inflight counts requests, until it is closed. Streams (v3 watches, lease
// renewals) never end by themselves, so a stop does not wait for them and they are
// not counted.
type inflight struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed while n is 0
}

func newInflight() *inflight {
	c := &inflight{idle: make(chan struct{})}
	close(c.idle)
	return c
}

// enter counts one more; false when no more are taken.
func (c *inflight) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.n == 0 {
		c.idle = make(chan struct{})
	}
	c.n++
	return true
}

func (c *inflight) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		close(c.idle)
	}
}

// close lets nobody in any more and waits for those who are.
func (c *inflight) close() {
	c.mu.Lock()
	c.closed = true
	idle := c.idle
	c.mu.Unlock()
	<-idle
}

// intercept counts a call. The engine panics when a member that has just been
// removed is asked for its status; that is a failed call, not the end of the process.
func (c *inflight) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if !c.enter() {
		return nil, status.Error(codes.Unavailable, "the member is stopping")
	}
	defer c.leave()
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "etcdserver: %s: %v", info.FullMethod, p)
		}
	}()
	return next(ctx, req)
}

// wait returns when nothing runs or ctx is done.
func (c *inflight) wait(ctx context.Context) {
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
