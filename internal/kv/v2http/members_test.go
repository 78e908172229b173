package v2http

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Every answer of /v2/members, with the order in which a request is checked.
func TestMembers(t *testing.T) {
	const (
		asJSON = "application/json"
		fresh  = `{"peerURLs":["http://h:1"]}`
		taken  = `{"peerURLs":["http://127.0.0.1:2380"]}`
		own    = `{"id":"beef","name":"default","peerURLs":["http://127.0.0.1:2380"],"clientURLs":["http://127.0.0.1:2379","http://127.0.0.1:4001"]}`
	)
	h := New(Config{Info: info{}, Log: slog.New(slog.DiscardHandler)})
	for _, c := range []struct{ request, kind, body, want string }{
		{"GET /v2/members", "", "", `200 {"members":[` + own + `]}`},
		{"GET /v2/members/leader", "", "", `200 ` + own},
		{"GET /v2/members/beef", "", "", `404 {"message":"Not found"}`},
		{"PATCH /v2/members", "", "", `405 Method Not Allowed`},

		{"POST /v2/members", asJSON, fresh, `201 {"id":"f00d","name":"","peerURLs":["http://h:1"],"clientURLs":[]}`},
		{"POST /v2/members", "Application/JSON; charset=utf-8", fresh, `201 {"id":"f00d","name":"","peerURLs":["http://h:1"],"clientURLs":[]}`},
		{"POST /v2/members", asJSON, `{"peerURLs":["http://h:2","http://h:1"]}`, `201 {"id":"f00d","name":"","peerURLs":["http://h:1","http://h:2"],"clientURLs":[]}`},
		{"POST /v2/members", "", fresh, `415 {"message":"Bad Content-Type , accept application/json"}`},
		{"POST /v2/members", "text/plain", "{", `415 {"message":"Bad Content-Type text/plain, accept application/json"}`},
		{"POST /v2/members", asJSON, "{", `400 {"message":"unexpected end of JSON input"}`},
		{"POST /v2/members", asJSON, "{}", `400 {"message":"no valid URLs given"}`},
		{"POST /v2/members", asJSON, `{"peerURLs":["ftp://h:1"]}`, `400 {"message":"URL scheme must be http, https, unix, or unixs: ftp://h:1"}`},
		{"POST /v2/members", asJSON, `{"peerURLs":["http://h"]}`, `400 {"message":"URL address does not have the form \"host:port\": http://h"}`},
		{"POST /v2/members", asJSON, `{"peerURLs":["http://h:1/p"]}`, `400 {"message":"URL must not contain a path: http://h:1/p"}`},
		{"POST /v2/members", asJSON, taken, `409 {"message":"membership: peerURL exists"}`},

		{"PUT /v2/members", asJSON, fresh, `405 Method Not Allowed`},
		{"PUT /v2/members/xyz", "", "", `404 {"message":"No such member: xyz"}`},
		{"PUT /v2/members/beef", "", fresh, `415 {"message":"Bad Content-Type , accept application/json"}`},
		{"PUT /v2/members/beef", asJSON, "x", `400 {"message":"invalid character 'x' looking for beginning of value"}`},
		{"PUT /v2/members/beef", asJSON, fresh, `204 `},
		{"PUT /v2/members/beef", asJSON, taken, `409 {"message":"membership: peerURL exists"}`},
		{"PUT /v2/members/0c0ffee", asJSON, fresh, `404 {"message":"No such member: c0ffee"}`},
		{"PUT /v2/members/dead", asJSON, fresh, `500 {"message":"Internal Server Error"}`},

		{"DELETE /v2/members", "", "", `405 Method Not Allowed`},
		{"DELETE /v2/members/xyz", "", "", `404 {"message":"No such member: xyz"}`},
		{"DELETE /v2/members/beef", "", "", `204 `},
		{"DELETE /v2/members/c0ffee", "", "", `404 {"message":"No such member: c0ffee"}`},
		{"DELETE /v2/members/dead", "", "", `410 {"message":"Member permanently removed: dead"}`},
		{"DELETE /v2/members/bad", "", "", `500 {"message":"Internal Server Error"}`},
		{"DELETE /v2/members/badd", "", "", `500 {"message":"Internal Server Error","reason":"wait"}`},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		r := httptest.NewRequest(method, path, strings.NewReader(c.body))
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := fmt.Sprintf("%d %s", w.Code, strings.TrimSuffix(w.Body.String(), "\n"))
		if got != c.want {
			t.Errorf("%s (%s) %s:\ngot  %s\nwant %s", c.request, c.kind, c.body, got, c.want)
		}
		if w.Code == http.StatusOK && w.Header().Get("Content-Type") != asJSON {
			t.Errorf("%s: Content-Type %q", c.request, w.Header().Get("Content-Type"))
		}
	}
}

// Whatever the body, it is refused or names well-formed addresses.
func FuzzPeerURLs(f *testing.F) {
	f.Add(`{"peerURLs":["http://h:1","https://[::1]:2"]}`)
	f.Add(`{"peerURLs":[]}`)
	f.Fuzz(func(t *testing.T, body string) {
		urls, err := parsePeerURLs([]byte(body))
		if (err == nil) != (len(urls) > 0) {
			t.Errorf("%q: %q, %v", body, urls, err)
		}
	})
}
