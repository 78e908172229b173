package member

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/kv/kvtest"
)

func body(t testing.TB, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// One port: gRPC, HTTP and the JSON form of v3, with a thousand connections open
// that say nothing.
func TestOnePortForAll(t *testing.T) {
	m := start(t, alone(t, "n1", filepath.Join(t.TempDir(), "data")))
	base := m.ClientURLs()[0]
	addr := strings.TrimPrefix(base, "http://")
	for range 1000 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	half, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	half.Write([]byte("PRI * HT")) // and one that stopped in the middle

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := v3(t, m).Put(ctx, "/a", "1"); err != nil {
		t.Fatalf("gRPC: %v", err)
	}
	if code, got := body(t, http.DefaultClient, base+"/metrics"); code != 200 || !strings.Contains(got, "etcd_server_has_leader 1") {
		t.Errorf("/metrics: %d", code)
	}
	if code, got := body(t, http.DefaultClient, base+"/readyz"); code != 200 || got != "ok\n" {
		t.Errorf("/readyz: %d %q", code, got)
	}
	resp, err := http.Post(base+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"L2E="}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), `"value":"MQ=="`) {
		t.Errorf("v3 as JSON: %s", b)
	}

	began := time.Now()
	if err := m.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop waited %v for idle connections", took)
	}
	noComplaints(t, m)
}

// Watches do not hold up a stop, and end without an error for the client to see
// but the end itself.
func TestStopEndsWatches(t *testing.T) {
	m := start(t, alone(t, "n1", filepath.Join(t.TempDir(), "data")))
	watch := v3(t, m).Watch(t.Context(), "/a", clientv3.WithCreatedNotify())
	<-watch
	began := time.Now()
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	noComplaints(t, m)
}

func TestSeparateHTTP(t *testing.T) {
	t.Parallel()
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.ListenClientHttpUrls = mustURLs("http://127.0.0.1:0")
	m := start(t, cfg)
	grpc, web := m.ClientURLs()[0], m.ClientURLs()[1]
	if code, _ := body(t, http.DefaultClient, web+"/readyz"); code != 200 {
		t.Errorf("HTTP on the HTTP address: %d", code)
	}
	if _, err := http.Get(grpc + "/readyz"); err == nil {
		t.Error("HTTP is served on the gRPC address")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := v3(t, m).Put(ctx, "/a", "1"); err != nil {
		t.Errorf("gRPC: %v", err)
	}
}

// authority makes certificates, or the test fails.
type authority struct{ *kvtest.Authority }

func newAuthority(t *testing.T) authority {
	t.Helper()
	a, err := kvtest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return authority{a}
}

func (a authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	cert, key, err := a.Issue(name)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// With TLS both protocols share the port too, also for a client that could speak
// HTTP/2, and nobody without a certificate comes in.
func TestTLSWithClientCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.ListenClientUrls = mustURLs("https://127.0.0.1:0")
	info := &cfg.Engine.ClientTLSInfo
	info.CertFile, info.KeyFile = ca.issue(t, "server")
	info.TrustedCAFile, info.ClientCertAuth = ca.CA(), true
	m := start(t, cfg)
	base, err := url.Parse(m.ClientURLs()[0])
	if err != nil {
		t.Fatal(err)
	}

	pair, err := tls.LoadX509KeyPair(ca.issue(t, "root"))
	if err != nil {
		t.Fatal(err)
	}
	trusted := &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{pair}}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: trusted.Clone(), ForceAttemptHTTP2: true}}
	if code, _ := body(t, web, base.String()+"/readyz"); code != 200 {
		t.Errorf("HTTP: %d", code)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{base.Host}, TLS: trusted.Clone(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "/a", "1"); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	// The engine sees whose certificate it is: with its authentication on, the
	// common name is the user.
	mustDo(t, func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err })
	mustDo(t, func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err })
	mustDo(t, func() error { _, err := c.AuthEnable(ctx); return err })
	if _, err := c.Put(ctx, "/a", "2"); err != nil {
		t.Errorf("gRPC as the user that the certificate names: %v", err)
	}

	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}}}
	if _, err := stranger.Get(base.String() + "/readyz"); err == nil {
		t.Error("a client without a certificate came in")
	}
}

// --cipher-suites counts for clients, for peers and at the addresses for monitoring.
func TestCipherSuites(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	monitoring := strings.Replace(freeURL(t), "http:", "https:", 1)
	e := cfg.Engine
	e.ListenClientUrls, e.ListenPeerUrls, e.ListenMetricsUrls = mustURLs("https://127.0.0.1:0"), mustURLs("https://127.0.0.1:0"), mustURLs(monitoring)
	e.ClientTLSInfo.CertFile, e.ClientTLSInfo.KeyFile = ca.issue(t, "server")
	e.PeerTLSInfo = e.ClientTLSInfo
	e.CipherSuites = []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}
	m := start(t, cfg)
	for who, at := range map[string]string{"client": m.ClientURLs()[0], "peer": m.PeerURLs()[0], "monitoring": monitoring} {
		for suite, want := range map[uint16]bool{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: true, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: false} {
			conn, err := tls.Dial("tcp", strings.TrimPrefix(at, "https://"), &tls.Config{
				RootCAs: ca.Pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
			})
			if (err == nil) != want {
				t.Errorf("%s with %s: %v", who, tls.CipherSuiteName(suite), err)
			}
			if err == nil {
				conn.Close()
			}
		}
	}
}

// A member that asks the network for certificates serves loopback without: a client
// there is nobody to the engine, not the end of it.
func TestPlainLoopbackBesideCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cfg := alone(t, "n1", filepath.Join(t.TempDir(), "data"))
	cfg.Engine.ListenClientUrls = mustURLs("http://127.0.0.1:0,https://127.0.0.1:0")
	info := &cfg.Engine.ClientTLSInfo
	info.CertFile, info.KeyFile = ca.issue(t, "server")
	info.TrustedCAFile, info.ClientCertAuth = ca.CA(), true
	m := start(t, cfg)
	plain := slices.IndexFunc(m.ClientURLs(), func(u string) bool { return strings.HasPrefix(u, "http://") })
	c, err := clientv3.New(clientv3.Config{Endpoints: m.ClientURLs()[plain : plain+1], DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "/a", "1"); err != nil {
		t.Errorf("gRPC without TLS over loopback: %v", err)
	}
}

func mustDo(t *testing.T, do func() error) {
	t.Helper()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}

// What a put costs over the front's port, from one client after the other.
func BenchmarkPut(b *testing.B) {
	m := start(b, alone(b, "n1", filepath.Join(b.TempDir(), "data")))
	c := v3(b, m)
	for b.Loop() {
		if _, err := c.Put(b.Context(), "/a", "1"); err != nil {
			b.Fatal(err)
		}
	}
}
