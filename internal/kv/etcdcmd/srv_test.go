package etcdcmd

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/kv/etcdctl"
	"flotilla/internal/logx"
)

// zone is a domain of three members: its records of type SRV for peers and for
// clients, and the hosts m1 to m3, which are all here.
type zone struct{ ports, clients []int }

func (z zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	host := func(i int) string { return fmt.Sprintf("m%d.cluster.test.", i+1) }
	services := map[string][]int{"_etcd-server._tcp.cluster.test.": z.ports, "_etcd-client._tcp.cluster.test.": z.clients}
	ports, known := services[name]
	for i := range z.ports {
		if known && q.Qtype == dns.TypeSRV {
			m.Answer = append(m.Answer, &dns.SRV{
				Hdr:  dns.RR_Header{Name: q.Name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 1},
				Port: uint16(ports[i]), Target: host(i),
			})
		}
		if name == host(i) {
			known, ports = true, nil
			if q.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
					A:   net.IPv4(127, 0, 0, 1),
				})
			}
		}
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	w.WriteMsg(m)
}

// serveDNS makes this process resolve names with the zone until the test ends.
func serveDNS(t *testing.T, z zone) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: conn, Handler: z, NotifyStartedFunc: func() { close(started) }}
	go server.ActivateAndServe()
	<-started
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		server.Shutdown()
	})
}

// startWith runs what the command line says until the test ends.
func startWith(t *testing.T, ready func(), args ...string) {
	t.Helper()
	o, err := parsed(t, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.run(ctx, logx.Discard(), ready) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%v: %v", args, err)
		}
	})
}

// Members find each other by DNS, and a proxy finds them.
func TestDiscoveryBySRV(t *testing.T) {
	var clients []string
	var z zone
	for range 3 {
		client, err := freeAddr()
		if err != nil {
			t.Fatal(err)
		}
		peer, err := freeAddr()
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, "http://"+client)
		z.ports, z.clients = append(z.ports, portOf(t, "http://"+peer)), append(z.clients, portOf(t, "http://"+client))
	}
	serveDNS(t, z)
	ready := make(chan struct{}, 4)
	for i, port := range z.ports {
		startWith(t, func() { ready <- struct{}{} },
			"--name", fmt.Sprintf("m%d", i+1), "--data-dir", filepath.Join(t.TempDir(), "data"), "--unsafe-no-fsync",
			"--listen-client-urls", clients[i], "--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", port),
			"--initial-advertise-peer-urls", fmt.Sprintf("http://m%d.cluster.test:%d", i+1, port),
			"--discovery-srv", "cluster.test")
	}
	wait(t, ready, 3)
	proxy, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	startWith(t, func() { ready <- struct{}{} }, "--proxy", "on", "--data-dir", filepath.Join(t.TempDir(), "data"),
		"--listen-client-urls", "http://"+proxy, "--discovery-srv", "cluster.test")
	wait(t, ready, 1)
	c, err := keys.New(keys.Config{Endpoints: []string{"http://" + proxy}, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Set(t.Context(), "/a", "1", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 3 {
		t.Fatalf("%v %v", members, err)
	}
	for _, m := range members {
		if !strings.HasSuffix(m.PeerURLs[0], fmt.Sprintf(".cluster.test:%d", portOf(t, m.PeerURLs[0]))) {
			t.Errorf("member %+v", m)
		}
	}
	var out, errs strings.Builder
	// It asks any of the members: one may not have heard of the write yet.
	code := etcdctl.Applet().Run(t.Context(), applet.Env{Args: []string{"-D", "cluster.test", "--insecure-discovery", "get", "--quorum", "/a"}, Stdout: &out, Stderr: &errs})
	if code != 0 || out.String() != "1\n" {
		t.Errorf("etcdctl -D: %d %s%s", code, out.String(), errs.String())
	}
}

// wait waits for so many to be ready.
func wait(t *testing.T, ready <-chan struct{}, n int) {
	t.Helper()
	for range n {
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			t.Fatal("not ready after 30 s")
		}
	}
}

func portOf(t *testing.T, raw string) int {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A domain without members, and a member that the domain does not name.
func TestDiscoveryBySRVFails(t *testing.T) {
	serveDNS(t, zone{ports: []int{1}})
	for _, test := range []struct{ args, want string }{
		{"--proxy on --discovery-srv elsewhere.test", "look up the members of elsewhere.test"},
		{"--proxy on --initial-cluster a=http://127.0.0.1:1 --proxy-user root", "--proxy-user root has no password"},
		{"--proxy on --initial-cluster a=http://127.0.0.1:1 --proxy-user root --proxy-password-file /none", "read the password of --proxy-user root"},
		{"--proxy on --initial-cluster a=http://127.0.0.1:1 --proxy-password-file /none", "--proxy-password-file without --proxy-user"},
		{"--name m9 --discovery-srv cluster.test", `cannot find local etcd member "m9" in SRV records`},
	} {
		args := append(strings.Fields(test.args), "--data-dir", filepath.Join(t.TempDir(), "data"),
			"--listen-client-urls", "http://127.0.0.1:0", "--listen-peer-urls", "http://127.0.0.1:23999",
			"--initial-advertise-peer-urls", "http://127.0.0.1:23999")
		o, err := parsed(t, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.run(t.Context(), logx.Discard(), func() {}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.args, err)
		}
	}
}

// A data directory stays what it was first used for.
func TestChoose(t *testing.T) {
	for _, test := range []struct {
		name string
		has  contents
		flag string
		want role
		why  string
	}{
		{"new member", contents{}, proxyOff, asMember, ""},
		{"new proxy", contents{}, proxyOn, asProxy, ""},
		{"new read-only proxy", contents{}, proxyReadonly, asProxy, ""},
		{"member again", contents{member: true}, proxyOff, asMember, ""},
		{"proxy again", contents{proxy: true}, proxyOn, asProxy, ""},
		{"a full token's proxy again", contents{proxy: true}, proxyOff, asProxy, "the data directory is a proxy's"},
		{"a member told to be a proxy", contents{member: true}, proxyOn, asMember, "the data directory is a member's"},
	} {
		got, why, err := choose(test.has, "d", test.flag)
		if got != test.want || why != test.why || err != nil {
			t.Errorf("%s: %v %q %v", test.name, got, why, err)
		}
	}
	if _, _, err := choose(contents{member: true, proxy: true}, "d", proxyOff); err == nil {
		t.Error("a directory of both is taken")
	}
}
