package v2http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"flotilla/internal/kv/auth"
	"flotilla/internal/logx"
)

// keeper is a gate that knows the user root, or cannot tell.
type keeper struct{ err error }

func (k keeper) Keys(context.Context, auth.Credentials, auth.Need) (auth.Verdict, error) {
	return auth.Refused, k.err
}

func (k keeper) Hold(ctx context.Context, _ auth.Credentials, _ auth.Need) (context.Context, func(), auth.Verdict, error) {
	return ctx, func() {}, auth.Refused, k.err
}

func (k keeper) Root(_ context.Context, c auth.Credentials) (bool, error) {
	return c.Sent && c.User == "root", k.err
}

func (k keeper) Administer(context.Context, auth.Credentials, auth.Request) (auth.Answer, error) {
	return auth.Answer{}, k.err
}

// Only root changes the members, whoever may list them.
func TestMembersAreRoots(t *testing.T) {
	for _, c := range []struct{ method, path, user, want string }{
		{"GET", "/v2/members", "", "passed"},
		{"HEAD", "/v2/members/leader", "", "passed"},
		{"POST", "/v2/members", "", `401 {"message":"Insufficient credentials"}`},
		{"DELETE", "/v2/members/beef", "alice", `401 {"message":"Insufficient credentials"}`},
		{"PUT", "/v2/members/", "alice", `401 {"message":"Insufficient credentials"}`},
		{"POST", "/v2/members", "root", "passed"},
	} {
		h := &Handler{Config: Config{Gate: keeper{}, Log: logx.Discard()}}
		r := httptest.NewRequest(c.method, c.path, nil)
		if c.user != "" {
			r.SetBasicAuth(c.user, "x")
		}
		w := httptest.NewRecorder()
		got := "passed"
		if rootOnly(r) {
			passed := false
			h.asRoot(w, r, func(http.ResponseWriter, *http.Request) { passed = true })
			if !passed {
				got = fmt.Sprintf("%d %s", w.Code, w.Body)
			}
		}
		if got != c.want {
			t.Errorf("%s %s as %q: %s, want %s", c.method, c.path, c.user, got, c.want)
		}
	}
}

// A gate that cannot tell lets nobody in.
func TestGateCannotTell(t *testing.T) {
	h := New(Config{Info: info{}, Log: logx.Discard(), Gate: keeper{errors.New("not read yet")}})
	for _, c := range []struct {
		method, target, want string
	}{
		{"GET", "/v2/keys/a", `500 {"errorCode":300,"message":"Raft Internal Error","cause":"not read yet","index":0}` + "\n"},
		{"GET", "/v2/keys/a?wait=true", `500 {"errorCode":300,"message":"Raft Internal Error","cause":"not read yet","index":0}` + "\n"},
		{"PUT", "/v2/keys/a?value=x", `500 {"errorCode":300,"message":"Raft Internal Error","cause":"not read yet","index":0}` + "\n"},
		{"GET", "/v2/auth/enable", `503 {"message":"not read yet"}`},
		{"PUT", "/v2/auth/users/root", `503 {"message":"not read yet"}`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.target, nil))
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.target, got, c.want)
		}
	}
}
