// Package tokentls makes TLS keys for the machines of a cluster out of the discovery
// token that all of them were given.
//
// The token is the one secret that machines have in common before they have met. A key
// of an authority is derived from it, the same on each machine; each machine makes a
// key of its own and has that authority sign it. So whoever knows the token is taken for
// a machine of the cluster, as before, and whoever only reaches a port is not.
package tokentls

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/atomicfile"
)

// Name is the host name that every machine's certificate is made out to, beside its
// addresses: machines look for it in place of an address, which may change.
const Name = "member.flotilla.internal"

// purpose keeps the derived key apart from what else may once be derived from a token.
const purpose = "flotilla cluster authority 1"

// secretDigits is how many hexadecimal digits a token has at least that nobody
// guesses: 128 bits, as discovery services make them.
const secretDigits = 32

// TokenOf is the secret in a discovery URL. ok is false if there is none: the token is
// a name that somebody has thought of, and could be guessed.
func TokenOf(discoveryURL string) (token string, ok bool) {
	u, err := url.Parse(discoveryURL)
	if err != nil {
		return "", false
	}
	token = strings.ToLower(path.Base(u.Path))
	digits := strings.ReplaceAll(token, "-", "")
	if len(digits) < secretDigits || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", false
	}
	return token, true
}

// Files are the paths of what Write has written, in PEM.
type Files struct{ CA, Cert, Key string }

// In is where the files lie that belong to a data directory.
func In(dataDir string) Files {
	dir := filepath.Join(dataDir, "token-tls")
	return Files{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// Write makes a key for this machine, has the token's authority sign it for Name and
// for hosts (names or IP addresses), and puts the files into the data directory, which
// it makes. The key is new each time; those of earlier times stay good.
func Write(dataDir, token string, hosts []string) (Files, error) {
	ca, caKey, err := authority(token)
	if err != nil {
		return Files{}, fmt.Errorf("derive the cluster's authority: %w", err)
	}
	cert, key, err := issue(ca, caKey, hosts)
	if err != nil {
		return Files{}, fmt.Errorf("make this machine's certificate: %w", err)
	}
	f := In(dataDir)
	if err := os.MkdirAll(filepath.Dir(f.CA), 0o700); err != nil {
		return Files{}, err
	}
	for _, w := range []struct {
		path, kind string
		der        []byte
	}{{f.CA, "CERTIFICATE", ca.Raw}, {f.Key, "PRIVATE KEY", key}, {f.Cert, "CERTIFICATE", cert}} {
		if err := atomicfile.Write(w.path, pem.EncodeToMemory(&pem.Block{Type: w.kind, Bytes: w.der}), 0o600); err != nil {
			return Files{}, err
		}
	}
	return f, nil
}

// Certificates hold for all times that a machine may think it is: a blank machine's
// clock may be years off, and there is nobody to renew them. They end with the token.
var (
	begin = time.Date(1970, 1, 1, 0, 0, 1, 0, time.UTC)
	end   = time.Date(2106, 1, 1, 0, 0, 0, 0, time.UTC)
)

// authority is the certificate and key that a token stands for: Ed25519, whose keys
// are any 32 bytes and whose signatures are the same each time, so that all machines
// make the same.
func authority(token string) (*x509.Certificate, ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, []byte(token), nil, purpose, ed25519.SeedSize)
	if err != nil {
		return nil, nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Flotilla discovery token"},
		NotBefore:    begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func issue(ca *x509.Certificate, caKey ed25519.PrivateKey, hosts []string) (cert, key []byte, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: Name},
		NotBefore:    begin, NotAfter: end,
		DNSNames:    []string{Name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if cert, err = x509.CreateCertificate(rand.Reader, t, ca, public, caKey); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return cert, key, err
}
