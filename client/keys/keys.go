// Package keys is a client of the v2 keys API.
//
// A Client knows one or more endpoints of one cluster. A request goes to the one
// that answered last; where the connection fails it goes on to the next, unless
// the request may have been carried out already and must not be carried out twice.
// When none answers, the error is an *UnreachableError, which lists what was
// tried. What the store itself refuses is an *Error with the store's code.
package keys

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	wire "flotilla/api/keys"
)

// The wire types, so that callers need one import.
type (
	Node  = wire.Node
	Event = wire.Event
	Error = wire.Error
)

// Config says how to reach the store.
type Config struct {
	// Endpoints are client URLs of the cluster's members. "http://" may be left out.
	Endpoints []string
	// TLS is used for https endpoints; nil means the system's roots and no client
	// certificate. Ignored with HTTPClient.
	TLS *tls.Config
	// HTTPClient makes the requests; nil means one of our own. It must not have a
	// Timeout: watches last.
	HTTPClient *http.Client
	// Username and Password are sent with every request, unless Username is "".
	Username, Password string
	// Timeout is how long one endpoint may take to answer; 0 means 2 s. A watch is
	// answered at once and then waits without limit.
	Timeout time.Duration
	// TotalTimeout is how long a call may take over all endpoints; 0 means 5 s. It
	// does not count for watches.
	TotalTimeout time.Duration
	// OnRequest, if set, is told of every request before it is sent, with its body
	// ("" for none).
	OnRequest func(r *http.Request, body string)
}

// Client may be used by several goroutines. Close it to drop its connections.
type Client struct {
	cfg  Config
	http *http.Client

	mu        sync.Mutex
	endpoints []*url.URL // the one that answered last comes first
}

// Response is an answer of the store.
type Response struct {
	Event
	// Index is the store's index when it answered (X-Etcd-Index); for a watch, when
	// the watch began.
	Index uint64
}

// UnreachableError says that no endpoint answered.
type UnreachableError struct {
	Doing  string // such as "GET /foo"
	Tries  []Try
	Waited time.Duration
}

// Try is one endpoint that was asked, and why that failed.
type Try struct {
	Endpoint string
	Err      error
}

func (e *UnreachableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: no endpoint answered within %v", e.Doing, e.Waited.Round(time.Millisecond))
	for _, t := range e.Tries {
		fmt.Fprintf(&b, "; %s: %v", t.Endpoint, t.Err)
	}
	return b.String()
}

// Unwrap returns the reasons, so that errors.Is finds them.
func (e *UnreachableError) Unwrap() []error {
	errs := make([]error, len(e.Tries))
	for i, t := range e.Tries {
		errs[i] = t.Err
	}
	return errs
}

// New makes a client; it connects with the first request.
func New(cfg Config) (*Client, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.TotalTimeout == 0 {
		cfg.TotalTimeout = 5 * time.Second
	}
	c := &Client{cfg: cfg, http: cfg.HTTPClient}
	if err := c.SetEndpoints(cfg.Endpoints); err != nil {
		return nil, err
	}
	if c.http == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = cfg.TLS
		t.ForceAttemptHTTP2 = false // watches want a connection each
		c.http = &http.Client{Transport: t}
	}
	return c, nil
}

// SetEndpoints replaces the endpoints. With an error, as for none or one that is no
// URL, they stay as they were.
func (c *Client) SetEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return errors.New("no endpoints")
	}
	list := make([]*url.URL, 0, len(endpoints))
	for _, e := range endpoints {
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("endpoint %q is not of the form http://HOST:PORT", e)
		}
		list = append(list, &url.URL{Scheme: u.Scheme, Host: u.Host})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endpoints = list
	return nil
}

// Endpoints is the endpoints in the order in which the next request tries them.
func (c *Client) Endpoints() []string {
	var list []string
	for _, u := range c.order() {
		list = append(list, u.String())
	}
	return list
}

func (c *Client) order() []*url.URL {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*url.URL(nil), c.endpoints...)
}

// prefer puts the endpoint that answered first.
func (c *Client) prefer(u *url.URL) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.endpoints {
		if e == u {
			copy(c.endpoints[1:], c.endpoints[:i])
			c.endpoints[0] = u
			return
		}
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is a request before it has an endpoint.
type request struct {
	method string
	path   string // decoded
	query  url.Values
	form   url.Values // nil: no form
	json   []byte     // nil: no body of JSON
	// again says that doing it twice is as good as doing it once.
	again bool
}

func (r request) String() string { return r.method + " " + strings.TrimPrefix(r.path, "/v2/keys") }

// answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends the request to one endpoint after the other until one answers, within
// the total timeout.
func (c *Client) do(ctx context.Context, r request) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.TotalTimeout, fmt.Errorf("no answer within %v", c.cfg.TotalTimeout))
	defer cancel()
	var out answer
	err := c.eachEndpoint(ctx, r, func(u *url.URL) error {
		ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("no answer within %v", c.cfg.Timeout))
		defer cancel()
		resp, err := c.send(ctx, u, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return why(ctx, err)
		}
		out = answer{resp.StatusCode, resp.Header, body}
		if resp.StatusCode >= 500 {
			return failure(out)
		}
		return nil
	})
	return out, err
}

// eachEndpoint calls try with one endpoint after the other until one succeeds. A
// failure that leaves open whether the request was carried out ends it, unless
// the request may be repeated. If the last failure is the store's own word, that
// is the error.
func (c *Client) eachEndpoint(ctx context.Context, r request, try func(*url.URL) error) error {
	began := time.Now()
	unreachable := &UnreachableError{Doing: r.String()}
	for _, u := range c.order() {
		err := try(u)
		if err == nil {
			c.prefer(u)
			return nil
		}
		unreachable.Tries = append(unreachable.Tries, Try{u.String(), err})
		if ctx.Err() != nil || !(r.again || neverSent(err)) {
			break
		}
	}
	unreachable.Waited = time.Since(began)
	last := unreachable.Tries[len(unreachable.Tries)-1].Err
	var refused *Error
	var status *StatusError
	if errors.As(last, &refused) || errors.As(last, &status) {
		return last
	}
	return unreachable
}

// neverSent tells whether the request cannot have reached the store.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// send sends the request to one endpoint. The caller closes the body.
func (c *Client) send(ctx context.Context, u *url.URL, r request) (*http.Response, error) {
	full := *u
	full.Path, full.RawQuery = r.path, r.query.Encode()
	body := r.form.Encode()
	if r.json != nil {
		body = string(r.json)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, full.String(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if r.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if r.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Username != "" {
		req.SetBasicAuth(c.cfg.Username, c.cfg.Password)
	}
	if c.cfg.OnRequest != nil {
		c.cfg.OnRequest(req, body)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, why(ctx, err)
	}
	return resp, nil
}

// why says why a request failed, without repeating its URL.
func why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// failure is the error that an answer carries: the store's own, or else what the
// answer was.
func failure(a answer) error {
	var e Error
	if json.Unmarshal(a.body, &e) == nil && e.ErrorCode != 0 {
		return &e
	}
	var m struct {
		Message string `json:"message"`
		Reason  string `json:"reason"`
	}
	if json.Unmarshal(a.body, &m) == nil && m.Message != "" {
		return &StatusError{a.status, m.Message, m.Reason}
	}
	return &StatusError{a.status, strings.TrimSpace(string(a.body)), ""}
}

// StatusError is an answer that is no success and does not come from the key space:
// a proxy's, or of the members API.
type StatusError struct {
	Status  int
	Message string
	// Reason is what a change of the members was refused for, and what to do, in
	// sentences for people. "": the store does not say.
	Reason string
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("unexpected status code %d", e.Status)
	}
	return e.Message
}

// keys makes a request of the key space and reads its event.
func (c *Client) keys(ctx context.Context, r request) (*Response, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return decode(a)
}

func decode(a answer) (*Response, error) {
	if a.status >= 300 {
		return nil, failure(a)
	}
	out := &Response{Index: indexOf(a.header)}
	if err := json.Unmarshal(a.body, &out.Event); err != nil {
		return nil, fmt.Errorf("answer of the store: %w", err)
	}
	return out, nil
}

func indexOf(h http.Header) uint64 {
	n, _ := strconv.ParseUint(h.Get("X-Etcd-Index"), 10, 64)
	return n
}
