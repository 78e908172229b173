package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"flotilla/api/keys"
)

// requestLimit is how long a client waits for an answer. The store itself gives up on
// a quorum after 7 s; most requests that take longer than this never succeed.
const requestLimit = 3 * time.Second

// Member is one way to reach one member of the store.
type Member struct {
	Name string // of the machine
	URL  string // such as http://127.0.0.1:2379
	// HTTP makes the requests, each on its own connection or a kept one. It has to
	// send nothing twice, and to have no Timeout: watches last.
	HTTP *http.Client
}

// board is what clients know of the files from answers, so that compares match often
// enough to be worth something.
type board struct {
	mu    sync.Mutex
	files map[string]Version
}

func (b *board) look(key string) Version {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files[key]
}

func (b *board) note(key string, v *Version) {
	if v == nil || v.Value == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.files[key].Modified < v.Modified {
		b.files[key] = *v
	}
}

// history collects the calls of all clients.
type history struct {
	mu     sync.Mutex
	calls  []Call
	unsent int // requests that never left: no member listened
	odd    []string
}

func (h *history) add(c Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, c)
}

func (h *history) all() ([]Call, int, []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls, h.unsent, h.odd
}

// client asks one thing after the other until the run ends.
type client struct {
	id      int
	members []Member // one: pinned to it; several: goes round
	rng     *rand.Rand
	dir     string
	files   int           // at a time
	round   time.Duration // after which other files are used
	think   time.Duration // between requests, at most
	began   time.Time
	board   *board
	history *history
}

func (c *client) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		c.once(ctx, n)
		pause(ctx, time.Duration(c.rng.Int64N(int64(c.think)+1)))
	}
}

// once makes one request and writes down what came of it.
func (c *client) once(ctx context.Context, n int) {
	m := c.members[n%len(c.members)]
	begin := time.Since(c.began)
	r := c.choose(n, begin)
	// Not of ctx: a request that the end of the run catches gets its answer.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
	defer cancel()
	a, err := Ask(limited, m, r)
	call := Call{Client: c.id, Member: m.Name, Begin: begin, End: time.Since(c.began), Request: r, Answer: a}
	var odd *oddError
	switch {
	case errors.Is(err, errUnsent):
		c.history.mu.Lock()
		c.history.unsent++
		c.history.mu.Unlock()
		pause(ctx, 100*time.Millisecond)
		return
	case errors.As(err, &odd):
		c.history.mu.Lock()
		c.history.odd = append(c.history.odd, fmt.Sprintf("%s: %s %s: %v", m.Name, r.Verb, r.Key, odd))
		c.history.mu.Unlock()
	}
	c.history.add(call)
	c.board.note(r.Key, a.Node)
}

// choose is the next request. Files are left behind after a round, so that what had
// no answer stays open for a part of the run alone.
func (c *client) choose(n int, now time.Duration) Request {
	key := fmt.Sprintf("%s/%d/%d", c.dir, int(now/c.round), c.rng.IntN(c.files))
	r := Request{Key: key, Value: fmt.Sprintf("%d.%d", c.id, n)}
	known := c.board.look(key)
	dice := c.rng.IntN(100)
	if known.Modified == 0 && dice >= 30 && dice < 75 {
		dice %= 30 // nothing is known that could be compared
	}
	switch {
	case dice < 25:
		r.Verb = Set
	case dice < 30:
		r.Verb = Create
	case dice < 50:
		r.Verb, r.PrevValue = CompareAndSwap, known.Value
	case dice < 65:
		r.Verb, r.PrevIndex = CompareAndSwap, known.Modified
	case dice < 70:
		r.Verb, r.PrevValue, r.Value = CompareAndDelete, known.Value, ""
	case dice < 75:
		r.Verb, r.PrevIndex, r.Value = CompareAndDelete, known.Modified, ""
	case dice < 80:
		r.Verb, r.Value = Delete, ""
	default:
		r.Verb, r.Value = Get, ""
	}
	return r
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// errUnsent: the member was not there to be asked; the request is no part of the
// history.
var errUnsent = errors.New("not sent")

// oddError is an answer that the API does not have.
type oddError struct{ text string }

func (e *oddError) Error() string { return "odd answer: " + e.text }

// Ask makes the request of the member once. The error is errUnsent, an odd answer, or
// nil: an answer that did not come is an Answer too.
func Ask(ctx context.Context, m Member, r Request) (Answer, error) {
	req, err := httpRequest(ctx, m.URL, r)
	if err != nil {
		return Answer{}, err
	}
	resp, err := m.HTTP.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return Answer{}, errUnsent
		}
		return Answer{Unknown: true, Why: err.Error()}, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{Unknown: true, Why: err.Error()}, nil
	}
	return read(resp.StatusCode, resp.Header, body, r)
}

func httpRequest(ctx context.Context, base string, r Request) (*http.Request, error) {
	q := url.Values{}
	if r.PrevValue != "" {
		q.Set("prevValue", r.PrevValue)
	}
	if r.PrevIndex != 0 {
		q.Set("prevIndex", strconv.FormatUint(r.PrevIndex, 10))
	}
	method, body := http.MethodPut, url.Values{"value": {r.Value}}.Encode()
	switch r.Verb {
	case Get:
		method, body = http.MethodGet, ""
		q.Set("quorum", "true")
	case Create:
		q.Set("prevExist", "false")
	case Delete, CompareAndDelete:
		method, body = http.MethodDelete, ""
	}
	u := base + "/v2/keys" + r.Key
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, strings.NewReader(body))
	if err == nil && body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// read makes sense of what a member answered.
func read(status int, h http.Header, body []byte, r Request) (Answer, error) {
	index, _ := strconv.ParseUint(h.Get("X-Etcd-Index"), 10, 64) // 0 where there is none: then it does not count
	if status >= 500 {
		return Answer{Unknown: true, Why: fmt.Sprintf("%d %s", status, body)}, nil
	}
	if status >= 400 {
		var e keys.Error
		if err := json.Unmarshal(body, &e); err != nil || !expected(e.ErrorCode) {
			return Answer{Unknown: true, Why: string(body)}, &oddError{fmt.Sprintf("%d %s", status, body)}
		}
		return Answer{Code: e.ErrorCode, Index: e.Index}, nil
	}
	var e keys.Event
	if err := json.Unmarshal(body, &e); err != nil || e.Node == nil || e.Action != string(r.Verb) || e.Node.Key != r.Key {
		return Answer{Unknown: true, Why: string(body)}, &oddError{fmt.Sprintf("%d %s", status, body)}
	}
	return Answer{Index: index, Node: version(e.Node), Prev: version(e.PrevNode)}, nil
}

// expected are the errors that a file can answer our requests with.
func expected(code int) bool {
	return code == keys.CodeKeyNotFound || code == keys.CodeTestFailed || code == keys.CodeNodeExist
}

func version(n *keys.Node) *Version {
	if n == nil {
		return nil
	}
	v := &Version{Modified: n.ModifiedIndex, Created: n.CreatedIndex}
	if n.Value != nil {
		v.Value = *n.Value
	}
	return v
}
