package etcdcmd

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/internal/kv/tokentls"
)

// tokenTLS says whether this machine speaks to others by TLS with keys made of its
// discovery token, and with which: where addresses are those of etcd 0.4, which name
// no scheme, lead beyond loopback, and neither certificates are given nor plain HTTP is
// permitted.
func (o *options) tokenTLS() (token string, ok bool) {
	if o.cfg.AllowPlainHTTP || !beyondLoopback(o.addr, o.bindAddr, o.peerAddr, o.peerBindAddr) {
		return "", false
	}
	for _, name := range []string{"cert-file", "key-file", "trusted-ca-file", "auto-tls", "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-auto-tls"} {
		if o.isSet(name) {
			return "", false
		}
	}
	return tokentls.TokenOf(o.discovery)
}

// beyondLoopback says whether one of the addresses, HOST[:PORT], is another machine's to
// reach.
func beyondLoopback(addresses ...string) bool {
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			host = a
		}
		if ip := net.ParseIP(host); host != "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}

// secure makes this machine's keys of the discovery token, if tokenTLS says so, and
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
	dir := filepath.Join(e.Dir, "token-tls")
	f, err := tokentls.Write(dir, o.token, hosts)
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
	log.Info("other machines are spoken to by TLS, with keys made of the discovery token; plain http is for this machine alone (--allow-plain-http permits it for all)", "keys", dir)
	return nil
}
