package member

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// visitor is who makes HTTP requests: by a password, by a certificate, or nobody.
type visitor struct {
	login string // user:password, or ""
	web   *http.Client
}

// ask makes a request and returns "STATUS FIRST-LINE".
func (v visitor) ask(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(body, "=") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if user, password, ok := strings.Cut(v.login, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	web := v.web
	if web == nil {
		web = http.DefaultClient
	}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := bufio.NewReader(resp.Body).ReadString('\n') // a stream goes on behind it
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, b)
}

// lockUp makes root and alice, who has /a/*, takes everything from guests, and
// turns authentication on.
func lockUp(t *testing.T, base string, anybody visitor) {
	t.Helper()
	for _, r := range [][3]string{
		{"PUT", "/v2/keys/a/x", "value=hers"},
		{"PUT", "/v2/keys/b/y", "value=secret"},
		{"PUT", "/v2/auth/users/root", `{"user":"root","password":"rpw"}`},
		{"PUT", "/v2/auth/users/alice", `{"user":"alice","password":"apw","roles":["a"]}`},
		{"PUT", "/v2/auth/roles/a", `{"role":"a","permissions":{"kv":{"read":["/a/*"],"write":["/a/*"]}}}`},
		{"PUT", "/v2/auth/roles/guest", `{"role":"guest"}`},
		{"PUT", "/v2/auth/enable", ""},
	} {
		if got := anybody.ask(t, r[0], base+r[1], r[2]); !strings.HasPrefix(got, "20") {
			t.Fatalf("%s %s: %s", r[0], r[1], got)
		}
	}
}

// asJSON is a v3 range request of one key.
func asJSON(key string) string {
	return fmt.Sprintf(`{"key":%q}`, base64.StdEncoding.EncodeToString([]byte(key)))
}

// Every door of the port asks who it is, also after a restart.
func TestAuthAtEveryDoor(t *testing.T) {
	t.Parallel()
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	m := start(t, cfg)
	guest, alice, root := visitor{}, visitor{login: "alice:apw"}, visitor{login: "root:rpw"}
	lockUp(t, m.ClientURLs()[0], guest)
	for _, after := range []string{"at once", "after a restart"} {
		base := m.ClientURLs()[0]
		for _, r := range []struct {
			who               visitor
			method, url, body string
			want              string
		}{
			{guest, "GET", "/v2/keys/b/y", "", "401 "},
			{guest, "GET", "/v2/keys/a/x", "", "401 "},
			{alice, "GET", "/v2/keys/a/x", "", "200 "},
			{alice, "GET", "/v2/keys/b/y", "", "401 "},
			{root, "GET", "/v2/keys/b/y", "", "200 "},
			{guest, "POST", "/v3/kv/range", asJSON("/b/y"), "400 "},
			{alice, "POST", "/v3/kv/range", asJSON("/a/x"), "200 "},
			{alice, "POST", "/v3/kv/range", asJSON("/b/y"), "403 "},
			{alice, "POST", "/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`, "403 "},
			{alice, "POST", "/v3/kv/txn", `{"success":[{"request_range":{"key":"L2IveQ=="}}]}`, "403 "},
			{alice, "POST", "/v3/watch", `{"create_request":{"key":"L2IveQ=="}}`, "permission denied"},
			{alice, "POST", "/v3/lock/lock", `{"name":"L2I="}`, "403 "},
			{alice, "POST", "/v3/maintenance/snapshot", `{}`, "permission denied"},
			{root, "POST", "/v3/kv/range", asJSON("/b/y"), "200 "},
			{guest, "POST", "/v3/auth/authenticate", `{"name":"alice","password":"no"}`, "400 "},
			{guest, "POST", "/v3/auth/authenticate", `{"name":"alice","password":"apw"}`, `"token":`},
			{guest, "GET", "/v2/auth/users", "", "401 "},
			{guest, "GET", "/v2/members", "", "200 "},
			{guest, "GET", "/health", "", "200 "},
		} {
			got := r.who.ask(t, r.method, base+r.url, r.body)
			if !strings.Contains(got, r.want) || strings.Contains(got, "secret") && r.who != root {
				t.Errorf("%s: %s %s %s as %q: %s, want %s", after, r.method, r.url, r.body, r.who.login, got, r.want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := v3(t, m).Get(ctx, "/b/y"); err == nil || !strings.Contains(err.Error(), "user name is empty") {
			t.Errorf("%s: v3 as a guest: %v", after, err)
		}
		cancel()
		if after == "at once" {
			if err := m.stop(); err != nil {
				t.Fatal(err)
			}
			m = start(t, cfg)
		}
	}
}

// Who shows a certificate is its common name, at each door, unless credentials
// say otherwise.
func TestAuthByCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.ListenClientUrls = mustURLs("https://127.0.0.1:0")
	info := &cfg.Engine.ClientTLSInfo
	info.CertFile, info.KeyFile = ca.issue(t, "server")
	info.TrustedCAFile, info.ClientCertAuth = ca.CA(), true
	m := start(t, cfg)
	base := m.ClientURLs()[0]
	secure := func(name string) *tls.Config {
		pair, err := tls.LoadX509KeyPair(ca.issue(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{pair}}
	}
	shows := func(name string) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: secure(name)}}
	}
	alice, root, stranger := shows("alice"), shows("root"), shows("stranger")
	lockUp(t, base, visitor{web: stranger})
	for _, r := range []struct {
		who               visitor
		method, url, body string
		want              string
	}{
		{visitor{web: alice}, "GET", "/v2/keys/a/x", "", "200 "},
		{visitor{web: alice}, "GET", "/v2/keys/b/y", "", "401 "},
		{visitor{web: root}, "GET", "/v2/keys/b/y", "", "200 "},
		{visitor{web: root}, "GET", "/v2/auth/users", "", "200 "},
		{visitor{web: root, login: "alice:apw"}, "GET", "/v2/keys/b/y", "", "401 "},
		{visitor{web: root, login: "root:no"}, "GET", "/v2/keys/b/y", "", "401 "},
		{visitor{web: stranger}, "GET", "/v2/keys/a/x", "", "401 "},
		{visitor{web: stranger, login: "alice:apw"}, "GET", "/v2/keys/a/x", "", "200 "},
		{visitor{web: alice}, "POST", "/v3/kv/range", asJSON("/a/x"), "200 "},
		{visitor{web: alice}, "POST", "/v3/kv/range", asJSON("/b/y"), "403 "},
		{visitor{web: root, login: "alice:apw"}, "POST", "/v3/kv/range", asJSON("/b/y"), "403 "},
		{visitor{web: stranger}, "POST", "/v3/kv/range", asJSON("/a/x"), "400 "},
	} {
		if got := r.who.ask(t, r.method, base+r.url, r.body); !strings.HasPrefix(got, r.want) {
			t.Errorf("%s %s as %q: %s, want %s", r.method, r.url, r.who.login, got, r.want)
		}
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{strings.TrimPrefix(base, "https://")}, TLS: secure("alice"), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "/a/x", "1"); err != nil {
		t.Errorf("v3 as alice: %v", err)
	}
	if _, err := c.Get(ctx, "/b/y"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("v3 as alice, elsewhere: %v", err)
	}
}

// TestRestartWithEngineAuth: a member whose engine has its own authentication on
// starts again, serves v3 to who has a password there, and lets keys expire.
func TestRestartWithEngineAuth(t *testing.T) {
	t.Parallel()
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	m := start(t, cfg)
	c, ctx := v3(t, m), t.Context()
	visitor{}.ask(t, "PUT", m.ClientURLs()[0]+"/v2/keys/gone", "value=x&ttl=1")
	for _, do := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "v3pw"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		mustDo(t, do)
	}
	mustDo(t, m.stop)
	m = start(t, cfg)
	known, err := clientv3.New(clientv3.Config{Endpoints: m.ClientURLs(), Username: "root", Password: "v3pw", DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	eventually(t, 10*time.Second, "the key expires", func() bool {
		got, err := known.Get(ctx, "/gone")
		return err == nil && got.Count == 0
	})
	if got := (visitor{}).ask(t, "GET", m.ClientURLs()[0]+"/v2/keys/", ""); !strings.Contains(got, "v3 authentication is enabled") {
		t.Errorf("v2 meanwhile: %s", got)
	}
	mustDo(t, func() error { _, err := known.AuthDisable(ctx); return err })
	eventually(t, 10*time.Second, "v2 is open again", func() bool {
		return strings.HasPrefix(visitor{}.ask(t, "GET", m.ClientURLs()[0]+"/v2/keys/", ""), "200")
	})
}
