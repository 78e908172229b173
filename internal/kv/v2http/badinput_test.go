package v2http

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// bad is input that no well-meaning client sends, or more of something than it
// should, with the answer that it gets.
type bad struct {
	name, request string
	status        int    // 0: the connection ends without an answer
	holds         string // in the body
	classic       int    // the status of etcd 3.4 where it is another one; -1: it resets the connection
}

func form(method, target, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
}

func plainGet(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n" }

var deep = strings.Repeat("/d", 5000)

var badInput = []bad{
	{"a value of 2 MB", form("PUT", "/v2/keys/big", "value="+strings.Repeat("x", 2<<20)), 201, `"action":"set"`, 0},
	{"a form over 10 MiB", form("PUT", "/v2/keys/big", "value="+strings.Repeat("x", 10<<20)), 400, `"errorCode":210,"message":"Invalid POST form","cause":"http: POST too large"`, 0},
	{"a path that leaves the keys", plainGet("/v2/keys/a/../../../etc/passwd"), 301, "", 0},
	{"the same, escaped", plainGet("/v2/keys/%2e%2e/%2e%2e/etc/passwd"), 301, "", 0},
	{"a write there", form("PUT", "/v2/keys/a/../b", "value=x"), 307, "", 301},
	{"a NUL in a key", form("PUT", "/v2/keys/n%00l", "value=x"), 201, `"key":"/n\u0000l"`, 0},
	{"a NUL in a value", form("PUT", "/v2/keys/nul", "value=%00"), 201, `"value":"\u0000"`, 0},
	{"5,000 levels", form("PUT", "/v2/keys"+deep, "value=x"), 400, `"errorCode":209,"message":"Invalid field","cause":"the key has 10000 bytes, at most 4096 can be written"`, -1}, // its multiplexer allows 4,096 bytes
	{"the same to be made in order", form("POST", "/v2/keys"+deep, "value=x"), 400, `"errorCode":209`, -1},
	{"5,000 levels that are not there", plainGet("/v2/keys/none" + deep), 404, `"errorCode":100`, -1},
	{"a TTL of -1", form("PUT", "/v2/keys/t", "value=x&ttl=-1"), 400, `"errorCode":202,"message":"The given TTL in POST form is not a number","cause":"invalid value for \"ttl\""`, 0},
	{"a TTL of 1e30", form("PUT", "/v2/keys/t", "value=x&ttl=1e30"), 400, `"errorCode":202`, 0},
	{"a TTL of 2^64", form("PUT", "/v2/keys/t", "value=x&ttl=18446744073709551616"), 400, `"errorCode":202`, 0},
	{"a chunk without a length", "PUT /v2/keys/c HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nvalue=x\r\n0\r\n\r\n",
		400, `"errorCode":210,"message":"Invalid POST form","cause":"invalid byte in chunk length"`, 0},
	{"two lengths", "PUT /v2/keys/c HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400, "", 0},
	{"no host", "GET /v2/keys/ HTTP/1.1\r\n\r\n", 400, "", 0},
	{"no HTTP", "hello\r\n\r\n", 400, "", -1},
	{"an escape that is none", plainGet("/v2/keys/%zz"), 400, "", 0},
	{"a header of 2 MB", "GET /v2/keys/ HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 431, "", 0},
}

// TestBadInput: each is answered clearly, and whoever has another connection is
// served as if nothing was.
func TestBadInput(t *testing.T) {
	addr := strings.TrimPrefix(serveMember(t), "http://")
	other, r := dial(t, addr)
	for _, b := range badInput {
		t.Run(b.name, func(t *testing.T) {
			b.send(t, addr, b.status)
			if status, _, body := talk(t, other, r, plainGet("/v2/keys/?quorum=true")); status != http.StatusOK {
				t.Errorf("others are answered %d %s", status, body)
			}
		})
	}
}

// TestBadInputEtcd34 holds the table to etcd 3.4.
func TestBadInputEtcd34(t *testing.T) {
	addr := strings.TrimPrefix(startEtcd34(t, etcd34(t)), "http://")
	for _, b := range badInput {
		t.Run(b.name, func(t *testing.T) {
			want := b.status
			if b.classic != 0 {
				want = max(b.classic, 0)
			}
			b.send(t, addr, want)
		})
	}
}

// send sends the bytes on a connection of their own and checks the answer. The
// server may answer, and close, before it has read everything.
func (b bad) send(t *testing.T, addr string, want int) {
	t.Helper()
	conn, r := dial(t, addr)
	sent := make(chan struct{})
	go func() {
		io.WriteString(conn, b.request)
		close(sent)
	}()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		if want != 0 {
			t.Fatalf("no answer: %v", err)
		}
		return
	}
	body, _ := io.ReadAll(resp.Body) // it is cut where the request was, at times
	if resp.StatusCode != want || !strings.Contains(string(body), b.holds) {
		t.Errorf("answered %d %.300q, want %d with %s", resp.StatusCode, body, want, b.holds)
	}
	conn.Close()
	<-sent
}

// TestBodyThatEnds: a client that promises more than it sends, and leaves, is gone
// without a trace.
func TestBodyThatEnds(t *testing.T) {
	addr := strings.TrimPrefix(serveMember(t), "http://")
	for _, request := range []string{
		"PUT /v2/keys/half HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=x",
		"PUT /v2/keys/half HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nvalue=x\r\n",
	} {
		conn, r := dial(t, addr)
		io.WriteString(conn, request)
		conn.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(r)
		if strings.Contains(string(b), `"action"`) {
			t.Errorf("half a request is carried out: %s", b)
		}
	}
	conn, r := dial(t, addr)
	if status, _, body := talk(t, conn, r, plainGet("/v2/keys/half")); status != http.StatusNotFound {
		t.Errorf("%d %s", status, body)
	}
}

// TestWatchThatIsNotRead: a client that leaves its events unread is cut off and
// forgotten; the events meanwhile are not kept for it without end, and writers do
// not wait.
func TestWatchThatIsNotRead(t *testing.T) {
	store := runStore(t)
	h := New(Config{Store: store, Info: info{}, Log: discard})
	h.stuck = 200 * time.Millisecond
	ended := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if strings.Contains(r.URL.RawQuery, "stream") {
			close(ended)
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	addr := listener.Addr().String()
	stuck, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	stuck.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(stuck, plainGet("/v2/keys/w?wait=true&stream=true"))
	if _, err := bufio.NewReader(io.LimitReader(stuck, 12)).ReadString(' '); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, r := dial(t, addr)
	value := strings.Repeat("x", 256<<10)
	for n := 0; ; n++ {
		if status, _, body := talk(t, conn, r, form("PUT", "/v2/keys/w?noValueOnSuccess=true", "value="+value)); status >= 300 {
			t.Fatalf("%d %s", status, body)
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
			t.Fatalf("after %d events the watch still hangs", n)
		default:
		}
	}
}
