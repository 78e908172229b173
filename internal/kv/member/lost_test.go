package member

import (
	"errors"
	"slices"
	"testing"

	"flotilla/internal/fault"
)

func TestLostData(t *testing.T) {
	const text = "member 2fad77f7d0ede2c6 has already been bootstrapped"
	for _, test := range []struct {
		name         string
		cluster, dns string
		remove, then string // of the hints
	}{
		{
			name:    "static",
			cluster: "c=https://10.0.0.3:2380,a=https://10.0.0.1:2380,b=https://10.0.0.2:2380",
			remove:  "if it is lost, stop this one (systemctl stop etcd), then run on b or c: etcdctl member remove 2fad77f7d0ede2c6 && etcdctl member add a https://10.0.0.1:2380",
			then:    "then start this one with --initial-cluster-state existing and the --initial-cluster that 'member add' printed; etcd.service: ETCD_INITIAL_CLUSTER_STATE=existing and the ETCD_INITIAL_CLUSTER that 'member add' printed in /etc/default/etcd, then systemctl start etcd",
		},
		{
			name:   "by DNS",
			dns:    "cluster.example",
			remove: "if it is lost, stop this one (systemctl stop etcd), then run on another member: etcdctl member remove 2fad77f7d0ede2c6 && etcdctl member add a http://10.0.0.9:2380",
			then:   "then start this one with --initial-cluster-state existing; etcd.service: ETCD_INITIAL_CLUSTER_STATE=existing in /etc/default/etcd, then systemctl start etcd",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := *alone(t, "a", "/var/lib/etcd").Engine
			cfg.InitialCluster, cfg.DNSCluster, cfg.AdvertisePeerUrls = test.cluster, test.dns, mustURLs("http://10.0.0.9:2380")
			got := fault.Hints(lostData(errors.New("start: "+text), text, &cfg))
			want := []string{"the other members know this one, and /var/lib/etcd has no data of it: look for a disk that is not mounted, or another --data-dir", test.remove, test.then}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	if err := lostData(errors.New("x"), "member count is unequal", nil); err != nil {
		t.Error(err)
	}
}

// The engine says it in the words that are looked for.
func TestWipedMemberIsToldTheWayBack(t *testing.T) {
	cfgs := clusterConfigs(t, 2)
	first, ready1, _ := launch(t, cfgs[0])
	second, ready2, _ := launch(t, cfgs[1])
	<-ready1
	<-ready2
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	wiped := cfgs[1]
	wiped.Engine.Dir = t.TempDir()
	got := refused(t, wiped)
	wantParts(t, got, "has already been bootstrapped", "run on n1: etcdctl member remove ", "&& etcdctl member add n2 "+wiped.Engine.ListenPeerUrls[0].String())
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
}
