// Package peer is how one machine's fleetd asks another's for logs and statuses, and to
// let units change hands: HTTPS with TLS 1.3, where each side shows a key that the other finds in the
// store, in the record of a machine that is present.
package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"flotilla/internal/atomicfile"
)

// Identity is a machine's key among its peers.
type Identity struct {
	cert tls.Certificate
	key  string
}

// Key is the SHA-256 of the public key (its SubjectPublicKeyInfo), in hex: what
// the machine's record in the store holds.
func (id Identity) Key() string { return id.key }

const pemType = "PRIVATE KEY"

// LoadIdentity reads the private key at path (PKCS #8, PEM), making one at the
// first start. Only its owner may read the file.
func LoadIdentity(path string) (Identity, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeIdentity(path)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("peer key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemType {
		return Identity{}, fmt.Errorf("peer key %s: no PEM block of type %s", path, pemType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Identity{}, fmt.Errorf("peer key %s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return Identity{}, fmt.Errorf("peer key %s: it is a %T, not Ed25519", path, key)
	}
	return newIdentity(private)
}

func makeIdentity(path string) (Identity, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("peer key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Identity{}, fmt.Errorf("peer key: %w", err)
	}
	if err := atomicfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), 0o600); err != nil {
		return Identity{}, fmt.Errorf("peer key: %w", err)
	}
	return newIdentity(private)
}

// newIdentity wraps the key in a certificate. Nobody looks at anything in it but
// the key, so it names nothing and has no end: what ends a machine's trust is that
// its record is gone.
func newIdentity(private ed25519.PrivateKey) (Identity, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "fleetd"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return Identity{}, fmt.Errorf("peer certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Identity{}, fmt.Errorf("peer certificate: %w", err)
	}
	return Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: cert},
		key:  keyOf(cert),
	}, nil
}

func keyOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// shown is the key that the other side of a connection has proved to hold.
func shown(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("the other side shows no certificate")
	}
	return keyOf(cs.PeerCertificates[0]), nil
}

// config is TLS that trusts whoever verify accepts, and nobody else: chains and
// names say nothing here, which is why the library's own check of them is off. Its
// check that the other side holds the key it shows is part of every handshake.
func (id Identity) config(verify func(key string) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			key, err := shown(cs)
			if err != nil {
				return err
			}
			return verify(key)
		},
	}
}
