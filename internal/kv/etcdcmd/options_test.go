package etcdcmd

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
)

// parsed reads a command line with this environment.
func parsed(t *testing.T, vars map[string]string, args ...string) (*options, error) {
	t.Helper()
	o := newOptions()
	return o, o.parse(applet.Env{Args: args, LookupEnv: func(k string) (string, bool) {
		v, ok := vars[k]
		return v, ok
	}})
}

func join(urls types.URLs) string { return strings.Join(urls.StringSlice(), ",") }

// secretToken is a discovery URL as services make them.
const secretToken = "http://10.0.0.9:8087/3e86b59982e49066c5d813af1c2e2579"

func TestAddresses(t *testing.T) {
	const all = member.DefaultClientURLs
	for _, test := range []struct {
		name, args                 string
		listen, tell, peers, ptell string
	}{
		{"defaults", "", all, "", member.DefaultPeerURLs, ""},
		{"today's flags", "--listen-client-urls http://127.0.0.1:0 --advertise-client-urls http://h:1 --listen-peer-urls http://127.0.0.1:2 --initial-advertise-peer-urls http://h:2",
			"http://127.0.0.1:0", "http://h:1", "http://127.0.0.1:2", "http://h:2"},
		{"etcd 0.4", "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001",
			"http://10.0.0.1:4001,http://127.0.0.1:4001", "http://10.0.0.1:4001", "http://10.0.0.1:7001", "http://10.0.0.1:7001"},
		{"etcd 0.4 with other addresses to bind", "-addr h:4001 -bind-addr 0.0.0.0 -peer-addr h:7001 -peer-bind-addr 10.0.0.1:7002",
			"http://0.0.0.0:4001", "http://h:4001", "http://10.0.0.1:7002", "http://h:7001"},
		{"etcd 0.4 on loopback", "-addr 127.0.0.1:4001", "http://127.0.0.1:4001", "http://127.0.0.1:4001", member.DefaultPeerURLs, ""},
		{"etcd 0.4 with certificates", "-addr 10.0.0.1:4001 -cert-file c -key-file k",
			"https://10.0.0.1:4001,https://127.0.0.1:4001", "https://10.0.0.1:4001", member.DefaultPeerURLs, ""},
		{"etcd 0.4 with a secret token", "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001 -discovery " + secretToken,
			"http://127.0.0.1:4001,https://10.0.0.1:4001", "https://10.0.0.1:4001", "https://10.0.0.1:7001", "https://10.0.0.1:7001"},
		{"that, on all addresses", "-addr 10.0.0.1:4001 -bind-addr 0.0.0.0 -peer-addr 10.0.0.1:7001 -peer-bind-addr 0.0.0.0 -discovery " + secretToken,
			"http://127.0.0.1:4001,https://10.0.0.1:4001", "https://10.0.0.1:4001", "https://0.0.0.0:7001", "https://10.0.0.1:7001"},
		{"that, with plain http permitted", "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001 --allow-plain-http -discovery " + secretToken,
			"http://10.0.0.1:4001,http://127.0.0.1:4001", "http://10.0.0.1:4001", "http://10.0.0.1:7001", "http://10.0.0.1:7001"},
		{"that, with certificates", "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001 -cert-file c -key-file k -discovery " + secretToken,
			"https://10.0.0.1:4001,https://127.0.0.1:4001", "https://10.0.0.1:4001", "http://10.0.0.1:7001", "http://10.0.0.1:7001"},
		{"that, on loopback", "-addr 127.0.0.1:4001 -peer-addr 127.0.0.1:7001 -discovery " + secretToken,
			"http://127.0.0.1:4001", "http://127.0.0.1:4001", "http://127.0.0.1:7001", "http://127.0.0.1:7001"},
		{"a token to be guessed", "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001 -discovery http://10.0.0.9:2379/v2/keys/discovery/ours",
			"http://10.0.0.1:4001,http://127.0.0.1:4001", "http://10.0.0.1:4001", "http://10.0.0.1:7001", "http://10.0.0.1:7001"},
		{"etcd 2 with a secret token", "--listen-client-urls http://0.0.0.0:2379,http://0.0.0.0:4001 --advertise-client-urls http://10.0.0.1:2379 --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 -discovery " + secretToken,
			"http://127.0.0.1:2379,http://127.0.0.1:4001,https://10.0.0.1:2379,https://10.0.0.1:4001", "https://10.0.0.1:2379", "https://10.0.0.1:2380", "https://10.0.0.1:2380"},
		{"that, on loopback and one address", "--listen-client-urls http://127.0.0.1:2379,http://10.0.0.1:2379 --advertise-client-urls http://h:2379 --listen-peer-urls http://0.0.0.0:2380 -discovery " + secretToken,
			"http://127.0.0.1:2379,https://10.0.0.1:2379", "https://h:2379", "https://0.0.0.0:2380", ""},
		{"that, where nothing tells the address", "--listen-client-urls http://0.0.0.0:2379 --listen-peer-urls http://10.0.0.1:2380 -discovery " + secretToken,
			"http://0.0.0.0:2379", "", "http://10.0.0.1:2380", ""},
		{"today's flags win", "-addr 10.0.0.1:4001 --listen-client-urls http://10.0.0.1:2379",
			"http://10.0.0.1:2379", "http://10.0.0.1:4001", member.DefaultPeerURLs, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, err := parsed(t, nil, strings.Fields(test.args)...)
			if err != nil {
				t.Fatal(err)
			}
			e := o.cfg.Engine
			got := []string{join(e.ListenClientUrls), join(e.AdvertiseClientUrls), join(e.ListenPeerUrls), join(e.AdvertisePeerUrls)}
			for i, want := range []string{test.listen, test.tell, test.peers, test.ptell} {
				if got[i] != want {
					t.Errorf("%s: %q, want %q", []string{"clients", "clients told", "peers", "peers told"}[i], got[i], want)
				}
			}
		})
	}
}

// The command line wins over the environment, that over the file.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.yaml")
	if err := os.WriteFile(file, []byte("name: from-file\ndata-dir: /from-file\nwal-dir: /from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parsed(t, map[string]string{"ETCD_NAME": "from-env", "ETCD_DATA_DIR": "/from-env", "ETCD_CONFIG_FILE": file}, "-name=from-args")
	if err != nil {
		t.Fatal(err)
	}
	e := o.cfg.Engine
	if e.Name != "from-args" || e.Dir != "/from-env" || e.WalDir != "/from-file" {
		t.Errorf("name %s, data %s, wal %s", e.Name, e.Dir, e.WalDir)
	}
}

// Five heartbeats fit into an election timeout, whoever sets which.
func TestHeartbeat(t *testing.T) {
	for _, test := range []struct {
		args                string
		heartbeat, election uint
	}{
		{"", 200, 1000},
		{"--election-timeout 2500", 200, 2500},
		{"--election-timeout 500", 100, 500},
		{"--heartbeat-interval 50", 50, 1000},
		{"--heartbeat-interval 100 --election-timeout 500", 100, 500},
	} {
		o, err := parsed(t, nil, strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		if e := o.cfg.Engine; e.TickMs != test.heartbeat || e.ElectionMs != test.election {
			t.Errorf("%q: heartbeat %d, election %d", test.args, e.TickMs, e.ElectionMs)
		}
	}
}

func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.yaml")
	if err := os.WriteFile(file, []byte(`
name: n1
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
heartbeat-interval: 50
grpc-keepalive-timeout: 3000000000   # nanoseconds, as etcd has it
compact-hash-check-time: 2m
pre-vote: false
allow-plain-http: true
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
wal-dir:
client-transport-security:
  cert-file: c.pem
  client-cert-auth: true
peer-transport-security:
  key-file: k.pem
  allowed-cn: [a, b]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parsed(t, nil, "--config-file", file)
	if err != nil {
		t.Fatal(err)
	}
	e := o.cfg.Engine
	for name, ok := range map[string]bool{
		"name":        e.Name == "n1",
		"urls":        join(e.ListenClientUrls) == "http://127.0.0.1:1,http://127.0.0.1:2",
		"number":      e.TickMs == 50,
		"nanoseconds": e.GRPCKeepAliveTimeout == 3*time.Second,
		"duration":    e.CompactHashCheckTime == 2*time.Minute,
		"bool":        !e.PreVote,
		"own flag":    o.cfg.AllowPlainHTTP,
		"list":        len(e.CipherSuites) == 2,
		"client TLS":  e.ClientTLSInfo.CertFile == "c.pem" && e.ClientTLSInfo.ClientCertAuth,
		"peer TLS":    e.PeerTLSInfo.KeyFile == "k.pem" && len(e.PeerTLSInfo.AllowedCNs) == 2,
	} {
		if !ok {
			t.Errorf("%s is not as in the file", name)
		}
	}
}

func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.yaml")
	if err := os.WriteFile(file, []byte("nmae: x\nheartbeat-interval: often\npeer-transport-security:\n  cert-fil: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		vars map[string]string
		args string
		want []string
	}{
		{name: "unknown flag", args: "--listen-clint-urls x", want: []string{"unknown flag --listen-clint-urls", "did you mean --listen-client-urls?"}},
		{name: "flag that does nothing here", args: "--enable-log-rotation", want: []string{"unknown flag --enable-log-rotation", "logrotate"}},
		{name: "operand", args: "start", want: []string{`"start" is not a flag`}},
		{name: "bad value", args: "--heartbeat-interval often", want: []string{`invalid value "often"`, "heartbeat-interval"}},
		{name: "bad variable", vars: map[string]string{"ETCD_HEARTBEAT_INTERVAL": "often"}, want: []string{"ETCD_HEARTBEAT_INTERVAL", `"often"`}},
		{name: "bad classic address", args: "-addr 10.0.0.1", want: []string{`"10.0.0.1"`, "HOST:PORT"}},
		{name: "all in a file at once", args: "--config-file " + file, want: []string{file, `key "nmae"`, "heartbeat-interval", "often", `key "peer-transport-security.cert-fil"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parsed(t, test.vars, strings.Fields(test.args)...)
			if fault.ExitCode(err) != fault.ExitUsage {
				t.Fatalf("exit code %d: %v", fault.ExitCode(err), err)
			}
			text := err.Error() + "\n" + strings.Join(fault.Hints(err), "\n")
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("error does not say %q:\n%s", want, text)
				}
			}
		})
	}
}

// Help names every flag once.
func TestHelpIsComplete(t *testing.T) {
	o := newOptions()
	var b strings.Builder
	o.usage(&b)
	text := b.String()
	o.flags.VisitAll(func(f *flag.Flag) {
		n := strings.Count(text, "\n  --"+f.Name+"\n") + strings.Count(text, "\n  --"+f.Name+" ")
		if n != 1 {
			t.Errorf("--%s is in help %d times", f.Name, n)
		}
		if f.Usage == "" {
			t.Errorf("--%s says nothing about itself", f.Name)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("name: x\npeer-transport-security: {cert-file: a}\n"))
	f.Add([]byte("- a\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		newOptions().fromFile(path) // must not panic
	})
}
