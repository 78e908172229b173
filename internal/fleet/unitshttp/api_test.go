package unitshttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/tools/txtar"

	client "flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/unit/unitfake"
)

var update = flag.Bool("update", false, "write what the server answers into testdata")

// here is this machine, which hands no units over: that takes an agent.
type here struct{ *unitfake.Manager }

func (here) Adopt(_ context.Context, name string) (string, error) {
	return "", fmt.Errorf("adopt %s: it has no file", name)
}

func (here) Eject(_ context.Context, name string) error {
	return fmt.Errorf("eject %s: it is not on this machine", name)
}

// api is a server on a registry of its own.
type api struct {
	*Server
	raw    *clientv3.Client
	prefix string

	who      access.Who
	stranger error // who has no name
	events   []model.Event
}

func newAPI(t testing.TB, url, prefix string) *api {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reg, err := registry.Open(registry.Config{Endpoints: []string{url}, Prefix: prefix, Timeout: 2 * time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{strings.TrimPrefix(url, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	a := &api{raw: raw, prefix: prefix, who: access.Who{Name: "root", Role: access.Admin, From: "10.0.0.7"}}
	a.Server = New(Config{Machine: strings.Repeat("1", 32), Hostname: "m1", Version: "1.2.3", TokenLimit: 3}, Deps{
		Store: reg, Local: here{unitfake.New()}, Log: log,
		Who:    func(*http.Request) (access.Who, error) { return a.who, a.stranger },
		Events: func(e model.Event) { a.events = append(a.events, e) },
	})
	return a
}

// The files of testdata are conversations. A section is a request, "METHOD PATH
// [CONTENT-TYPE]" and its body; the section after it is its answer, "STATUS
// CONTENT-TYPE [HEADER: VALUE...]" and the body. Between them:
//
//	put KEY             a write behind the server's back
//	as ROLE [PREFIX...] who sends the requests that follow; at first an admin
//	as nobody           somebody without a name does
//	events              what was noted down since the last time
func TestConversations(t *testing.T) {
	url := membertest.Start(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for i, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newAPI(t, url, fmt.Sprintf("/test%d/", i)).converse(t, a)
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if w, g := txtar.Format(a), txtar.Format(got); !bytes.Equal(w, g) {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

// converse holds the conversation and returns it with the answers that were given.
func (a *api) converse(t *testing.T, script *txtar.Archive) *txtar.Archive {
	t.Helper()
	out := &txtar.Archive{Comment: script.Comment}
	for _, f := range script.Files {
		verb, rest, _ := strings.Cut(f.Name, " ")
		switch verb {
		case "put":
			if _, err := a.raw.Put(t.Context(), a.prefix+rest, strings.TrimSpace(string(f.Data))); err != nil {
				t.Fatal(err)
			}
			out.Files = append(out.Files, f)
		case "as":
			a.speaker(strings.Fields(rest))
			out.Files = append(out.Files, f)
		case "events":
			out.Files = append(out.Files, txtar.File{Name: f.Name, Data: a.noted()})
		case "GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS":
			out.Files = append(out.Files, f, a.answer(verb, rest, f.Data))
		}
	}
	return out
}

func (a *api) speaker(words []string) {
	a.who = access.Who{Name: "anna", Role: access.Role(words[0]), Prefixes: words[1:], From: "10.0.0.7"}
	a.stranger = nil
	if words[0] == "nobody" {
		a.stranger = fault.Hint(errors.New("certificate \"anna\" names no role"), "make another one")
	}
}

// noted is the events since the last time, one a line.
func (a *api) noted() []byte {
	var out bytes.Buffer
	for _, e := range a.events {
		fmt.Fprintf(&out, "%s: %s", e.By, e.What)
		for _, field := range []struct{ name, value string }{{"unit", e.Unit}, {"machine", e.Machine}, {"why", e.Why}} {
			if field.value != "" {
				fmt.Fprintf(&out, " %s=%s", field.name, field.value)
			}
		}
		out.WriteByte('\n')
	}
	a.events = nil
	return out.Bytes()
}

// Generations are revisions of the store, which other conversations share; when
// something was done is another time each time.
var (
	generation = regexp.MustCompile(`"generation":\d+`)
	moment     = regexp.MustCompile(`"at":"20[^"]*"`)
)

func (a *api) answer(method, path string, body []byte) txtar.File {
	path, contentType, given := strings.Cut(path, " ")
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	switch {
	case given && contentType != "none":
		for kind := range strings.SplitSeq(contentType, " and ") {
			req.Header.Add("Content-Type", kind)
		}
	case !given && len(body) > 0:
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, req)
	name := fmt.Sprintf("%d %s", w.Code, w.Header().Get("Content-Type"))
	for _, key := range slices.Sorted(maps.Keys(w.Header())) {
		if key != "Content-Type" && (key != "Server" || w.Header().Get(key) != "fleetd/1.2.3") {
			name += fmt.Sprintf(" %s: %s", key, strings.Join(w.Header()[key], ", "))
		}
	}
	data := generation.ReplaceAll(w.Body.Bytes(), []byte(`"generation":N`))
	data = moment.ReplaceAll(data, []byte(`"at":"T"`))
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return txtar.File{Name: strings.TrimSpace(name), Data: data}
}

func TestServerHeaderAndDiscovery(t *testing.T) {
	s := New(Config{Version: "1.2.3"}, Deps{
		Log: slog.New(slog.DiscardHandler),
		Who: func(*http.Request) (access.Who, error) { return access.Who{Role: access.Viewer}, nil },
	})
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/v1-alpha/discovery", nil))
	if w.Code != 200 || w.Header().Get("Server") != "fleetd/1.2.3" || !strings.Contains(w.Body.String(), `"id": "fleet:v1"`) {
		t.Errorf("%d %v %.80s", w.Code, w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("POST", "/fleet/v1/discovery", nil))
	if w.Code != 400 {
		t.Errorf("POST: %d", w.Code)
	}
}

// Clients were generated from the description of version 1: it stays as it is.
func TestDiscoveryStays(t *testing.T) {
	if got := fmt.Sprintf("%x", sha256.Sum256(discoveryDocument)); got != "d9ca6d9951d456fddb86a4dc6c9fd0e70367b8aad7fd2d1076a055a700548b4f" {
		t.Errorf("the document has the hash %s", got)
	}
}

// A machine that takes no part in the cluster says so whatever is asked of it, and
// changes nothing.
func TestTakesNoPart(t *testing.T) {
	s := New(Config{}, Deps{
		Log: slog.New(slog.DiscardHandler),
		Who: func(*http.Request) (access.Who, error) { return access.Who{Role: access.Admin}, nil },
		Problem: func() error {
			return fault.Hint(errors.New("the machine id is in use by m2"), "give one of them another")
		},
	})
	for _, r := range append(s.resources(), route{path: "", methods: []method{{"GET", nil}}}, route{path: "/nothing", methods: []method{{"PUT", nil}}}) {
		for _, m := range r.methods {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(m.verb, "/fleet/v1"+r.path, strings.NewReader("{}")))
			if w.Code != 503 || !strings.Contains(w.Body.String(), "in use by m2") || !strings.Contains(w.Body.String(), `"hint"`) {
				t.Errorf("%s %s: %d %s", m.verb, r.path, w.Code, w.Body)
			}
		}
	}
}

func TestTheExitCodeHeaderIsTheClients(t *testing.T) {
	if ExitCodeHeader != client.ExitCodeHeader {
		t.Errorf("server %s, client %s", ExitCodeHeader, client.ExitCodeHeader)
	}
}

// A body that is too large is refused and nothing is changed.
func TestBodyTooLarge(t *testing.T) {
	a := newAPI(t, membertest.Start(t), "/large/")
	send := func(body string) (int, string) {
		req := httptest.NewRequest("PUT", "/fleet/v1/units/a.service", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, req)
		return w.Code, w.Body.String()
	}
	option := `{"section":"Service","name":"Environment","value":"` + strings.Repeat("x", 1800) + `"},`
	text := `{"desiredState":"launched","options":[` + strings.Repeat(option, 1200) + `{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`
	if code, body := send(text); code != 400 || !strings.Contains(body, "unit file") {
		t.Errorf("a unit file of 2 MB: %d %.200s", code, body)
	}
	if code, body := send(`{"name":"` + strings.Repeat("x", 5<<20)); code != 413 || !strings.Contains(body, "too large") {
		t.Errorf("a body of 5 MB: %d %.200s", code, body)
	}
	resp, err := a.raw.Get(t.Context(), "/large/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 0 {
		t.Errorf("the store has %v keys, %v", resp, err)
	}
}

// What a watch tells: what is there, a line that says so, and changes.
func TestWatch(t *testing.T) {
	a := newAPI(t, membertest.Start(t), "/watch/")
	server := httptest.NewServer(a)
	defer server.Close()
	put := func(key, value string) {
		t.Helper()
		if _, err := a.raw.Put(t.Context(), a.prefix+key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("machines/"+strings.Repeat("1", 32)+"/object", `{"PublicIP":"10.0.0.1"}`)
	put("job/a.service/object", `{"Raw":"[Service]\nExecStart=/bin/true\n"}`)
	put("job/b.service/object", `{"Raw":"[Service]\nExecStart=/bin/true\n"}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", server.URL+"/fleet/v1/watch?unit=a.service", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read := func() string {
		t.Helper()
		var line []byte
		for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
			if _, err := io.ReadFull(resp.Body, b); err != nil {
				t.Fatalf("%v after %q", err, line)
			}
		}
		return generation.ReplaceAllString(strings.TrimSpace(string(line)), `"generation":N`)
	}
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if got := read(); got != w {
				t.Fatalf("got  %s\nwant %s", got, w)
			}
		}
	}
	one := strings.Repeat("1", 32)
	expect(`{"machine":{"id":"`+one+`","primaryIP":"10.0.0.1"}}`,
		`{"unit":{"currentState":"inactive","desiredState":"inactive","name":"a.service"}}`,
		`{"synced":true}`)
	put("job/b.service/target-state", "launched") // not asked for
	put("job/a.service/target-state", "loaded")
	expect(`{"unit":{"currentState":"inactive","desiredState":"loaded","generation":N,"name":"a.service"}}`)
	put("states/"+one+"/a.service", `{"loadState":"loaded","activeState":"inactive","subState":"dead"}`)
	expect(`{"state":{"machineID":"` + one + `","name":"a.service","systemdActiveState":"inactive","systemdLoadState":"loaded","systemdSubState":"dead"}}`)
	if _, err := a.raw.Delete(t.Context(), a.prefix+"states/"+one+"/a.service"); err != nil {
		t.Fatal(err)
	}
	expect(`{"deleted":true,"state":{"machineID":"` + one + `","name":"a.service"}}`)
	if _, err := a.raw.Delete(t.Context(), a.prefix+"job/a.service/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	expect(`{"deleted":true,"unit":{"name":"a.service"}}`)
}

func FuzzToken(f *testing.F) {
	f.Add("ZAABAA==")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseToken(s)
		if err != nil {
			return
		}
		again, err := parseToken(tok.String())
		if err != nil || again != tok {
			t.Errorf("%v written as %s and read as %v, %v", tok, tok, again, err)
		}
	})
}
