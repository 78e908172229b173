package machines

import "testing"

// Only what is the machine's own changes, and only whole addresses.
func TestWithOwn(t *testing.T) {
	const before = `ETCD_LISTEN_PEER_URLS=https://10.10.1.1:2380
ETCD_INITIAL_CLUSTER=m1=https://10.10.1.1:2380,m10=https://10.10.1.10:2380
ETCD_ADVERTISE_CLIENT_URLS=https://10.10.1.1:2379,https://10.10.1.10:2379
public_ip=10.10.1.1
`
	const want = `ETCD_LISTEN_PEER_URLS=https://10.10.1.101:2380
ETCD_INITIAL_CLUSTER=m1=https://10.10.1.1:2380,m10=https://10.10.1.10:2380
ETCD_ADVERTISE_CLIENT_URLS=https://10.10.1.101:2379,https://10.10.1.10:2379
public_ip=10.10.1.101
`
	if got := withOwn(before, "10.10.1.1", other("10.10.1.1")); got != want {
		t.Errorf("rewritten:\n%s", got)
	}
	if back := other(other("10.10.1.7")); back != "10.10.1.7" {
		t.Errorf("twice another address is %s", back)
	}
}
