// Package tlsfile reads the PEM files that secure a connection: who vouches for the
// other end, and what is shown to it. Files that are replaced while a program runs
// count with the next connection, once they go together.
//
// Its errors name the setting that a file comes from, in the words of the program that
// has it, because there it has to be put right.
package tlsfile

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"flotilla/internal/fault"
)

// File is a file and the setting that names it, such as --ca-file. A Path that is
// empty means that the setting was not made.
type File struct{ Setting, Path string }

// Files are what secures one end of a connection. They are read when a configuration is
// made, and again when they have been replaced: each connection that begins gets what they
// hold then, but for a client's CA, which is read once.
type Files struct {
	CA   File // authorities that the other end's certificate is verified with
	Cert File // own certificate, and those between it and its authority
	Key  File // its key, without a passphrase
	// Log is told that files were replaced, and once why they are not in use. nil: nobody.
	Log *slog.Logger
}

// Client is how a server is spoken to: it is verified always, by the authorities of CA
// or, without any, by the system's. nil if no setting was made.
func (f Files) Client() (*tls.Config, error) {
	if f.none() {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if err := f.complete(); err != nil {
		return nil, err
	}
	if f.CA.Path != "" {
		known, err := f.CA.authorities()
		if err != nil {
			return nil, err
		}
		out.RootCAs = known
	}
	if f.Cert.Path == "" {
		return out, nil
	}
	own, err := follow(f.Log, f.pair, f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	out.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair := own.now()
		if asked.SupportsCertificate(&pair) != nil {
			return &tls.Certificate{}, nil // of another authority: none is shown
		}
		return &pair, nil
	}
	return out, nil
}

// Server is how clients are listened to: with CA each has to show a certificate of it,
// without CA none has to. nil if no setting was made: the listener is not secured.
func (f Files) Server() (*tls.Config, error) {
	switch {
	case f.none():
		return nil, nil
	case f.Cert.Path == "" && f.Key.Path == "":
		return nil, fmt.Errorf("%s: no use without %s and %s", f.CA.Setting, f.Cert.Setting, f.Key.Setting)
	}
	current, err := follow(f.Log, f.server, f.CA, f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	out := current.value.Clone()
	out.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.now(), nil }
	return out, nil
}

// server is what the files hold at this moment.
func (f Files) server() (*tls.Config, error) {
	if err := f.complete(); err != nil {
		return nil, err
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA.Path != "" {
		known, err := f.CA.authorities()
		if err != nil {
			return nil, err
		}
		out.ClientCAs, out.ClientAuth = known, tls.RequireAndVerifyClientCert
		// A session that is taken up again would bring a certificate along that
		// nobody looks at any more.
		out.SessionTicketsDisabled = true
	}
	pair, err := f.pair()
	out.Certificates = []tls.Certificate{pair}
	return out, err
}

func (f Files) none() bool { return f.CA.Path == "" && f.Cert.Path == "" && f.Key.Path == "" }

// complete says whether a certificate has a key, and a key a certificate.
func (f Files) complete() error {
	if (f.Cert.Path == "") != (f.Key.Path == "") {
		return fmt.Errorf("%s and %s go together", f.Cert.Setting, f.Key.Setting)
	}
	return nil
}

func (f File) read() ([]byte, error) {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Setting, err)
	}
	return b, nil
}

// authorities are the certificates in a file. Those that cannot be understood are left
// out: a system's bundle may hold some of old times.
func (f File) authorities() (*x509.CertPool, error) {
	b, err := f.read()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read %s: %s: no certificate in it", f.Setting, f.Path)
	}
	return pool, nil
}

// pair is the certificate with its key.
func (f Files) pair() (tls.Certificate, error) {
	cert, err := f.Cert.read()
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := f.Key.read()
	if err != nil {
		return tls.Certificate{}, err
	}
	if encrypted(key) {
		return tls.Certificate{}, fault.Hint(fmt.Errorf("read %s: %s: the key has a passphrase", f.Key.Setting, f.Key.Path),
			"write it without, for its owner alone: (umask 077; openssl pkey -in %s -out NEW)", f.Key.Path)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read %s and %s: %s, %s: %w", f.Cert.Setting, f.Key.Setting, f.Cert.Path, f.Key.Path, err)
	}
	return pair, nil
}

// encrypted says whether the first key of a text has a passphrase. There are two ways to
// write it: as PKCS #8, and as a header of PEM's (RFC 1421) that OpenSSL once wrote.
func encrypted(text []byte) bool {
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil:
			return false
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return block.Type == "ENCRYPTED PRIVATE KEY" || strings.HasSuffix(block.Headers["Proc-Type"], "ENCRYPTED")
		}
		text = rest
	}
}
