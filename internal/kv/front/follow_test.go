package front

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/internal/kv/kvtest"
)

// text is a log that connections write to and the test reads.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// Clients are taken by the authorities that --trusted-ca-file has now. While it is of no use
// those of before count, and that is said once.
func TestAuthoritiesAreFollowed(t *testing.T) {
	ours, others := authority(t), authority(t)
	cert, key, err := ours.Issue("server")
	if err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(t.TempDir(), "trusted.pem")
	replace(t, trusted, content(t, ours.CA()))
	var log text
	f, err := Listen(Config{
		Listen: []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}},
		TLS:    TLS{Info: transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: trusted, ClientCertAuth: true}},
		Log:    slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Serve()
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(f.HTTP())
	t.Cleanup(func() { server.Close(); f.Close() })

	before, after := client(t, ours, ours), client(t, others, ours)
	expect := func(when string, let, refused *http.Client) {
		t.Helper()
		if err := get(f, let); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if get(f, refused) == nil {
			t.Errorf("%s: who is not to be let in is", when)
		}
	}
	expect("at first", before, after)
	replace(t, trusted, nil)
	expect("an empty file", before, after)
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "no certificate in it") {
		t.Errorf("said %d times: %s", n, &log)
	}
	replace(t, trusted, content(t, others.CA()))
	expect("another authority", after, before)
	if !strings.Contains(log.String(), "level=INFO") || !strings.Contains(log.String(), trusted) {
		t.Errorf("not said: %s", &log)
	}
	replace(t, trusted, append(content(t, others.CA()), content(t, ours.CA())...))
	for _, c := range []*http.Client{before, after} {
		if err := get(f, c); err != nil {
			t.Errorf("both authorities: %v", err)
		}
	}
}

// A file without a certificate is a mistake at the start.
func TestNoAuthorities(t *testing.T) {
	ours := authority(t)
	cert, key, err := ours.Issue("server")
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	replace(t, empty, nil)
	_, err = TLS{Info: transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: empty}}.Config(nil)
	if err == nil || !strings.Contains(err.Error(), "read --trusted-ca-file: "+empty+": no certificate in it") {
		t.Error(err)
	}
}

// A client gets HTTP/2 only if it speaks nothing else.
func TestForClient(t *testing.T) {
	p := byProtocol(&tls.Config{})
	for _, test := range []struct {
		offers string
		want   *tls.Config
	}{{"", p.http}, {"http/1.1", p.http}, {"h2 http/1.1", p.http}, {"h2", p.grpc}} {
		if got := p.forClient(&tls.ClientHelloInfo{SupportedProtos: strings.Fields(test.offers)}); got != test.want {
			t.Errorf("%q is spoken to in %q", test.offers, got.NextProtos)
		}
	}
}

func authority(t *testing.T) *kvtest.Authority {
	t.Helper()
	a, err := kvtest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func content(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace puts a file with the content where another one may be.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// client shows a certificate of one authority and trusts another. It takes up sessions again
// where it can, and has a connection for each request.
func client(t *testing.T, of, trusts *kvtest.Authority) *http.Client {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(issued(t, of))
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: trusts.Pool, ClientSessionCache: tls.NewLRUClientSessionCache(1),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}}}
}

func issued(t *testing.T, by *kvtest.Authority) (cert, key string) {
	t.Helper()
	cert, key, err := by.Issue("client")
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func get(f *Front, c *http.Client) error {
	resp, err := c.Get(f.URLs()[0].String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
