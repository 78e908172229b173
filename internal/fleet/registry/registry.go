// Package registry is what fleet knows, in the store: typed reads, watches,
// guarded writes and leases. Package fleet lists the keys, their formats and
// writers.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flotilla/internal/fault"
)

// ErrAway is in every error that means that the store did not answer in time, or
// had no leader: nothing is known of whether a write was done.
var ErrAway = errors.New("the store does not answer")

// Config says where the store is.
type Config struct {
	Endpoints []string // URLs, the one to be asked first of all first
	TLS       *tls.Config
	Username  string
	Password  string
	Prefix    string        // "" means /_coreos.com/fleet/
	Timeout   time.Duration // of one request; 0 means 3 s
}

// Registry is a connection to the store. Make it with Open and Close it.
type Registry struct {
	client    *clientv3.Client
	endpoints string
	prefix    string
	timeout   time.Duration
	tls       *tls.Config
	log       *slog.Logger
	link      link
	passage   *passage
	past      lineage
	narrow    atomic.Bool // the store takes few operations in one transaction
}

// Reconnection after the store was away takes at most about a second: gRPC's own
// backoff grows to two minutes, long after the store is back.
var connectParams = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// inOrder has the first endpoint that answers asked as long as it does: by rule the
// member on this machine. Taking turns would send most requests over the network,
// and every third into the void after a member's machine has lost its power.
const inOrder = `{"loadBalancingConfig": [{"pick_first": {}}]}`

// Open makes a registry. It does not wait for the store, which may be away.
func Open(cfg Config, log *slog.Logger) (*Registry, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/_coreos.com/fleet/"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	passage := newPassage()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   cfg.Endpoints,
		TLS:         cfg.TLS,
		Token:       cfg.firstToken(),
		DialTimeout: cfg.Timeout,
		// A peer that vanished without a word is found out in five seconds, and
		// pings stay within what etcd allows its clients (one in five seconds).
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(connectParams),
			grpc.WithStatsHandler(passage),
			grpc.WithTransportCredentials(credentialsOf(cfg.Endpoints, cfg.TLS)),
			// The resolver of etcd's client says round_robin.
			grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(inOrder),
		},
		Logger: zap.NewNop(), // what matters comes back as an error
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", strings.Join(cfg.Endpoints, ","), err)
	}
	client.Token, client.Username, client.Password = "", cfg.Username, cfg.Password
	return &Registry{
		client:    client,
		endpoints: strings.Join(cfg.Endpoints, ", "),
		prefix:    strings.TrimSuffix(cfg.Prefix, "/") + "/",
		timeout:   cfg.Timeout,
		tls:       cfg.TLS,
		log:       log,
		link:      link{log: log},
		passage:   passage,
	}, nil
}

// firstToken is what the store is shown until it asks for better: then the client logs
// in. A client that is made with a name and password does that at once, and is not made
// at all while the store is away.
func (c Config) firstToken() string {
	if c.Username == "" || c.Password == "" {
		return ""
	}
	return "none-yet"
}

// Close ends the connection. Leases run out by themselves.
func (r *Registry) Close() error { return r.client.Close() }

// NewView makes an empty view of this registry.
func (r *Registry) NewView() *View { return NewView(r.prefix) }

// Away says since when the store has not answered; zero: it answers.
func (r *Registry) Away() time.Time { return r.link.since() }

func (r *Registry) key(k Key) string { return r.prefix + k.Path() }

// txn is the one way to the store for a single request: it has a limit in time,
// and its errors say what was being done and what was tried.
func (r *Registry) txn(ctx context.Context, doing string, when []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	start, life := time.Now(), r.passage.now()
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.client.Txn(limited).If(when...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, r.failed(ctx, doing, start, err)
	}
	r.link.up()
	done := then
	if !resp.Succeeded {
		done = otherwise
	}
	r.past.hear(life, resp.Header.Revision, written(done, resp.Header.Revision))
	return resp, nil
}

func (r *Registry) get(ctx context.Context, doing, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	start, life := time.Now(), r.passage.now()
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.client.Get(limited, key, opts...)
	if err != nil {
		return nil, r.failed(ctx, doing, start, err)
	}
	r.link.up()
	r.past.hear(life, resp.Header.Revision, witness{})
	return resp, nil
}

// failed makes the error of a request that did not succeed. ctx is the caller's:
// when that has ended, the store is not to blame.
func (r *Registry) failed(ctx context.Context, doing string, start time.Time, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	if denied(err) {
		return fault.Hint(fmt.Errorf("%s: %w: %w", doing, ErrDenied, err),
			"see etcd_username, etcd_password and the certificate of this fleetd, and its role ('fleetd store-roles --help'); what takes other roles, another machine's fleetd may do")
	}
	if !away(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	waited := time.Since(start).Round(100 * time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		err = r.knock(ctx)
	}
	r.link.down(err)
	err = fmt.Errorf("%s: %w (tried %s for %v: %w)", doing, ErrAway, r.endpoints, waited, err)
	return fault.Hint(err, "see whether etcd runs ('systemctl status etcd', 'etcdctl cluster-health'); units that run go on running meanwhile")
}

// knockLimit bounds how long it is looked into why the store does not answer.
const knockLimit = 300 * time.Millisecond

// knock finds out why nobody answered: gRPC waits in silence for a connection. It
// returns the first endpoint's reason.
func (r *Registry) knock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, knockLimit)
	defer cancel()
	for _, ep := range r.client.Endpoints() {
		host := ep
		if u, err := url.Parse(ep); err == nil && u.Host != "" {
			host = u.Host
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
		if err != nil {
			return err
		}
		conn.Close()
	}
	return errors.New("it takes connections and does not answer; a cluster without a majority does that")
}

// link says once when the store goes away and once when it is back.
type link struct {
	log  *slog.Logger
	mu   sync.Mutex
	lost time.Time
}

func (l *link) down(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.IsZero() {
		l.lost = time.Now()
		l.log.Warn("store away, units go on running", "err", err)
	}
}

func (l *link) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lost.IsZero() {
		l.log.Info("store back", "after", time.Since(l.lost))
		l.lost = time.Time{}
	}
}

func (l *link) since() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
