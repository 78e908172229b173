package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	wire "flotilla/api/keys"
	"flotilla/internal/logx"
)

// storeOf runs a store of its own until the test ends.
func storeOf(t testing.TB) http.RoundTripper {
	t.Helper()
	dir, err := os.MkdirTemp("", "disc") // the test's own is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	m, store, err := ownStore(dir, logx.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- m.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return store
}

// start runs a service on the store until the test ends.
func start(t testing.TB, store http.RoundTripper, change func(*Config)) string {
	t.Helper()
	cfg := Config{Store: store, Limits: DefaultLimits(), Log: logx.Discard()}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// say makes a request and returns the status and the body.
func say(t testing.TB, method, to string, form url.Values) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func newTokenAt(t testing.TB, base string) string {
	t.Helper()
	status, body := say(t, "GET", base+"/new?size=2", nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	return body
}

func TestService(t *testing.T) {
	store := storeOf(t)
	t.Run("new", func(t *testing.T) { testNew(t, start(t, store, nil)) })
	t.Run("base URL", func(t *testing.T) {
		base := start(t, store, func(c *Config) { c.BaseURL = "https://discovery.example/" })
		if _, token := say(t, "GET", base+"/new", nil); !strings.HasPrefix(token, "https://discovery.example/") || len(token) != 26+32 {
			t.Error(token)
		}
	})
	t.Run("token", func(t *testing.T) { testToken(t, start(t, store, nil)) })
	t.Run("renewal", func(t *testing.T) { testRenewal(t, start(t, store, nil)) })
	t.Run("limits", func(t *testing.T) { testLimits(t, store) })
	t.Run("health", func(t *testing.T) {
		if status, body := say(t, "POST", start(t, store, nil)+"/health", nil); status != http.StatusOK || body != "OK" {
			t.Errorf("%d %q", status, body)
		}
	})
}

func testNew(t *testing.T, base string) {
	for _, test := range []struct {
		method, query string
		status        int
		want          string // "" for a token
	}{
		{"GET", "", 200, ""},
		{"PUT", "?size=1", 200, ""},
		{"POST", "?size=50", 200, ""},
		{"GET", "?size=x", 400, `strconv.Atoi: parsing "x": invalid syntax`},
		{"GET", "?size=0", 400, "size 0: must be from 1 to 50"},
		{"GET", "?size=51", 400, "size 51: must be from 1 to 50"},
	} {
		status, body := say(t, test.method, base+"/new"+test.query, nil)
		if status != test.status || strings.TrimSpace(body) != test.want && test.want != "" {
			t.Errorf("%s /new%s: %d %s", test.method, test.query, status, body)
		}
		if test.want != "" {
			continue
		}
		token, ok := strings.CutPrefix(body, base+"/")
		if !ok || !isToken(token) {
			t.Errorf("%s /new%s: %q", test.method, test.query, body)
		}
	}
	_, size := say(t, "GET", newTokenAt(t, base)+"/_config/size", nil)
	if !strings.Contains(size, `"value":"2"`) {
		t.Error(size)
	}
}

func testToken(t *testing.T, base string) {
	token := newTokenAt(t, base)
	value := url.Values{"value": {"d1=http://10.0.0.1:2380"}}
	for _, test := range []struct {
		method, path string
		form         url.Values
		status       int
		want         string
	}{
		{"PUT", "/a1?prevExist=false", value, 201, `"action":"create"`},
		{"PUT", "/a1?prevExist=false", value, 412, `"errorCode":105`},
		{"GET", "/a1", nil, 200, `"value":"d1=http://10.0.0.1:2380"`},
		{"PUT", "/a1", url.Values{"value": {"d1=http://10.0.0.2:2380"}}, 200, `"prevNode"`},
		{"GET", "/", nil, 200, `"value":"d1=http://10.0.0.2:2380"`},
		{"GET", "?recursive=true", nil, 200, `"nodes":[`},
		{"DELETE", "/a1", nil, 200, `"action":"delete"`},
		{"PUT", "", nil, 200, `"action":"update"`},
		{"PUT", "/a1", url.Values{"value": {strings.Repeat("x", maxValue+1)}}, 400, "at most"},
		{"PUT", "/a1", url.Values{"value": {strings.Repeat("x", maxForm)}}, 400, "too large"},
		{"PUT", "/a1", url.Values{"dir": {"true"}}, 400, "no directory"},
		{"PUT", "/_config/size", url.Values{"value": {"9"}}, 405, "Not Allowed"},
		{"DELETE", "", nil, 405, "Not Allowed"},
		{"POST", "/a1", value, 405, "Not Allowed"},
		{"PUT", "/_hidden", value, 404, "not found"},
		{"PUT", "/a/b", value, 404, "not found"},
		{"GET", "/..%2f..", nil, 404, "not found"},
	} {
		status, body := say(t, test.method, token+test.path, test.form)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d %s, want %d %s", test.method, test.path, status, body, test.status, test.want)
		}
	}
	unknown := base + "/" + strings.Repeat("0", 32)
	for _, path := range []string{"", "/a1"} {
		if status, body := say(t, "PUT", unknown+path, value); status != 404 || !strings.Contains(body, `"errorCode":100`) {
			t.Errorf("token made by PUT %s: %d %s", path, status, body)
		}
	}
}

// A token that a member uses lives on, and members that wait hear of entries and of
// nothing else: a stock etcd takes every event for a member.
func testRenewal(t *testing.T, base string) {
	token := newTokenAt(t, base)
	resp, err := http.Get(token + "?wait=true&recursive=true&stream=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	before := ttlOf(t, token)
	for _, id := range []string{"a1", "a2"} {
		say(t, "PUT", token+"/"+id+"?prevExist=false", url.Values{"value": {id}})
	}
	if after := ttlOf(t, token); before > 7*24*time.Hour || after < 364*24*time.Hour {
		t.Errorf("lives for %v, and for %v once it is used", before, after)
	}
	events := json.NewDecoder(resp.Body)
	for _, id := range []string{"a1", "a2"} {
		var e wire.Event
		if err := events.Decode(&e); err != nil || !strings.HasSuffix(e.Node.Key, "/"+id) {
			t.Fatalf("event %+v, want one of %s (%v)", e, id, err)
		}
	}
}

func ttlOf(t *testing.T, token string) time.Duration {
	t.Helper()
	_, body := say(t, "GET", token, nil)
	var e wire.Event
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	return time.Duration(e.Node.TTL) * time.Second
}

func testLimits(t *testing.T, store http.RoundTripper) {
	few := start(t, store, func(c *Config) { c.Limits.MaxTokens = 1 })
	if status, body := say(t, "GET", few+"/new", nil); status != 503 || !strings.Contains(body, "tokens already") {
		t.Errorf("one token too many: %d %s", status, body)
	}
	slow := start(t, store, func(c *Config) { c.Limits.PerMinute = 6 })
	for i := range 4 {
		want := map[bool]int{true: 200, false: 429}[i < 2]
		if status, body := say(t, "GET", slow+"/new", nil); status != want {
			t.Errorf("token %d in a row: %d %s, want %d", i+1, status, body, want)
		}
	}
	small := start(t, store, func(c *Config) { c.Limits.MaxSize = 2 })
	token := newTokenAt(t, small)
	for i := range 2 + spareEntries + 1 {
		want := map[bool]int{true: 201, false: 403}[i < 2+spareEntries]
		if status, body := say(t, "PUT", fmt.Sprintf("%s/%x", token, i), url.Values{"value": {"x"}}); status != want {
			t.Errorf("entry %d: %d %s, want %d", i+1, status, body, want)
		}
	}
	if status, _ := say(t, "PUT", token+"/0", url.Values{"value": {"y"}}); status != 200 {
		t.Errorf("an entry of a full token cannot be renewed: %d", status)
	}
}

// Without a store that answers, the service says so.
func TestStoreAway(t *testing.T) {
	store, err := otherStore([]string{"http://127.0.0.1:1"}, defaults().StoreTLS)
	if err != nil {
		t.Fatal(err)
	}
	base := start(t, store, nil)
	for path, want := range map[string]int{"/new": 503, "/health": 503, "/" + strings.Repeat("a", 32): 503} {
		if status, body := say(t, "GET", base+path, nil); status != want && status != 502 {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
}

func TestParsePath(t *testing.T) {
	token := strings.Repeat("0a", 16)
	for path, want := range map[string]string{
		"/" + token:                                 registry + "/" + token,
		"/" + token + "/":                           registry + "/" + token,
		"/" + token + "/ba3e817c37e90b12":           registry + "/" + token + "/ba3e817c37e90b12",
		"/" + token + "/node.one-1":                 registry + "/" + token + "/node.one-1",
		"/" + token + "/_config/size":               registry + "/" + token + "/_config/size",
		"/" + token + "/_config":                    "",
		"/" + token + "/..":                         "",
		"/" + token + "/a/b":                        "",
		"/" + token + "//":                          "",
		"/" + token + "/" + strings.Repeat("x", 65): "",
		"/" + strings.ToUpper(token):                "",
		"/" + token[1:]:                             "",
		"/":                                         "",
		"":                                          "",
	} {
		got, ok := parsePath(path)
		if ok != (want != "") || ok && got.key() != want {
			t.Errorf("%q: %q %v, want %q", path, got.key(), ok, want)
		}
	}
}

// Whatever is asked for, it is below a token or nothing.
func FuzzParsePath(f *testing.F) {
	f.Add("/" + strings.Repeat("0a", 16) + "/_config/size")
	f.Add("/../" + strings.Repeat("0", 32))
	f.Fuzz(func(t *testing.T, path string) {
		if got, ok := parsePath(path); ok {
			rest, below := strings.CutPrefix(got.key(), registry+"/")
			token, id, _ := strings.Cut(rest, "/")
			if !below || !isToken(token) || strings.Contains(id, "..") && strings.Trim(id, ".") == "" {
				t.Errorf("%q leads to %q", path, got.key())
			}
		}
	})
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		change func(*settings)
		want   string
	}{
		{func(c *settings) { c.Listen = "localhost" }, "--listen"},
		{func(c *settings) { c.Listen = "https://127.0.0.1:1" }, "--cert-file"},
		{func(c *settings) { c.BaseURL = "discovery.example" }, "--base-url"},
		{func(c *settings) { c.TLS.ClientCertAuth = true }, "--trusted-ca-file"},
		{func(c *settings) { c.Limits.MaxSize = 0 }, "--max-size"},
		{func(c *settings) { c.Limits.Unused = 0 }, "--unused-ttl"},
	} {
		cfg := defaults()
		test.change(&cfg)
		if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want something on %s", err, test.want)
		}
	}
	if err := defaults().validate(); err != nil {
		t.Error(err)
	}
}
