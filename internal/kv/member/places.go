package member

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"flotilla/internal/kv/whereabouts"
)

// writePlaces writes addresses of members into the record of a stopped engine. Who
// is a member, and who votes, stays as it is. What it writes is this member's own
// view: the record that all share changes when each member announces itself.
func writePlaces(cfg *embed.Config, places map[whereabouts.ID][]string) error {
	lg := cfg.GetLogger()
	be := backend.NewDefaultBackend(lg, dbPath(cfg.Dir))
	defer be.Close()
	store := schema.NewMembershipBackend(lg, be)
	members, _ := store.MustReadMembersFromBackend()
	for id, urls := range places {
		m := members[types.ID(id)]
		if m == nil {
			return fmt.Errorf("write down where member %s is: it is no member", id)
		}
		m.PeerURLs = urls
		store.MustSaveMemberToBackend(m)
	}
	be.ForceCommit()
	index, term := schema.ReadConsistentIndex(be.ReadTx())
	return skipOldPlaces(lg, walDir(cfg.Dir, cfg.WalDir), &walpb.Snapshot{
		Index: proto.Uint64(index), Term: proto.Uint64(term), ConfState: confState(slices.Collect(maps.Values(members))),
	})
}

func confState(members []*membership.Member) *raftpb.ConfState {
	var cs raftpb.ConfState
	for _, m := range members {
		if m.IsLearner {
			cs.Learners = append(cs.Learners, uint64(m.ID))
		} else {
			cs.Voters = append(cs.Voters, uint64(m.ID))
		}
	}
	slices.Sort(cs.Voters)
	slices.Sort(cs.Learners)
	return &cs
}

// skipOldPlaces keeps the engine from going back to an address of before. When it
// starts it goes through its log from the last snapshot on, and each address that a
// change of members in it names counts anew, though it was applied long ago. With a snapshot noted
// at what the database has applied, it starts from there. Nothing is lost by that:
// whoever lacks an entry from before is sent a snapshot.
func skipOldPlaces(lg *zap.Logger, dir string, applied *walpb.Snapshot) error {
	snaps, err := wal.ValidSnapshotEntries(lg, dir)
	if err != nil {
		return fmt.Errorf("read the log %s: %w", dir, err)
	}
	last := &walpb.Snapshot{}
	if len(snaps) > 0 {
		last = snaps[len(snaps)-1]
	}
	w, err := wal.Open(lg, dir, last)
	if err != nil {
		return fmt.Errorf("open the log %s: %w", dir, err)
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	if err != nil {
		return fmt.Errorf("read the log %s: %w", dir, err)
	}
	if applied.GetIndex() <= last.GetIndex() || !namesPlaces(entries, applied.GetIndex()) {
		return nil
	}
	// A snapshot beyond what is committed would count for nothing.
	if err := w.Save(reached(state, applied), nil); err != nil {
		return fmt.Errorf("note in the log %s what is committed: %w", dir, err)
	}
	if err := w.SaveSnapshot(applied); err != nil {
		return fmt.Errorf("note in the log %s what is applied: %w", dir, err)
	}
	return nil
}

// reached is the state of a log whose member has applied its entries up to a
// snapshot. Only what is committed is applied, but the log says so with its next
// entry, and the database every tenth of a second: after a power cut the database
// may be ahead. A vote counts in its own term alone.
func reached(state *raftpb.HardState, applied *walpb.Snapshot) *raftpb.HardState {
	at := &raftpb.HardState{Term: new(state.GetTerm()), Vote: new(state.GetVote()), Commit: new(max(state.GetCommit(), applied.GetIndex()))}
	if state.GetTerm() < applied.GetTerm() {
		at.Term, at.Vote = new(applied.GetTerm()), new(uint64(0))
	}
	return at
}

// namesPlaces tells whether the entries up to an index say where a member is.
func namesPlaces(entries []*raftpb.Entry, upTo uint64) bool {
	return slices.ContainsFunc(entries, func(e *raftpb.Entry) bool {
		var cc raftpb.ConfChange
		return e.GetIndex() <= upTo && e.GetType() == raftpb.EntryConfChange &&
			proto.Unmarshal(e.GetData(), &cc) == nil && cc.GetType() != raftpb.ConfChangeRemoveNode
	})
}
