package cloudinitcmd

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/applet"
	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
	"flotilla/internal/cloudinit/source"
)

func TestChoose(t *testing.T) {
	addrs := func(text string) (all []ifaceAddr) {
		for _, f := range strings.Fields(text) {
			iface, addr, _ := strings.Cut(f, "=")
			all = append(all, ifaceAddr{iface, netip.MustParseAddr(addr)})
		}
		return all
	}
	for _, c := range []struct {
		name, all, route     string
		private, public, six string
	}{
		{"one private address is both", "eth0=10.0.0.5", "10.0.0.5", "10.0.0.5", "10.0.0.5", ""},
		{"each where it belongs", "eth0=198.51.100.7 eth1=10.0.0.5", "198.51.100.7", "10.0.0.5", "198.51.100.7", ""},
		{"what is meant for the inside is never public", "eth0=198.51.100.7", "198.51.100.7", "", "198.51.100.7", ""},
		{"the interface that leads out", "docker0=172.17.0.1 eth0=192.168.1.9", "192.168.1.9", "192.168.1.9", "192.168.1.9", ""},
		{"no way out", "eth0=10.0.0.5 eth1=10.1.0.5", "", "10.0.0.5", "10.0.0.5", ""},
		{"link-local is none", "eth0=169.254.3.4 eth0=fe80::1", "", "", "", ""},
		{"unique local", "eth0=10.0.0.5 eth0=fd00::5", "10.0.0.5", "10.0.0.5", "10.0.0.5", "fd00::5"},
	} {
		var route netip.Addr
		if c.route != "" {
			route = netip.MustParseAddr(c.route)
		}
		got := [3]string{}
		for i, q := range []struct{ public, ipv4 bool }{{false, true}, {true, true}, {false, false}} {
			if a, _ := choose(q.public, q.ipv4, route, addrs(c.all)); a.IsValid() {
				got[i] = a.String()
			}
		}
		if want := [3]string{c.private, c.public, c.six}; got != want {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

// The source counts before the environment; what was detected before is no value of it.
func TestAddressesInOrder(t *testing.T) {
	env := map[string]string{"COREOS_PRIVATE_IPV4": "10.0.0.1", "COREOS_PUBLIC_IPV4": "192.0.2.1"}
	var said strings.Builder
	p := &program{options: options{root: "/image"}, env: applet.Env{Stderr: &said, LookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}}
	got := p.addresses(source.Metadata{PublicIPv4: "192.0.2.9"}, nil, plan.Record{})
	if d := cmp.Diff(config.Vars{"private_ipv4": "10.0.0.1", "public_ipv4": "192.0.2.9"}, got.values); d != "" {
		t.Error(d)
	}
	got = p.addresses(source.Metadata{}, nil, plan.Record{Detected: map[string]string{"COREOS_PRIVATE_IPV4": "10.0.0.1"}})
	if d := cmp.Diff(config.Vars{"public_ipv4": "192.0.2.1"}, got.values); d != "" {
		t.Error(d)
	}
}

func TestImportedKeys(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/users/octo/keys":
			w.Write([]byte(`[{"id": 1, "key": "ssh-rsa A"}, {"id": 2, "key": "ssh-rsa B"}]`))
		case "/plain":
			w.Write([]byte("ssh-rsa C\nssh-rsa D\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	p := &program{githubKeys: s.URL + "/users/%s/keys"}
	in := &input{want: plan.Wanted{Document: config.Document{Users: []config.User{
		{Name: "a", GithubUsers: []string{"octo", "nobody", "../x"}},
		{Name: "b", KeysURL: s.URL + "/plain"},
	}}}}
	p.importKeys(t.Context(), in)
	want := []plan.ImportedKeys{
		{User: "a", Set: "github-octo", Keys: []string{"ssh-rsa A", "ssh-rsa B"}},
		{User: "b", Set: "coreos-cloudinit-b", Keys: []string{"ssh-rsa C", "ssh-rsa D"}},
	}
	if d := cmp.Diff(want, in.want.Imported); d != "" {
		t.Error(d)
	}
	if len(in.errs) != 2 {
		t.Errorf("errors: %v", in.errs)
	}
}

func TestTwoDashes(t *testing.T) {
	got := twoDashes([]string{"-from-fil=x", "--root", "-o", "json", "-oem=gce", "-x", "--", "-abc"})
	want := []string{"--from-fil=x", "--root", "-o", "json", "-oem=gce", "-x", "--", "-abc"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
