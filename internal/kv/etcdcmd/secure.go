package etcdcmd

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/internal/fault"
	"flotilla/internal/kv/bootstrap"
	"flotilla/internal/kv/tokentls"
)

// certificateFlags say by which certificates to speak TLS, or that they are to be made.
var certificateFlags = []string{
	"cert-file", "key-file", "trusted-ca-file", "auto-tls", "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-auto-tls",
}

// planSecurity has this machine speak to others by TLS, with keys made of its discovery
// token, where it would otherwise have to be refused: plain HTTP beyond loopback is
// asked for, is not permitted, and nothing is said about certificates. Programs on this
// machine go on by plain HTTP, at 127.0.0.1. It fails where a misspelt token is all that
// is in the way.
func (o *options) planSecurity() error {
	e := o.cfg.Engine
	if o.discovery == "" || o.cfg.AllowPlainHTTP || slices.ContainsFunc(certificateFlags, o.isSet) ||
		!slices.ContainsFunc(slices.Concat(e.ListenClientUrls, e.ListenPeerUrls), exposed) {
		return nil
	}
	token, ok := tokentls.TokenOf(o.discovery)
	if !ok {
		return fault.Code(fault.ExitUsage, bootstrap.CheckSpelling(o.discovery))
	}
	clients, ok := forClients(e.ListenClientUrls, e.AdvertiseClientUrls)
	if !ok {
		return nil
	}
	o.token = token
	e.ListenClientUrls = clients
	for _, urls := range []*[]url.URL{&e.AdvertiseClientUrls, &e.ListenPeerUrls, &e.AdvertisePeerUrls} {
		*urls = byTLS(*urls)
	}
	return nil
}

// exposed says whether a URL is plain HTTP that others than this machine reach.
func exposed(u url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// byTLS is the URLs with those that are exposed served by TLS.
func byTLS(urls []url.URL) []url.URL {
	out := slices.Clone(urls)
	for i := range out {
		if exposed(out[i]) {
			out[i].Scheme = "https"
		}
	}
	return out
}

// forClients is byTLS with the same ports by plain HTTP at 127.0.0.1. One address
// cannot be had in two ways, so where all addresses (0.0.0.0) are to be served it is
// the one that clients are told; ok is false if that is not known.
func forClients(listen, tell []url.URL) (out []url.URL, ok bool) {
	for _, u := range byTLS(listen) {
		if ip := net.ParseIP(u.Hostname()); u.Scheme == "https" && ip != nil && ip.IsUnspecified() {
			i := slices.IndexFunc(tell, exposed)
			if i < 0 {
				return nil, false
			}
			u.Host = net.JoinHostPort(tell[i].Hostname(), u.Port())
		}
		if u.Scheme == "https" {
			out = append(out, url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", u.Port())})
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b url.URL) bool { return a.String() == b.String() }), true
}

// secure makes this machine's keys of the discovery token, if planSecurity has planned so, and
// has the engine and the proxy use them on both ports.
func (o *options) secure(log *slog.Logger) error {
	if o.token == "" {
		return nil
	}
	e := o.cfg.Engine
	var hosts []string
	for _, urls := range [][]url.URL{e.ListenClientUrls, e.AdvertiseClientUrls, e.ListenPeerUrls, e.AdvertisePeerUrls} {
		for _, u := range urls {
			hosts = append(hosts, u.Hostname())
		}
	}
	f, err := tokentls.Write(e.Dir, o.token, hosts)
	if err != nil {
		return fmt.Errorf("TLS by the discovery token: %w", err)
	}
	info := transport.TLSInfo{
		CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA, ClientCertAuth: true,
		// Who shows a certificate knows the token. From which address it does is of
		// no matter, and neither is where a member is now.
		SkipClientSANVerify: true, ServerName: tokentls.Name,
	}
	e.ClientTLSInfo, e.PeerTLSInfo = info, info
	log.Info("other machines are spoken to by TLS, with keys made of the discovery token; plain http is for this machine alone (ETCD_ALLOW_PLAIN_HTTP=true permits it to all)", "keys", filepath.Dir(f.Key))
	return nil
}
