package member

import (
	"crypto/tls"
	"errors"
	"fmt"
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
	"go.etcd.io/etcd/server/v3/etcdserver"

	"flotilla/internal/fault"
)

// reservedFiles is the number of descriptors that client connections leave to the
// engine's own files and peers (the engine's own figure).
const reservedFiles = 150

// bindClients binds all client addresses, or none: the doors of both lists, in
// their order.
func bindClients(cfg *embed.Config) (doors []door, err error) {
	defer func() {
		if err != nil {
			closeDoors(doors)
			doors = nil
		}
	}()
	if len(cfg.ListenClientUrls) == 0 {
		return nil, fault.Hint(errors.New("no address to serve clients on"), "give --listen-client-urls at least one URL")
	}
	var config *tls.Config
	split := len(cfg.ListenClientHttpUrls) > 0
	for i, u := range slices.Concat(cfg.ListenClientUrls, cfg.ListenClientHttpUrls) {
		d := door{speaks: speaks{http: true, grpc: true}}
		if split {
			d.speaks = speaks{http: i >= len(cfg.ListenClientUrls), grpc: i < len(cfg.ListenClientUrls)}
		}
		if secure(u) {
			if config == nil {
				if config, err = clientTLS(cfg); err != nil {
					return doors, fmt.Errorf("listen on %s: %w", u.String(), err)
				}
			}
			d.tls = config
		}
		if d.Listener, err = listen(u, "client", cfg); err != nil {
			return doors, err
		}
		doors = append(doors, d)
	}
	return doors, nil
}

// clientTLS is the front's side of TLS as the engine's flags describe it.
func clientTLS(cfg *embed.Config) (*tls.Config, error) {
	own := *cfg // ClientSelfCert writes into it
	if err := own.ClientSelfCert(); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	info := own.ClientTLSInfo
	if info.Empty() {
		return nil, fault.Hint(errors.New("https needs a certificate"), "give --cert-file and --key-file, or --auto-tls")
	}
	var err error
	if len(info.CipherSuites) == 0 && len(cfg.CipherSuites) > 0 {
		if info.CipherSuites, err = tlsutil.GetCipherSuites(cfg.CipherSuites); err != nil {
			return nil, err
		}
	}
	if info.MinVersion, err = tlsutil.GetTLSVersion(cfg.TlsMinVersion); err != nil {
		return nil, err
	}
	if info.MaxVersion, err = tlsutil.GetTLSVersion(cfg.TlsMaxVersion); err != nil {
		return nil, err
	}
	config, err := info.ServerConfig()
	if err != nil {
		return nil, err
	}
	info.ConfigureCRLVerification(config)
	return byProtocol(config), nil
}

// listen binds one address; its error says who has it.
func listen(u url.URL, who string, cfg *embed.Config) (net.Listener, error) {
	l, err := transport.NewListenerWithOpts(hostOf(u), u.Scheme,
		transport.WithSocketOpts(&cfg.SocketOpts), transport.WithSkipTLSInfoCheck(true))
	if err != nil {
		return nil, explainListen(err, u, who)
	}
	if limit, err := runtime.FDLimit(); err == nil && limit > reservedFiles {
		l = transport.LimitListener(l, int(limit-reservedFiles))
	}
	return l, nil
}

func explainListen(err error, u url.URL, who string) error {
	var sys syscall.Errno
	errors.As(err, &sys)
	flag := "--listen-" + who + "-urls"
	switch sys {
	case syscall.EADDRINUSE:
		return fault.Hint(fmt.Errorf("listen on %s (%s): the port is in use%s: %w", u.String(), who, heldBy(portHolder(u.Host)), sys),
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

// boundURLs is the client URLs with the ports that were bound.
func boundURLs(cfg *embed.Config, doors []door) []url.URL {
	urls := slices.Concat(cfg.ListenClientUrls, cfg.ListenClientHttpUrls)
	for i, d := range doors {
		urls[i] = withPort(urls[i], d.Addr())
	}
	return urls
}

func withPort(u url.URL, bound net.Addr) url.URL {
	if tcp, ok := bound.(*net.TCPAddr); ok {
		u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(tcp.Port))
	}
	return u
}

// probePeers says whether the peer addresses are free, and picks a port where one
// is 0. The engine binds them itself a moment later, so a picked port may be gone
// by then: see retryPorts.
func probePeers(cfg *embed.Config) ([]url.URL, error) {
	if hasPortZero(cfg.ListenPeerUrls) && (!aloneIn(cfg.InitialCluster, cfg.Name) || cfg.ClusterState == embed.ClusterStateFlagExisting) {
		return nil, fault.Hint(errors.New("a peer address with port 0 is only for a member that is alone: the others could not find it"),
			"give --listen-peer-urls a port")
	}
	var probes []net.Listener
	defer func() {
		for _, l := range probes {
			l.Close()
		}
	}()
	urls := slices.Clone(cfg.ListenPeerUrls)
	for i, u := range urls {
		l, err := listen(u, "peer", cfg)
		if err != nil {
			return nil, err
		}
		probes = append(probes, l)
		urls[i] = withPort(u, l.Addr())
	}
	return urls, nil
}

// retryPorts tries again when a port that the system picked was taken by somebody
// else before the engine could bind it.
func retryPorts(picked bool, start func() error) error {
	for tries := 0; ; tries++ {
		err := start()
		if !picked || tries == 5 || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.Close()
	}
}

// explainStart adds what to try to the failures of a start that have a usual
// cause.
func explainStart(err error, cfg *embed.Config) error {
	if len(fault.Hints(err)) > 0 {
		return err
	}
	text := err.Error()
	err = fmt.Errorf("start the engine on %s: %w", cfg.Dir, err)
	switch {
	case strings.Contains(text, "--initial-cluster") || strings.Contains(text, "initial cluster"):
		return fault.Hint(err, "--initial-cluster has to list every member, this one as %s=%s", cfg.Name, joinURLs(cfg.AdvertisePeerUrls))
	case strings.Contains(text, "member count is unequal"):
		return fault.Hint(err, "with --initial-cluster-state existing, list exactly the members that 'etcdctl member list' shows, this one added before")
	case strings.Contains(text, "permanently removed"):
		return fault.Hint(err, "add the machine as a new member and start it with an empty data directory")
	}
	return err
}

func joinURLs(urls []url.URL) string {
	list := make([]string, len(urls))
	for i, u := range urls {
		list[i] = u.String()
	}
	return strings.Join(list, ",")
}

func sameSet(a, b []string) bool {
	x, y := slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(x, y)
}

func memberNames(s *etcdserver.EtcdServer) []string {
	var names []string
	for _, m := range s.Cluster().Members() {
		names = append(names, m.Name+"="+strings.Join(m.PeerURLs, ","))
	}
	return names
}
