package member

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
	"flotilla/internal/kv/front"
)

// peerReadTimeout is the engine's own limit for a request of a peer; the stream
// that answers it has none.
const peerReadTimeout = 5 * time.Minute

// peerPort is the member's peer addresses for its whole life. The engine listens
// nowhere: its handler is served here while it runs, beside what a member answers
// without one.
type peerPort struct {
	listeners []net.Listener
	urls      []url.URL
	http      *http.Server
	engine    atomic.Pointer[http.Handler]
	failed    chan error // the server ended by itself; buffered
	wg        sync.WaitGroup
}

// peerTLS completes the TLS settings for peers as the engine would, making a
// certificate with --peer-auto-tls.
func peerTLS(cfg *embed.Config) error {
	if err := cfg.PeerSelfCert(); err != nil {
		return fmt.Errorf("make a certificate for peers: %w", err)
	}
	cfg.PeerAutoTLS = false
	info := &cfg.PeerTLSInfo
	var err error
	if len(info.CipherSuites) == 0 && len(cfg.CipherSuites) > 0 {
		if info.CipherSuites, err = tlsutil.GetCipherSuites(cfg.CipherSuites); err != nil {
			return err
		}
	}
	if info.MinVersion, err = tlsutil.GetTLSVersion(cfg.TlsMinVersion); err != nil {
		return err
	}
	info.MaxVersion, err = tlsutil.GetTLSVersion(cfg.TlsMaxVersion)
	return err
}

// bindPeers binds all peer addresses, or none, with the engine's checks of
// certificates and its timeouts.
func bindPeers(cfg *embed.Config) (p *peerPort, err error) {
	if hasPortZero(cfg.ListenPeerUrls) && (!aloneIn(cfg.InitialCluster, cfg.Name) || cfg.ClusterState == embed.ClusterStateFlagExisting) {
		return nil, fault.Hint(errors.New("a peer address with port 0 is only for a member that is alone: the others could not find it"),
			"give --listen-peer-urls a port")
	}
	if err := peerTLS(cfg); err != nil {
		return nil, err
	}
	p = &peerPort{urls: slices.Clone(cfg.ListenPeerUrls), failed: make(chan error, len(cfg.ListenPeerUrls))}
	for i, u := range p.urls {
		opts := []transport.ListenerOption{
			transport.WithTimeout(rafthttp.ConnReadTimeout, rafthttp.ConnWriteTimeout), peerSocket(cfg.SocketOpts),
		}
		if u.Scheme == "https" || u.Scheme == "unixs" {
			opts = append(opts, transport.WithTLSInfo(&cfg.PeerTLSInfo))
		}
		l, err := front.Bind(u, "peer", transport.SocketOpts{}, opts...)
		if err != nil {
			p.closeListeners()
			return nil, err
		}
		p.listeners = append(p.listeners, l)
		p.urls[i] = front.Bound(u, l.Addr())
	}
	return p, nil
}

// unackedLimit is how long the other side of a peer connection may leave what was
// sent to it unacknowledged.
const unackedLimit = 5 * time.Second

// peerSocket gives up connections on which nothing is acknowledged any more
// (TCP_USER_TIMEOUT, tcp(7)). A member that was cut off and comes back is otherwise
// spoken to on the old connection alone, when its retransmission timer fires: after a
// cut of half a minute that is up to half a minute later. Multipath TCP, which Go
// listens with, does not know the option.
func peerSocket(reuse transport.SocketOpts) transport.ListenerOption {
	return func(o *transport.ListenerOptions) {
		o.ListenConfig.SetMultipathTCP(false)
		o.ListenConfig.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			controlErr := raw.Control(func(fd uintptr) { err = setPeerSocket(int(fd), reuse) })
			return errors.Join(controlErr, err)
		}
	}
}

func setPeerSocket(fd int, reuse transport.SocketOpts) error {
	errs := []error{unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedLimit.Milliseconds()))}
	if reuse.ReuseAddress {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	if reuse.ReusePort {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	return errors.Join(errs...)
}

// serve begins to answer; own is what the member answers itself, by path.
func (p *peerPort) serve(own *http.ServeMux, log *slog.Logger) {
	own.HandleFunc("/", p.toEngine)
	p.http = &http.Server{
		Handler:     own,
		ReadTimeout: peerReadTimeout,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	for _, l := range p.listeners {
		p.wg.Go(func() {
			if err := p.http.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				p.failed <- fmt.Errorf("peer server at %s: %w", l.Addr(), err)
			}
		})
	}
}

func (p *peerPort) toEngine(w http.ResponseWriter, r *http.Request) {
	if h := p.engine.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, "the engine of this member does not run now", http.StatusServiceUnavailable)
}

// attach serves an engine until detach, which is called before it is closed.
func (p *peerPort) attach(e *embed.Etcd) {
	h := etcdhttp.NewPeerHandler(e.GetLogger(), e.Server)
	p.engine.Store(&h)
}

func (p *peerPort) detach() { p.engine.Store(nil) }

// end stops listening and cuts off who is connected: without an engine there is
// nothing to finish.
func (p *peerPort) end() {
	if p.http != nil {
		p.http.Close()
	}
	p.closeListeners()
	p.wg.Wait()
}

func (p *peerPort) closeListeners() {
	for _, l := range p.listeners {
		l.Close()
	}
}
