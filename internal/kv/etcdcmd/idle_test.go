package etcdcmd

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// What is set and has no effect is told, and nothing else is.
func TestIdleFlags(t *testing.T) {
	const tls = " --cert-file c --key-file k"
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"--proxy-read-timeout 1", "--proxy-read-timeout has no effect without --proxy or --discovery"},
		{"--proxy off --proxy-read-timeout 1", "--proxy-read-timeout has no effect without --proxy or --discovery"},
		{"--proxy-failure-wait 5000", ""}, // the default, as in etcd's own sample
		{"--proxy on --initial-cluster a=http://h:1 --proxy-read-timeout 1", ""},
		{"--proxy-read-timeout 1 --discovery " + secretToken, ""},
		{"--discovery-proxy http://h:1", "--discovery-proxy has no effect without --discovery"},
		{"--discovery-cert c", "--discovery-cert has no effect without --discovery or --discovery-endpoints"},
		{"--discovery-srv-name x", "--discovery-srv-name has no effect without --discovery-srv"},
		{"--distributed-tracing-sampling-rate 3", "--distributed-tracing-sampling-rate has no effect without --enable-distributed-tracing"},
		{"--self-signed-cert-validity 3", "--self-signed-cert-validity has no effect without --auto-tls or --peer-auto-tls"},
		{"--client-cert-auth --trusted-ca-file a", "--trusted-ca-file has no effect while --listen-client-urls has no https://\n" +
			"--client-cert-auth has no effect while --listen-client-urls has no https://"},
		{"--listen-client-urls http://127.0.0.1:1,https://127.0.0.1:2" + tls, ""},
		{"--listen-metrics-urls https://127.0.0.1:2" + tls, ""},
		{"-addr 127.0.0.1:4001" + tls, ""},
		{"--proxy on --initial-cluster a=https://h:1" + tls, ""},
		{"--tls-min-version TLS1.3", "--tls-min-version has no effect while no address is https://"},
		{"--tls-min-version TLS1.3 --listen-peer-urls https://127.0.0.1:1", ""},
		{"--auto-compaction-mode revision", "--auto-compaction-mode has no effect without --auto-compaction-retention"},
		{"--auto-compaction-mode revision --auto-compaction-retention 10", ""},
		{"--peer-cert-file c", "--peer-cert-file has no effect while --listen-peer-urls has no https://"},
		{"--listen-peer-urls https://127.0.0.1:1 --peer-auto-tls", ""},
		{"--listen-peer-urls http://127.0.0.1:1 --initial-cluster a=https://h:1 --peer-cert-file c --peer-key-file k", ""},
	} {
		o, err := parsed(t, nil, strings.Fields(test.args)...)
		if err != nil {
			t.Fatalf("%s: %v", test.args, err)
		}
		if got := strings.Join(o.notices, "\n"); got != test.want {
			t.Errorf("%s\ngot  %q\nwant %q", test.args, got, test.want)
		}
	}
}

// Every flag for TLS, and of those that begin like flags that depend on another, is in a
// list; and the lists name flags.
func TestListsOfIdleFlags(t *testing.T) {
	listed := slices.Concat(clientTLS, peerTLS)
	for _, d := range dependents {
		listed = append(append(listed, d.names...), d.with...)
	}
	o := newOptions()
	for _, name := range listed {
		if o.flags.Lookup(name) == nil {
			t.Errorf("--%s is no flag", name)
		}
	}
	by := []string{"discovery-token", "proxy-password-file"} // refused without the other
	o.flags.VisitAll(func(f *flag.Flag) {
		depends := slices.ContainsFunc([]string{"discovery-", "proxy-", "distributed-tracing-", "peer-cert", "peer-client", "client-c"}, func(p string) bool {
			return strings.HasPrefix(f.Name, p)
		})
		if depends && !slices.Contains(listed, f.Name) && !slices.Contains(by, f.Name) {
			t.Errorf("--%s is in no list", f.Name)
		}
	})
}
