package etcdcmd

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/pkg/v3/flags"

	"flotilla/internal/fault"
)

// documented is every variable that a cloud-config document's sections coreos.etcd and
// coreos.etcd2 make, without ETCD_.
const documented = `ADDR BIND_ADDR CA_FILE CERT_FILE CORS DATA_DIR DISCOVERY GRAPHITE_HOST KEY_FILE NAME PEER_ADDR
PEER_BIND_ADDR PEER_CA_FILE PEER_CERT_FILE PEER_KEY_FILE PEERS PEERS_FILE TRACE CLUSTER_ACTIVE_SIZE MAX_RESULT_BUFFER
MAX_RETRY_ATTEMPTS PEER_ELECTION_TIMEOUT PEER_HEARTBEAT_INTERVAL SNAPSHOTCOUNT CLUSTER_REMOVE_DELAY CLUSTER_SYNC_INTERVAL
HTTP_READ_TIMEOUT HTTP_WRITE_TIMEOUT RETRY_INTERVAL SNAPSHOT VERBOSE VERY_VERBOSE VERY_VERY_VERBOSE CPU_PROFILE_FILE
MAX_CLUSTER_SIZE ADVERTISE_CLIENT_URLS DISCOVERY_FALLBACK DISCOVERY_SRV DISCOVERY_PROXY ELECTION_TIMEOUT FORCE_NEW_CLUSTER
HEARTBEAT_INTERVAL INITIAL_ADVERTISE_PEER_URLS INITIAL_CLUSTER INITIAL_CLUSTER_STATE INITIAL_CLUSTER_TOKEN
LISTEN_CLIENT_URLS LISTEN_PEER_URLS MAX_SNAPSHOTS MAX_WALS PROXY LOG_PACKAGE_LEVELS PEER_TRUSTED_CA_FILE TRUSTED_CA_FILE
WAL_DIR SNAPSHOT_COUNT PROXY_DIAL_TIMEOUT PROXY_FAILURE_WAIT PROXY_READ_TIMEOUT PROXY_REFRESH_INTERVAL
PROXY_WRITE_TIMEOUT CLIENT_CERT_AUTH DEBUG PEER_CLIENT_CERT_AUTH ENABLE_PPROF STRICT_RECONFIG_CHECK`

// No variable of a document is passed over in silence: it is a flag, or it stands in
// the table of what it means now.
func TestEveryDocumentedVariableIsKnown(t *testing.T) {
	o := newOptions()
	var known []string
	o.flags.VisitAll(func(f *flag.Flag) { known = append(known, flags.FlagToEnv("ETCD", f.Name)) })
	for _, l := range legacies {
		if name := "ETCD_" + l.name; slices.Contains(known, name) {
			t.Errorf("%s is a flag and a legacy variable", name)
		} else if known = append(known, name); len(l.flags) == 0 == (l.why == "") {
			t.Errorf("%s wants a meaning or an explanation", name)
		}
		for _, f := range l.flags {
			if name, _, _ := strings.Cut(f, "="); o.flags.Lookup(name) == nil {
				t.Errorf("ETCD_%s means --%s, which is no flag", l.name, name)
			}
		}
	}
	for _, name := range strings.Fields(documented) {
		if !slices.Contains(known, "ETCD_"+name) {
			t.Errorf("ETCD_%s is passed over in silence", name)
		}
	}
}

func TestLegacyVariables(t *testing.T) {
	o, err := parsed(t, map[string]string{
		"ETCD_CA_FILE": "/ca", "ETCD_PEER_CA_FILE": "/peer-ca", "ETCD_CERT_FILE": "/cert", "ETCD_KEY_FILE": "/key",
		"ETCD_PEER_HEARTBEAT_INTERVAL": "50", "ETCD_PEER_ELECTION_TIMEOUT": "400", "ETCD_ELECTION_TIMEOUT": "500",
		"ETCD_SNAPSHOTCOUNT": "123", "ETCD_VERY_VERBOSE": "true", "ETCD_GRAPHITE_HOST": "graphite:2003",
		"ETCD_DISCOVERY": secretToken, "ETCD_PEERS": "10.0.0.2:7001",
	})
	if err != nil {
		t.Fatal(err)
	}
	e := o.cfg.Engine
	for name, ok := range map[string]bool{
		"clients' authority":          e.ClientTLSInfo.TrustedCAFile == "/ca" && e.ClientTLSInfo.ClientCertAuth,
		"peers' authority":            e.PeerTLSInfo.TrustedCAFile == "/peer-ca" && e.PeerTLSInfo.ClientCertAuth,
		"heartbeat":                   e.TickMs == 50,
		"today's name wins":           e.ElectionMs == 500,
		"snapshots":                   e.SnapshotCount == 123,
		"level":                       e.LogLevel == "debug",
		"certificates, not the token": o.token == "",
	} {
		if !ok {
			t.Errorf("%s is not as the variables say", name)
		}
	}
	want := []string{
		"ETCD_PEERS has no effect: members do not join by the addresses of others: set ETCD_DISCOVERY, or ETCD_INITIAL_CLUSTER",
		"ETCD_GRAPHITE_HOST has no effect: figures are not sent: have Prometheus ask for /metrics",
	}
	if !slices.Equal(o.notices, want) {
		t.Errorf("notices %q, want %q", o.notices, want)
	}
}

func TestLegacyVariablesRefused(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"ETCD_PEERS", "10.0.0.2:7001", "ETCD_PEERS: 10.0.0.2:7001: a cluster is not found by it"},
		{"ETCD_SNAPSHOTCOUNT", "many", `ETCD_SNAPSHOTCOUNT: invalid value "many"`},
	} {
		_, err := parsed(t, map[string]string{c.name: c.value})
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.ExitCode(err) != fault.ExitUsage {
			t.Errorf("%s=%s: got %v, want %q", c.name, c.value, err, c.want)
		}
	}
	if o, err := parsed(t, map[string]string{"ETCD_VERBOSE": "false"}); err != nil || o.isSet("log-level") {
		t.Errorf("ETCD_VERBOSE=false: %v", err)
	}
}
