package keys_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
)

const event = `{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":7}}`

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func client(t *testing.T, cfg keys.Config) *keys.Client {
	t.Helper()
	c, err := keys.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What goes over the wire, as the v2 API documents it.
func TestRequests(t *testing.T) {
	var got string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body))
		w.Header().Set("X-Etcd-Index", "9")
		io.WriteString(w, event)
	})
	c, ctx := client(t, keys.Config{Endpoints: []string{strings.TrimPrefix(url, "http://")}}), t.Context()
	for _, test := range []struct {
		want string
		do   func() (*keys.Response, error)
	}{
		{"GET /v2/keys/a?quorum=false&recursive=false&sorted=false", func() (*keys.Response, error) { return c.Get(ctx, "/a", keys.GetOptions{}) }},
		{"GET /v2/keys/a/b%20c%3Fd?quorum=true&recursive=true&sorted=true", func() (*keys.Response, error) {
			return c.Get(ctx, "a//b c?d/", keys.GetOptions{Recursive: true, Sorted: true, Quorum: true})
		}},
		{"GET /v2/keys/?quorum=false&recursive=false&sorted=false", func() (*keys.Response, error) { return c.Get(ctx, "/", keys.GetOptions{}) }},
		{"PUT /v2/keys/a value=x+y", func() (*keys.Response, error) { return c.Set(ctx, "/a", "x y", keys.SetOptions{}) }},
		{"PUT /v2/keys/a?prevIndex=3&prevValue=v ttl=2&value=x", func() (*keys.Response, error) {
			return c.Set(ctx, "/a", "x", keys.SetOptions{PrevValue: "v", PrevIndex: 3, TTL: 1500 * time.Millisecond})
		}},
		{"PUT /v2/keys/a?prevExist=false value=x", func() (*keys.Response, error) { return c.Create(ctx, "/a", "x", 0) }},
		{"PUT /v2/keys/a?prevExist=true ttl=60&value=x", func() (*keys.Response, error) { return c.Update(ctx, "/a", "x", time.Minute) }},
		{"PUT /v2/keys/a?dir=true&prevExist=false", func() (*keys.Response, error) {
			return c.Set(ctx, "/a", "", keys.SetOptions{Dir: true, PrevExist: keys.MustNotExist})
		}},
		{"PUT /v2/keys/a?prevExist=true refresh=true&ttl=5", func() (*keys.Response, error) {
			return c.Set(ctx, "/a", "", keys.SetOptions{Refresh: true, PrevExist: keys.MustExist, TTL: 5 * time.Second})
		}},
		{"POST /v2/keys/q ttl=5&value=x", func() (*keys.Response, error) { return c.CreateInOrder(ctx, "/q", "x", 5*time.Second) }},
		{"DELETE /v2/keys/a", func() (*keys.Response, error) { return c.Delete(ctx, "/a", keys.DeleteOptions{}) }},
		{"DELETE /v2/keys/a?dir=true&prevIndex=4&prevValue=v&recursive=true", func() (*keys.Response, error) {
			return c.Delete(ctx, "/a", keys.DeleteOptions{Dir: true, Recursive: true, PrevIndex: 4, PrevValue: "v"})
		}},
	} {
		r, err := test.do()
		if err != nil {
			t.Fatalf("%s: %v", test.want, err)
		}
		if got != test.want {
			t.Errorf("sent %q\nwant %q", got, test.want)
		}
		if r.Action != wire.Set || *r.Node.Value != "1" || r.Index != 9 {
			t.Errorf("%s: answer %+v", test.want, r)
		}
	}
}

func TestStoreRefuses(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"errorCode":100,"message":"Key not found","cause":"/a","index":5}`)
	})
	_, err := client(t, keys.Config{Endpoints: []string{url}}).Get(t.Context(), "/a", keys.GetOptions{})
	var e *keys.Error
	if !errors.As(err, &e) || e.ErrorCode != wire.CodeKeyNotFound || e.Index != 5 {
		t.Errorf("error %v", err)
	}
}

// deadEndpoint refuses connections.
func deadEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// A connection that is refused reached nobody, so any request may go on to the
// next endpoint, which is then asked first.
func TestNextEndpoint(t *testing.T) {
	dead := deadEndpoint(t)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, event) })
	c := client(t, keys.Config{Endpoints: []string{dead, url}})
	if _, err := c.Create(t.Context(), "/a", "1", 0); err != nil {
		t.Fatal(err)
	}
	if got := c.Endpoints(); got[0] != url || got[1] != dead {
		t.Errorf("order afterwards: %v", got)
	}
}

func TestUnreachable(t *testing.T) {
	one, two := deadEndpoint(t), deadEndpoint(t)
	_, err := client(t, keys.Config{Endpoints: []string{one, two}}).Get(t.Context(), "/a", keys.GetOptions{})
	var away *keys.UnreachableError
	if !errors.As(err, &away) {
		t.Fatalf("error %v", err)
	}
	if len(away.Tries) != 2 || away.Tries[0].Endpoint != one || away.Tries[1].Endpoint != two {
		t.Errorf("tries %v", away.Tries)
	}
	for _, part := range []string{"GET /a", one, two, "connection refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not say %q: %v", part, err)
		}
	}
}

// A request that was cut off may have been carried out. What is the same twice
// is asked again elsewhere; what is not ends there.
func TestCutOff(t *testing.T) {
	cut := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	var asked atomic.Int32
	whole := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, event)
	})
	ctx := t.Context()
	for _, test := range []struct {
		name  string
		again bool
		do    func(*keys.Client) (*keys.Response, error)
	}{
		{"get", true, func(c *keys.Client) (*keys.Response, error) { return c.Get(ctx, "/a", keys.GetOptions{}) }},
		{"set", true, func(c *keys.Client) (*keys.Response, error) { return c.Set(ctx, "/a", "1", keys.SetOptions{}) }},
		{"create", false, func(c *keys.Client) (*keys.Response, error) { return c.Create(ctx, "/a", "1", 0) }},
		{"in order", false, func(c *keys.Client) (*keys.Response, error) { return c.CreateInOrder(ctx, "/a", "1", 0) }},
		{"swap", false, func(c *keys.Client) (*keys.Response, error) {
			return c.Set(ctx, "/a", "1", keys.SetOptions{PrevValue: "0"})
		}},
		{"delete", false, func(c *keys.Client) (*keys.Response, error) { return c.Delete(ctx, "/a", keys.DeleteOptions{}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked.Store(0)
			_, err := test.do(client(t, keys.Config{Endpoints: []string{cut, whole}}))
			if again := asked.Load() == 1; again != test.again || (err == nil) != test.again {
				t.Errorf("asked again %t, %v", again, err)
			}
		})
	}
}

func TestSlowEndpoint(t *testing.T) {
	release := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, event) })
	c := client(t, keys.Config{Endpoints: []string{slow, url}, Timeout: 50 * time.Millisecond})
	if _, err := c.Get(t.Context(), "/a", keys.GetOptions{}); err != nil {
		t.Error(err)
	}
	c = client(t, keys.Config{Endpoints: []string{slow}, Timeout: 50 * time.Millisecond})
	if _, err := c.Get(t.Context(), "/a", keys.GetOptions{}); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("error %v", err)
	}
}

// A watch that is cut goes on where it stopped: behind the last event, or before
// the first one behind the index at which it began.
func TestWatchResumes(t *testing.T) {
	var asked []string
	answers := []func(http.ResponseWriter){
		func(http.ResponseWriter) {}, // an empty end: the store stopped
		func(w http.ResponseWriter) {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler) // headers, then cut
		},
		func(w http.ResponseWriter) { io.WriteString(w, event) },
		func(w http.ResponseWriter) {
			w.WriteHeader(400)
			io.WriteString(w, `{"errorCode":401,"message":"The event in requested index is outdated and cleared","index":2000}`)
		},
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("waitIndex"))
		w.Header().Set("X-Etcd-Index", "5")
		answers[len(asked)-1](w)
	})
	w := client(t, keys.Config{Endpoints: []string{url}}).Watch("/a", keys.WatchOptions{})
	r, err := w.Next(t.Context())
	if err != nil || r.Node.ModifiedIndex != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = w.Next(t.Context())
	var e *keys.Error
	if !errors.As(err, &e) || e.ErrorCode != wire.CodeEventIndexGone {
		t.Errorf("error %v", err)
	}
	if got := strings.Join(asked, " "); got != "0 6 6 8" {
		t.Errorf("asked from %s, want 0 6 6 8", got)
	}
}

// A store that ends each watch at once is not asked as fast as it can answer.
func TestWatchDoesNotSpin(t *testing.T) {
	var asked atomic.Int32
	url := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w := client(t, keys.Config{Endpoints: []string{url}}).Watch("/a", keys.WatchOptions{})
	if _, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if n := asked.Load(); n < 2 || n > 4 { // at 0, 0, 50, 150 and 350 ms
		t.Errorf("asked %d times", n)
	}
}

func TestWatchStops(t *testing.T) {
	began := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(began)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	w := client(t, keys.Config{Endpoints: []string{url}}).Watch("/a", keys.WatchOptions{After: 3})
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestBadEndpoints(t *testing.T) {
	for _, e := range [][]string{nil, {""}, {"ftp://h:1"}, {"http://"}, {"http://a b"}} {
		if _, err := keys.New(keys.Config{Endpoints: e}); err == nil {
			t.Errorf("endpoints %q accepted", e)
		}
		c := client(t, keys.Config{Endpoints: []string{"http://h:1"}})
		if err := c.SetEndpoints(e); err == nil || strings.Join(c.Endpoints(), " ") != "http://h:1" {
			t.Errorf("endpoints %q accepted: %v", e, c.Endpoints())
		}
	}
}

func ExampleClient_Watch() {
	c, err := keys.New(keys.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := c.Watch("/services", keys.WatchOptions{Recursive: true})
	for {
		r, err := w.Next(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.Action, r.Node.Key)
	}
}
