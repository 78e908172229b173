package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flotilla/internal/logx"
)

// backend is a server that behaves as its name says.
func backend(t *testing.T, how string, asked *atomic.Int64) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked != nil {
			asked.Add(1)
		}
		switch how {
		case "works":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Etcd-Cluster-Id", "1")
			io.WriteString(w, r.Method+" "+string(body))
		case "dies":
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		case "starting":
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "the store is starting")
		case "frozen":
			<-r.Context().Done()
		case "timed out":
			w.Header().Set("X-Etcd-Cluster-Id", "1")
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "request timed out")
		}
	}))
	t.Cleanup(s.Close)
	if how == "away" {
		s.Close()
	}
	return s.URL
}

// What a request comes to when the first endpoint is not well and the second is. No
// answer takes long.
func TestNextEndpoint(t *testing.T) {
	for _, test := range []struct {
		first, method string
		status        int
		want          string
		usable        int // endpoints afterwards
	}{
		{"away", "GET", 200, "GET ", 1},
		{"away", "PUT", 200, "PUT v", 1},
		{"dies", "GET", 200, "GET ", 1},
		{"dies", "PUT", 200, "PUT v", 1},
		{"dies at once", "PUT", 502, "httpproxy: unable to get response from 1 endpoint(s)", 1},
		{"frozen", "GET", 200, "GET ", 2},
		{"frozen", "PUT", 200, "PUT v", 1},
		{"starting", "GET", 200, "GET ", 1},
		{"starting", "PUT", 200, "PUT v", 1},
		{"timed out", "GET", 200, "GET ", 2},
		{"timed out", "PUT", 500, "request timed out", 2},
	} {
		t.Run(test.first+" "+test.method, func(t *testing.T) {
			e := &Endpoints{}
			how, atOnce := strings.CutSuffix(test.first, " at once")
			first, second := backend(t, how, nil), backend(t, "works", nil)
			e.Set([]string{first, second})
			for e.Usable()[0] != first { // they come in random order
				e = &Endpoints{}
				e.Set([]string{first, second})
			}
			if atOnce { // a moment ago it worked
				e.list[0].heard = time.Now()
			}
			body := ""
			if test.method == "PUT" {
				body = "v"
			}
			w, began := httptest.NewRecorder(), time.Now()
			Forward(e, logx.Discard()).ServeHTTP(w, httptest.NewRequest(test.method, "/v2/keys/a", strings.NewReader(body)))
			if took := time.Since(began); took > answerTimeout/2 {
				t.Errorf("it takes %s", took)
			}
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) || len(e.Usable()) != test.usable {
				t.Errorf("%d %s, %d usable; want %d %s, %d usable", w.Code, w.Body, len(e.Usable()), test.status, test.want, test.usable)
			}
		})
	}
}

// All starting: the last one's reason is passed on. None: 503. One that was left
// out comes back after its time, and with a probe at once.
func TestEndpointsThatFail(t *testing.T) {
	e := &Endpoints{FailureWait: time.Hour}
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		Forward(e, logx.Discard()).ServeHTTP(w, httptest.NewRequest("GET", "/v2/keys/a", nil))
		return w.Code, w.Body.String()
	}
	e.Set([]string{backend(t, "starting", nil)})
	if code, body := ask(); code != 500 || body != "the store is starting" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(); code != 503 || body != `{"message":"httpproxy: zero endpoints currently available"}` {
		t.Errorf("%d %s", code, body)
	}
	e.probe(t.Context())
	if len(e.Usable()) != 0 {
		t.Error("one that is starting is taken for one that works")
	}
	var asked atomic.Int64
	works := backend(t, "works", &asked)
	e.Set([]string{works})
	e.fails(e.list[0])
	if len(e.Usable()) != 0 {
		t.Error("one that failed is used at once")
	}
	e.probe(t.Context())
	if len(e.Usable()) != 1 || asked.Load() != 1 {
		t.Error("one that is back is not used")
	}
	e.fails(e.list[0])
	e.FailureWait = time.Nanosecond
	if len(e.Usable()) != 1 {
		t.Error("one that failed is left out for ever")
	}
}

// A client that gives up is no failure of the endpoint.
func TestClientGivesUp(t *testing.T) {
	e := &Endpoints{}
	e.Set([]string{"http://192.0.2.1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.RoundTrip(httptest.NewRequestWithContext(ctx, "GET", "/v2/keys/a", nil))
	if !errors.Is(err, context.Canceled) || len(e.Usable()) != 1 {
		t.Errorf("%v, usable %v", err, e.Usable())
	}
}

// While users and passwords count, nothing is answered here.
func TestGatewayKeepsOut(t *testing.T) {
	g := newGateway(logx.Discard())
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	g.client = client
	defer client.Close()
	defer g.stores.Wait()
	g.admit(t.Context(), true)
	open := g.open
	g.admit(t.Context(), true)
	if g.open != open || open.Err() != nil {
		t.Error("what is answered ends though nothing has changed")
	}
	g.admit(t.Context(), false)
	if g.open != nil || open.Err() == nil {
		t.Error("what is answered goes on though users and passwords count")
	}
}

// A member that cannot tell does not make the gateway give up what it may answer,
// no more than one that does not answer.
func TestAuthOn(t *testing.T) {
	for _, c := range []struct {
		status     int
		body       string
		on, untold bool
	}{
		{200, `{"enabled":true}`, true, false},
		{200, `{"enabled":false}`, false, false},
		{404, "404 page not found", false, false},
		{401, `{"message":"Insufficient credentials"}`, true, false},
		{500, "", false, true},
		{503, `{"message":"the store is starting"}`, false, true},
		{200, "{", false, true},
	} {
		on, err := authOn(t.Context(), answering(c.status, c.body))
		if on != c.on || (err != nil) != c.untold {
			t.Errorf("%d %s: %t %v", c.status, c.body, on, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answering(status int, body string) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})
}

func TestIsPlainRead(t *testing.T) {
	for request, want := range map[string]bool{
		"GET /v2/keys":                            true,
		"GET /v2/keys/":                           true,
		"HEAD /v2/keys/a?recursive=true":          true,
		"GET /v2/keys/a?quorum=false":             true,
		"GET /v2/keys/a?wait=true":                true,
		"GET /v2/keys/a?quorum=true":              false,
		"GET /v2/keys/a?quorum=maybe":             false,
		"GET /v2/keys/a?quorum=true&quorum=false": false,
		"GET /v2/keysworld":                       false,
		"GET /v2/members":                         false,
		"PUT /v2/keys/a":                          false,
		"DELETE /v2/keys/a":                       false,
	} {
		method, target, _ := strings.Cut(request, " ")
		if got := isPlainRead(httptest.NewRequest(method, target, nil)); got != want {
			t.Errorf("%s: %v", request, got)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`[{"id":1,"peerURLs":["http://h:1"],"name":"a","clientURLs":["http://h:2"]},{"id":2,"peerURLs":["http://h:3"],"isLearner":true,"clientURLs":["http://h:4"]}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseMembers(body)
		if err == nil && len(c.peers) == 0 {
			t.Error("a cluster without peers")
		}
	})
}
