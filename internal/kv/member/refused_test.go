package member

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"flotilla/internal/kv/v2http"
)

// Who is refused a change of the members is told what is true of the cluster then, and what
// to do.
func TestExplained(t *testing.T) {
	for _, test := range []struct {
		err     error
		reasons map[error]string
		want    []string // none: it is told as it is
	}{
		{etcderrors.ErrUnhealthy, notRemoved, []string{"connected for 5s", "right after a start try again in 5s", "cluster-health"}},
		{etcderrors.ErrUnhealthy, notAdded, []string{"connected for 5s", "right after a start try again in 5s", "cluster-health"}},
		{etcderrors.ErrNotEnoughStartedMembers, notRemoved, []string{"have started", "start the one that was added before", "member list"}},
		{etcderrors.ErrNotEnoughStartedMembers, notAdded, []string{"have started", "start the one that was added before", "member list"}},
		{fmt.Errorf("change: %w", context.DeadlineExceeded), nil, []string{"no majority", "member list"}},
		{etcderrors.ErrStopped, notAdded, nil},
		{nil, notAdded, nil},
	} {
		got := explained(test.err, test.reasons)
		if !errors.Is(got, test.err) {
			t.Errorf("%v became %v", test.err, got)
		}
		why, ok := errors.AsType[*v2http.Refused](got)
		if ok != (test.want != nil) {
			t.Errorf("%v has a reason: %t", test.err, ok)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(why.Reason, want) {
				t.Errorf("%v is not explained by %q: %s", test.err, want, why.Reason)
			}
		}
	}
}
