package fleetd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// storeTLS is how the store is spoken to over https: it is verified, always, by
// the given authority or the system's.
func (d *Daemon) storeTLS() (*tls.Config, error) {
	c := d.cfg
	if c.EtcdCAFile == "" && c.EtcdCertFile == "" && c.EtcdKeyFile == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.EtcdCAFile != "" {
		b, err := os.ReadFile(c.EtcdCAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd_cafile: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("etcd_cafile: %s holds no certificate", c.EtcdCAFile)
		}
	}
	if c.EtcdCertFile != "" || c.EtcdKeyFile != "" {
		cert, err := tls.LoadX509KeyPair(c.EtcdCertFile, c.EtcdKeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd_certfile and etcd_keyfile: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}
