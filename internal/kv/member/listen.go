package member

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"

	"flotilla/internal/fault"
)

// explainStart adds what to try to the failures of a start that have a usual
// cause.
func explainStart(err error, cfg *embed.Config) error {
	if len(fault.Hints(err)) > 0 {
		return err
	}
	text := err.Error()
	err = fmt.Errorf("start the engine on %s: %w", cfg.Dir, err)
	if bad := damaged(err, text, cfg.Name); bad != nil {
		return bad
	}
	if lost := lostData(err, text, cfg); lost != nil {
		return lost
	}
	switch {
	case strings.Contains(text, "querying DNS SRV records"):
		return fault.Hint(err, "--discovery-srv needs records _etcd-server-ssl._tcp.%s or _etcd-server._tcp.%[1]s that name every member", cfg.DNSCluster)
	case strings.Contains(text, "invalid auth options"):
		return fault.Hint(err, "--auth-token is simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256 and the like")
	case strings.Contains(text, "could not retrieve cluster information"):
		return fault.Hint(err, "with --initial-cluster-state existing, --initial-cluster lists members that run, and one of them has to be reached; to found a cluster leave it out")
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
	slices.Sort(names)
	return names
}
