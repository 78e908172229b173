package tunnel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"flotilla/internal/tunnel/tunneltest"
)

// strict is a world in which host keys count.
func strict(t *testing.T, change ...func(*tunneltest.Server)) *world {
	w := newWorld(t, change...)
	w.cfg.AnyHostKey = false
	return w
}

func (w *world) knownHosts() string {
	w.Helper()
	b, err := os.ReadFile(w.cfg.KnownHosts)
	if err != nil && !os.IsNotExist(err) {
		w.Fatal(err)
	}
	return string(b)
}

func (w *world) knows(key ssh.PublicKey) {
	w.Helper()
	write(w.T, w.cfg.KnownHosts, "# mine\n"+knownhosts.Line([]string{w.server.Addr()}, key)+"\n")
}

func newHostKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := tunneltest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestUnknownHostWithoutATerminal(t *testing.T) {
	w := strict(t)
	err := w.fails("can't be established", ssh.FingerprintSHA256(w.server.HostKeys[0].PublicKey()), "ssh-keyscan -p ", "Host key verification failed.")
	if !errors.Is(err, ErrHostKey) || w.knownHosts() != "" {
		t.Errorf("%v; known hosts:\n%s", err, w.knownHosts())
	}
}

func TestUnknownHostIsAskedAboutAndRemembered(t *testing.T) {
	w := strict(t)
	p := &person{answers: []string{"no", "yes"}}
	w.cfg.Terminal = p
	if err := w.fails("Host key verification failed."); !errors.Is(err, ErrHostKey) || w.knownHosts() != "" {
		t.Errorf("after no: %v; known hosts:\n%s", err, w.knownHosts())
	}
	w.dial()
	if len(p.asked) != 2 || !strings.Contains(p.asked[1], "(yes/no)?") || !strings.Contains(p.asked[1], ssh.FingerprintSHA256(w.server.HostKeys[0].PublicKey())) {
		t.Errorf("asked %q", p.asked)
	}
	w.dial() // nothing more to say, and nothing more asked
	if len(p.asked) != 2 {
		t.Errorf("asked again: %q", p.asked)
	}
	file, err := os.Stat(w.cfg.KnownHosts)
	if err != nil || file.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", file, err)
	}
	if dir, err := os.Stat(filepath.Dir(w.cfg.KnownHosts)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", dir, err)
	}
}

// What was in the file stays, also where its last line was not ended.
func TestRememberingAdds(t *testing.T) {
	w := strict(t)
	other := knownhosts.Line([]string{"other"}, newHostKey(t).PublicKey())
	write(t, w.cfg.KnownHosts, other)
	w.cfg.Terminal = &person{answers: []string{"y"}}
	w.dial()
	if got := w.knownHosts(); !strings.HasPrefix(got, other+"\n[127.0.0.1]:") || strings.Count(got, "\n") != 2 {
		t.Errorf("known hosts:\n%s", got)
	}
}

func TestChangedHostIsRefused(t *testing.T) {
	w := strict(t)
	old := newHostKey(t).PublicKey()
	w.knows(old)
	w.cfg.Terminal = &person{answers: []string{"yes"}} // nobody asks
	err := w.fails("Host key verification failed.", "ssh-keygen -f "+w.cfg.KnownHosts+" -R '[127.0.0.1]:")
	if !errors.Is(err, ErrHostKey) {
		t.Error(err)
	}
	for _, words := range []string{
		"REMOTE HOST IDENTIFICATION HAS CHANGED!", w.cfg.KnownHosts + " line 2 expects",
		ssh.FingerprintSHA256(old), ssh.FingerprintSHA256(w.server.HostKeys[0].PublicKey()),
	} {
		if !strings.Contains(w.toldText(), words) {
			t.Errorf("%q is not in\n%s", words, w.toldText())
		}
	}
	// Emptying the file makes it work again.
	write(t, w.cfg.KnownHosts, "")
	w.dial()
}

func TestAnyHostKey(t *testing.T) {
	w := newWorld(t)
	w.dial()
	if w.knownHosts() != "" || w.toldText() != "" {
		t.Errorf("known hosts:\n%s\ntold:\n%s", w.knownHosts(), w.toldText())
	}
	w.knows(newHostKey(t).PublicKey())
	w.dial()
	if !strings.Contains(w.toldText(), "HAS CHANGED") || !strings.Contains(w.toldText(), "Connecting all the same") {
		t.Errorf("told:\n%s", w.toldText())
	}
}

// The server has keys of two kinds; it shows the one that we know.
func TestKnownKindOfKeyIsAskedFor(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	firstKey := newHostKey(t)
	w := strict(t, func(s *tunneltest.Server) { s.HostKeys = []ssh.Signer{firstKey, second} })
	for _, key := range w.server.HostKeys {
		w.knows(key.PublicKey())
		w.dial()
	}
}

func TestHostCertificate(t *testing.T) {
	authority, key := newHostKey(t), newHostKey(t)
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	w := strict(t, func(s *tunneltest.Server) { s.HostKeys = []ssh.Signer{signer} })
	w.fails("can't be established")
	write(t, w.cfg.KnownHosts, "@cert-authority "+knownhosts.Line([]string{w.server.Addr()}, authority.PublicKey())+"\n")
	w.dial()
	w.knows(key.PublicKey()) // the key itself will do, who does not know the authority
	w.dial()
}

// A host has a certificate for one key and another key besides. Who knows the authority
// wants the certificate; who knows the other key, that one.
func TestCertificateForOneKeyOfTwo(t *testing.T) {
	authority, plain := newHostKey(t), newHostKey(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: certified.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, certified)
	if err != nil {
		t.Fatal(err)
	}
	w := strict(t, func(s *tunneltest.Server) { s.HostKeys = []ssh.Signer{plain, signer} })
	write(t, w.cfg.KnownHosts, "@cert-authority "+knownhosts.Line([]string{w.server.Addr()}, authority.PublicKey())+"\n")
	w.dial()
	w.knows(plain.PublicKey())
	w.dial()
	// An authority that has signed nothing here does not make the host a changed one.
	write(t, w.cfg.KnownHosts, "@cert-authority "+knownhosts.Line([]string{w.server.Addr()}, newHostKey(t).PublicKey())+"\n")
	w.fails("can't be established")
}

func TestRevokedKey(t *testing.T) {
	w := newWorld(t)
	write(t, w.cfg.KnownHosts, "@revoked * "+strings.TrimPrefix(knownhosts.Line([]string{"x"}, w.server.HostKeys[0].PublicKey()), "x ")+"\n")
	w.fails("is revoked by", "line 1") // though any other key would do
}

func TestDamagedKnownHosts(t *testing.T) {
	w := strict(t)
	write(t, w.cfg.KnownHosts, "# fine\nnot a key\n")
	w.fails(w.cfg.KnownHosts+":2", "--known-hosts-file")
}

// The key of a server behind another one is checked under the server's own name.
func TestHostKeyBehindAnother(t *testing.T) {
	w := strict(t)
	w.knows(w.server.HostKeys[0].PublicKey())
	behind := strict(t, func(s *tunneltest.Server) { s.Users = w.server.Users })
	via := w.dial()
	cfg := w.cfg
	cfg.Via, cfg.Server.Port = via, behind.server.Port()
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, ErrHostKey) {
		t.Fatal(err)
	}
	cfg.Terminal = &person{answers: []string{"yes"}}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if host, _, err := net.SplitHostPort(behind.server.Addr()); err != nil || !strings.Contains(w.knownHosts(), "["+host+"]:") {
		t.Errorf("known hosts:\n%s", w.knownHosts())
	}
}
