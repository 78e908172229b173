package etcdctl

import (
	"strings"
	"testing"

	"flotilla/internal/kv/backup"
)

func TestOwnerHint(t *testing.T) {
	for _, test := range []struct {
		name string
		uid  int
		made backup.Dir
		want string // the command; "" for no hint
	}{
		{"root", 0, backup.Dir{Data: "b"}, ": chown -R etcd: b"},
		{"root, with a log elsewhere", 0, backup.Dir{Data: "b", WAL: "w"}, ": chown -R etcd: b w"},
		{"somebody", 1000, backup.Dir{Data: "b"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ownerHint(test.uid, test.made); !strings.HasSuffix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
