package keys

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"
)

// GetOptions of a read.
type GetOptions struct {
	Recursive bool // of a directory, all levels
	Sorted    bool // children by key
	Quorum    bool // confirmed by a majority, not only as one member knows it
}

// Existence is what a write asks of the key before.
type Existence int

// The three answers to "must the key exist?".
const (
	Any Existence = iota
	MustExist
	MustNotExist
)

func (e Existence) String() string {
	return [...]string{"", "true", "false"}[e]
}

// SetOptions of a write. The zero value writes a permanent file whatever was there.
type SetOptions struct {
	// TTL is how long the key lives, in whole seconds, rounded up. 0 means for ever:
	// a write without it also ends the TTL that the key had.
	TTL time.Duration
	// Dir makes a directory; the value is not sent then.
	Dir bool
	// PrevExist, PrevValue ("" for none) and PrevIndex (0 for none) have to hold.
	PrevExist Existence
	PrevValue string
	PrevIndex uint64
	// Refresh sets the TTL alone: the value stays and no watch sees it. The value
	// has to be "".
	Refresh bool
}

// DeleteOptions of a removal.
type DeleteOptions struct {
	Recursive bool // a directory with all in it
	Dir       bool // an empty directory
	PrevValue string
	PrevIndex uint64
}

// keyPath is where a key is served; the root with its slash, which servers with
// access control insist on.
func keyPath(key string) string { return "/v2/keys" + path.Clean("/"+key) }

// Get reads a key or lists a directory.
func (c *Client) Get(ctx context.Context, key string, o GetOptions) (*Response, error) {
	q := url.Values{}
	q.Set("quorum", strconv.FormatBool(o.Quorum))
	q.Set("recursive", strconv.FormatBool(o.Recursive))
	q.Set("sorted", strconv.FormatBool(o.Sorted))
	return c.keys(ctx, request{method: http.MethodGet, path: keyPath(key), query: q, again: true})
}

// Set writes a key.
func (c *Client) Set(ctx context.Context, key, value string, o SetOptions) (*Response, error) {
	q, form := url.Values{}, url.Values{}
	if o.PrevValue != "" {
		q.Set("prevValue", o.PrevValue)
	}
	if o.PrevIndex != 0 {
		q.Set("prevIndex", strconv.FormatUint(o.PrevIndex, 10))
	}
	if o.PrevExist != Any {
		q.Set("prevExist", o.PrevExist.String())
	}
	if o.Dir {
		q.Set("dir", "true")
	} else if !o.Refresh {
		form.Set("value", value)
	}
	if o.Refresh {
		form.Set("refresh", "true")
	}
	setTTL(form, o.TTL)
	// Written twice, a plain file is the same file; anything that asks for what
	// was there before would find its own first write.
	again := len(q) == 0 && !o.Refresh
	return c.keys(ctx, request{method: http.MethodPut, path: keyPath(key), query: q, form: form, again: again})
}

func setTTL(form url.Values, ttl time.Duration) {
	if ttl > 0 {
		form.Set("ttl", strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10))
	}
}

// Create writes a key that must not exist (else CodeNodeExist).
func (c *Client) Create(ctx context.Context, key, value string, ttl time.Duration) (*Response, error) {
	return c.Set(ctx, key, value, SetOptions{PrevExist: MustNotExist, TTL: ttl})
}

// CreateInOrder writes a new key in dir under a name that sorts behind all names
// made this way before. The answer holds the key.
func (c *Client) CreateInOrder(ctx context.Context, dir, value string, ttl time.Duration) (*Response, error) {
	form := url.Values{"value": {value}}
	setTTL(form, ttl)
	return c.keys(ctx, request{method: http.MethodPost, path: keyPath(dir), form: form})
}

// Update writes a key that must exist (else CodeKeyNotFound).
func (c *Client) Update(ctx context.Context, key, value string, ttl time.Duration) (*Response, error) {
	return c.Set(ctx, key, value, SetOptions{PrevExist: MustExist, TTL: ttl})
}

// Delete removes a key.
func (c *Client) Delete(ctx context.Context, key string, o DeleteOptions) (*Response, error) {
	q := url.Values{}
	if o.Recursive {
		q.Set("recursive", "true")
	}
	if o.Dir {
		q.Set("dir", "true")
	}
	if o.PrevValue != "" {
		q.Set("prevValue", o.PrevValue)
	}
	if o.PrevIndex != 0 {
		q.Set("prevIndex", fmt.Sprint(o.PrevIndex))
	}
	return c.keys(ctx, request{method: http.MethodDelete, path: keyPath(key), query: q})
}
