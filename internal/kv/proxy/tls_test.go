package proxy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/client/keys"
	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/proxy"
)

// certificate makes one, for 127.0.0.1, and returns the files.
func certificate(t *testing.T) transport.TLSInfo {
	t.Helper()
	a, err := kvtest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue("test")
	if err != nil {
		t.Fatal(err)
	}
	return transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: a.CA()}
}

// Members that ask for certificates, of clients and of peers, are reached with the
// proxy's; without one they are not.
func TestTLSToMembers(t *testing.T) {
	t.Parallel()
	info := certificate(t)
	m := &node{
		name: "m1", dir: filepath.Join(t.TempDir(), "data"),
		client: strings.Replace(freeURL(t), "http:", "https:", 1), peer: strings.Replace(freeURL(t), "http:", "https:", 1),
		args: []string{
			"--cert-file", info.CertFile, "--key-file", info.KeyFile, "--trusted-ca-file", info.TrustedCAFile, "--client-cert-auth",
			"--peer-cert-file", info.CertFile, "--peer-key-file", info.KeyFile, "--peer-trusted-ca-file", info.TrustedCAFile, "--peer-client-cert-auth",
		},
	}
	m.start(t)
	t.Cleanup(m.kill)
	p := startProxy(t, func(c *proxy.Config) { c.ClientTLS, c.PeerTLS = info, info }, m.peer)
	c := clientOf(t, p.url)
	until(t, "writes reach the member", func() bool {
		_, err := c.Set(t.Context(), "/a", "1", keys.SetOptions{})
		return err == nil
	})
	until(t, "the proxy reads by itself", func() bool { return local(p.url+"/v2/keys/a", m) })
	if _, err := dialV3(t, p.url).Put(t.Context(), "/b", "1"); err != nil {
		t.Error(err)
	}
	without := startProxy(t, nil, m.peer)
	if status, body, _ := get(without.url + "/v2/keys/a"); status != 503 {
		t.Errorf("without a certificate: %d %s", status, body)
	}
}
