package fleetd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	client "flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/unitshttp"
)

// authority makes certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	n    int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

// sign completes a template; the first certificate is signed with its own key.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	template.SerialNumber = big.NewInt(a.n)
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-24 * time.Hour)
	}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files writes a certificate of that subject and its key; change may alter it.
func (a *authority) files(dir string, subject pkix.Name, change func(*x509.Certificate)) (certFile, keyFile string) {
	a.t.Helper()
	template := &x509.Certificate{
		Subject: subject, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	_, key, text := a.sign(template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	base := filepath.Join(dir, fmt.Sprintf("%s %d", a.cert.Subject.CommonName, a.n))
	certFile, keyFile = base+".crt", base+".key"
	for file, b := range map[string][]byte{certFile: text, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// serveDoor serves an API without a store at a door and returns its address.
func serveDoor(t *testing.T, cfg Config, log *testLog) (*door, string) {
	t.Helper()
	cfg.APISocket = filepath.Join(t.TempDir(), "s")
	d, err := newDoor(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	lns, err := d.listen(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:     unitshttp.New(unitshttp.Config{}, unitshttp.Deps{Who: d.who, Log: slog.New(slog.DiscardHandler)}),
		ConnContext: d.greet,
		ErrorLog:    slog.NewLogLogger(slog.NewTextHandler(log, nil), slog.LevelWarn),
	}
	t.Cleanup(func() { server.Close() })
	for _, ln := range lns {
		go server.Serve(ln)
	}
	return d, lns[len(lns)-1].Addr().String()
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	ours, others := newAuthority(t, "our cluster"), newAuthority(t, "another cluster")
	cfg := Defaults()
	cfg.APIListen = "127.0.0.1:0"
	cfg.APICAFile = filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(cfg.APICAFile, ours.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.APICertFile, cfg.APIKeyFile = ours.files(dir, pkix.Name{CommonName: "m1"}, nil)
	log := &testLog{}
	d, addr := serveDoor(t, cfg, log)

	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	subject := func(name string, units ...string) pkix.Name {
		return pkix.Name{CommonName: "anna", Organization: []string{name}, OrganizationalUnit: units}
	}
	dial := func(by *authority, s pkix.Name, change func(*x509.Certificate)) *client.Client {
		t.Helper()
		config := &tls.Config{RootCAs: roots}
		if by != nil {
			cert, key := by.files(dir, s, change)
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			// Shown also to a server that names other authorities, as an old client does.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		c, err := client.New(client.Config{Endpoint: "https://" + addr, TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}

	who, err := dial(ours, subject("flotilla:deployer", "api@", "web-"), nil).WhoAmI(t.Context())
	if err != nil || who.Name != "anna" || who.Role != "deployer" || !slices.Equal(who.Prefix, []string{"api@", "web-"}) {
		t.Errorf("%+v, %v", who, err)
	}
	err = dial(ours, subject("flotilla:deployer", "web-"), nil).Destroy(t.Context(), "db.service")
	if !errors.Is(err, client.ErrForbidden) || !strings.Contains(err.Error(), "deployer anna may not destroy units: db.service is outside the names that begin with web-") {
		t.Errorf("a deployer outside its prefix: %v", err)
	}
	_, err = dial(ours, subject("Example Ltd"), nil).WhoAmI(t.Context())
	if !errors.Is(err, client.ErrForbidden) || !strings.Contains(err.Error(), `certificate "anna" names no role`) {
		t.Errorf("a certificate without a role: %v", err)
	}
	for _, c := range []struct {
		name       string
		client     *client.Client
		err, hint  string
		theirWords string // of the server's log
	}{
		{"another cluster's", dial(others, subject("flotilla:admin"), nil), "unknown certificate authority", "another authority", "signed by unknown authority"},
		{"expired", dial(ours, subject("flotilla:admin"), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }),
			"expired certificate", "clock", "is after "},
		{"not yet valid", dial(ours, subject("flotilla:admin"), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
			"expired certificate", "clock", "is before "},
		{"a server's only", dial(ours, subject("flotilla:admin"), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			"bad certificate", "another authority", "incompatible key usage"},
		{"none", dial(nil, pkix.Name{}, nil), "certificate required", "--cert-file", "didn't provide a certificate"},
	} {
		_, err := c.client.WhoAmI(t.Context())
		var e *client.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.err) || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s: %v, hint %+v", c.name, err, e)
		}
		// The server says it after the client knows.
		for deadline := time.Now().Add(5 * time.Second); !strings.Contains(log.String(), c.theirWords); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the server says %s", c.name, log)
			}
		}
	}

	// Bad certificates change nothing; new ones are taken over by themselves.
	bad := cfg
	bad.APICAFile = filepath.Join(dir, "nowhere")
	if err := d.load(bad); err == nil || !strings.Contains(err.Error(), "api_cafile") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(cfg.APICAFile, slices.Concat(ours.pem, others.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	if who, err := dial(others, subject("flotilla:viewer"), nil).WhoAmI(t.Context()); err != nil || who.Role != "viewer" {
		t.Errorf("%+v, %v", who, err)
	}
	if err := d.load(cfg); err != nil { // SIGHUP
		t.Error(err)
	}
}

// A certificate that names no role has the one that is set for such.
func TestDefaultRole(t *testing.T) {
	d := &door{fallback: access.Viewer}
	chain := [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "grafana"}}}}
	r := &http.Request{RemoteAddr: "10.0.0.7:1234", TLS: &tls.ConnectionState{VerifiedChains: chain}}
	who, err := d.who(r)
	if err != nil || who.Role != access.Viewer || who.Name != "grafana" || who.From != "10.0.0.7" {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := d.who(&http.Request{TLS: &tls.ConnectionState{}}); err == nil {
		t.Error("whoever shows no certificate that was verified is let in")
	}
	if _, err := d.who(&http.Request{}); err == nil {
		t.Error("whoever says nothing is let in")
	}
}

// Over TCP nobody is let in without a certificate.
func TestNoPlainTCP(t *testing.T) {
	for _, c := range []struct {
		addr  string
		loose bool
		want  string // part of the error; "" none
	}{
		{"127.0.0.1:0", false, "client certificates alone"},
		{"127.0.0.1:0", true, ""},
		{"0.0.0.0:0", true, "client certificates alone"},
		{"0.0.0.0:0", false, "client certificates alone"},
	} {
		cfg := Defaults()
		cfg.APIListen, cfg.APIPlainLoopback, cfg.APISocket = c.addr, c.loose, filepath.Join(t.TempDir(), "s")
		d, err := newDoor(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		lns, err := d.listen(cfg, nil)
		for _, ln := range lns {
			ln.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || len(fault.Hints(err)) == 0) {
			t.Errorf("%s, %v: %v", c.addr, c.loose, err)
		}
		// As a socket that systemd passes it is left out, and with no other the daemon
		// does not start.
		ln, err := net.Listen("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		cfg.APIListen = "off"
		lns, err = d.listen(cfg, []net.Listener{ln})
		if (err == nil) != (c.want == "") {
			t.Errorf("passed %s, %v: %v, %v", c.addr, c.loose, lns, err)
		}
		ln.Close()
	}
	cfg := Defaults()
	cfg.APICertFile = "somewhere"
	if _, err := newDoor(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "go together") {
		t.Errorf("half a configuration: %v", err)
	}
}

// The kernel says who is at the other end of a unix socket, with all groups.
func TestUnixPeer(t *testing.T) {
	ln, err := net.Listen("unix", "@flotilla-test-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var want []int
	for i := range 100 { // more than there is room for at first
		want = append(want, 5000+i)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDialAsNobody$")
	cmd.Env = append(os.Environ(), "DIAL_AS_NOBODY="+ln.Addr().String())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p, err := peerOf(conn.(*net.UnixConn))
	conn.Close()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if err != nil || p.PID != cmd.Process.Pid {
		t.Errorf("%+v, %v", p, err)
	}
	if os.Geteuid() == 0 && (p.UID != 65534 || !slices.Equal(p.Groups, append(want, 65533))) {
		t.Errorf("%+v", p)
	}
}

// TestDialAsNobody is the other end for TestUnixPeer: with root's rights it gives
// them up first.
func TestDialAsNobody(t *testing.T) {
	path := os.Getenv("DIAL_AS_NOBODY")
	if path == "" {
		return
	}
	if os.Geteuid() == 0 {
		var groups []int
		for i := range 100 {
			groups = append(groups, 5000+i)
		}
		if err := errors.Join(unix.Setgroups(groups), unix.Setgid(65533), unix.Setuid(65534)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	os.Stdin.Read(make([]byte, 1)) // until it is closed
}

// Who runs the daemon is an admin at its socket.
func TestOwnSocket(t *testing.T) {
	cfg := Defaults()
	log := &testLog{}
	_, path := serveDoor(t, cfg, log)
	c, err := client.New(client.Config{Endpoint: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	who, err := c.WhoAmI(context.Background())
	if err != nil || who.Role != "admin" || who.Name == "" {
		t.Errorf("%+v, %v", who, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v", st, err)
	}
}
