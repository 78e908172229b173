package holder

import (
	"net/netip"
	"strings"
	"testing"
)

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1111 1 0000000000000000 100 0 0 10 0
   1: 0100007F:094C 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 2222 1 0000000000000000 100 0 0 10 0
   2: 00000000:0FA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3333 1 0000000000000000 100 0 0 10 0
   3: broken
   4: 0000000000000000FFFF00000100007F:0FA2 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4444 1
`

func TestListenerInode(t *testing.T) {
	for _, test := range []struct {
		at   string
		want string
	}{
		{"127.0.0.1:2379", "1111"},
		{"127.0.0.2:2379", ""},     // another address
		{"0.0.0.0:2379", "1111"},   // we want all addresses, one is taken
		{"127.0.0.1:2380", ""},     // a connection, no listener
		{"127.0.0.1:4001", "3333"}, // taken on all addresses
		{"127.0.0.1:4002", "4444"}, // an IPv4 address in the IPv6 table
	} {
		at := netip.MustParseAddrPort(test.at)
		if got := listenerInode(strings.NewReader(tcpTable), at.Addr(), at.Port()); got != test.want {
			t.Errorf("%s: inode %q, want %q", test.at, got, test.want)
		}
	}
}

func TestLockPID(t *testing.T) {
	const table = `1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF
2: FLOCK  ADVISORY  WRITE 22 08:01:78 0 EOF
2: -> FLOCK  ADVISORY  WRITE 33 08:01:78 0 EOF
`
	for inode, want := range map[uint64]int{77: 11, 78: 22, 7: 0} {
		if got := lockPID(strings.NewReader(table), inode); got != want {
			t.Errorf("inode %d: process %d, want %d", inode, got, want)
		}
	}
}

func FuzzProcAddr(f *testing.F) {
	f.Add("0100007F:094B")
	f.Add("0000000000000000FFFF00000100007F:0FA2")
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := parseProcAddr(s); ok && !a.IsValid() {
			t.Errorf("%q: %v is not valid", s, a)
		}
	})
}
