package v2_test

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// form parses a query; the first value of a name counts.
func form(t testing.TB, query string) map[string][]string {
	t.Helper()
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestParseOrder: each request breaks one rule and all those after it; the first
// counts, in the API's order.
func TestParseOrder(t *testing.T) {
	rules := []struct{ query, want string }{
		{"prevIndex=x", `203: The given index in POST form is not a number (invalid value for "prevIndex") [0]`},
		{"waitIndex=x", `203: The given index in POST form is not a number (invalid value for "waitIndex") [0]`},
		{"recursive=x", `209: Invalid field (invalid value for "recursive") [0]`},
		{"sorted=x", `209: Invalid field (invalid value for "sorted") [0]`},
		{"wait=x", `209: Invalid field (invalid value for "wait") [0]`},
		{"dir=x", `209: Invalid field (invalid value for "dir") [0]`},
		{"quorum=x", `209: Invalid field (invalid value for "quorum") [0]`},
		{"stream=x", `209: Invalid field (invalid value for "stream") [0]`},
		{"wait=1", `209: Invalid field ("wait" can only be used with GET requests) [0]`},
		{"prevValue=", `201: PrevValue is Required in POST form ("prevValue" cannot be empty) [0]`},
		{"noValueOnSuccess=x", `209: Invalid field (invalid value for "noValueOnSuccess") [0]`},
		{"ttl=x", `202: The given TTL in POST form is not a number (invalid value for "ttl") [0]`},
		{"prevExist=x", `209: Invalid field (invalid value for prevExist) [0]`},
		{"refresh=x", `209: Invalid field (invalid value for refresh) [0]`},
		{"refresh=1&value=v", `211: Value provided on refresh (A value was provided on a refresh) [0]`},
		{"refresh=1", `212: A TTL must be provided on refresh (No TTL value set) [0]`},
	}
	for i, rule := range rules {
		var queries []string
		for _, later := range rules[i:] {
			queries = append(queries, later.query)
		}
		_, err := v2.Parse("PUT", "/k", form(t, strings.Join(queries, "&")))
		if err == nil || err.Error() != rule.want {
			t.Errorf("%s: got %v, want %s", rule.query, err, rule.want)
		}
	}
}

// TestParsePathSize: what is written has bounds, what is read or deleted has none.
func TestParsePathSize(t *testing.T) {
	levels := func(n int) string { return strings.Repeat("/d", n) }
	bytes := func(n int) string { return "/" + strings.Repeat("d", n-1) }
	for _, c := range []struct{ method, path, want string }{
		{"PUT", levels(1024), ""},
		{"PUT", levels(1025), "209: Invalid field (the key has 1025 levels, at most 1024 can be written) [0]"},
		{"POST", levels(1025), "209: Invalid field (the key has 1025 levels, at most 1024 can be written) [0]"},
		{"PUT", levels(5000), "209: Invalid field (the key has 10000 bytes, at most 4096 can be written) [0]"},
		{"PUT", bytes(4096), ""},
		{"PUT", bytes(4097), "209: Invalid field (the key has 4097 bytes, at most 4096 can be written) [0]"},
		{"GET", levels(5000), ""},
		{"HEAD", bytes(4097), ""},
		{"DELETE", levels(5000), ""},
	} {
		_, err := v2.Parse(c.method, c.path, nil)
		if got := fmt.Sprint(err); got != c.want && !(err == nil && c.want == "") {
			t.Errorf("%s of %d bytes, %d levels: %s, want %q", c.method, len(c.path), strings.Count(c.path, "/"), got, c.want)
		}
	}
}

func TestParseOperation(t *testing.T) {
	for _, c := range []struct {
		method, query string
		want          v2.Op
	}{
		{"GET", "", v2.Get},
		{"HEAD", "quorum=true", v2.Get},
		{"PUT", "", v2.Set},
		{"PUT", "prevIndex=0", v2.Set},
		{"PUT", "prevExist=true", v2.Update},
		{"PUT", "prevExist=false", v2.Create},
		{"PUT", "prevExist=false&prevIndex=3&prevValue=x", v2.Create},
		{"PUT", "prevExist=true&prevIndex=3", v2.CompareAndSwap},
		{"PUT", "prevValue=x", v2.CompareAndSwap},
		{"POST", "prevExist=true&prevIndex=3", v2.Post},
		{"DELETE", "", v2.Delete},
		{"DELETE", "prevExist=false", v2.Delete},
		{"DELETE", "prevIndex=3", v2.CompareAndDelete},
		{"DELETE", "prevValue=x", v2.CompareAndDelete},
	} {
		r, err := v2.Parse(c.method, "/k", form(t, c.query))
		if err != nil || r.Op != c.want {
			t.Errorf("%s %q: operation %d (%v), want %d", c.method, c.query, r.Op, err, c.want)
		}
	}
}

// TestParseWait: a watch that asks for a quorum is a read, as it always was.
func TestParseWait(t *testing.T) {
	r, _ := v2.Parse("GET", "/k", form(t, "wait=true&waitIndex=7&stream=t"))
	if !r.Wait || !r.Stream || r.WaitIndex != 7 || r.Quorum {
		t.Errorf("watch: %+v", r)
	}
	r, _ = v2.Parse("GET", "/k", form(t, "wait=true&quorum=true"))
	if r.Wait || !r.Quorum {
		t.Errorf("watch with quorum: %+v", r)
	}
	r, _ = v2.Parse("HEAD", "/k", form(t, "quorum=true"))
	if r.Quorum {
		t.Errorf("HEAD with quorum: %+v", r)
	}
}

func TestExpires(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600))
	for _, c := range []struct{ ttl, want string }{
		{"", "never"},
		{"0", "2026-01-02T02:04:05.0000006Z"},
		{"60", "2026-01-02T02:05:05.0000006Z"},
		{"9999999999", "2342-11-22T19:50:44.0000006Z"}, // 64 bits of nanoseconds would not do
		{"18446744073709551615", "9999-12-31T23:59:59Z"},
	} {
		r, err := v2.Parse("PUT", "/k", map[string][]string{"ttl": {c.ttl}})
		if err != nil {
			t.Fatal(err)
		}
		got := "never"
		if at := r.Expires(now); at != nil {
			got = at.Format(time.RFC3339Nano)
		}
		if got != c.want {
			t.Errorf("ttl=%s: expires %s, want %s", c.ttl, got, c.want)
		}
	}
}

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		raw, path string
		ok        bool
	}{
		{"", "/", true},
		{"/", "/", true},
		{"/foo", "/foo", true},
		{"/foo/", "/foo", true},
		{"/foo/bar", "/foo/bar", true},
		{"/.../..x/.y", "/.../..x/.y", true},
		{"/a b+c;d\x00\xff", "/a b+c;d\x00\xff", true},
		{"//", "", false},
		{"/foo//", "", false},
		{"//foo", "", false},
		{"/foo//bar", "", false},
		{"/./foo", "", false},
		{"/foo/..", "", false},
		{"/foo/../", "", false},
		{"foo", "", false},
	} {
		if p, ok := v2.ParsePath(c.raw); p != c.path || ok != c.ok {
			t.Errorf("%q: %q %v, want %q %v", c.raw, p, ok, c.path, c.ok)
		}
	}
}

func TestCleanURL(t *testing.T) {
	for raw, want := range map[string]string{
		"":                     "/",
		"/":                    "/",
		"/v2/keys//o":          "/v2/keys/o",
		"/v2/keys/p/..":        "/v2/keys",
		"/v2/keys/p/../":       "/v2/keys/",
		"/v2/keys/..":          "/v2",
		"/v2/keys/a/./b//":     "/v2/keys/a/b/",
		"/../..":               "/",
		"//":                   "/",
		"/v2/keys/file.tar.gz": "/v2/keys/file.tar.gz",
	} {
		if got := v2.CleanURL(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

// FuzzPath: a path that is accepted is clean and names one v3 key; one that is not
// is redirected to a URL that is not redirected again.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"", "/", "/foo/bar/", "//", "/a/../b", "/_h/.v2/e", "/\x00\xff", "/a/.", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, ok := v2.ParsePath(raw)
		if again := v2.CleanURL(v2.CleanURL(raw)); again != v2.CleanURL(raw) {
			t.Errorf("cleaning %q twice makes %q", raw, again)
		}
		if !ok {
			return
		}
		if p[0] != '/' || path.Clean(p) != p || p >= v2.RangeEnd || p < v2.RangeStart {
			t.Errorf("%q is accepted as %q", raw, p)
		}
		if again, ok := v2.ParsePath(p); !ok || again != p {
			t.Errorf("%q, parsed again, is %q %v", p, again, ok)
		}
		if p == "/" {
			return
		}
		g := newGateway()
		e, kerr, _ := g.do(t, v2.Request{Op: v2.Set, Path: p, Value: raw}, time.Unix(0, 0))
		if kerr != nil || e.Node.Key != p || g.kvs[p].Value != raw {
			t.Errorf("set %q: %v %v", p, e, kerr)
		}
		if e, kerr := g.load().Get(p, false, time.Unix(0, 0)); kerr != nil || *e.Node.Value != raw {
			t.Errorf("get %q from a loaded tree: %v %v", p, e, kerr)
		}
		now := time.Unix(0, 0)
		for _, r := range []v2.Request{
			{Op: v2.CompareAndDelete, Path: p, PrevIndex: 1},
			{Op: v2.Create, Path: p},
			{Op: v2.Delete, Path: p},
			{Op: v2.Post, Path: p},
			{Op: v2.Delete, Path: p, Recursive: true},
		} {
			if e, kerr, _ := g.do(t, r, now); kerr != nil || e == nil {
				t.Errorf("operation %d at %q: %v %v", r.Op, p, e, kerr)
			}
		}
	})
}

// FuzzParams: whatever the parameters, there is an error of the API or a request
// that a tree answers.
func FuzzParams(f *testing.F) {
	for _, seed := range []string{
		"value=x&ttl=5", "prevExist=false", "refresh=true&ttl=1", "prevIndex=1&prevValue=x", "ttl=18446744073709551615",
		"wait=true&waitIndex=5", "recursive=TRUE&dir=f", "noValueOnSuccess=1", "ttl=&ttl=x",
	} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "HEAD"} {
			f.Add(method, seed)
		}
	}
	known := []int{
		keys.CodePrevValueRequired, keys.CodeTTLNaN, keys.CodeIndexNaN,
		keys.CodeInvalidField, keys.CodeRefreshValue, keys.CodeRefreshTTL,
	}
	f.Fuzz(func(t *testing.T, method, query string) {
		values, err := url.ParseQuery(query)
		if err != nil || !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, method) {
			return
		}
		r, kerr := v2.Parse(method, "/k", values)
		if kerr != nil {
			if !slices.Contains(known, kerr.ErrorCode) || kerr.Cause == "" || kerr.Index != 0 {
				t.Errorf("%s %q: %v", method, query, kerr)
			}
			return
		}
		g := newGateway()
		now := time.Unix(1e9, 0)
		g.do(t, v2.Request{Op: v2.Set, Path: "/k", Value: "x"}, now)
		if event, kerr, _ := g.do(t, r, now); event == nil && kerr == nil {
			t.Errorf("%s %q: no answer to %s", method, query, fmt.Sprintf("%+v", r))
		}
	})
}

func TestCompactTo(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keep := v2.Retention{Revisions: 100, Age: time.Hour, Most: 1000}
	for _, c := range []struct {
		name  string
		marks []v2.Mark
		want  uint64
	}{
		{"nothing known", nil, 0},
		{"just started", []v2.Mark{{At: begin, Revision: 5000}}, 4000},
		{"few revisions", []v2.Mark{{At: begin, Revision: 10}, {At: begin.Add(2 * time.Hour), Revision: 90}}, 0},
		{"old and many", []v2.Mark{{At: begin, Revision: 10}, {At: begin.Add(time.Hour), Revision: 500}}, 10},
		{"old, but among the last hundred", []v2.Mark{{At: begin, Revision: 450}, {At: begin.Add(time.Hour), Revision: 500}}, 400},
		{"young, but too many", []v2.Mark{{At: begin, Revision: 10}, {At: begin.Add(time.Minute), Revision: 9000}}, 8000},
	} {
		if got := keep.CompactTo(c.marks); got != c.want {
			t.Errorf("%s: compact to %d, want %d", c.name, got, c.want)
		}
	}
}
