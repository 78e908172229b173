package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"

	"flotilla/internal/fault"
	"flotilla/internal/unit"
)

// SocketPath is where the supervisor of a directory listens.
func SocketPath(dir string) string { return filepath.Join(dir, "run", "supervisor.sock") }

// Client talks to a supervisor in another process. It satisfies unit.Manager and
// unit.LogReader, and connects anew by itself: a supervisor may be replaced.
type Client struct {
	dir  string
	http *http.Client
}

var (
	_ unit.Manager   = (*Client)(nil)
	_ unit.LogReader = (*Client)(nil)
)

// Dial returns a client of the supervisor in dir. It does not connect: calls fail
// while no supervisor runs there. Ensure makes sure that one does.
func Dial(dir string) *Client {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", SocketPath(dir))
		},
		// Streams keep theirs; this many wait for the next short call.
		MaxIdleConnsPerHost: 4,
	}}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request and returns the body of its answer.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the made-up address
		}
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var e wireError
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		return nil, fmt.Errorf("supervisor in %s: %s %s: %s", c.dir, method, path, resp.Status)
	}
	return nil, e.err()
}

func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Hint(fmt.Errorf("supervisor in %s does not answer: %w", c.dir, err), "start it: flotilla supervisor --dir %s", c.dir)
}

// call sends in as JSON, if it is not nil, and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	r, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer r.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, r)
		return err
	}
	if err := json.NewDecoder(r).Decode(out); err != nil {
		return c.explain(ctx, err)
	}
	return nil
}

// Self asks the supervisor who it is.
func (c *Client) Self(ctx context.Context) (Self, error) {
	var s Self
	return s, c.call(ctx, http.MethodGet, "self", nil, &s)
}

// Install implements unit.Manager.
func (c *Client) Install(ctx context.Context, name, text string) error {
	r, err := c.do(ctx, http.MethodPut, "units/"+url.PathEscape(name), bytes.NewReader([]byte(text)))
	if err != nil {
		return err
	}
	return r.Close()
}

// Remove implements unit.Manager.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "units/"+url.PathEscape(name), nil, nil)
}

// Installed implements unit.Manager.
func (c *Client) Installed(ctx context.Context) (map[string]string, error) {
	var out map[string]string
	return out, c.call(ctx, http.MethodGet, "units", nil, &out)
}

// Reload implements unit.Manager.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "reload", nil, nil)
}

// Run implements unit.Manager.
func (c *Client) Run(ctx context.Context, list []unit.Job) <-chan unit.Outcome {
	out := make(chan unit.Outcome, len(list))
	go func() {
		defer close(out)
		missing := map[unit.Job]int{}
		for _, j := range list {
			missing[j]++
		}
		err := c.stream(ctx, http.MethodPost, "jobs", list, func(d *json.Decoder) error {
			var o wireOutcome
			if err := d.Decode(&o); err != nil {
				return err
			}
			missing[o.Job]--
			out <- unit.Outcome{Job: o.Job, Result: o.Result, Err: o.Error.err()}
			return nil
		})
		if err == nil {
			err = ErrEnded
		}
		for j, n := range missing {
			for range n {
				out <- unit.Outcome{Job: j, Err: err}
			}
		}
	}()
	return out
}

// stream sends in and calls next for each value of the answer, until its end (nil)
// or next's error.
func (c *Client) stream(ctx context.Context, method, path string, in any, next func(*json.Decoder) error) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := c.do(ctx, method, path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer r.Close()
	d := json.NewDecoder(r)
	for {
		err := next(d)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
	}
}

// Status implements unit.Manager.
func (c *Client) Status(ctx context.Context, names ...string) ([]unit.Status, error) {
	if names == nil {
		names = []string{}
	}
	var out []unit.Status
	return out, c.call(ctx, http.MethodPost, "status", names, &out)
}

// Watch implements unit.Manager.
func (c *Client) Watch(ctx context.Context) (<-chan unit.Status, error) {
	r, err := c.do(ctx, http.MethodGet, "watch", nil)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(r)
	var begun unit.Status
	if err := d.Decode(&begun); err != nil {
		r.Close()
		return nil, c.explain(ctx, err)
	}
	out := make(chan unit.Status)
	go func() {
		defer close(out)
		defer r.Close()
		for {
			var st unit.Status
			if d.Decode(&st) != nil {
				return
			}
			select {
			case out <- st:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Show implements unit.Manager.
func (c *Client) Show(ctx context.Context, w io.Writer, name string) (int, error) {
	var s shown
	if err := c.call(ctx, http.MethodGet, "show/"+url.PathEscape(name), nil, &s); err != nil {
		return 0, err
	}
	_, err := io.WriteString(w, s.Text)
	return s.Code, err
}

// ReadLog implements unit.LogReader.
func (c *Client) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	err := c.stream(ctx, http.MethodPost, "log", q, func(d *json.Decoder) error {
		var e wireEntry
		if err := d.Decode(&e); err != nil {
			return err
		}
		if e.Error != nil {
			return e.Error.err()
		}
		return emit(e.LogEntry)
	})
	if q.Follow && ctx.Err() != nil {
		return nil
	}
	if q.Follow && err == nil {
		return c.explain(ctx, ErrEnded)
	}
	return err
}

// Shutdown stops all units in their order and ends the supervisor; nothing is left
// behind. It is no error if no supervisor runs.
func (c *Client) Shutdown(ctx context.Context) error { return c.end(ctx, "shutdown") }

// Kill is the power loss of the machine: all processes of all units, and the
// supervisor, end at once.
func (c *Client) Kill(ctx context.Context) error { return c.end(ctx, "kill") }

func (c *Client) end(ctx context.Context, how string) error {
	self, err := c.Self(ctx)
	if err != nil {
		if ctx.Err() == nil && !running(c.dir) {
			return nil
		}
		return err
	}
	if err := c.call(ctx, http.MethodPost, how, nil, nil); err != nil && running(c.dir) {
		return fmt.Errorf("%s of the supervisor: %w", how, err)
	}
	c.Close()
	return awaitEnd(ctx, self.PID)
}
