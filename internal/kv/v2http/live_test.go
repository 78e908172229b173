package v2http

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/api/keys"
	"flotilla/internal/kv/kvtest"
)

var liveRequests = flag.Int("live.requests", 2000, "random requests that are compared with a running etcd 3.4")

// TestLive sends the same random requests to etcd 3.4 and to us, good ones and bad
// ones, and compares status, headers and body of each answer.
func TestLive(t *testing.T) {
	l := live{
		t: t, rng: rand.New(rand.NewPCG(7, 7)),
		theirs: &player{t: t, base: startEtcd34(t, etcd34(t))},
		ours:   &player{t: t, base: serveMember(t)},
	}
	l.theirs.align()
	l.ours.align()
	seen := map[int]int{}
	for range *liveRequests {
		seen[l.compare(l.request())]++
	}
	t.Logf("%d requests, answered with (status: times) %v", *liveRequests, seen)
}

type live struct {
	t            *testing.T
	rng          *rand.Rand
	theirs, ours *player
	index        uint64
	events       []keys.Node // that watches can ask for
	log          []string
}

// liveRequest is a request as both servers are sent it.
type liveRequest struct {
	method, target, contentType, body string
}

func (r liveRequest) String() string {
	return fmt.Sprintf("%s %s | %s (%s)", r.method, r.target, r.body, r.contentType)
}

// compare returns the status that both answered with.
func (l *live) compare(r liveRequest) int {
	l.t.Helper()
	want, got := l.ask(l.theirs, r), l.ask(l.ours, r)
	l.log = append(l.log, r.String()+"\n  "+want.text)
	if diff := cmp.Diff(want.text, got.text); diff != "" {
		l.t.Fatalf("request %d (-etcd 3.4 +ours):\n%s\nafter\n%s", len(l.log), diff, strings.Join(l.log[max(0, len(l.log)-15):], "\n"))
	}
	l.learn(r, want.body)
	return got.status
}

type liveAnswer struct {
	status     int
	text, body string
}

var ttlLeft = regexp.MustCompile(`"ttl":\d+`)

func (l *live) ask(p *player, r liveRequest) liveAnswer {
	l.t.Helper()
	header := http.Header{}
	if r.contentType != "" {
		header.Set("Content-Type", r.contentType)
	}
	resp := p.send(r.method, r.target, header, r.body)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("%s: %v", r, err)
	}
	// The seconds left may change between the one and the other.
	shown := ttlLeft.ReplaceAllString(ended(normal(string(body))), `"ttl":N`)
	return liveAnswer{resp.StatusCode, head(resp) + shown, string(body)}
}

// learn notes the index, and events that a watch can ask for: refreshes are none.
func (l *live) learn(r liveRequest, body string) {
	var e keys.Event
	if json.Unmarshal([]byte(body), &e) != nil || e.Node == nil || e.Action == keys.Get {
		return
	}
	l.index = max(l.index, e.Node.ModifiedIndex)
	if strings.Contains(r.target+r.body, "refresh=") {
		return
	}
	l.events = append(l.events, *e.Node)
	if n := len(l.events); n > 100 {
		l.events = l.events[n-100:]
	}
}

func (l *live) one(of ...string) string { return of[l.rng.IntN(len(of))] }

// chance is true once in n times.
func (l *live) chance(n int) bool { return l.rng.IntN(n) == 0 }

// request makes one that has a fair chance to meet what others have left behind.
func (l *live) request() liveRequest {
	if len(l.events) > 0 && l.chance(12) {
		return l.watch()
	}
	r := liveRequest{method: l.one("GET", "GET", "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "HEAD")}
	if l.chance(100) {
		r.method = l.one("PATCH", "get", "OPTIONS")
	}
	query, form := url.Values{}, url.Values{}
	put := func(name, value string) {
		to := form
		if l.chance(3) || r.method != "PUT" && r.method != "POST" {
			to = query
		}
		to.Add(name, value)
	}
	l.parameters(r.method, put)
	r.target = "/v2/keys" + l.path(r.method)
	if len(query) > 0 {
		r.target += "?" + query.Encode()
	}
	if r.method == "PUT" || r.method == "POST" {
		r.body, r.contentType = form.Encode(), formType
		if l.chance(40) {
			r.contentType = l.one("text/plain", "application/json", "bad/;;", formType+"; charset=utf-8")
		}
	}
	return r
}

// watch asks for something that has happened, so that it is answered at once.
func (l *live) watch() liveRequest {
	n := l.events[l.rng.IntN(len(l.events))]
	at := url.URL{Path: "/v2/keys" + n.Key, RawQuery: fmt.Sprintf("wait=true&waitIndex=%d", n.ModifiedIndex)}
	return liveRequest{method: "GET", target: at.String()}
}

// path is at times one that nobody should send.
func (l *live) path(method string) string {
	p := kvtest.Path(l.rng)
	if p == "/" {
		return p
	}
	if l.chance(30) {
		p += l.one("/", "/x%20y", "/%C3%BC", "/a+b", "/%3F")
	}
	if method == "GET" && l.chance(40) { // on purpose we redirect other methods in another way
		p += l.one("//a", "/../b", "/./c", "/..", "/%2Fz")
	}
	return p
}

// parameters puts in what means something to the method, and at times what does
// not.
func (l *live) parameters(method string, put func(name, value string)) {
	if method == "GET" || method == "HEAD" {
		put("sorted", "true") // or the order would be anybody's
		l.some(put, 3, "recursive", "true", "false", "1")
		l.some(put, 6, "quorum", "true", "false")
	} else {
		l.some(put, 2, "value", "", "x", "y", "ü<&>\"", "a b+c")
		l.some(put, 4, "dir", "true", "false")
		l.some(put, 5, "ttl", "5000", "100000", "")
		l.some(put, 5, "prevExist", "true", "false")
		l.some(put, 6, "prevValue", "x", "y")
		l.some(put, 6, "prevIndex", fmt.Sprint(l.index-min(l.index, uint64(l.rng.IntN(6)))), "1", "0")
		l.some(put, 4, "recursive", "true", "false")
		l.some(put, 8, "refresh", "true", "false")
		l.some(put, 8, "noValueOnSuccess", "true")
	}
	if l.chance(12) {
		put(l.one("ttl", "prevIndex", "waitIndex", "recursive", "dir", "prevValue", "prevExist", "refresh", "stream", "quorum", "wait", "unknown"),
			l.one("", "-1", "1e30", "abc", "tRUE", "18446744073709551616", "007200"))
	}
}

// some puts the parameter in once in n times.
func (l *live) some(put func(name, value string), n int, name string, values ...string) {
	if l.chance(n) {
		put(name, l.one(values...))
	}
}
