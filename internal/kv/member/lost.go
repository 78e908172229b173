package member

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/fault"
)

// bootstrapped is the engine's refusal to found a cluster anew in which the others say
// that this member has been: its data is gone, or elsewhere.
var bootstrapped = regexp.MustCompile(`\bmember ([0-9a-f]+) has already been bootstrapped`)

// lostData adds to that refusal how the member comes back; nil if err is another one.
//
// The member has to be stopped first: it is started again each second, and as soon as
// it is removed nothing keeps it from founding itself under the id that was removed.
func lostData(err error, text string, cfg *embed.Config) error {
	m := bootstrapped.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	urls, others := founders(cfg)
	again := "--initial-cluster-state existing"
	file := "ETCD_INITIAL_CLUSTER_STATE=existing"
	if cfg.DNSCluster == "" {
		again += " and the --initial-cluster that 'member add' printed"
		file += " and the ETCD_INITIAL_CLUSTER that 'member add' printed"
	}
	err = fault.Hint(err, "then start this one with %s; etcd.service: %s in /etc/default/etcd, then systemctl start etcd", again, file)
	err = fault.Hint(err, "if it is lost, stop this one (systemctl stop etcd), then run on %s: etcdctl member remove %s && etcdctl member add %s %s",
		others, m[1], cfg.Name, urls)
	return fault.Hint(err, "the other members know this one, and %s has no data of it: look for a disk that is not mounted, or another --data-dir", cfg.Dir)
}

// founders is this member's first address and who else there is, as far as the
// configuration says.
func founders(cfg *embed.Config) (own, others string) {
	all, err := types.NewURLsMap(cfg.InitialCluster)
	if err != nil {
		all = nil // none is given: they are found by DNS
	}
	urls := all[cfg.Name].StringSlice()
	if len(urls) == 0 {
		urls = types.URLs(cfg.AdvertisePeerUrls).StringSlice()
	}
	delete(all, cfg.Name)
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return cmp.Or(strings.Join(urls[:min(1, len(urls))], ""), "PEER-URL"), cmp.Or(strings.Join(names, " or "), "another member")
}
