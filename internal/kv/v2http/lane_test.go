package v2http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"flotilla/api/keys"
)

// TestSimple: what is for the lane, what is not, and what is not all there.
func TestSimple(t *testing.T) {
	const head = "HTTP/1.1\r\nHost: h\r\n"
	const put = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nvalue=x&y"
	for request, want := range map[string]string{
		"GET /v2/keys/a " + head + "\r\n":                                    "lane",
		"GET /v2/keys " + head + "\r\n":                                      "lane",
		"GET /v2/keys/?recursive=true&sorted=true " + head + "\r\n":          "lane",
		"DELETE /v2/keys/a?dir=true " + head + "User-Agent: x/1 (y)\r\n\r\n": "lane",
		"PUT /v2/keys/a " + head + put:                                       "lane",
		"POST /v2/keys/a?ttl=5 " + head + put:                                "lane",
		"GET /v2/keys/a " + head:                                             "more",
		"PUT /v2/keys/a " + head + put[:len(put)-1]:                          "more",
		"": "more",
		"GET /v2/keys/a?wait=true " + head + "\r\n":                                 "server",
		"GET /v2/keys/a?ttl=x " + head + "\r\n":                                     "server",
		"GET /v2/keys/a%20b " + head + "\r\n":                                       "server",
		"GET /v2/keys/a//b " + head + "\r\n":                                        "server",
		"GET /v2/keys/../b " + head + "\r\n":                                        "server",
		"GET /v2/keysx " + head + "\r\n":                                            "server",
		"GET /version " + head + "\r\n":                                             "server",
		"HEAD /v2/keys/a " + head + "\r\n":                                          "server",
		"get /v2/keys/a " + head + "\r\n":                                           "server",
		"GET /v2/keys/a HTTP/1.0\r\nHost: h\r\n\r\n":                                "server",
		"GET /v2/keys/a HTTP/1.1\r\n\r\n":                                           "server",
		"GET /v2/keys/a " + head + "Host: i\r\n\r\n":                                "server",
		"GET /v2/keys/a " + head + "Authorization: Basic eDp5\r\n\r\n":              "server",
		"GET /v2/keys/a " + head + "Origin: http://a\r\n\r\n":                       "server",
		"GET /v2/keys/a " + head + "Connection: close\r\n\r\n":                      "server",
		"GET /v2/keys/a " + head + "Content-Length: 1\r\n\r\nx":                     "server",
		"PUT /v2/keys/a " + head + "\r\n":                                           "server",
		"PUT /v2/keys/a " + head + "Content-Length: 7\r\n\r\nvalue=x":               "server",
		"PUT /v2/keys/a " + head + "Transfer-Encoding: chunked\r\n" + put:           "server",
		"PUT /v2/keys/a " + head + "Content-Length: 9\r\n" + put:                    "server",
		"PUT /v2/keys/a " + head + strings.Replace(put, "value=x&y", "value=%z", 1): "more",
		"PUT /v2/keys/a " + head + strings.Replace(put, "value=x", "value=%", 1):    "server",
		"PUT /v2/keys/a " + head + strings.Replace(put, ": 9", ": 9999", 1):         "server",
	} {
		got := "lane"
		switch _, size := parseSimple([]byte(request)); {
		case size == 0:
			got = "more"
		case size < 0:
			got = "server"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", request, got, want)
		}
	}
}

// FuzzSimple: what the lane takes, net/http takes as well, and as the same request.
func FuzzSimple(f *testing.F) {
	f.Add([]byte("GET /v2/keys/a?recursive=true HTTP/1.1\r\nHost: h:1\r\nAccept: */*\r\n\r\n"))
	f.Add([]byte("PUT /v2/keys/a/?prevExist=false HTTP/1.1\r\nhost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 17\r\n\r\nvalue=a+b%20&ttl=GET "))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, size := parseSimple(in)
		if size <= 0 {
			return
		}
		reader := bufio.NewReader(bytes.NewReader(in))
		r, err := http.ReadRequest(reader)
		if err != nil {
			t.Fatalf("net/http does not take it: %v", err)
		}
		want, err := parse(r)
		if err != nil {
			t.Fatalf("the handler does not take it: %v", err)
		}
		if r.Method != got.method || r.Host != string(got.host) || r.URL.Path != got.path {
			t.Errorf("%s %s %s, want %s %s %s", got.method, got.host, got.path, r.Method, r.Host, r.URL.Path)
		}
		if diff := cmp.Diff(want, got.request); diff != "" {
			t.Errorf("-net/http +lane\n%s", diff)
		}
		io.Copy(io.Discard, r.Body)
		if rest := reader.Buffered(); rest != len(in)-size {
			t.Errorf("%d bytes are left of it, want %d", len(in)-size, rest)
		}
	})
}

// FuzzEncode: events are written as encoding/json writes them.
func FuzzEncode(f *testing.F) {
	f.Add("/a/b", "plain", true, int64(-3), uint64(7), int64(1<<33))
	f.Add("/ü<&>", "\"\\\u2028\x00\x7f\xff", false, int64(0), uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, key, value string, dir bool, ttl int64, index uint64, at int64) {
		n := &keys.Node{Key: key, Dir: dir, TTL: ttl, ModifiedIndex: index, CreatedIndex: index / 2}
		if !dir {
			n.Value = &value
		}
		if at != 0 {
			expires := time.Unix(at%(1<<37), at%1e9).UTC()
			n.Expiration = &expires
		}
		for _, e := range []*keys.Event{
			{Action: value}, {Action: keys.Set, Node: n, PrevNode: n},
			{Action: keys.Get, Node: &keys.Node{Dir: true, Nodes: []*keys.Node{n, {}, n}}},
		} {
			want, err := json.Marshal(e)
			if err != nil {
				return
			}
			if got := string(appendEvent(nil, e)); got != string(want)+"\n" {
				t.Errorf("got %q, want %q (valid %v)", got, want, utf8.ValidString(value))
			}
		}
	})
}

// onLane serves a handler behind a lane; a connection that is handed on is told.
func onLane(t *testing.T, plain func(string) bool) (l *Lane, addr string, handed chan struct{}) {
	t.Helper()
	store := runStore(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handed = make(chan struct{}, 100)
	cfg := Config{Store: store, Info: info{}, Log: discard, Origins: []string{"*"}}
	h := New(cfg)
	l = NewLane(listener, anyConn, deskFor(h, plain))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handed <- struct{}{}
		h.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		server.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		server.Close()
		l.Shutdown(context.Background())
		<-done
	})
	return l, listener.Addr().String(), handed
}

func anyHost(string) bool   { return true }
func anyConn(net.Conn) bool { return true }

// desk is always open.
type desk struct{ h *Handler }

func (d desk) Keys() *Handler           { return d.h }
func (d desk) Context() context.Context { return context.Background() }
func (d desk) Leave()                   {}

func deskFor(h *Handler, plain func(host string) bool) func(string) Desk {
	return func(host string) Desk {
		if !plain(host) {
			return nil
		}
		return desk{h}
	}
}

// talk sends bytes on a connection and returns the answer that comes.
func talk(t *testing.T, conn net.Conn, r *bufio.Reader, request string) (status int, header http.Header, body string) {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

// TestLaneAnswersAsTheHandler: one connection, first on the lane and then, after
// a header that it does not know, with the server; the answers do not differ.
func TestLaneAnswersAsTheHandler(t *testing.T) {
	_, addr, handed := onLane(t, anyHost)
	conn, r := dial(t, addr)
	requests := []string{"GET /v2/keys/ ", "GET /v2/keys/missing ", "GET /v2/keys/a ", "GET /v2/keys/a?quorum=true "}
	talk(t, conn, r, "PUT /v2/keys/a HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=x")
	type answer struct {
		Status int
		Header http.Header
		Body   string
	}
	ask := func(headers string) (all []answer) {
		for _, request := range requests {
			status, header, body := talk(t, conn, r, request+"HTTP/1.1\r\nHost: h\r\n"+headers+"\r\n")
			header.Del("Date")
			all = append(all, answer{status, header, body})
		}
		return all
	}
	lane := ask("")
	if len(handed) != 0 {
		t.Fatal("the lane has handed on what it could answer")
	}
	server := ask("X-Unknown: 1\r\n")
	if len(handed) != len(requests) {
		t.Errorf("%d requests came to the server, want %d", len(handed), len(requests))
	}
	if diff := cmp.Diff(server, lane); diff != "" {
		t.Errorf("-server +lane\n%s", diff)
	}
}

// TestLanePipeline: requests that arrive in one piece, and one that arrives byte
// by byte, are answered in order.
func TestLanePipeline(t *testing.T) {
	_, addr, handed := onLane(t, anyHost)
	conn, r := dial(t, addr)
	one := "GET /v2/keys/a HTTP/1.1\r\nHost: h\r\n\r\n"
	if status, _, _ := talk(t, conn, r, one+one+one); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	for range 2 {
		talk(t, conn, r, "")
	}
	for i := range len(one) - 1 {
		io.WriteString(conn, one[i:i+1])
	}
	talk(t, conn, r, one[len(one)-1:])
	if len(handed) != 0 {
		t.Error("handed on")
	}
}

// TestLaneIsAsked: whoever needs a closer look is handed on.
func TestLaneIsAsked(t *testing.T) {
	_, addr, handed := onLane(t, func(host string) bool { return host == "good" })
	conn, r := dial(t, addr)
	talk(t, conn, r, "GET /v2/keys/a HTTP/1.1\r\nHost: good\r\n\r\n")
	if len(handed) != 0 {
		t.Error("the good host is handed on")
	}
	talk(t, conn, r, "GET /v2/keys/a HTTP/1.1\r\nHost: other\r\n\r\n")
	if len(handed) != 1 {
		t.Error("the other host is not handed on")
	}
}

// TestLaneIdle: who says nothing, or half a request, is cut off in the end; who talks
// is not.
func TestLaneIdle(t *testing.T) {
	l, addr, _ := onLane(t, anyHost)
	l.idle = 50 * time.Millisecond
	for _, said := range []string{"", "GET /v2/keys/a HT"} {
		conn, r := dial(t, addr)
		io.WriteString(conn, said)
		if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
			t.Errorf("after %q: %q, %v; want the end", said, b, err)
		}
	}
	conn, r := dial(t, addr)
	for began := time.Now(); time.Since(began) < 4*l.idle; {
		talk(t, conn, r, "GET /v2/keys/a HTTP/1.1\r\nHost: h\r\n\r\n")
	}
}

// TestLaneShutdown ends connections that wait, and takes no new ones.
func TestLaneShutdown(t *testing.T) {
	l, addr, _ := onLane(t, anyHost)
	conn, r := dial(t, addr)
	talk(t, conn, r, "GET /v2/keys/a HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := l.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Errorf("after the shutdown: %q, %v", b, err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a new connection is taken")
	}
}

// BenchmarkGet compares the lane's part of a read with the server's.
func BenchmarkGet(b *testing.B) {
	store := runStore(b)
	h := New(Config{Store: store, Info: info{}, Log: discard, Origins: []string{"*"}})
	request := []byte("GET /v2/keys/a HTTP/1.1\r\nHost: h\r\n\r\n")
	b.Run("lane", func(b *testing.B) {
		c := laneConn{Lane: &Lane{idle: laneIdle}, conn: deaf{}}
		for b.Loop() {
			r, _ := parseSimple(request)
			c.answer(r, desk{h})
		}
	})
	b.Run("handler", func(b *testing.B) {
		for b.Loop() {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
			if err != nil {
				b.Fatal(err)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	})
}

// deaf is a connection that takes everything.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error)     { return len(p), nil }
func (deaf) SetDeadline(time.Time) error     { return nil }
func (deaf) SetReadDeadline(time.Time) error { return nil }
