package etcdctl

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flotilla/internal/kv/member/membertest"
)

// A change of the members that the store refuses comes with what it says of itself, and one
// by etcd, which says nothing, with what it may be.
func TestRefusedChanges(t *testing.T) {
	ours := membertest.Start(t)
	etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `{"members":[{"id":"beef","name":"a","peerURLs":["http://h:1"],"clientURLs":[]}]}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message":"Internal Server Error"}`)
	}))
	defer etcd.Close()
	run := func(args string) (code int, out, errs string) {
		env, stdout, stderr := quietEnv(t, strings.Fields(args)...)
		code = Applet().Run(t.Context(), env)
		return code, stdout.String(), stderr.String()
	}
	if code, _, errs := run("--endpoints " + ours + " member add b http://127.0.0.1:1"); code != 0 {
		t.Fatalf("a second member is not added: %s", errs) // from now on one of two has started
	}
	_, list, _ := run("--endpoints " + ours + " member list")
	var first string
	for line := range strings.Lines(list) {
		if id, _, ok := strings.Cut(line, ": "); ok && !strings.Contains(id, "unstarted") {
			first = id
		}
	}
	for _, test := range []struct{ args, want string }{
		{ours + " member add c http://127.0.0.1:2", "hint: with one more that has yet to start, fewer than a majority of the members have started: "},
		{ours + " member remove " + first, "hint: without it, fewer than a majority of the members have started: "},
		{etcd.URL + " --no-sync member add c http://127.0.0.1:2", "hint: a change that could cost the cluster its majority is refused, also in the first 5s after a start: "},
		{etcd.URL + " --no-sync member remove beef", "hint: a change that could cost the cluster its majority is refused, also in the first 5s after a start: "},
	} {
		code, _, errs := run("--endpoints " + test.args)
		if code != 1 || !strings.HasPrefix(errs, "Internal Server Error\n") || !strings.Contains(errs, test.want) {
			t.Errorf("%s: exit code %d\n%s", test.args, code, errs)
		}
	}
}
