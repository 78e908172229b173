package keys

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// WatchOptions of a watch.
type WatchOptions struct {
	// After is the index behind which events count; 0 means from now on.
	After     uint64
	Recursive bool // everything below the key too
}

// Watcher delivers the changes of a key, one after the other and none twice.
type Watcher struct {
	c         *Client
	path      string
	recursive bool
	next      uint64 // index to go on from; 0 until the store has told one
}

// Watch makes a watcher; it asks with the first Next.
func (c *Client) Watch(key string, o WatchOptions) *Watcher {
	w := &Watcher{c: c, path: keyPath(key), recursive: o.Recursive}
	if o.After > 0 {
		w.next = o.After + 1
	}
	return w
}

// Next waits for the next event. A connection that ends is opened anew where it
// stopped, also with another endpoint, so nothing is missed.
//
// It fails with an *Error of CodeEventIndexGone when the store no longer has the
// events to go on from: read the state and watch from behind that answer's Index.
// An *UnreachableError leaves the watcher as it was: Next goes on later.
func (w *Watcher) Next(ctx context.Context) (*Response, error) {
	for pause := time.Duration(0); ; {
		began := time.Now()
		resp, err := w.poll(ctx)
		if err != nil {
			return nil, err
		}
		if resp == nil { // the connection ended before an event came
			if time.Since(began) > maxPause {
				pause = 0
			}
			if pause, err = rest(ctx, pause); err != nil {
				return nil, err
			}
			continue
		}
		if resp.Node != nil {
			w.next = resp.Node.ModifiedIndex + 1
		}
		return resp, nil
	}
}

// Connections that end again and again as soon as they are open, as of a store that
// stops or a proxy in front of none, are opened anew at once, then after minPause, then
// after twice as long each time.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// rest waits for a time and returns for how long the next time.
func rest(ctx context.Context, pause time.Duration) (next time.Duration, err error) {
	if pause == 0 {
		return minPause, ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
		return min(2*pause, maxPause), nil
	}
}

// poll makes one long request. No event and no error means: ask again.
func (w *Watcher) poll(ctx context.Context) (*Response, error) {
	r := request{method: http.MethodGet, path: w.path, again: true, query: url.Values{
		"wait":      {"true"},
		"recursive": {strconv.FormatBool(w.recursive)},
		"waitIndex": {strconv.FormatUint(w.next, 10)},
	}}
	var out *Response
	err := w.c.eachEndpoint(ctx, r, func(u *url.URL) (err error) {
		out, err = w.one(ctx, u, r)
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return out, err
}

// one watches at one endpoint. Its answer has to begin within the client's
// timeout; after that it may take as long as it takes.
func (w *Watcher) one(ctx context.Context, u *url.URL, r request) (*Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.AfterFunc(w.c.cfg.Timeout, func() { cancel(errNoHeader) })
	resp, err := w.c.send(ctx, u, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if !begin.Stop() {
		return nil, errNoHeader
	}
	body, err := io.ReadAll(resp.Body)
	a := answer{resp.StatusCode, resp.Header, body}
	if a.status >= 500 {
		return nil, failure(a)
	}
	if a.status < 300 && (err != nil || len(body) == 0) {
		// Cut before an event. The store's index when the watch began says where
		// to go on, so that nothing in between is missed.
		if i := indexOf(a.header); w.next == 0 && i > 0 {
			w.next = i + 1
		}
		return nil, nil
	}
	if err != nil {
		return nil, why(ctx, err)
	}
	return decode(a)
}

type timeoutError string

func (e timeoutError) Error() string { return string(e) }

const errNoHeader = timeoutError("no answer in time")
