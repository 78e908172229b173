package tlsfile

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/fault"
	"flotilla/internal/kv/tokentls"
)

// issued is an authority's certificate, and one that it has signed, with its key.
func issued(t *testing.T, token string) Files {
	t.Helper()
	f, err := tokentls.Write(t.TempDir(), token, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return Files{CA: File{"--ca", f.CA}, Cert: File{"--cert", f.Cert}, Key: File{"--key", f.Key}}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNothingSet(t *testing.T) {
	f := Files{CA: File{Setting: "--ca"}, Cert: File{Setting: "--cert"}, Key: File{Setting: "--key"}}
	for end, read := range map[string]func() (*tls.Config, error){"client": f.Client, "server": f.Server} {
		if c, err := read(); c != nil || err != nil {
			t.Errorf("%s: got %v, %v", end, c, err)
		}
	}
}

func TestErrors(t *testing.T) {
	good, other := issued(t, "one"), issued(t, "another")
	const (
		pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAo=\n-----END ENCRYPTED PRIVATE KEY-----\n"
		old   = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
			"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAo=\n-----END EC PRIVATE KEY-----\n"
	)
	for _, c := range []struct {
		name       string
		change     func(*Files)
		want, hint string
	}{
		{"no authority's file", func(f *Files) { f.CA.Path = "/nowhere" }, "read --ca: open /nowhere: no such file or directory", ""},
		{"no certificate's file", func(f *Files) { f.Cert.Path = "/nowhere" }, "read --cert: open /nowhere: no such file or directory", ""},
		{"no key's file", func(f *Files) { f.Key.Path = "/nowhere" }, "read --key: open /nowhere: no such file or directory", ""},
		{"a certificate without a key", func(f *Files) { f.Key.Path = "" }, "--cert and --key go together", ""},
		{"a key without a certificate", func(f *Files) { f.Cert.Path = "" }, "--cert and --key go together", ""},
		{"an empty authority", func(f *Files) { f.CA.Path = write(t, "") }, "file.pem: no certificate in it", ""},
		{"a key for an authority", func(f *Files) { f.CA.Path = f.Key.Path }, "key.pem: no certificate in it", ""},
		{"an empty certificate", func(f *Files) { f.Cert.Path = write(t, "") }, "tls: failed to find any PEM data in certificate input", ""},
		{"an empty key", func(f *Files) { f.Key.Path = write(t, "") }, "tls: failed to find any PEM data in key input", ""},
		{"one for the other", func(f *Files) { f.Cert, f.Key = File{"--cert", f.Key.Path}, File{"--key", f.Cert.Path} }, "may have been switched", ""},
		{"another's key", func(f *Files) { f.Key = other.Key }, "read --cert and --key: " + good.Cert.Path + ", " + other.Key.Path + ": tls: private key does not match public key", ""},
		{"an encrypted key", func(f *Files) { f.Key.Path = write(t, pkcs8) }, "file.pem: the key has a passphrase", "openssl pkey -in "},
		{"encrypted the old way", func(f *Files) { f.Key.Path = write(t, old) }, "file.pem: the key has a passphrase", "openssl pkey -in "},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good
			c.change(&f)
			for end, read := range map[string]func() (*tls.Config, error){"client": f.Client, "server": f.Server} {
				conf, err := read()
				if conf != nil || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, %v, want %s", end, conf, err, c.want)
				}
				hints := strings.Join(fault.Hints(err), "\n")
				if !strings.Contains(hints, c.hint) || (c.hint == "") != (hints == "") {
					t.Errorf("%s: got the hint %q, want %q", end, hints, c.hint)
				}
			}
		})
	}
}

// A server that clients are to show certificates to, and has none itself, is a mistake;
// it is not served without TLS.
func TestServerWithoutCertificate(t *testing.T) {
	f := issued(t, "one")
	f.Cert.Path, f.Key.Path = "", ""
	if c, err := f.Server(); c != nil || err == nil || err.Error() != "--ca: no use without --cert and --key" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	ours, others := issued(t, "one"), issued(t, "another")
	only := func(ca File) Files { return Files{CA: ca} }
	for _, c := range []struct {
		name           string
		server, client Files
		want           string // part of the error; "": none
	}{
		{"both show theirs", ours, ours, ""},
		{"a client that shows none", ours, only(ours.CA), "certificate required"},
		{"a client of another authority", ours, Files{CA: ours.CA, Cert: others.Cert, Key: others.Key}, "unknown certificate authority"},
		{"none asked for", Files{Cert: ours.Cert, Key: ours.Key}, only(ours.CA), ""},
		{"a server of another authority", others, only(ours.CA), "unknown authority"},
		{"a server that the system does not know", ours, Files{Cert: ours.Cert, Key: ours.Key}, "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ask(listen(t, c.server), loaded(t, c.client))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// said is a log that connections write to and the test reads.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// replace puts the files of one end where those of another are.
func replace(t *testing.T, with map[File]File) {
	t.Helper()
	for old, next := range with {
		if err := os.Rename(next.Path, old.Path); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that runs shows the certificate that was renewed, and takes clients by the
// authorities of now. Files that are of no use leave it as it was, and that is said once.
func TestServerFollowsItsFiles(t *testing.T) {
	ours, next := issued(t, "one"), issued(t, "another")
	var log said
	ours.Log = slog.New(slog.NewTextHandler(&log, nil))
	addr := listen(t, ours)
	before, after := loaded(t, issued(t, "one")), loaded(t, next)

	expect := func(when string, client *tls.Config, others *tls.Config) {
		t.Helper()
		if err := ask(addr, client); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if ask(addr, others) == nil {
			t.Errorf("%s: both authorities count", when)
		}
	}
	expect("at first", before, after)

	cert, err := os.ReadFile(next.Cert.Path)
	if err != nil {
		t.Fatal(err)
	}
	half := write(t, string(cert[:len(cert)/2]))
	kept := write(t, string(cert))
	replace(t, map[File]File{ours.Cert: {Path: half}})
	for range 3 {
		expect("a certificate that is half written", before, after)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "read --cert and --key") {
		t.Errorf("said %d times: %s", n, &log)
	}
	replace(t, map[File]File{ours.Cert: {Path: kept}})
	expect("a certificate without its key", before, after)
	replace(t, map[File]File{ours.Key: next.Key, ours.CA: next.CA})
	expect("all of them replaced", after, before)
	if !strings.Contains(log.String(), "level=INFO msg=\"certificates were replaced, new connections use them\"") {
		t.Errorf("not said: %s", &log)
	}
	if err := os.Remove(ours.CA.Path); err != nil {
		t.Fatal(err)
	}
	expect("the authority's file is gone", after, before)
}

// A client that runs shows the certificate that was renewed.
func TestClientFollowsItsFiles(t *testing.T) {
	ours, others := issued(t, "one"), issued(t, "another")
	client := Files{CA: ours.CA, Cert: others.Cert, Key: others.Key}
	conf, addr := loaded(t, client), listen(t, ours)
	if ask(addr, conf) == nil {
		t.Fatal("a client of another authority is let in")
	}
	next := issued(t, "one")
	replace(t, map[File]File{client.Cert: next.Cert, client.Key: next.Key})
	if err := ask(addr, conf); err != nil {
		t.Error(err)
	}
}

// loaded is the client that files make.
func loaded(t *testing.T, f Files) *tls.Config {
	t.Helper()
	conf, err := f.Client()
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// listen serves until the test ends, and returns where.
func listen(t *testing.T, f Files) string {
	t.Helper()
	conf, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return ln.Addr().String()
}

// ask makes one request on a connection of its own.
func ask(addr string, conf *tls.Config) error {
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + addr)
	if err == nil {
		resp.Body.Close()
	}
	return err
}
