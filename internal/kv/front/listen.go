package front

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/pkg/v3/runtime"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
	"flotilla/internal/kv/holder"
	"flotilla/internal/tlsfile"
)

// reservedFiles is the number of descriptors that client connections leave to the
// engine's own files and peers (the engine's own figure).
const reservedFiles = 150

// TLS is the server's side of TLS in the terms of the engine's flags.
type TLS struct {
	Info         transport.TLSInfo
	CipherSuites []string // by name; none: Go's choice
	MinVersion   string   // "TLS1.2", "TLS1.3" or "", the default
	MaxVersion   string
}

// Of is the configuration of the client addresses that the engine's flags
// describe. With --auto-tls it makes the certificate, in the data directory.
func Of(cfg *embed.Config) (Config, error) {
	c := Config{
		Listen: cfg.ListenClientUrls, ListenHTTP: cfg.ListenClientHttpUrls, Sockets: cfg.SocketOpts,
		TLS: TLS{Info: cfg.ClientTLSInfo, CipherSuites: cfg.CipherSuites, MinVersion: cfg.TlsMinVersion, MaxVersion: cfg.TlsMaxVersion},
	}
	if !slices.ContainsFunc(slices.Concat(c.Listen, c.ListenHTTP), secure) {
		return c, nil
	}
	own := *cfg // ClientSelfCert writes into it
	if err := own.ClientSelfCert(); err != nil {
		return c, fmt.Errorf("make a certificate for clients: %w", err)
	}
	c.TLS.Info = own.ClientTLSInfo
	return c, nil
}

// Config is TLS as the engine does it: with its checks of client certificates,
// and for either protocol what its clients offer. Certificates and authorities that are
// replaced count from the next connection on; log is told of the latter.
func (t TLS) Config(log *slog.Logger) (*tls.Config, error) {
	now, err := tlsfile.Follow(log, t.protocols, tlsfile.File{Setting: "--trusted-ca-file", Path: t.Info.TrustedCAFile})
	if err != nil {
		return nil, err
	}
	config := now().http.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return now().forClient(hello), nil }
	return config, nil
}

func (t TLS) protocols() (protocols, error) {
	config, err := t.server()
	if err != nil {
		return protocols{}, err
	}
	return byProtocol(config), nil
}

func (t TLS) server() (*tls.Config, error) {
	info := t.Info
	if info.Empty() {
		return nil, fault.Hint(errors.New("https needs a certificate"), "give --cert-file and --key-file, or --auto-tls")
	}
	var err error
	if len(info.CipherSuites) == 0 && len(t.CipherSuites) > 0 {
		if info.CipherSuites, err = tlsutil.GetCipherSuites(t.CipherSuites); err != nil {
			return nil, err
		}
	}
	if info.MinVersion, err = tlsutil.GetTLSVersion(t.MinVersion); err != nil {
		return nil, err
	}
	if info.MaxVersion, err = tlsutil.GetTLSVersion(t.MaxVersion); err != nil {
		return nil, err
	}
	config, err := info.ServerConfig()
	if err != nil {
		return nil, err
	}
	if config.ClientCAs != nil && config.ClientCAs.Equal(x509.NewCertPool()) {
		return nil, fmt.Errorf("read --trusted-ca-file: %s: no certificate in it", info.TrustedCAFile)
	}
	// A session that is taken up again would bring along a certificate that the
	// authorities of now may not have signed.
	config.SessionTicketsDisabled = config.ClientAuth != tls.NoClientCert
	info.ConfigureCRLVerification(config)
	return config, nil
}

// bind binds the addresses of both lists, in their order, or none.
func bind(cfg Config) (doors []door, err error) {
	defer func() {
		if err != nil {
			closeDoors(doors)
			doors = nil
		}
	}()
	if len(cfg.Listen) == 0 {
		return nil, fault.Hint(errors.New("no address to serve clients on"), "give --listen-client-urls at least one URL")
	}
	var config *tls.Config
	split := len(cfg.ListenHTTP) > 0
	for i, u := range slices.Concat(cfg.Listen, cfg.ListenHTTP) {
		d := door{speaks: speaks{http: true, grpc: true}}
		if split {
			d.speaks = speaks{http: i >= len(cfg.Listen), grpc: i < len(cfg.Listen)}
		}
		if secure(u) {
			if config == nil {
				if config, err = cfg.TLS.Config(cfg.Log); err != nil {
					return doors, fmt.Errorf("listen on %s: %w", u.String(), err)
				}
			}
			d.tls = config
		}
		l, err := Bind(u, "client", cfg.Sockets)
		if err != nil {
			return doors, err
		}
		d.Listener = limited(l)
		doors = append(doors, d)
	}
	return doors, nil
}

// Bind listens on one address, without TLS unless an option asks for it; who is
// "client" or "peer". Its error says who has the address.
func Bind(u url.URL, who string, sockets transport.SocketOpts, opts ...transport.ListenerOption) (net.Listener, error) {
	opts = append([]transport.ListenerOption{transport.WithSocketOpts(&sockets), transport.WithSkipTLSInfoCheck(true)}, opts...)
	l, err := transport.NewListenerWithOpts(hostOf(u), u.Scheme, opts...)
	if err != nil {
		return nil, explainListen(err, u, who)
	}
	return l, nil
}

// limited leaves the engine the descriptors it needs.
func limited(l net.Listener) net.Listener {
	if limit, err := runtime.FDLimit(); err == nil && limit > reservedFiles {
		return transport.LimitListener(l, int(limit-reservedFiles))
	}
	return l
}

func explainListen(err error, u url.URL, who string) error {
	var sys syscall.Errno
	errors.As(err, &sys)
	flag := "--listen-" + who + "-urls"
	switch sys {
	case syscall.EADDRINUSE:
		return fault.Hint(fmt.Errorf("listen on %s (%s): the port is in use%s: %w", u.String(), who, holder.By(holder.OfPort(u.Host)), sys),
			"stop that one, or choose another address with %s", flag)
	case syscall.EACCES:
		return fault.Hint(fmt.Errorf("listen on %s (%s): %w", u.String(), who, sys), "ports below 1024 are root's; choose another with %s", flag)
	case syscall.EADDRNOTAVAIL:
		return fault.Hint(fmt.Errorf("listen on %s (%s): this machine has no such address: %w", u.String(), who, sys), "%s has to name one of its own", flag)
	}
	return fmt.Errorf("listen on %s (%s): %w", u.String(), who, err)
}

// hostOf is the address part of a URL: host and port, or the path of a socket.
func hostOf(u url.URL) string {
	if strings.HasPrefix(u.Scheme, "unix") {
		return u.Host + u.Path
	}
	return u.Host
}

// boundURLs is the URLs with the ports that were bound.
func boundURLs(cfg Config, doors []door) []url.URL {
	urls := slices.Concat(cfg.Listen, cfg.ListenHTTP)
	for i, d := range doors {
		urls[i] = Bound(urls[i], d.Addr())
	}
	return urls
}

// Bound is the URL with the port that was bound for it.
func Bound(u url.URL, bound net.Addr) url.URL {
	if tcp, ok := bound.(*net.TCPAddr); ok {
		u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(tcp.Port))
	}
	return u
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.Close()
	}
}
