package tlsfile

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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
			err := get(t, c.server, c.client)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// get makes one request of a server.
func get(t *testing.T, server, client Files) error {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	var err error
	if s.TLS, err = server.Server(); err != nil {
		t.Fatal(err)
	}
	s.StartTLS()
	defer s.Close()
	conf, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(s.URL)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// What is read is what the file holds at that moment: whoever wants new certificates
// calls again.
func TestReadAnew(t *testing.T) {
	f, next := issued(t, "one"), issued(t, "one")
	before, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{next.Cert.Path: f.Cert.Path, next.Key.Path: f.Key.Path} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	after, err := f.Server()
	if err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(before.Certificates[0].Certificate, after.Certificates[0].Certificate) {
		t.Error("the certificate of before")
	}
}
