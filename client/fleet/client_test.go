package fleet_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
)

// serve answers with h and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *fleet.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return dial(t, fleet.Config{Endpoint: srv.URL})
}

func dial(t *testing.T, cfg fleet.Config) *fleet.Client {
	t.Helper()
	c, err := fleet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct{ endpoint, fails string }{
		{"", ""},
		{"unix:///run/fleet.sock", ""},
		{"file:///run/fleet.sock", ""},
		{"http://127.0.0.1:49153", ""},
		{"https://fleet.example:49153/behind/a/proxy/", ""},
		{"unix://var/run/fleet.sock", `endpoint "unix://var/run/fleet.sock": unable to connect to host "var" with scheme "unix"`},
		{"unix:fleet.sock", `endpoint "unix:fleet.sock": the socket's path must be absolute`},
		{"/run/fleet.sock", `endpoint "/run/fleet.sock": URL scheme undefined`},
		{"http:///x", `endpoint "http:///x": no host`},
		{"ftp://h", `endpoint "ftp://h": scheme "ftp" is not one of http, https, unix, file`},
		{"http://h\x7f", `endpoint "http://h\x7f": parse "http://h\x7f": net/url: invalid control character in URL`},
	} {
		_, err := fleet.New(fleet.Config{Endpoint: c.endpoint})
		if got := fmt.Sprint(err); got != c.fails && (err != nil || c.fails != "") {
			t.Errorf("%q: got %s, want %s", c.endpoint, got, c.fails)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"machines":[{"id":"a"}]}`)
	})}
	go srv.Serve(l)
	defer srv.Close()
	got, err := dial(t, fleet.Config{Endpoint: "unix://" + socket}).Machines(t.Context())
	if err != nil || len(got) != 1 || got[0].ID != "a" {
		t.Errorf("got %v, %v", got, err)
	}
}

// A server whose certificate nobody vouches for is not spoken to, with or without a
// certificate of our own.
func TestTLSIsVerified(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) }))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	_, err := dial(t, fleet.Config{Endpoint: srv.URL}).Machines(t.Context())
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("got %v, want an unknown authority", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	if _, err := dial(t, fleet.Config{Endpoint: srv.URL, TLS: &tls.Config{RootCAs: roots}}).Machines(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAllPagesAreCollected(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		switch r.URL.Query().Get("nextPageToken") {
		case "":
			fmt.Fprint(w, `{"states":[{"name":"a.service"},{"name":"b.service"}],"nextPageToken":"t1"}`)
		case "t1":
			fmt.Fprint(w, `{"states":[{"name":"c.service"}],"nextPageToken":"t2"}`)
		default:
			fmt.Fprint(w, `{}`) // the page after a full last one is empty
		}
	})
	got, err := c.States(t.Context(), fleet.StateFilter{Unit: "a@1.service", Machine: "m"})
	if err != nil || len(got) != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	want := []string{
		"/fleet/v1/state?machineID=m&unitName=a%401.service",
		"/fleet/v1/state?machineID=m&nextPageToken=t1&unitName=a%401.service",
		"/fleet/v1/state?machineID=m&nextPageToken=t2&unitName=a%401.service",
	}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
}

// A server that names the same page for ever does not keep us for ever.
func TestPagesEnd(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"units":[{"name":"a.service"}],"nextPageToken":"same"}`)
	})
	if got, err := c.Units(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPutAndDestroy(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), body)))
		if strings.Contains(string(body), "options") {
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	created, err := c.Put(t.Context(), api.Unit{Name: `a\x2db.service`, DesiredState: "launched", MachineID: "not ours to say",
		Options: []api.UnitOption{{Section: "Service", Name: "ExecStart", Value: "/bin/a"}}})
	if err != nil || !created {
		t.Errorf("create: %v, %v", created, err)
	}
	if created, err = c.Put(t.Context(), api.Unit{Name: "a@1.service", DesiredState: "loaded"}); err != nil || created {
		t.Errorf("set: %v, %v", created, err)
	}
	if err := c.Destroy(t.Context(), "a@1.service"); err != nil {
		t.Error(err)
	}
	want := []string{
		`PUT /fleet/v1/units/a%5Cx2db.service application/json {"desiredState":"launched","name":"a\\x2db.service","options":[{"name":"ExecStart","section":"Service","value":"/bin/a"}]}`,
		`PUT /fleet/v1/units/a@1.service application/json {"desiredState":"loaded","name":"a@1.service"}`,
		`DELETE /fleet/v1/units/a@1.service`,
	}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
}

func TestErrorsSayWhatTheServerSaid(t *testing.T) {
	for _, c := range []struct {
		code           int
		body           string
		text, hint     string
		notExist, away bool
	}{
		{404, `{"error":{"code":404,"message":"unit does not exist"}}`, "Error 404: unit does not exist", "", true, false},
		{503, `{"error":{"code":503,"message":"no store","hint":"wait"}}`, "Error 503: no store", "wait", false, true},
		{500, `{"error":{"code":500,"message":""}}`, "Error 500: GET /fleet/v1/units/a.service: Internal Server Error", "", false, false},
		{502, `<html>proxy</html>`, "Error 502: GET /fleet/v1/units/a.service: Bad Gateway", "", false, false},
	} {
		client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.code)
			fmt.Fprint(w, c.body)
		})
		_, err := client.Unit(t.Context(), "a.service")
		var e *fleet.Error
		if !errors.As(err, &e) || e.Error() != c.text || e.Hint != c.hint || e.Code != c.code {
			t.Errorf("%d: got %#v", c.code, err)
		}
		if errors.Is(err, fleet.ErrNotExist) != c.notExist || errors.Is(err, fleet.ErrUnavailable) != c.away {
			t.Errorf("%d: not exist %v, unavailable %v", c.code, errors.Is(err, fleet.ErrNotExist), errors.Is(err, fleet.ErrUnavailable))
		}
	}
}

func TestUnusableAnswer(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"name":`) })
	_, err := c.Unit(t.Context(), "a.service")
	if err == nil || !strings.HasPrefix(err.Error(), "GET /fleet/v1/units/a.service: unusable answer from http://127.0.0.1:") {
		t.Errorf("got %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := dial(t, fleet.Config{Endpoint: "unix:///no/such/socket"})
	_, err := c.Machines(t.Context())
	want := "no answer from the fleet API at unix:///no/such/socket: dial unix /no/such/socket: connect: no such file or directory (waited 0s)"
	if err == nil || err.Error() != want || !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A server that takes the connection and says nothing is given up on, in a body as
// well as before it.
func TestRequestsHaveALimit(t *testing.T) {
	for _, begin := range []string{"", `{"machines":[`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if begin != "" {
				fmt.Fprint(w, begin)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}))
		defer srv.Close()
		_, err := dial(t, fleet.Config{Endpoint: srv.URL, RequestTimeout: 50 * time.Millisecond}).Machines(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no answer in time") {
			t.Errorf("after %q: got %v", begin, err)
		}
	}
}

func TestCancelledRequestIsNotAnAbsentServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	_, err := c.Machines(ctx)
	if !errors.Is(err, context.Canceled) || errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"unit":{"name":"a.service"}}`)
		fmt.Fprintln(w, `{"synced":true}`)
		fmt.Fprintln(w, `{"deleted":true,"unit":{"name":"a.service"}}`)
	})
	var got []string
	var last error
	for ch, err := range c.Watch(t.Context()) {
		b, _ := json.Marshal(ch)
		got, last = append(got, string(b)), err
	}
	want := []string{`{"unit":{"name":"a.service"}}`, `{"synced":true}`, `{"deleted":true,"unit":{"name":"a.service"}}`, `{}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !errors.Is(last, fleet.ErrEnded) {
		t.Errorf("a watch that the server ends: got %v", last)
	}
}

func TestWatchEndsQuietlyWithItsContextOrReader(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"synced":true}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for ch, err := range c.Watch(ctx) {
		if err != nil || !ch.Synced {
			t.Errorf("got %v, %v", ch, err)
		}
		cancel()
	}
	for range c.Watch(t.Context()) {
		break
	}
}

func TestOldServerHasNoWatch(t *testing.T) {
	c := serve(t, http.NotFound)
	for _, err := range c.Watch(t.Context()) {
		if !errors.Is(err, fleet.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
}

func TestJournal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RequestURI(); got != "/fleet/v1/units/a.service/journal?follow=true&lines=0&machine=m" {
			t.Errorf("asked %s", got)
		}
		fmt.Fprintln(w, `{"time":"2026-11-21T12:00:00Z","unit":"a.service","message":"hello","pid":7}`)
		fmt.Fprintln(w, `{"error":{"code":502,"message":"machine m went away"}}`)
	})
	none := 0
	var got []string
	for e, err := range c.Journal(t.Context(), "a.service", fleet.JournalOptions{Lines: &none, Follow: true, Machine: "m"}) {
		got = append(got, fmt.Sprint(e.Message, " ", e.PID, " ", err))
	}
	if d := cmp.Diff([]string{"hello 7 <nil>", " 0 Error 502: machine m went away"}, got); d != "" {
		t.Error(d)
	}
}

func TestStatusExitCode(t *testing.T) {
	for _, c := range []struct {
		about   string
		handler http.HandlerFunc
		code    int
		fails   bool
	}{
		{"header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(fleet.ExitCodeHeader, "3")
			fmt.Fprint(w, "text")
		}, 3, false},
		{"trailer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", fleet.ExitCodeHeader)
			fmt.Fprint(w, "text")
			w.Header().Set(fleet.ExitCodeHeader, "4")
		}, 4, false},
		{"neither", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "text") }, 0, true},
	} {
		var b strings.Builder
		code, err := serve(t, c.handler).Status(t.Context(), &b, "a.service", "")
		if code != c.code || (err != nil) != c.fails || b.String() != "text" {
			t.Errorf("%s: got %d %q %v", c.about, code, b.String(), err)
		}
	}
}

// Whatever the endpoint is, New says what is wrong with it or makes a client whose
// requests fail with an *Error.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"", "unix:///run/fleet.sock", "http://127.0.0.1:1/x", "unix://h/p", "://", "http://[::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is dialled
		c, err := fleet.New(fleet.Config{Endpoint: endpoint})
		if err != nil {
			return
		}
		var e *fleet.Error
		if _, err := c.Machines(ctx); !errors.As(err, &e) {
			t.Errorf("%q: got %v", endpoint, err)
		}
	})
}
