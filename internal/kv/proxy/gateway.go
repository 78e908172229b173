package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"flotilla/internal/kv/auth"
	"flotilla/internal/kv/gate"
	"flotilla/internal/kv/mvcc"
	"flotilla/internal/kv/v2http"
)

const (
	// statusTimeout is how long a member may take to say where it stands.
	statusTimeout = 3 * time.Second
	// authEvery is how often a member is asked whether users and passwords count, and
	// authSeldom the same while a watch would tell.
	authEvery  = time.Second
	authSeldom = 10 * time.Second
	// catchUp is how long a read waits for the gateway to see what its client may
	// have heard of; then a member is asked.
	catchUp = 100 * time.Millisecond
)

// gateway answers reads of the key space in this process. It cannot do so before
// it has read the store, and may not while users and passwords count, unless it has a
// gate: without a user of its own only members can tell who may read what.
type gateway struct {
	log *slog.Logger

	mu     sync.Mutex
	client *clientv3.Client // nil until the members are known
	guard  *gate.Gate       // nil: there is no user to read users and roles as
	end    func()           // stops everything

	// These are there only while the gateway may answer.
	store   *mvcc.Store
	handler http.Handler    // the v2 API on store
	open    context.Context // ends with the permission
	leave   func()          // ends open
	stores  sync.WaitGroup  // that run

	seen    atomic.Uint64 // the highest index that a member has told through us
	cluster atomic.Uint64 // the cluster's id
	term    atomic.Uint64
	raft    atomic.Uint64 // committed, as last heard
}

func newGateway(log *slog.Logger) *gateway {
	return &gateway{log: log, end: func() {}, leave: func() {}}
}

// follow makes the gateway follow the members at these client URLs.
func (g *gateway) follow(ctx context.Context, clients []string, p *Proxy) error {
	if len(clients) == 0 {
		return errors.New("no member tells where it serves clients")
	}
	g.mu.Lock()
	client := g.client
	g.mu.Unlock()
	if client != nil {
		client.SetEndpoints(clients...)
		return g.status(ctx, client)
	}
	client, err := newClient(clients, p)
	if err != nil {
		return fmt.Errorf("connect to the members: %w", err)
	}
	if err := g.status(ctx, client); err != nil {
		client.Close()
		return err
	}
	g.start(ctx, client, p)
	return nil
}

// newClient speaks to all members, and leaves one that hears from no leader.
func newClient(clients []string, p *Proxy) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            clients,
		TLS:                  p.clientTLS,
		Username:             p.cfg.User,
		Password:             p.cfg.Password,
		DialTimeout:          statusTimeout,
		DialKeepAliveTime:    pingEvery,
		DialKeepAliveTimeout: pingTimeout,
		Logger:               zap.NewNop(), // what concerns us comes as an error
		DialOptions: []grpc.DialOption{reconnect, grpc.WithChainStreamInterceptor(
			func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
				return next(ctx, d, cc, method, opts...)
			})},
	})
}

// status asks one member where it stands.
func (g *gateway) status(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var errs []error
	for _, ep := range client.Endpoints() {
		s, err := client.Status(ctx, ep)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ep, err))
			continue
		}
		g.cluster.Store(s.Header.ClusterId)
		raise(&g.term, s.RaftTerm)
		raise(&g.raft, s.RaftIndex)
		return nil
	}
	return fmt.Errorf("no member says where it stands: %w", errors.Join(errs...))
}

// start lets the gateway answer from now on, while it may.
func (g *gateway) start(ctx context.Context, client *clientv3.Client, p *Proxy) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	g.mu.Lock()
	defer g.mu.Unlock()
	g.client = client
	if p.cfg.User != "" {
		g.guard = gate.New(gate.Config{Client: client, Log: g.log, Remote: true})
		g.open, g.leave = context.WithCancel(ctx)
		g.run(g.open)
		wg.Go(func() { g.keepGate(ctx) })
	} else {
		wg.Go(func() { g.watchAuth(ctx, p.to) })
	}
	g.end = func() {
		cancel()
		wg.Wait()
		g.stores.Wait()
		client.Close()
	}
}

// keepGate follows users and roles.
func (g *gateway) keepGate(ctx context.Context) {
	err := g.guard.Run(ctx, func() { g.log.Info("users and passwords are judged here") })
	if err != nil {
		g.log.Error("the gate has ended", "err", err)
	}
}

// run makes a store that follows the members until ctx is done. The caller holds
// the lock.
func (g *gateway) run(ctx context.Context) {
	store := mvcc.New(mvcc.Config{
		Client: g.client, Log: g.log,
		Active:      func() bool { return false }, // the members keep house
		KeepHistory: true,
	})
	cfg := v2http.Config{Store: store, Info: info{g: g}, Log: g.log}
	if g.guard != nil {
		cfg.Gate = g.guard
	}
	g.store, g.handler = store, v2http.New(cfg)
	g.stores.Go(func() {
		if err := store.Run(ctx, func() { g.log.Info("reads are answered here", "index", store.Index()) }); err != nil {
			g.log.Error("the gateway has ended", "err", err)
		}
	})
}

// stop ends everything.
func (g *gateway) stop() {
	g.mu.Lock()
	end := g.end
	g.end = func() {}
	g.close()
	g.mu.Unlock()
	end()
}

// watchAuth keeps an eye on whether users and passwords count: by a watch of the
// switch while they do not, and by asking, now and then, since a member may be silent.
// While they do, only asking is left. While no member tells, it stays as it was.
func (g *gateway) watchAuth(ctx context.Context, to http.RoundTripper) {
	for ctx.Err() == nil {
		watching, cancel := context.WithCancel(ctx)
		switched := g.watchSwitch(watching)
		on, err := authOn(ctx, to)
		if err == nil {
			g.admit(ctx, !on)
		}
		pause := authEvery
		if err == nil && !on {
			pause = authSeldom
		}
		select {
		case <-switched:
			g.admit(ctx, false)
		case <-time.After(pause):
		case <-ctx.Done():
		}
		cancel()
	}
}

// watchSwitch returns a channel that is closed when the switch is turned on. It has
// been seen off by then: who may not watch it is told that it is on.
func (g *gateway) watchSwitch(ctx context.Context) <-chan struct{} {
	events := g.client.Watch(clientv3.WithRequireLeader(ctx), auth.SwitchKey, clientv3.WithCreatedNotify())
	select { // before the question is asked, so that no moment is between the two
	case <-events:
	case <-time.After(askTimeout):
	case <-ctx.Done():
	}
	switched := make(chan struct{})
	go func() {
		for resp := range events {
			if len(resp.Events) > 0 || errors.Is(resp.Err(), rpctypes.ErrUserEmpty) {
				close(switched)
				return
			}
		}
	}()
	return switched
}

// admit lets the gateway answer, or ends what it answers.
func (g *gateway) admit(ctx context.Context, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case open && g.open == nil:
		g.open, g.leave = context.WithCancel(ctx)
		g.run(g.open)
	case !open && g.open != nil:
		g.log.Info("users and passwords count: reads are passed on to the members")
		g.close()
	}
}

// close ends what is answered here. The caller holds the lock.
func (g *gateway) close() {
	g.leave()
	g.store, g.handler, g.open = nil, nil, nil
}

// authOn asks a member whether users and passwords count. One that does not know
// of them has none; one that is starting or about to go cannot tell, which is an
// error.
func authOn(ctx context.Context, to http.RoundTripper) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://endpoint/v2/auth/enable", nil)
	if err != nil {
		return false, err
	}
	resp, err := to.RoundTrip(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var answer struct{ Enabled bool }
	switch resp.StatusCode {
	case http.StatusNotFound:
		return false, nil
	case http.StatusOK:
		err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&answer)
		return answer.Enabled, err
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return false, fmt.Errorf("a member cannot tell whether users and passwords count: %s", resp.Status)
	}
	return true, nil
}

// local answers the request if it is one that the gateway can answer. stale
// permits an answer that is older than what clients have heard of already.
func (g *gateway) local(w http.ResponseWriter, r *http.Request, stale bool) bool {
	if !isPlainRead(r) {
		return false
	}
	g.mu.Lock()
	handler, store, open, guard := g.handler, g.store, g.open, g.guard
	g.mu.Unlock()
	if guard != nil && !guard.Knows() {
		return false
	}
	if handler == nil || open == nil || store.Index() == 0 || !stale && !g.caughtUp(r.Context(), store) {
		return false
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(open, cancel)()
	handler.ServeHTTP(w, r.WithContext(ctx))
	return true
}

// caughtUp says whether the store knows all that clients of the proxy have heard of.
func (g *gateway) caughtUp(ctx context.Context, store *mvcc.Store) bool {
	seen := g.seen.Load()
	if store.Index() >= seen {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	return store.Await(ctx, seen) == nil
}

// isPlainRead tells reads and watches of the key space from what a member has to
// do.
func isPlainRead(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/keys")
	if !ok || rest != "" && rest[0] != '/' {
		return false
	}
	quorum := r.URL.Query()["quorum"]
	return len(quorum) == 0 || quorum[0] == "false"
}

// heard takes note of where the store stands, from an answer of a member.
func (g *gateway) heard(resp *http.Response) {
	if !strings.HasPrefix(resp.Request.URL.Path, "/v2/keys") || resp.StatusCode >= http.StatusInternalServerError {
		return
	}
	for name, to := range map[string]*atomic.Uint64{"X-Etcd-Index": &g.seen, "X-Raft-Index": &g.raft, "X-Raft-Term": &g.term} {
		if n, err := strconv.ParseUint(resp.Header.Get(name), 10, 64); err == nil {
			raise(to, n)
		}
	}
}

// raise makes v at least n.
func raise(v *atomic.Uint64, n uint64) {
	for was := v.Load(); n > was; was = v.Load() {
		if v.CompareAndSwap(was, n) {
			return
		}
	}
}

// info is what the key space's handler asks; the rest of Info it asks for paths
// that never reach it.
type info struct {
	v2http.Info
	g *gateway
}

func (i info) ClusterID() uint64 { return i.g.cluster.Load() }
func (i info) RaftIndex() uint64 { return i.g.raft.Load() }
func (i info) RaftTerm() uint64  { return i.g.term.Load() }
