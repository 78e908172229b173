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

const (
	// hedgeAfter is how long an endpoint may take to begin its answer to a read
	// before another one is asked, too.
	hedgeAfter = 500 * time.Millisecond
	// silentAfter is for how long one that has answered counts as being there.
	silentAfter = time.Second
)

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
// repetition is harmless: after a failure to connect or to send, and, of a GET or
// HEAD, after any failure and while there is no answer. Of a write that was sent nobody
// knows whether it was done, so it is not sent again; an endpoint that has been quiet
// is asked whether it is there before it gets one.
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
	heard  time.Time // its last answer
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
		e.revive(p, e.ask(ctx, p))
	}
}

// ask reports whether the endpoint answers, with something that only a store says.
func (e *Endpoints) ask(ctx context.Context, p *endpoint) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String()+probePath, nil)
	if err != nil {
		return false
	}
	resp, _, err := e.try(r, p)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return served(resp)
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
	switch {
	case len(list) == 0:
		return nil, ErrNoEndpoints
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return e.read(r, list)
	}
	return e.write(r, list)
}

// write sends a request that must not be done twice. An endpoint that has not been
// heard of for a while is asked first whether it is there: what was sent to one that
// is frozen can be sent to no other.
func (e *Endpoints) write(r *http.Request, list []*endpoint) (*http.Response, error) {
	failed := &FailedError{}
	for i, p := range list {
		last := i == len(list)-1
		if !last && !e.awake(r.Context(), p) {
			failed.Tried, failed.Last = failed.Tried+1, errSilent
			continue
		}
		resp, sent, err := e.try(r, p)
		isServed := err == nil && served(resp)
		if isServed || err == nil && last { // the last one's at any rate: it says why
			e.note(p, isServed)
			return resp, nil
		}
		if err == nil {
			resp.Body.Close()
			sent, err = false, errors.New(resp.Status)
		}
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		e.fails(p)
		failed.Tried, failed.Last = failed.Tried+1, err
		if sent {
			break
		}
	}
	return nil, failed
}

// errSilent: the endpoint was asked whether it is there, and did not say so.
var errSilent = errors.New("it does not answer")

// awake reports whether the endpoint has answered a moment ago, or does so now.
func (e *Endpoints) awake(ctx context.Context, p *endpoint) bool {
	e.mu.Lock()
	lately := time.Since(p.heard) < silentAfter
	e.mu.Unlock()
	if lately {
		return true
	}
	answers := e.ask(ctx, p)
	if answers || ctx.Err() != nil {
		return true // who gives up says nothing about the endpoint
	}
	e.fails(p)
	return false
}

// attempt is what became of a read at one endpoint.
type attempt struct {
	p    *endpoint
	resp *http.Response // nil: err
	err  error
}

// good is an answer that no other endpoint could better.
func (a attempt) good() bool {
	return a.err == nil && served(a.resp) && a.resp.StatusCode < http.StatusInternalServerError
}

// read asks the endpoints one after the other, the next one when one has failed or
// is silent for hedgeAfter. The first good answer counts; if there is none, the last
// one that says why.
func (e *Endpoints) read(r *http.Request, list []*endpoint) (*http.Response, error) {
	h := hedge{e: e, r: r, list: list, results: make(chan attempt, len(list)), ends: make([]context.CancelFunc, len(list))}
	defer func() { go h.drop() }()
	h.next()
	silent := time.NewTicker(hedgeAfter)
	defer silent.Stop()
	failed := &FailedError{}
	for h.running > 0 {
		select {
		case <-silent.C:
			h.hedged = h.next() || h.hedged
		case a := <-h.results:
			h.running--
			if r.Context().Err() != nil {
				h.spare(a)
				return nil, r.Context().Err()
			}
			if a.good() {
				e.works(a.p)
				return h.take(a), nil
			}
			if failed.Tried, failed.Last = failed.Tried+1, a.err; a.err != nil || !served(a.resp) {
				e.fails(a.p)
			}
			h.spare(a)
			h.next()
			if h.running == 0 && h.hedged && !h.second { // all were asked at the same bad moment, as that of an election
				h.again()
			}
		}
	}
	if h.last.resp != nil {
		return h.take(h.last), nil
	}
	return nil, failed
}

// hedge is a read that is under way at several endpoints.
type hedge struct {
	e       *Endpoints
	r       *http.Request
	list    []*endpoint
	begun   int  // so many of the list were asked
	running int  // so many of them have not answered
	hedged  bool // one was asked because another was silent, not because it had failed
	second  bool // this is the second round
	results chan attempt
	ends    []context.CancelFunc // of the attempts
	last    attempt              // an answer that is no good, to be used if no other comes
}

// next asks one more endpoint; false if there is none.
func (h *hedge) next() bool {
	if h.begun == len(h.list) {
		return false
	}
	p := h.list[h.begun]
	ctx, cancel := context.WithCancel(h.r.Context())
	h.ends[h.begun] = cancel
	h.begun++
	h.running++
	go func() {
		resp, _, err := h.e.try(h.r.WithContext(ctx), p)
		h.results <- attempt{p, resp, err}
	}()
	return true
}

// again begins once more with those that are usable still. What the first round has
// begun ends with the request.
func (h *hedge) again() {
	h.list, h.begun, h.second = h.e.usable(), 0, true
	h.ends = make([]context.CancelFunc, len(h.list))
	h.results = make(chan attempt, len(h.list))
	h.next()
}

// spare keeps an answer in reserve.
func (h *hedge) spare(a attempt) {
	if a.resp == nil {
		return
	}
	if h.last.resp != nil {
		h.last.resp.Body.Close()
	}
	h.last = a
}

// take returns an answer, which from then on is the caller's: its attempt ends with
// the request.
func (h *hedge) take(a attempt) *http.Response {
	if a.p == h.last.p {
		h.last = attempt{}
	}
	for i, p := range h.list {
		if p == a.p {
			h.ends[i] = nil
		}
	}
	return a.resp
}

// drop ends all other attempts.
func (h *hedge) drop() {
	for _, end := range h.ends {
		if end != nil {
			end()
		}
	}
	if h.last.resp != nil {
		h.last.resp.Body.Close()
	}
	for ; h.running > 0; h.running-- {
		if a := <-h.results; a.resp != nil {
			a.resp.Body.Close()
		}
	}
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
	if resp, err = rt.RoundTrip(out); err == nil {
		e.mu.Lock()
		p.heard = time.Now()
		e.mu.Unlock()
	}
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
