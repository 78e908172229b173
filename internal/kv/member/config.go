package member

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/netutil"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
)

// Listening addresses of a member that is not told otherwise: today's and those
// of etcd 0.4, which many tools still have built in.
const (
	DefaultClientURLs = "http://127.0.0.1:2379,http://127.0.0.1:4001"
	DefaultPeerURLs   = "http://127.0.0.1:2380,http://127.0.0.1:7001"
)

const (
	// maxRequestBytes lets through what the v2 API took: 10 MiB of form, here
	// with room for the key and the records beside it.
	maxRequestBytes = 12 << 20
	// maxTxnOps is bounded by the depth of a path, since every missing parent
	// directory is put in the transaction of its first child.
	maxTxnOps = 4096
	// quotaBytes is the engine's own default, said aloud: beyond it the store
	// turns read-only.
	quotaBytes = 2 << 30
	// commitInterval is after how long at most the engine commits to its database what
	// its log has on disk already: a crash costs that much reading of the log. The
	// engine's own default is a tenth, and looks ten times a second whether there is
	// anything; both fsyncs go to one disk.
	commitInterval = time.Second
	// heartbeatMs is how often a leader says that it lives; the engine's own default is
	// half of it. Followers wait for ElectionMs of silence, which is five of these: a lost
	// leader is noticed as soon as with ten, and an idle member wakes up half as often.
	heartbeatMs = 200
)

// Config says what to run. Defaults makes one.
type Config struct {
	// Engine is the engine's own configuration. Its client listeners are ours:
	// see ListenClientUrls. A port 0 is allowed in ListenClientUrls, and in
	// ListenPeerUrls of a member that is alone; nil AdvertiseClientUrls and
	// AdvertisePeerUrls mean the addresses that were bound, with the machine's own
	// address for one that means all of them, whatever that is at the time. Its
	// logging fields count for nothing: the engine logs through the member's logger.
	Engine *embed.Config
	// AllowPlainHTTP permits http:// on addresses beyond loopback: whoever
	// reaches the port may then read and write everything.
	AllowPlainHTTP bool
	// AllowAnonymousTLS permits https:// beyond loopback without asking for
	// client certificates.
	AllowAnonymousTLS bool
	// AutoDefrag has the member give back the disk space that compaction has freed.
	AutoDefrag bool
	// PeerHints are peer URLs at which to look for the other members when they are
	// not where they were, and Hints other places to ask. Neither is needed while
	// the last known address of one of them, or an entry of the initial cluster,
	// still holds.
	PeerHints []string
	Hints     []Hints
}

// Defaults is a member named "default" on the default addresses, alone in its
// cluster.
func Defaults() Config {
	e := embed.NewConfig()
	e.ListenClientUrls = mustURLs(DefaultClientURLs)
	e.ListenPeerUrls = mustURLs(DefaultPeerURLs)
	e.AdvertiseClientUrls, e.AdvertisePeerUrls = nil, nil
	e.InitialCluster = ""
	e.MaxRequestBytes = maxRequestBytes
	e.MaxTxnOps = maxTxnOps
	e.QuotaBackendBytes = quotaBytes
	e.BackendBatchInterval = commitInterval
	e.TickMs = heartbeatMs
	return Config{Engine: e, AutoDefrag: true}
}

// Alone is a cluster of one member, for one process of one machine: data in dir,
// clients served on the given URLs, and a peer address that the system picks.
func Alone(name, dir string, clientURLs []string) (Config, error) {
	c := Defaults()
	urls, err := types.NewURLs(clientURLs)
	if err != nil {
		return Config{}, fmt.Errorf("client addresses %s: %w", strings.Join(clientURLs, ","), err)
	}
	c.Engine.Name, c.Engine.Dir = name, dir
	c.Engine.ListenClientUrls = urls
	c.Engine.ListenPeerUrls = mustURLs("http://127.0.0.1:0")
	return c, nil
}

func mustURLs(list string) types.URLs {
	return types.MustNewURLs(strings.Split(list, ","))
}

// hasPortZero tells whether the system is to pick one of the ports.
func hasPortZero(urls []url.URL) bool {
	for _, u := range urls {
		if u.Port() == "0" {
			return true
		}
	}
	return false
}

// advertised is where others can reach this member now: what the flags say, else
// the addresses bound.
func (m *Member) advertised(cfg *embed.Config) (clients, peers []url.URL, err error) {
	clients, peers = cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls
	if len(peers) == 0 {
		if peers, err = reachable("initial-advertise-peer-urls", m.peerURLs); err != nil {
			return nil, nil, err
		}
	}
	if len(clients) == 0 {
		clients, err = reachable("advertise-client-urls", m.clientURLs)
	}
	return clients, peers, err
}

// reachable puts the machine's own address in place of one that means "every
// address of this machine", which is none that others could use.
func reachable(flag string, bound []url.URL) ([]url.URL, error) {
	urls := slices.Clone(bound)
	for i, u := range urls {
		ip := net.ParseIP(u.Hostname())
		if ip == nil || !ip.IsUnspecified() {
			continue
		}
		host, err := netutil.GetDefaultHost()
		if err != nil {
			return nil, fault.Hint(fmt.Errorf("%s is no address that others could use, and the machine's own is not clear: %w", u.String(), err),
				"give --%s", flag)
		}
		urls[i].Host = net.JoinHostPort(host, u.Port())
	}
	return urls, nil
}

// aloneIn tells whether the initial cluster names no other member.
func aloneIn(initialCluster, name string) bool {
	for _, entry := range strings.Split(initialCluster, ",") {
		n, _, _ := strings.Cut(strings.TrimSpace(entry), "=")
		if n != "" && n != name {
			return false
		}
	}
	return true
}

// clusterOf is the initial cluster that consists of this member.
func clusterOf(name string, peers []url.URL) string {
	entries := make([]string, len(peers))
	for i, u := range peers {
		entries[i] = name + "=" + u.String()
	}
	return strings.Join(entries, ",")
}
