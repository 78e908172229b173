package tokentls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
)

const token = "3e86b59982e49066c5d813af1c2e2579"

func TestTokenOf(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://10.0.0.1:8087/" + token:                                    true,
		"http://10.0.0.1:8087/" + token + "/":                              true,
		"https://other.example.org/v2/" + token:                            true,
		"http://10.0.0.1:8087/6C007A14-875D-53D9-BF0E-5A6543F0C817":        true,
		"http://10.0.0.1:2379/v2/keys/discovery/my-cluster":                false,
		"http://10.0.0.1:2379/v2/keys/discovery/3e86b59982":                false,
		"http://10.0.0.1:8087/":                                            false,
		"http://10.0.0.1:8087/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz": false,
		"": false,
	} {
		if got, is := TokenOf(url); is != ok {
			t.Errorf("%s: %q, %v", url, got, is)
		}
	}
}

// Machines with one token take each other for machines of the cluster, by whatever
// address; one with another token is refused on both sides.
func TestWhoIsLetIn(t *testing.T) {
	one, two, other := machine(t, token), machine(t, token), machine(t, "0"+token[1:])
	if err := meet(one, two); err != nil {
		t.Errorf("same token: %v", err)
	}
	if meet(one, other) == nil || meet(other, one) == nil {
		t.Error("another token is let in")
	}
	if meet(one, &tls.Config{RootCAs: one.RootCAs, ServerName: Name}) == nil {
		t.Error("a client without a certificate is let in")
	}
}

// The authority is the same wherever it is made: members compare nothing else.
func TestAuthorityIsTheTokens(t *testing.T) {
	a, _, err := authority(token)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := authority(token)
	if err != nil || !bytes.Equal(a.Raw, b.Raw) {
		t.Errorf("two certificates of one token: %v", err)
	}
}

func TestKeyIsTheOwnersAlone(t *testing.T) {
	f, err := Write(filepath.Join(t.TempDir(), "tls"), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// machine is both sides' configuration of a machine with a token.
func machine(t *testing.T, token string) *tls.Config {
	t.Helper()
	f, err := Write(t.TempDir(), token, []string{"10.0.0.1", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, ServerName: Name,
	}
}

// meet is a connection; the server's opinion of it comes with the first byte.
func meet(server, client *tls.Config) error {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		defer a.Close()
		s := tls.Server(a, server)
		if s.Handshake() == nil {
			s.Write([]byte{1})
		}
	}()
	_, err := tls.Client(b, client).Read(make([]byte, 1))
	return err
}
