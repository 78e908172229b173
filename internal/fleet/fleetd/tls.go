package fleetd

import (
	"crypto/tls"

	"flotilla/internal/tlsfile"
)

// storeTLS is how the store is spoken to over https: it is verified, always, by
// the given authority or the system's.
func (d *Daemon) storeTLS() (*tls.Config, error) {
	return tlsfile.Files{
		CA:   tlsfile.File{Setting: "etcd_cafile", Path: d.cfg.EtcdCAFile},
		Cert: tlsfile.File{Setting: "etcd_certfile", Path: d.cfg.EtcdCertFile},
		Key:  tlsfile.File{Setting: "etcd_keyfile", Path: d.cfg.EtcdKeyFile},
		Log:  d.log,
	}.Client()
}
