package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.etcd.io/etcd/pkg/v3/httputil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc"

	"flotilla/internal/kv/front"
)

const (
	// stopGrace is how long requests that run may take to finish at the end.
	stopGrace = time.Second
	// headerTimeout is as generous as a member's.
	headerTimeout = 5 * time.Minute
)

// handler is all that the proxy says over HTTP/1.
func (p *Proxy) handler() http.Handler {
	forward := &forwarder{
		rt: p.to, log: p.log,
		answered: func(resp *http.Response) {
			p.gateway.heard(resp)
			for name := range resp.Header { // ours are set already
				if strings.HasPrefix(name, "Access-Control-") {
					resp.Header.Del(name)
				}
			}
		},
		instead: func(w http.ResponseWriter, r *http.Request) bool { return p.gateway.local(w, r, true) },
	}
	metrics := promhttp.Handler()
	all := embed.WrapCORS(p.cfg.Origins, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/config/local/proxy":
			p.config(w, r)
		case r.URL.Path == "/metrics":
			metrics.ServeHTTP(w, r)
		case !p.gateway.local(w, r, false):
			forward.ServeHTTP(w, r)
		}
	}))
	return p.guard(all)
}

// guard refuses what the flags refuse: hosts, and writes at a read-only proxy.
func (p *Proxy) guard(next http.Handler) http.Handler {
	access := &etcdserver.AccessController{HostWhitelist: p.cfg.Hosts}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := httputil.GetHostname(r)
		switch {
		case r.TLS == nil && !access.IsHostWhitelisted(host):
			http.Error(w, fmt.Sprintf("host %q is not served here: use https, or add it to --host-whitelist", host), http.StatusMisdirectedRequest)
		case p.cfg.ReadOnly && r.Method != http.MethodGet:
			w.WriteHeader(http.StatusNotImplemented)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// config tells which endpoints requests are passed on to.
func (p *Proxy) config(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	json.NewEncoder(w).Encode(map[string][]string{"endpoints": append([]string{}, p.to.Usable()...)})
}

// servers is what runs on the front.
type servers struct {
	http    *http.Server
	metrics *http.Server
	grpc    *grpc.Server
	end     context.CancelFunc // of all requests
	failed  chan error         // one of them ended by itself; buffered
	wg      sync.WaitGroup
}

// serve begins to answer.
func (p *Proxy) serve(f *front.Front) (*servers, error) {
	running, end := context.WithCancel(context.Background())
	newServer := func(h http.Handler) *http.Server {
		return &http.Server{
			Handler: h, ReadHeaderTimeout: headerTimeout,
			BaseContext: func(net.Listener) context.Context { return running },
			ErrorLog:    slog.NewLogLogger(p.log.Handler(), slog.LevelDebug), // complaints about clients
		}
	}
	s := &servers{
		http: newServer(p.handler()), metrics: newServer(p.monitoring()), grpc: p.calls.server(),
		end: end, failed: make(chan error, 2+len(p.cfg.Metrics)),
	}
	for _, u := range p.cfg.Metrics {
		l, err := p.bindMetrics(u)
		if err != nil {
			s.stop(f)
			return nil, err
		}
		s.run("metrics server", func() error { return s.metrics.Serve(l) })
	}
	s.run("HTTP server", func() error { return s.http.Serve(f.HTTP()) })
	s.run("gRPC server", func() error { return s.grpc.Serve(f.GRPC()) })
	f.Serve()
	return s, nil
}

func (p *Proxy) bindMetrics(u url.URL) (net.Listener, error) {
	l, err := front.Bind(u, "metrics", p.cfg.Front.Sockets)
	if err != nil || u.Scheme != "https" {
		return l, err
	}
	config, err := p.cfg.Front.TLS.Config(p.log)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", u.String(), err)
	}
	return tls.NewListener(l, config), nil
}

// monitoring is what the addresses for it serve.
func (p *Proxy) monitoring() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.Handler())
	mux.Handle("/health", Forward(p.to, p.log))
	return mux
}

func (s *servers) run(name string, serve func() error) {
	s.wg.Go(func() {
		err := serve()
		if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, grpc.ErrServerStopped) {
			return
		}
		s.failed <- fmt.Errorf("%s: %w", name, err)
	})
}

// stop ends the servers: watches at once, other requests within stopGrace.
func (s *servers) stop(f *front.Front) {
	f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	defer s.end()
	s.wg.Go(s.grpc.GracefulStop)
	s.wg.Go(func() { s.metrics.Shutdown(ctx) })
	if s.http.Shutdown(ctx) != nil {
		s.end() // watches
		s.http.Close()
	}
	s.metrics.Close()
	s.grpc.Stop()
	s.wg.Wait()
}
