package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fault"
)

// pipes is a network in memory, so that time is the bubble's: every address leads to
// the handler.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// inMemory is a fetcher whose every request reaches the handler. It has to be used in
// a synctest bubble.
func inMemory(t *testing.T, h http.HandlerFunc) Fetcher {
	p := make(pipes)
	srv := &http.Server{Handler: h}
	go srv.Serve(p)
	t.Cleanup(func() {
		close(p)
		srv.Close()
	})
	return Fetcher{dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		select {
		case p <- there:
			return here, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

// pauses is the time between 15 tries: 50 ms doubling to 5 s.
const pauses = (50+100+200+400+800+1600+3200)*time.Millisecond + 7*5*time.Second

func TestGet(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler func(w http.ResponseWriter, r *http.Request, try int)
		want    string // the document; else
		err     string // part of the error, and
		hint    string // of its hint
		tries   int
		took    time.Duration
	}{
		{name: "at once", tries: 1, want: "hello", handler: func(w http.ResponseWriter, _ *http.Request, _ int) {
			io.WriteString(w, "hello")
		}},
		{name: "after two refusals", tries: 3, took: 150 * time.Millisecond, want: "hello", handler: func(w http.ResponseWriter, _ *http.Request, try int) {
			if try < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			io.WriteString(w, "hello")
		}},
		{name: "asked too often", tries: 2, took: 50 * time.Millisecond, want: "hello", handler: func(w http.ResponseWriter, _ *http.Request, try int) {
			if try == 1 {
				w.WriteHeader(http.StatusTooManyRequests)
			}
			io.WriteString(w, "hello")
		}},
		{name: "cut off once", tries: 2, took: 50 * time.Millisecond, want: "hello", handler: func(w http.ResponseWriter, _ *http.Request, try int) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello"[:min(4*try, 5)])
		}},
		{name: "500 for ever", tries: 15, took: pauses, err: "after 15 tries: GET http://vendor/doc: the server answers 500 Internal Server Error", hint: "is the server up", handler: func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusInternalServerError)
		}},
		{name: "404", tries: 1, err: "the server answers 404 Not Found", handler: func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusNotFound)
		}},
		{name: "no content", tries: 1, err: "the server answers 204 No Content", handler: func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusNoContent)
		}},
		{name: "slow trickle", tries: 15, took: 15*10*time.Second + pauses, err: "not answered in full within 10s", handler: func(w http.ResponseWriter, r *http.Request, _ int) {
			for {
				io.WriteString(w, ".")
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
					return
				}
			}
		}},
		{name: "silence", tries: 15, took: 15*10*time.Second + pauses, err: "not answered in full within 10s", handler: func(_ http.ResponseWriter, r *http.Request, _ int) {
			<-r.Context().Done()
		}},
		{name: "endless body", tries: 1, err: "GET http://vendor/doc: more than 16777216 bytes", hint: "at most 16 MiB", handler: func(w http.ResponseWriter, _ *http.Request, _ int) {
			for chunk := make([]byte, 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}},
		{name: "ten redirects", tries: 11, want: "hello", handler: func(w http.ResponseWriter, r *http.Request, try int) {
			if try <= 10 {
				http.Redirect(w, r, fmt.Sprintf("/%d", try), http.StatusFound)
			}
			io.WriteString(w, "hello")
		}},
		{name: "redirect loop", tries: 11, err: "more than 10 redirects", handler: func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "/doc", http.StatusFound)
		}},
		{name: "redirect to a file", tries: 1, err: "a redirect to file:///etc/shadow is refused", hint: "name the file", handler: func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "file:///etc/shadow", http.StatusFound)
		}},
		{name: "gzip stays gzip", tries: 1, want: "\x1f\x8b", handler: func(w http.ResponseWriter, r *http.Request, _ int) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("asked for %q", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "\x1f\x8b")
		}},
		{name: "secrets stay with their host", tries: 2, want: "other:", handler: func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				http.Redirect(w, r, "http://other/", http.StatusFound)
			}
			io.WriteString(w, r.Host+":"+r.Header.Get("X-Token"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				f := inMemory(t, func(w http.ResponseWriter, r *http.Request) {
					tries++
					c.handler(w, r, tries)
				})
				start := time.Now()
				got, err := f.Get(t.Context(), "http://vendor/doc", http.Header{"X-Token": {"secret"}})
				if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %.100q and %v, want %q and %q", got, err, c.want, c.err)
				}
				if hints := strings.Join(fault.Hints(err), "\n"); !strings.Contains(hints, c.hint) {
					t.Errorf("hints %q lack %q", hints, c.hint)
				}
				if tries != c.tries || time.Since(start) != c.took {
					t.Errorf("%d tries in %v, want %d in %v", tries, time.Since(start), c.tries, c.took)
				}
			})
		})
	}
}

func TestGetEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := Fetcher{dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.Get(ctx, "http://user:secret@vendor/doc", nil)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no network") || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
}

// Metadata is never asked for through a proxy; a URL on the web may be.
func TestProxies(t *testing.T) {
	if EC2(EC2Base, Fetcher{Proxied: true}).(ec2).fetch.client(nil).Transport.(*http.Transport).Proxy != nil {
		t.Error("metadata through a proxy")
	}
	if URL("http://example.org", Fetcher{}).(remote).fetch.client(nil).Transport.(*http.Transport).Proxy == nil {
		t.Error("a URL without a proxy")
	}
}
