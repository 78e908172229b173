package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	api "flotilla/api/fleet"
)

// DefaultRequestTimeout is the limit of a request that names none: long enough for
// a store that is electing a leader.
const DefaultRequestTimeout = 10 * time.Second

// maxErrorBody is how much of an answer is read to find out what went wrong.
const maxErrorBody = 4 << 20

// Config says where the API is and how patient to be.
type Config struct {
	// Endpoint is unix:///PATH, http://HOST:PORT or https://HOST:PORT; "" means
	// DefaultEndpoint.
	Endpoint string
	// RequestTimeout limits each request that is not a stream, and the dialling of
	// one that is. 0 means DefaultRequestTimeout.
	RequestTimeout time.Duration
	// TLS is used for https. nil verifies the server against the system's roots and
	// shows no certificate.
	TLS *tls.Config
	// Dial connects to the endpoint: "unix" and a path, or "tcp" and an address. nil
	// dials from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log receives one debug record for each request. nil: none.
	Log *slog.Logger
}

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	target  target
	timeout time.Duration
	http    *http.Client
	log     *slog.Logger
}

// New checks the configuration and dials nothing.
func New(cfg Config) (*Client, error) {
	t, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	timeout := cfg.RequestTimeout
	if timeout <= 0 {
		timeout = DefaultRequestTimeout
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		target:  t,
		timeout: timeout,
		log:     log,
		http: &http.Client{Transport: &http.Transport{
			DialContext:         t.dial(cfg.Dial, timeout),
			TLSClientConfig:     cfg.TLS,
			TLSHandshakeTimeout: timeout,
			MaxIdleConnsPerHost: 16,
			DisableCompression:  true,
		}},
	}, nil
}

// Endpoint is the endpoint as it was given to New, for messages.
func (c *Client) Endpoint() string { return c.target.name }

// Close drops connections that are kept for further requests.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Machines returns the machines that are present, in order of their id.
func (c *Client) Machines(ctx context.Context) ([]api.Machine, error) {
	return pages(func(token string) ([]api.Machine, string, error) {
		var p api.MachinePage
		err := c.get(ctx, "/machines", query("nextPageToken", token), &p)
		return p.Machines, p.NextPageToken, err
	})
}

// Units returns all units, in order of their name.
func (c *Client) Units(ctx context.Context) ([]api.Unit, error) {
	return pages(func(token string) ([]api.Unit, string, error) {
		var p api.UnitPage
		err := c.get(ctx, "/units", query("nextPageToken", token), &p)
		return p.Units, p.NextPageToken, err
	})
}

// StateFilter chooses unit states; empty fields choose all.
type StateFilter struct {
	Unit    string // full unit name
	Machine string // full machine id
}

// States returns what machines report of units, in order of unit and machine.
func (c *Client) States(ctx context.Context, f StateFilter) ([]api.UnitState, error) {
	return pages(func(token string) ([]api.UnitState, string, error) {
		var p api.UnitStatePage
		err := c.get(ctx, "/state", query("nextPageToken", token, "unitName", f.Unit, "machineID", f.Machine), &p)
		return p.States, p.NextPageToken, err
	})
}

// Unit returns one unit; ErrNotExist if there is none of that name.
func (c *Client) Unit(ctx context.Context, name string) (api.Unit, error) {
	var u api.Unit
	err := c.get(ctx, unitPath(name), nil, &u)
	return u, err
}

// Put creates the unit, replaces its text, or sets its desired state, and reports
// whether it was created or replaced. With Options the unit is created if it is
// not there and replaced if its text differs; without, only DesiredState is set.
func (c *Client) Put(ctx context.Context, u api.Unit) (created bool, err error) {
	code, err := c.send(ctx, http.MethodPut, unitPath(u.Name),
		api.Unit{Name: u.Name, DesiredState: u.DesiredState, Options: u.Options, DropIns: u.DropIns, Restart: u.Restart}, nil)
	return code == http.StatusCreated, err
}

// Destroy deletes the unit; ErrNotExist if there is none of that name. The machine
// that runs it stops it afterwards.
func (c *Client) Destroy(ctx context.Context, name string) error {
	_, err := c.do(ctx, http.MethodDelete, unitPath(name), nil, nil, nil)
	return err
}

func unitPath(name string) string { return "/units/" + url.PathEscape(name) }

// query makes URL parameters of key, value pairs and leaves out empty values.
func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// pages collects all pages. A server that names the same next page twice in a row
// would keep it here for ever, so that ends the collection.
func pages[T any](page func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	token := ""
	for {
		some, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if next == "" || next == token {
			return all, nil
		}
		token = next
	}
}

func (c *Client) get(ctx context.Context, path string, q url.Values, into any) error {
	_, err := c.do(ctx, http.MethodGet, path, q, nil, into)
	return err
}

// send is do with a body in JSON.
func (c *Client) send(ctx context.Context, method, path string, from, into any) (int, error) {
	body, err := json.Marshal(from)
	if err != nil {
		return 0, fmt.Errorf("encode the body of %s: %w", request(method, path), err)
	}
	return c.do(ctx, method, path, nil, body, into)
}

// do is one request with a limit: it reads the whole answer into into, unless that
// is nil.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte, into any) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errWait)
	defer cancel()
	start := time.Now()
	resp, err := c.open(ctx, method, path, q, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if into == nil {
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return 0, &Error{Endpoint: c.target.name, Request: request(method, path), Code: resp.StatusCode,
			Waited: time.Since(start), Err: plainCause(ctx, err)}
	}
	return resp.StatusCode, nil
}

func request(method, path string) string { return method + " " + api.Prefix + path }

// open sends a request and returns the answer, its body unread, if it is a success.
func (c *Client) open(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	address := c.target.base + api.Prefix + path
	if len(q) > 0 {
		address += "?" + q.Encode()
	}
	fail := &Error{Endpoint: c.target.name, Request: request(method, path)}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		fail.Err = err
		return nil, fail
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	start := time.Now()
	resp, err := c.http.Do(req)
	fail.Waited = time.Since(start)
	if err != nil {
		fail.Err = plainCause(ctx, err)
		fail.Hint = hint(fail.Err, time.Now())
		c.log.Debug("request failed", "request", fail.Request, "endpoint", fail.Endpoint, "after", fail.Waited, "err", fail.Err)
		return nil, fail
	}
	c.log.Debug("request", "request", fail.Request, "query", q.Encode(), "endpoint", fail.Endpoint, "code", resp.StatusCode, "after", fail.Waited)
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	fail.Code = resp.StatusCode
	fail.say(serverWords(resp.Body))
	return nil, fail
}

// serverWords reads an error's body. Whatever is not the API's own error (a proxy's
// page, say) has no words for us.
func serverWords(r io.Reader) api.Error {
	var body api.ErrorBody
	if json.NewDecoder(io.LimitReader(r, maxErrorBody)).Decode(&body) != nil {
		return api.Error{}
	}
	return body.Error
}
