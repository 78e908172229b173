package member

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"

	"flotilla/internal/fault"
	"flotilla/internal/kv/front"
)

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
		l, err := front.Bind(u, "peer", cfg.SocketOpts)
		if err != nil {
			return nil, err
		}
		probes = append(probes, l)
		urls[i] = front.Bound(u, l.Addr())
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
