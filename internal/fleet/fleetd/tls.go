package fleetd

import (
	"crypto/tls"
	"fmt"
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
		pool, err := readAuthorities("etcd_cafile", c.EtcdCAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = pool
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
