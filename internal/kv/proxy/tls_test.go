package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/client/keys"
	"flotilla/internal/kv/proxy"
)

// certificate makes one that is its own authority, for 127.0.0.1, and returns the
// files.
func certificate(t *testing.T) transport.TLSInfo {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert.pem", "CERTIFICATE", der)
	return transport.TLSInfo{CertFile: cert, KeyFile: write("key.pem", "EC PRIVATE KEY", raw), TrustedCAFile: cert}
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
