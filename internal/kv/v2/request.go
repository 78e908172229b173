package v2

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"flotilla/api/keys"
)

// Op is what a request does.
type Op int

// The operations. Post is a create below Path with a name made from the index.
const (
	Get Op = iota
	Set
	Create
	Update
	CompareAndSwap
	Delete
	CompareAndDelete
	Post
)

// Request is one request to the keys API, validated.
type Request struct {
	Op   Op
	Path string // as ParsePath returns it

	Value string
	Dir   bool
	// TTL is in seconds. nil: permanent. Longer than until the year 9999 means until then.
	TTL     *uint64
	Refresh bool // renew the TTL, keep the value, tell no watcher

	PrevValue string // "": not compared
	PrevIndex uint64 // 0: not compared

	Recursive bool
	Sorted    bool // accepted; listings are always in byte order of the keys
	Quorum    bool // the read is linearizable

	Wait      bool // watch; never with Quorum
	WaitIndex uint64
	Stream    bool

	NoValueOnSuccess bool
}

// Parse validates a request. path is as ParsePath returns it; form holds the
// parameters of query and body, the body's values first. The method is HEAD,
// GET, PUT, POST or DELETE.
//
// All parameters are checked whatever the method, and in a fixed order: the
// first failure is the error, with index 0. The last thing to be checked is that a
// PUT or POST is within [MaxPath] and [MaxLevels]; what is deeper than that,
// because a v3 client put it there, can be read and deleted.
func Parse(method, path string, form map[string][]string) (Request, *keys.Error) {
	f := fields{form: form}
	r := Request{Path: path, Value: f.text("value"), PrevValue: f.text("prevValue")}
	r.PrevIndex = f.index("prevIndex")
	r.WaitIndex = f.index("waitIndex")
	r.Recursive = f.flag("recursive")
	r.Sorted = f.flag("sorted")
	r.Wait = f.flag("wait")
	r.Dir = f.flag("dir")
	r.Quorum = f.flag("quorum")
	r.Stream = f.flag("stream")
	f.check(r.Wait && method != "GET", keys.CodeInvalidField, `"wait" can only be used with GET requests`)
	f.check(f.has("prevValue") && r.PrevValue == "", keys.CodePrevValueRequired, `"prevValue" cannot be empty`)
	r.NoValueOnSuccess = f.flag("noValueOnSuccess")
	r.TTL = f.ttl()
	prevExist := f.unquotedFlag("prevExist")
	r.Refresh = f.unquotedFlag("refresh")
	f.check(r.Refresh && r.Value != "", keys.CodeRefreshValue, "A value was provided on a refresh")
	f.check(r.Refresh && r.TTL == nil, keys.CodeRefreshTTL, "No TTL value set")
	if method == "PUT" || method == "POST" {
		f.path(path)
	}
	if f.err != nil {
		return Request{}, f.err
	}
	r.Op = operation(method, r, f.has("prevExist"), prevExist)
	r.Quorum = r.Quorum && method == "GET"
	r.Wait = r.Wait && !r.Quorum
	return r, nil
}

// operation picks what the request does. prevExist=false wins over the other
// conditions.
func operation(method string, r Request, given, prevExist bool) Op {
	compare := r.PrevIndex > 0 || r.PrevValue != ""
	switch {
	case method == "POST":
		return Post
	case method == "DELETE" && compare:
		return CompareAndDelete
	case method == "DELETE":
		return Delete
	case method != "PUT":
		return Get
	case given && !prevExist:
		return Create
	case compare:
		return CompareAndSwap
	case given:
		return Update
	}
	return Set
}

// fields reads parameters and keeps the first error.
type fields struct {
	form map[string][]string
	err  *keys.Error
}

func (f *fields) check(bad bool, code int, cause string) {
	if bad && f.err == nil {
		f.err = keys.NewError(code, cause, 0)
	}
}

// path checks the size of a path that is written. Only one that is long enough is
// counted.
func (f *fields) path(p string) {
	if len(p) > MaxPath {
		f.check(true, keys.CodeInvalidField, fmt.Sprintf("the key has %d bytes, at most %d can be written", len(p), MaxPath))
	} else if len(p) > 2*MaxLevels {
		n := strings.Count(p, "/")
		f.check(n > MaxLevels, keys.CodeInvalidField, fmt.Sprintf("the key has %d levels, at most %d can be written", n, MaxLevels))
	}
}

func (f *fields) has(name string) bool { return len(f.form) > 0 && len(f.form[name]) > 0 }

// text returns the parameter's first value, "" if it is not given.
func (f *fields) text(name string) string {
	if !f.has(name) {
		return ""
	}
	return f.form[name][0]
}

func (f *fields) index(name string) uint64 {
	if !f.has(name) {
		return 0
	}
	n, err := strconv.ParseUint(f.text(name), 10, 64)
	f.check(err != nil, keys.CodeIndexNaN, fmt.Sprintf("invalid value for %q", name))
	return n
}

func (f *fields) flag(name string) bool {
	b, ok := f.boolean(name)
	if !ok {
		f.check(true, keys.CodeInvalidField, fmt.Sprintf("invalid value for %q", name))
	}
	return b
}

// unquotedFlag is a flag whose error names it without quotes.
func (f *fields) unquotedFlag(name string) bool {
	b, ok := f.boolean(name)
	f.check(!ok, keys.CodeInvalidField, "invalid value for "+name)
	return b
}

func (f *fields) boolean(name string) (value, ok bool) {
	if !f.has(name) {
		return false, true
	}
	b, err := strconv.ParseBool(f.text(name))
	return b, err == nil
}

// ttl is the one number that may be empty, which means that it is not given.
func (f *fields) ttl() *uint64 {
	if f.text("ttl") == "" {
		return nil
	}
	n, err := strconv.ParseUint(f.text("ttl"), 10, 64)
	f.check(err != nil, keys.CodeTTLNaN, `invalid value for "ttl"`)
	return &n
}

// endOfTime is the latest expiration: the last second that RFC 3339 can write.
var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Expires is when the node expires that the request writes; nil is never.
func (r Request) Expires(now time.Time) *time.Time {
	if r.TTL == nil {
		return nil
	}
	at := endOfTime
	if left := endOfTime.Unix() - now.Unix(); *r.TTL < uint64(left) {
		at = time.Unix(now.Unix()+int64(*r.TTL), int64(now.Nanosecond())).UTC()
	}
	return &at
}
