package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/internal/kv/front"
)

// Between two looks at who the members are.
const (
	DefaultRefresh = 30 * time.Second
	refreshSoon    = time.Second // while none is known, and after one has failed
)

// Config is what a proxy needs. Dir, Find and Front are required.
type Config struct {
	Dir string // data directory
	// Find says where members listen for their peers when Dir does not. It may
	// take as long as it takes.
	Find  func(context.Context) (peerURLs []string, err error)
	Front front.Config // where clients are served
	// Metrics are further addresses, for /metrics and /health alone.
	Metrics []url.URL
	// ReadOnly refuses all but reads.
	ReadOnly bool
	// ClientTLS and PeerTLS are for the members' client and peer addresses.
	ClientTLS, PeerTLS transport.TLSInfo

	// User is who the proxy is towards the members, with Password: a user with the role
	// root, so that the proxy can answer reads while users and passwords count. "":
	// members answer them then.
	User, Password string

	FailureWait time.Duration // how long a member that failed is left out; 0 means DefaultFailureWait
	Refresh     time.Duration // 0 means DefaultRefresh
	DialTimeout time.Duration // 0 means 1 s
	// ReadTimeout and WriteTimeout end a connection to a member on which nothing
	// could be read or written for so long; 0 means never. A ReadTimeout ends
	// idle watches that are passed on.
	ReadTimeout, WriteTimeout time.Duration

	Origins map[string]struct{} // as etcd's --cors
	Hosts   map[string]struct{} // as etcd's --host-whitelist; empty or "*": any
}

// Proxy is a proxy. Run it once.
type Proxy struct {
	cfg Config
	log *slog.Logger

	peerRT    *http.Transport
	clientRT  *http.Transport
	clientTLS *tls.Config
	to        *Endpoints
	calls     *calls
	gateway   *gateway
	failed    chan struct{} // 1 slot: an endpoint has failed

	mu   sync.Mutex
	urls []url.URL // bound
}

// New makes a proxy; it touches nothing before Run.
func New(cfg Config, log *slog.Logger) *Proxy {
	if cfg.Refresh == 0 {
		cfg.Refresh = DefaultRefresh
	}
	return &Proxy{cfg: cfg, log: log, failed: make(chan struct{}, 1)}
}

// ClientURLs is where the proxy serves clients, with the ports that were bound. It
// is valid once Run has called ready.
func (p *Proxy) ClientURLs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return types.URLs(p.urls).StringSlice()
}

// Run serves until ctx is done. It calls ready when it knows where the cluster is
// and has heard from a member once, or found that none answers; before that,
// requests are answered with 503.
func (p *Proxy) Run(ctx context.Context, ready func()) error {
	if err := p.connect(); err != nil {
		return err
	}
	defer p.calls.conn.Close()
	f, err := front.Listen(p.cfg.Front)
	if err != nil {
		return err
	}
	defer f.Close()
	p.mu.Lock()
	p.urls = f.URLs()
	p.mu.Unlock()

	servers, err := p.serve(f)
	if err != nil {
		return err
	}
	defer servers.stop(f) // before what it stands on
	own, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ended := make(chan error, 1)
	wg.Go(func() { ended <- p.direct(own, ready) })
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if ctx.Err() != nil {
			return nil
		}
		return err
	case err := <-servers.failed:
		return err
	}
}

// connect prepares the ways to the members.
func (p *Proxy) connect() (err error) {
	if p.peerRT, err = p.transport(p.cfg.PeerTLS); err != nil {
		return err
	}
	if p.clientRT, err = p.transport(p.cfg.ClientTLS); err != nil {
		return err
	}
	if p.clientTLS, err = p.cfg.ClientTLS.ClientConfig(); err != nil {
		return fmt.Errorf("TLS towards the members: %w", err)
	}
	p.to = &Endpoints{Transport: p.clientRT, FailureWait: p.cfg.FailureWait, Failed: p.lookAgain}
	p.gateway = newGateway(p.log)
	p.calls, err = newCalls(p.clientTLS, p.cfg.ReadOnly)
	return err
}

func (p *Proxy) transport(info transport.TLSInfo) (*http.Transport, error) {
	t, err := NewTransport(info, p.cfg.DialTimeout)
	if err != nil {
		return nil, err
	}
	t.DialContext = limited(t.DialContext, p.cfg.ReadTimeout, p.cfg.WriteTimeout)
	return t, nil
}

// lookAgain has the members looked up soon.
func (p *Proxy) lookAgain() {
	select {
	case p.failed <- struct{}{}:
	default:
	}
}

// direct finds the cluster and follows its membership.
func (p *Proxy) direct(ctx context.Context, ready func()) error {
	peers, err := p.peers(ctx)
	if err != nil {
		return err
	}
	p.log.Info("proxy for the cluster", "peers", peers)
	once := sync.OnceFunc(ready)
	defer p.gateway.stop()
	var trouble string
	for {
		err := p.look(ctx, &peers)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil && trouble != "":
			p.log.Info("all is well with the members again")
			trouble = ""
		case err != nil && trouble == "":
			trouble = err.Error()
			p.log.Warn("trying again until it works", "err", err)
		}
		if err != nil {
			p.lookAgain()
		}
		once()
		if !p.rest(ctx) {
			return nil
		}
	}
}

// look asks who the members are and uses the answer.
func (p *Proxy) look(ctx context.Context, peers *[]string) error {
	c, err := ask(ctx, p.peerRT, *peers)
	if err != nil {
		return fmt.Errorf("learn who the members are: %w", err)
	}
	if !equal(*peers, c.peers) || !exists(clusterFile(p.cfg.Dir)) {
		p.log.Info("the cluster's members", "peers", c.peers, "clients", c.clients)
		if err := savePeers(p.cfg.Dir, c.peers); err != nil {
			p.log.Warn("a restart will go by the flags", "err", err)
		}
		*peers = c.peers
	}
	p.to.Set(c.clients)
	p.calls.set(p.to.Usable())
	if err := p.gateway.follow(ctx, c.clients, p); err != nil {
		return fmt.Errorf("follow the store (meanwhile members answer reads): %w", err)
	}
	return nil
}

// peers is where to ask: the file of before wins over the flags.
func (p *Proxy) peers(ctx context.Context) ([]string, error) {
	peers, err := loadPeers(p.cfg.Dir)
	if err != nil || len(peers) > 0 {
		return peers, err
	}
	peers, err = p.cfg.Find(ctx)
	if err == nil && len(peers) == 0 {
		err = errors.New("no member is named")
	}
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	return peers, nil
}

// rest waits until it is time to look again: at the interval, soon after a failure,
// and soon while nobody answers. Meanwhile it sees whether those that have failed
// are back. It returns false when ctx is done.
func (p *Proxy) rest(ctx context.Context) bool {
	again := time.After(p.cfg.Refresh)
	tick := time.NewTicker(refreshSoon)
	defer tick.Stop()
	for failed := len(p.to.Usable()) == 0; ; {
		select {
		case <-again:
			return true
		case <-ctx.Done():
			return false
		case <-p.failed:
			failed = true
		case <-tick.C:
			p.to.probe(ctx)
			p.calls.set(p.to.Usable())
			if failed {
				return true
			}
		}
	}
}
