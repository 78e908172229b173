package kvtest

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
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Authority makes certificates for tests, good for an hour, as files in a directory.
type Authority struct {
	Pool *x509.CertPool // trusts what it issues

	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

// NewAuthority makes an authority, and its certificate as ca.pem in dir.
func NewAuthority(dir string) (*Authority, error) {
	a := &Authority{dir: dir, Pool: x509.NewCertPool()}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, key, err := a.sign(a.cert)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	a.key = key
	a.Pool.AddCert(a.cert)
	return a, a.write("ca.pem", "CERTIFICATE", der)
}

// CA is the file with the authority's certificate.
func (a *Authority) CA() string { return filepath.Join(a.dir, "ca.pem") }

// Issue writes NAME.pem and NAME-key.pem and returns where: a server's at 127.0.0.1, and
// a client's whose common name is the name.
func (a *Authority) Issue(name string) (cert, key string, err error) {
	der, k, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", "", fmt.Errorf("issue a certificate for %s: %w", name, err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", fmt.Errorf("issue a certificate for %s: %w", name, err)
	}
	if err := a.write(name+".pem", "CERTIFICATE", der); err != nil {
		return "", "", err
	}
	return filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem"), a.write(name+"-key.pem", "PRIVATE KEY", raw)
}

// sign completes a certificate. The first one signs itself.
func (a *Authority) sign(c *x509.Certificate) (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	by := a.key
	if by == nil {
		by = key
	}
	c.SerialNumber = big.NewInt(a.serial.Add(1))
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err = x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, by)
	return der, key, err
}

func (a *Authority) write(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
