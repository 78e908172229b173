package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// DefaultFailureWait is how long an endpoint that failed is left out.
const DefaultFailureWait = 5 * time.Second

// answerTimeout is how long an endpoint may take to begin its answer. A member
// gives up on a write after 7 s, and a watch is answered at once.
const answerTimeout = 10 * time.Second

// probeTimeout is how long one that has failed may take to show that it is back.
const probeTimeout = time.Second

// probePath is a key that does not exist: a member answers without the others.
const probePath = "/v2/keys/_probe"

// ErrNoEndpoints: none is known, or all have failed a moment ago.
var ErrNoEndpoints = errors.New("httpproxy: zero endpoints currently available")

// FailedError says that every endpoint in question was tried in vain.
type FailedError struct {
	Tried int
	Last  error // why the last one failed
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("httpproxy: unable to get response from %d endpoint(s)", e.Tried)
}

// Unwrap returns why the last endpoint failed.
func (e *FailedError) Unwrap() error { return e.Last }

// Endpoints sends each request to the first of several servers that answers, the
// one that answered last before the others. It goes on to the next where a
// repetition is harmless: after a failure to connect or to send, and after any
// failure of a GET or HEAD. Of a write that was sent nobody knows whether it was
// done, so it is not sent again.
//
// The zero value has no endpoints; set the fields before the first request.
type Endpoints struct {
	Transport   http.RoundTripper // nil means http.DefaultTransport
	FailureWait time.Duration     // how long one that failed is left out; 0 means DefaultFailureWait
	Failed      func()            // told of each failure; may be nil

	mu   sync.Mutex
	list []*endpoint
}

var _ http.RoundTripper = (*Endpoints)(nil)

type endpoint struct {
	url    *url.URL
	failed time.Time // zero: it works as far as we know
}

// Set replaces the endpoints by those that can be parsed of the URLs, in random
// order. What is known of those that stay is kept.
func (e *Endpoints) Set(urls []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*endpoint
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			list = append(list, e.known(u))
		}
	}
	if sameEndpoints(list, e.list) {
		return
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	e.list = list
}

func (e *Endpoints) known(u *url.URL) *endpoint {
	for _, k := range e.list {
		if *k.url == *u {
			return k
		}
	}
	return &endpoint{url: u}
}

// sameEndpoints compares without order.
func sameEndpoints(a, b []*endpoint) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x *endpoint) bool { return !slices.Contains(b, x) })
}

// Usable is the endpoints that requests are sent to now, in their order.
func (e *Endpoints) Usable() []string {
	var urls []string
	for _, p := range e.usable() {
		urls = append(urls, p.url.String())
	}
	return urls
}

func (e *Endpoints) usable() []*endpoint {
	wait := e.FailureWait
	if wait == 0 {
		wait = DefaultFailureWait
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*endpoint
	for _, p := range e.list {
		if p.failed.IsZero() || time.Since(p.failed) >= wait {
			list = append(list, p)
		}
	}
	return list
}

// works notes that an endpoint has answered: the next request begins with it.
func (e *Endpoints) works(p *endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p.failed = time.Time{}
	if i := slices.Index(e.list, p); i > 0 {
		e.list = slices.Insert(slices.Delete(slices.Clone(e.list), i, i+1), 0, p)
	}
}

func (e *Endpoints) fails(p *endpoint) {
	e.mu.Lock()
	p.failed = time.Now()
	e.mu.Unlock()
	if e.Failed != nil {
		e.Failed()
	}
}

// failing is the endpoints that have failed and not answered since.
func (e *Endpoints) failing() []*endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*endpoint
	for _, p := range e.list {
		if !p.failed.IsZero() {
			list = append(list, p)
		}
	}
	return list
}

// probe asks those that have failed whether they are back, so that requests need
// not find out.
func (e *Endpoints) probe(ctx context.Context) {
	for _, p := range e.failing() {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String()+probePath, nil)
		if err == nil {
			var resp *http.Response
			if resp, _, err = e.try(r, p); err == nil {
				resp.Body.Close()
				e.revive(p, served(resp))
			}
		}
		cancel()
	}
}

func (e *Endpoints) revive(p *endpoint, works bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if works {
		p.failed = time.Time{}
	}
}

// served tells the answer of a store from that of a member which has none to offer
// now, because it is starting, or waits for others: 503, or an error about a key
// that does not name the cluster. Nothing was done then.
func served(resp *http.Response) bool {
	if strings.HasPrefix(resp.Request.URL.Path, "/v2/keys") && resp.StatusCode >= http.StatusInternalServerError {
		return resp.Header.Get("X-Etcd-Cluster-Id") != ""
	}
	return resp.StatusCode != http.StatusServiceUnavailable
}

// RoundTrip sends the request, whose host counts for nothing, to the endpoints in
// turn. A body needs GetBody. The error is ErrNoEndpoints, a *FailedError or the
// context's.
func (e *Endpoints) RoundTrip(r *http.Request) (*http.Response, error) {
	list := e.usable()
	if len(list) == 0 {
		return nil, ErrNoEndpoints
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	failed := &FailedError{}
	for i, p := range list {
		resp, sent, err := e.try(r, p)
		isServed := err == nil && served(resp)
		if err == nil && (isServed && !(read && resp.StatusCode >= 500) || i == len(list)-1) {
			e.note(p, isServed)
			return resp, nil // the last one's at any rate: it says why
		}
		if err == nil {
			resp.Body.Close()
			sent, err = isServed, errors.New(resp.Status)
		}
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		if !isServed {
			e.fails(p)
		}
		failed.Tried, failed.Last = failed.Tried+1, err
		if sent && !read {
			break
		}
	}
	return nil, failed
}

func (e *Endpoints) note(p *endpoint, works bool) {
	if works {
		e.works(p)
	} else {
		e.fails(p)
	}
}

// try sends the request to one endpoint; sent says whether it may have arrived.
func (e *Endpoints) try(r *http.Request, p *endpoint) (resp *http.Response, sent bool, err error) {
	// The trace may be called from another goroutine.
	var wrote atomic.Bool
	out := r.Clone(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { wrote.Store(true) },
	}))
	out.URL.Scheme, out.URL.Host, out.Host = p.url.Scheme, p.url.Host, p.url.Host
	if r.GetBody != nil {
		if out.Body, err = r.GetBody(); err != nil {
			return nil, false, err
		}
	}
	rt := e.Transport
	if rt == nil {
		rt = http.DefaultTransport
	}
	resp, err = rt.RoundTrip(out)
	return resp, wrote.Load(), err
}

// NewTransport makes connections to the store's members: HTTP/1.1, with the
// certificates that info names. dial is how long a connection may take to come
// about; 0 means 1 s.
func NewTransport(info transport.TLSInfo, dial time.Duration) (*http.Transport, error) {
	if dial == 0 {
		dial = time.Second
	}
	config, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("TLS towards the members: %w", err)
	}
	dialer := &net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: answerTimeout,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // bytes are passed through as they are
	}, nil
}
