package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"flotilla/internal/kv/proxy"
)

// as makes a request with a user's name and password, "" for a guest, and returns
// the status.
func as(t *testing.T, user, method, at, body string) int {
	t.Helper()
	req, err := http.NewRequest(method, at, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(body, "=") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// lock makes users, writes /a/x and /b/y and turns authentication on.
func lock(t *testing.T, at string) {
	t.Helper()
	for _, r := range [][3]string{
		{"PUT", "/v2/keys/a/x", "value=hers"},
		{"PUT", "/v2/keys/b/y", "value=secret"},
		{"PUT", "/v2/auth/users/root", `{"user":"root","password":"rpw"}`},
		{"PUT", "/v2/auth/roles/a", `{"role":"a","permissions":{"kv":{"read":["/a/*"],"write":["/a/*"]}}}`},
		{"PUT", "/v2/auth/users/alice", `{"user":"alice","password":"apw","roles":["a"]}`},
		{"PUT", "/v2/auth/roles/guest", `{"role":"guest","permissions":{"kv":{}}}`},
		{"PUT", "/v2/auth/enable", ""},
	} {
		if status := as(t, "", r[0], at+r[1], r[2]); status >= 300 {
			t.Fatalf("%s: %d", r, status)
		}
	}
}

// A proxy with a user of its own answers reads while users count, to whom members
// would, also with all members frozen; and hears of every change.
func TestProxyAsUser(t *testing.T) {
	t.Parallel()
	cluster := startTrio(t, 1)
	m := cluster.nodes[0]
	p := startProxy(t, func(c *proxy.Config) { c.User, c.Password = "root", "rpw" }, cluster.peers()...)
	lock(t, p.url)
	own, others := p.url+"/v2/keys/a/x", p.url+"/v2/keys/b/y"
	alone := func(user, at string) (status int) { // with the member frozen
		m.cmd.Process.Signal(syscall.SIGSTOP)
		defer m.cmd.Process.Signal(syscall.SIGCONT)
		if !stopped(m.cmd.Process.Pid) {
			return 0
		}
		return as(t, user, "GET", at, "")
	}
	until(t, "alice is known to the proxy", func() bool { return as(t, "alice:apw", "GET", own, "") == 200 })
	until(t, "guests are", func() bool { return as(t, "", "GET", own, "") == 401 })
	until(t, "the proxy answers by itself", func() bool { return localAs(t, "alice:apw", own, m) })
	for what, want := range map[string]int{
		"alice:apw " + own: 200, "alice:apw " + others: 401, "alice:wrong " + own: 401, "root:rpw " + others: 200, " " + own: 401,
	} {
		user, at, _ := strings.Cut(what, " ")
		if got := alone(user, at); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	if status := as(t, "root:rpw", "PUT", m.client+"/v2/auth/users/alice", `{"user":"alice","password":"new"}`); status != 200 {
		t.Fatal(status)
	}
	until(t, "the old password is no good", func() bool { return as(t, "alice:apw", "GET", own, "") == 401 })
	until(t, "the new one is", func() bool { return localAs(t, "alice:new", own, m) })
	if status := as(t, "root:rpw", "DELETE", m.client+"/v2/auth/enable", ""); status != 200 {
		t.Fatal(status)
	}
	until(t, "guests read everything", func() bool { return localAs(t, "", others, m) })
	if status := as(t, "", "PUT", m.client+"/v2/auth/enable", ""); status != 200 {
		t.Fatal(status)
	}
	until(t, "guests read nothing", func() bool { return as(t, "", "GET", others, "") == 401 })
	until(t, "alice reads her own", func() bool { return localAs(t, "alice:new", own, m) })
}

// A proxy that is nobody leaves reads to the members as soon as users count.
func TestProxyAsNobody(t *testing.T) {
	t.Parallel()
	cluster := startTrio(t, 1)
	m := cluster.nodes[0]
	p := startProxy(t, nil, cluster.peers()...)
	until(t, "the proxy answers by itself", func() bool { return local(p.url+"/v2/keys/", m) })
	lock(t, m.client)
	until(t, "guests read nothing", func() bool { return as(t, "", "GET", p.url+"/v2/keys/a/x", "") == 401 })
	if localAs(t, "alice:apw", p.url+"/v2/keys/a/x", m) {
		t.Error("the proxy answers by itself")
	}
	if status := as(t, "alice:apw", "GET", p.url+"/v2/keys/a/x", ""); status != 200 {
		t.Errorf("alice: %d", status)
	}
	if status := as(t, "root:rpw", "DELETE", m.client+"/v2/auth/enable", ""); status != 200 {
		t.Fatal(status)
	}
	until(t, "the proxy answers by itself again", func() bool { return local(p.url+"/v2/keys/b/y", m) })
}

// localAs is local, as a user.
func localAs(t *testing.T, user, at string, m *node) bool {
	t.Helper()
	if user != "" {
		at = strings.Replace(at, "http://", fmt.Sprintf("http://%s@", user), 1)
	}
	return local(at, m)
}
