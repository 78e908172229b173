package v2http

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"flotilla/internal/kv/v2"
)

// put sends a form and returns status and body.
func put(t *testing.T, target, form string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestLargeValue: a form may have 10 MiB and not a byte more.
func TestLargeValue(t *testing.T) {
	base := serve(t)
	most := strings.Repeat("x", 10<<20-len("value="))
	if status, body := put(t, base+"/v2/keys/big?noValueOnSuccess=true", "value="+most); status != http.StatusCreated {
		t.Errorf("10 MiB: %d %.200s", status, body)
	}
	resp, err := http.Get(base + "/v2/keys/big")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var event struct{ Node struct{ Value string } }
	if err := json.NewDecoder(resp.Body).Decode(&event); err != nil || event.Node.Value != most {
		t.Errorf("read back %d bytes: %v", len(event.Node.Value), err)
	}
	status, body := put(t, base+"/v2/keys/big", "value=x"+most)
	want := `{"errorCode":210,"message":"Invalid POST form","cause":"http: POST too large","index":0}` + "\n"
	if status != http.StatusBadRequest || body != want {
		t.Errorf("too large: %d %s", status, body)
	}
}

// TestDeepPath: as deep and as long as a path may be written, none of it there yet.
func TestDeepPath(t *testing.T) {
	base := serve(t)
	deep := base + "/v2/keys" + strings.Repeat("/ddd", v2.MaxLevels)
	if status, body := put(t, deep, "value="+strings.Repeat("x", 1<<20)); status != http.StatusCreated {
		t.Errorf("put: %d %.200s", status, body)
	}
	one := base + "/v2/keys" + strings.Repeat("/e", v2.MaxLevels-1)
	if status, body := put(t, one, "value=x"); status != http.StatusCreated {
		t.Errorf("put: %d %.200s", status, body)
	}
	if status, body := put(t, one+"/below", "value=x"); status != http.StatusBadRequest || !strings.Contains(body, `"errorCode":104`) {
		t.Errorf("put below: %d %.200s", status, body)
	}
}

// TestOrigins: with a list, only those in it get the headers; all are served.
func TestOrigins(t *testing.T) {
	h := New(Config{Info: info{}, Origins: []string{"http://a.example:80"}})
	for origin, want := range map[string]string{
		"http://a.example:80": "http://a.example:80",
		"http://b.example:80": "",
		"":                    "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/version", nil)
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != want || w.Code != http.StatusOK {
			t.Errorf("origin %q: %d, allowed %q, want %q", origin, w.Code, got, want)
		}
	}
}

// alone is a member that has lost the others.
type alone struct{ info }

func (alone) Unhealthy() string          { return "no leader for 3s" }
func (alone) Leader() (Member, bool)     { return Member{}, false }
func (alone) Versions() (string, string) { return "3.7.3", "" }

func TestWithoutLeader(t *testing.T) {
	h := New(Config{Info: alone{}})
	for path, want := range map[string]string{
		"/health":            `503 {"health":"false","reason":"no leader for 3s"}` + "\n",
		"/v2/members/leader": `503 {"message":"During election"}`,
		"/version":           `200 {"etcdserver":"3.7.3","etcdcluster":"not_decided"}`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// FuzzURL: whatever the URL, who is redirected stays on this server, and is not
// redirected again.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"/v2/keys/a//b?x=y", "/v2/keys/%2e%2e/%2F", "/version/", "//evil.example/%2e", "/%2Fevil.example", "/v2/members//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil || u.Host != "" {
			return
		}
		clean := v2.CleanURL(u.Path)
		w := httptest.NewRecorder()
		redirect(w, &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}, clean)
		to, err := url.ParseRequestURI(w.Header().Get("Location"))
		if err != nil || to.Host != "" || to.Path != clean || v2.CleanURL(to.Path) != to.Path {
			t.Errorf("%q is redirected to %q (%v), want %q", raw, w.Header().Get("Location"), err, clean)
		}
	})
}
