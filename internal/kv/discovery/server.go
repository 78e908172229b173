package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/internal/fault"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/holder"
	"flotilla/internal/lifecycle"
)

const (
	// maxConns bounds the connections at one time: a member that waits holds one.
	maxConns = 5000
	// headerTimeout and idleTimeout end connections that say nothing.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopGrace is what running requests get at the end; watches get nothing.
	stopGrace = time.Second
)

// settings are what the command line says.
type settings struct {
	Listen    string // URL
	BaseURL   string
	DataDir   string
	Endpoints []string          // in place of DataDir
	TLS       transport.TLSInfo // of Listen
	StoreTLS  transport.TLSInfo // towards Endpoints
	Allowed   front.Allowed
	Limits    Limits
}

func defaults() settings {
	return settings{Listen: DefaultURL, DataDir: "discovery.etcd", Limits: DefaultLimits()}
}

// validate reports all that is wrong at once.
func (c settings) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if urls, err := types.NewURLs([]string{c.Listen}); err != nil {
		add("--listen: %w", err)
	} else if u := urls[0]; u.Scheme != "http" && u.Scheme != "https" {
		add("--listen %s: must be http:// or https://", c.Listen)
	} else if u.Scheme == "https" && (c.TLS.CertFile == "" || c.TLS.KeyFile == "") {
		add("--listen %s: https needs --cert-file and --key-file", c.Listen)
	}
	if c.TLS.ClientCertAuth && c.TLS.TrustedCAFile == "" {
		add("--client-cert-auth needs --trusted-ca-file")
	}
	if len(c.Endpoints) == 0 && !(c.StoreTLS.Empty() && c.StoreTLS.TrustedCAFile == "") {
		add("--endpoints-cert-file, --endpoints-key-file and --endpoints-trusted-ca-file need --endpoints")
	}
	if u, err := url.Parse(c.BaseURL); c.BaseURL != "" && (err != nil || u.Host == "" || !strings.HasPrefix(u.Scheme, "http")) {
		add("--base-url %q: must be of the form http://HOST[:PORT][/PATH]", c.BaseURL)
	}
	for name, n := range map[string]int{"max-size": c.Limits.MaxSize, "max-tokens": c.Limits.MaxTokens, "tokens-per-minute": c.Limits.PerMinute} {
		if n < 1 {
			add("--%s %d: must be at least 1", name, n)
		}
	}
	for name, d := range map[string]time.Duration{"unused-ttl": c.Limits.Unused, "used-ttl": c.Limits.Used} {
		if d < time.Minute {
			add("--%s %v: must be at least 1m", name, d)
		}
	}
	return fault.Code(fault.ExitUsage, errors.Join(errs...))
}

// server is the service with its listener and its store.
type server struct {
	cfg settings
	log *slog.Logger
}

func newServer(cfg settings, log *slog.Logger) *server { return &server{cfg, log} }

// Run serves until ctx is done.
func (s *server) Run(ctx context.Context) error {
	u := types.MustNewURLs([]string{s.cfg.Listen})[0]
	audience := front.Audience{Who: "discovery", URLs: []url.URL{u}, ClientCert: s.cfg.TLS.ClientCertAuth, CertFlags: "--client-cert-auth --trusted-ca-file"}
	if err := front.CheckExposure([]front.Audience{audience}, s.cfg.Allowed); err != nil {
		return err
	}
	l, err := s.bind(u)
	if err != nil {
		return err
	}
	defer l.Close()
	parts, store, err := s.store()
	if err != nil {
		return err
	}
	handler, err := New(Config{Store: store, StoreAt: s.cfg.storeAt(), BaseURL: s.cfg.BaseURL, Limits: s.cfg.Limits, Log: s.log})
	if err != nil {
		return err
	}
	return lifecycle.Run(ctx, s.log, append(parts, lifecycle.Part{
		Name: "discovery",
		Run:  func(ctx context.Context, ready func()) error { return s.serve(ctx, ready, l, u, handler) },
	})...)
}

// storeAt is where the tokens are kept, in words.
func (c settings) storeAt() string {
	if len(c.Endpoints) > 0 {
		return "at " + strings.Join(c.Endpoints, ", ")
	}
	return "in " + c.DataDir
}

// store is where the tokens are kept, and what has to run for it.
func (s *server) store() ([]lifecycle.Part, http.RoundTripper, error) {
	if len(s.cfg.Endpoints) > 0 {
		store, err := otherStore(s.cfg.Endpoints, s.cfg.StoreTLS)
		return nil, store, err
	}
	m, store, err := ownStore(s.cfg.DataDir, s.log.With("part", "store"))
	if err != nil {
		return nil, nil, err
	}
	return []lifecycle.Part{{Name: "store", Run: m.Run, StopTimeout: 15 * time.Second}}, store, nil
}

func (s *server) bind(u url.URL) (net.Listener, error) {
	l, err := net.Listen("tcp", u.Host)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fault.Hint(fmt.Errorf("listen on %s: the port is in use%s", u.String(), holder.By(holder.OfPort(u.Host))),
			"stop that one, or choose another address with --listen")
	}
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("listen on %s: %w", u.String(), err), "--listen has to name an address of this machine")
	}
	l = transport.LimitListener(l, maxConns)
	if u.Scheme != "https" {
		return l, nil
	}
	config, err := s.cfg.TLS.ServerConfig()
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", u.String(), err)
	}
	return tls.NewListener(l, config), nil
}

// serve answers requests until ctx is done.
func (s *server) serve(ctx context.Context, ready func(), l net.Listener, u url.URL, handler http.Handler) error {
	running, end := context.WithCancel(context.Background())
	defer end()
	hs := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return running },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	bound := front.Bound(u, l.Addr())
	s.log.Info("discovery service ready", "at", bound.String())
	if err := lifecycle.Notify("READY=1\nSTATUS=" + bound.String()); err != nil {
		s.log.Warn("cannot tell systemd that the service is ready", "err", err)
	}
	ready()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end() // members that wait come again
	grace, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if hs.Shutdown(grace) != nil {
		hs.Close()
	}
	return nil
}
