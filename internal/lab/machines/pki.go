package machines

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// authority signs the certificates of one lab. It is kept nowhere: a lab whose
// cluster is started once more gets a new one.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  time.Time
}

// certificateLife is how long the lab's certificates are valid: no lab is kept that
// long. They begin a day early, so that a wrong clock is not the first thing tried.
const certificateLife = 90 * 24 * time.Hour

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the lab's certificate authority: %w", err)
	}
	a := &authority{key: key, now: now}
	a.cert = a.template("flotilla lab")
	a.cert.IsCA, a.cert.BasicConstraintsValid = true, true
	a.cert.KeyUsage = x509.KeyUsageCertSign
	if a.cert.Raw, err = x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key); err != nil {
		return nil, fmt.Errorf("make the lab's certificate authority: %w", err)
	}
	return a, nil
}

func (a *authority) template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails (crypto/rand)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    a.now.Add(-24 * time.Hour),
		NotAfter:     a.now.Add(certificateLife),
	}
}

// pem is the authority's certificate.
func (a *authority) pem() string { return encode("CERTIFICATE", a.cert.Raw) }

// issue makes a machine's certificate and key. It serves as both server's and
// client's: members are clients of each other.
func (a *authority) issue(m Machine) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate for %s: %w", m.Name, err)
	}
	t := a.template(m.Name)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.DNSNames = []string{m.Name, "localhost"}
	t.IPAddresses = []net.IP{net.ParseIP(m.Address), net.ParseIP(other(m.Address)), net.IPv4(127, 0, 0, 1)}
	signed, err := x509.CreateCertificate(rand.Reader, t, a.cert, private.Public(), a.key)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate for %s: %w", m.Name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate for %s: %w", m.Name, err)
	}
	return encode("CERTIFICATE", signed), encode("PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
