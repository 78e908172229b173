package etcdctl

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/fault"
)

// Records of TLS endpoints come first; those of plain ones count only if asked for.
// The domain wins over every other word on where the store is.
func TestBySRV(t *testing.T) {
	records := map[string][]*net.SRV{
		"etcd-client-ssl.tcp.example.com": {{Target: "a.example.com.", Port: 2379}},
		"etcd-client.tcp.example.com":     {{Target: "b.example.com.", Port: 4001}, {Target: "c.example.com.", Port: 4001}},
		"etcd-client.tcp.plain.com":       {{Target: "b.plain.com.", Port: 4001}},
	}
	for _, test := range []struct {
		args       string
		want, hint string
		ignored    int
	}{
		{"-D example.com ls", "https://a.example.com:2379", "", 2},
		{"--discovery-srv example.com --insecure-discovery ls", "https://a.example.com:2379 http://b.example.com:4001 http://c.example.com:4001", "", 0},
		{"--endpoints http://x:1 -D example.com ls", "https://a.example.com:2379", "", 2},
		{"-D plain.com ls", "", "--insecure-discovery takes", 1},
		{"-D plain.com --insecure-discovery ls", "http://b.plain.com:4001", "", 0},
		{"-D none.com ls", "", "--insecure-discovery takes", 0},
	} {
		env, _, errs := quietEnv(t)
		s := newSession(env)
		s.lookupSRV = func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
			if r, ok := records[service+"."+proto+"."+name]; ok {
				return "", r, nil
			}
			return "", nil, errors.New("no such host")
		}
		if err := s.global.Parse(strings.Fields(test.args)); err != nil {
			t.Fatal(err)
		}
		got, err := s.where(t.Context())
		if strings.Join(got, " ") != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %v, %v", test.args, got, err)
		}
		if hints := strings.Join(fault.Hints(err), " "); !strings.Contains(hints, test.hint) {
			t.Errorf("%s: hints %q", test.args, hints)
		}
		if n := strings.Count(errs.String(), "ignoring discovered insecure endpoint"); n != test.ignored {
			t.Errorf("%s: %d ignored: %s", test.args, n, errs)
		}
	}
}

// Which word on where the store is counts when there are several.
func TestPrecedence(t *testing.T) {
	vars := map[string]string{"ETCDCTL_ENDPOINTS": "http://ve:1", "ETCDCTL_ENDPOINT": "http://vo:1", "ETCDCTL_PEERS": "http://vp:1"}
	for _, test := range []struct{ args, vars, want string }{
		{"--endpoints http://e:1,http://e:2 --endpoint http://o:1 --peers http://p:1", "ETCDCTL_ENDPOINTS", "http://e:1 http://e:2"},
		{"--endpoint http://o:1 --peers http://p:1", "ETCDCTL_ENDPOINTS", "http://ve:1"},
		{"--endpoint http://o:1 --peers http://p:1", "ETCDCTL_ENDPOINT", "http://o:1"},
		{"--peers http://p:1", "ETCDCTL_ENDPOINT ETCDCTL_PEERS", "http://vo:1"},
		{"-C http://p:1", "ETCDCTL_PEERS", "http://p:1"},
		{"", "ETCDCTL_PEERS", "http://vp:1"},
		{"", "", "http://127.0.0.1:2379 http://127.0.0.1:4001"},
	} {
		env, _, _ := quietEnv(t)
		env.LookupEnv = func(k string) (string, bool) {
			if slices.Contains(strings.Fields(test.vars), k) {
				return vars[k], true
			}
			return "", false
		}
		s := newSession(env)
		if err := s.global.Parse(strings.Fields(test.args)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.where(t.Context()); err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%q with %s: %v, %v; want %s", test.args, test.vars, got, err, test.want)
		}
	}
}

func TestUsable(t *testing.T) {
	plain, secure := "http://127.0.0.1:2379", "https://10.0.0.1:2379"
	for _, c := range []struct {
		name         string
		s            session
		known, given []string
		want         []string
	}{
		{"plain loopback beside certificates", session{}, []string{secure}, []string{plain}, nil},
		{"plain addresses in the list", session{}, []string{secure, plain}, []string{plain}, []string{plain}},
		{"with an authority", session{caFile: "ca.pem"}, []string{secure}, []string{plain}, []string{secure}},
		{"came in over https", session{}, []string{secure}, []string{secure}, []string{secure}},
	} {
		if got := c.s.usable(c.known, c.given); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
