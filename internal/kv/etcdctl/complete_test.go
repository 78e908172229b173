package etcdctl

import (
	"slices"
	"strings"
	"testing"

	"flotilla/internal/kv/member/membertest"
)

func TestComplete(t *testing.T) {
	url := membertest.Start(t)
	for _, key := range []string{"/compl/app/one", "/compl/app/two", "/compl/apple", "/compl/_hidden"} {
		if r := runOurs(t, url, []string{"set", key, "1"}); r.Code != 0 {
			t.Fatal(r)
		}
	}
	for _, test := range []struct{ line, want string }{
		{"ge|", "get"},
		{"--debug -o json up|", "update updatedir"},
		{"member |", "list add remove update"},
		{"member add |", ""},
		{"comp|", "completion"},
		{"set --sw|", "--swap-with-index --swap-with-value"},
		{"--tot|", "--total-timeout"},
		{"get /comp|", "/compl/"},
		{"get /compl/ap|", "/compl/app/ /compl/apple"},
		{"get compl/ap|", "/compl/app/ /compl/apple"},
		{"get /compl/app/|", "/compl/app/one /compl/app/two"},
		{"ls --sort /compl/app/o|", "/compl/app/one"},
		{"get /nope/|", ""},
		{"--endpoints http://127.0.0.1:1 get /compl/|", ""},
		{"bogus |", ""},
	} {
		words := strings.Split(strings.TrimSuffix(test.line, "|"), " ")
		got := runOurs(t, url, slices.Concat([]string{"complete", "--"}, words))
		if fits := strings.Join(strings.Fields(got.Out), " "); fits != test.want || got.Code != 0 || got.Err != "" {
			t.Errorf("%s: %q (%d %s), want %q", test.line, fits, got.Code, got.Err, test.want)
		}
	}
}
