package member

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"flotilla/internal/kv/v2http"
)

// AddMember makes place for a member; its id is made from its addresses and the time.
func (i info) AddMember(ctx context.Context, peerURLs []string) (v2http.Member, error) {
	urls, err := types.NewURLs(peerURLs)
	if err != nil {
		return v2http.Member{}, err
	}
	now := time.Now()
	m := membership.NewMember("", urls, "", &now)
	err = persist(ctx, membership.ErrIDExists, func(ctx context.Context) error {
		_, err := i.s.AddMember(ctx, *m)
		return err
	})
	if err != nil {
		return v2http.Member{}, refusedBy(explained(err, notAdded))
	}
	return v2Member(m), nil
}

// UpdateMember changes the peer addresses that the cluster has on record.
func (i info) UpdateMember(ctx context.Context, id uint64, peerURLs []string) error {
	m := membership.Member{ID: types.ID(id), RaftAttributes: membership.RaftAttributes{PeerURLs: peerURLs}}
	err := persist(ctx, nil, func(ctx context.Context) error {
		_, err := i.s.UpdateMember(ctx, m)
		return err
	})
	return i.refusal(m.ID, explained(err, nil))
}

// RemoveMember ends a membership.
func (i info) RemoveMember(ctx context.Context, id uint64) error {
	err := persist(ctx, membership.ErrIDRemoved, func(ctx context.Context) error {
		_, err := i.s.RemoveMember(ctx, id)
		return err
	})
	return i.refusal(types.ID(id), explained(err, notRemoved))
}

// changeTimeout is how long one attempt at a change of the members may take.
const changeTimeout = time.Second

// persist tries a change of the members again that got lost: a leader that has not
// yet applied the change before drops the next one without a word. An attempt that
// timed out may have been carried out all the same; that it was is then told by done.
func persist(ctx context.Context, done error, change func(context.Context) error) error {
	for again := false; ; again = true {
		attempt, cancel := context.WithTimeout(ctx, changeTimeout)
		err := change(attempt)
		cancel()
		switch {
		case again && done != nil && errors.Is(err, done):
			return nil
		case !errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
			return err
		}
	}
}

// Why the engine's check (--strict-reconfig-check) refuses to add a member, or to remove one,
// and what to do. Connected is who has been so, with the member that is asked, for
// etcdserver.HealthInterval.
var (
	notAdded = map[error]string{
		etcderrors.ErrUnhealthy: "a new member counts as away, and with it fewer than a majority of the members have been connected for 5s: " +
			"right after a start try again in 5s; else remove the one that is away first ('etcdctl cluster-health' tells which)",
		etcderrors.ErrNotEnoughStartedMembers: "with one more that has yet to start, fewer than a majority of the members have started: " +
			"start the one that was added before, or remove it ('etcdctl member list' tells which)",
	}
	notRemoved = map[error]string{
		etcderrors.ErrUnhealthy: "without it, fewer than a majority of the members have been connected for 5s: " +
			"right after a start try again in 5s; else bring back the one that is away, or remove that first ('etcdctl cluster-health' tells which)",
		etcderrors.ErrNotEnoughStartedMembers: "without it, fewer than a majority of the members have started: " +
			"start the one that was added before, or remove that first ('etcdctl member list' tells which); the last one stays",
	}
)

// explained adds the reason to an error that has one.
func explained(err error, reasons map[error]string) error {
	for is, reason := range reasons {
		if errors.Is(err, is) {
			return &v2http.Refused{Err: err, Reason: reason}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, etcderrors.ErrTimeout) {
		return &v2http.Refused{Err: err, Reason: "no majority of the members has agreed in time, and may yet: see 'etcdctl member list' and 'etcdctl cluster-health' before another try"}
	}
	return err
}

// refusal is refusedBy for a change of a member that should be there. The engine
// checks that enough members would be left before it looks whether there is such a
// member at all; who asks wants to hear the latter.
func (i info) refusal(id types.ID, err error) error {
	if errors.Is(err, etcderrors.ErrNotEnoughStartedMembers) || errors.Is(err, etcderrors.ErrUnhealthy) {
		switch {
		case i.s.IsIDRemoved(uint64(id)):
			return v2http.ErrMemberRemoved
		case !i.s.IsMemberExist(id):
			return v2http.ErrNoMember
		}
	}
	return refusedBy(err)
}

// refusedBy is the v2 API's error for the engine's.
func refusedBy(err error) error {
	for theirs, ours := range map[error]error{
		membership.ErrIDExists:      v2http.ErrMemberExists,
		membership.ErrPeerURLexists: v2http.ErrPeerURLExists,
		membership.ErrIDRemoved:     v2http.ErrMemberRemoved,
		membership.ErrIDNotFound:    v2http.ErrNoMember,
	} {
		if errors.Is(err, theirs) {
			return ours
		}
	}
	return err
}

// SelfStats is what the engine counts of its traffic.
func (i info) SelfStats() v2http.SelfStats { return selfStats(i.s) }

// LeaderStats is what the engine counts of its followers, while it leads.
func (i info) LeaderStats() (v2http.LeaderStats, bool) {
	if i.s.Leader() != i.s.MemberID() {
		return v2http.LeaderStats{}, false
	}
	return leaderStats(i.s), true
}
