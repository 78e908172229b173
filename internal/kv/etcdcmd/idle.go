package etcdcmd

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// dependents are flags that count with others alone.
var dependents = []struct {
	names []string
	with  []string // one of them has to be given
}{
	{[]string{"discovery-proxy", "discovery-fallback"}, []string{"discovery"}},
	{[]string{"discovery-srv-name"}, []string{"discovery-srv"}},
	{[]string{"discovery-cert", "discovery-key", "discovery-cacert", "discovery-insecure-skip-tls-verify"}, []string{"discovery", "discovery-endpoints"}},
	{[]string{
		"discovery-user", "discovery-password", "discovery-insecure-transport", "discovery-dial-timeout", "discovery-request-timeout",
		"discovery-keepalive-time", "discovery-keepalive-timeout",
	}, []string{"discovery-endpoints"}},
	{[]string{
		"proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout", "proxy-write-timeout", "proxy-read-timeout", "proxy-user",
	}, []string{"proxy", "discovery"}}, // a member may become a proxy
	{[]string{"auto-compaction-mode"}, []string{"auto-compaction-retention"}},
	{[]string{"self-signed-cert-validity"}, []string{"auto-tls", "peer-auto-tls"}},
	{[]string{
		"distributed-tracing-address", "distributed-tracing-service-name", "distributed-tracing-instance-id", "distributed-tracing-sampling-rate",
	}, []string{"enable-distributed-tracing"}},
}

// The flags for TLS with clients, and with peers.
var (
	clientTLS = []string{
		"cert-file", "key-file", "trusted-ca-file", "client-cert-auth", "client-cert-file", "client-key-file", "client-crl-file",
		"client-cert-allowed-hostname", "auto-tls",
	}
	peerTLS = []string{
		"peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth", "peer-client-cert-file", "peer-client-key-file",
		"peer-crl-file", "peer-cert-allowed-hostname", "peer-cert-allowed-cn", "peer-skip-client-san-verification", "peer-auto-tls",
	}
)

// noteIdle notes what is set and has no effect by what else is set.
func (o *options) noteIdle() {
	for _, d := range dependents {
		if !slices.ContainsFunc(d.with, o.differs) {
			o.note(d.names, "without --"+strings.Join(d.with, " or --"))
		}
	}
	e := o.cfg.Engine
	if o.proxy != proxyOff || o.discovery != "" { // a proxy shows its certificates to members too
		return
	}
	clients := slices.ContainsFunc(slices.Concat(e.ListenClientUrls, e.ListenClientHttpUrls, e.ListenMetricsUrls), secured)
	peers := slices.ContainsFunc(e.ListenPeerUrls, secured) || strings.Contains(e.InitialCluster, "https://") ||
		e.DNSCluster != "" || len(e.DiscoveryCfg.Endpoints) > 0 // where others may have it
	if !clients {
		o.note(clientTLS, "while --listen-client-urls has no https://")
	}
	if !peers {
		o.note(peerTLS, "while --listen-peer-urls has no https://")
	}
	if !clients && !peers {
		o.note([]string{"cipher-suites", "tls-min-version", "tls-max-version"}, "while no address is https://")
	}
}

// note adds a notice for each of the flags that is set to something else than its default.
func (o *options) note(names []string, because string) {
	for _, name := range names {
		if o.differs(name) {
			o.notices = append(o.notices, fmt.Sprintf("--%s has no effect %s", name, because))
		}
	}
}

// differs says whether a flag is set to something else than its default.
func (o *options) differs(name string) bool {
	f := o.flags.Lookup(name)
	return o.isSet(name) && f.Value.String() != f.DefValue
}

// secured says whether a URL is served by TLS.
func secured(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }
