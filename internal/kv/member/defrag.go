package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// The engine's file never gets smaller by itself: what compaction frees is used again,
// but not given back. To give it back the engine copies what is in use into a new
// file, and applies nothing meanwhile. So a member does that by itself only when it
// is worth it, takes so little time that its own clients see a slow answer at most,
// and all members are there to go on; one member at a time, the leader last.
//
// The leader keeps its office: it goes on sending heartbeats and deciding what is
// written while its file is copied, so other members' clients notice nothing, whereas
// a change of leaders drops what is written at that moment.

// defragLock is the key under which one member at a time has its turn. It is below
// the v2 view's records, in the way of nobody.
const defragLock = ".v2/defragment"

// defragTTL is for how long a member that died in its turn keeps the others from theirs.
const defragTTL = 60 * time.Second

// defragRules is when to defragment. The zero value is never.
type defragRules struct {
	every time.Duration // between two looks
	least int64         // bytes of the file below which it is not worth it
	most  int64         // bytes in use above which it would take too long
	calm  float64       // changes in a second that are no haste
	// patience is how long a file may wait for a calm moment, and the leader for
	// each of the others.
	patience, turn time.Duration
}

// ownDefrag: to copy 96 MiB took 1.0 to 1.6 s on two cores with other work
// (BenchmarkDefrag), so that 64 MiB are within the 2 s that etcdctl gives a request.
var ownDefrag = defragRules{
	every: 30 * time.Second, least: 64 << 20, most: 64 << 20, calm: 50,
	patience: time.Hour, turn: time.Minute,
}

// startDefrag is how much, in MiB, a copy has to free for a member to make it before
// it starts, however long that takes: nobody is served yet.
const startDefrag = 64

// fileState is what is to be known about the engine's file, and what is around it.
type fileState struct {
	size, inUse int64         // bytes
	free        uint64        // bytes on the disk
	rate        float64       // changes in a second, lately
	due         time.Duration // for how long it has been worth it

	members, reachable int
	leads              bool
}

// worth reports whether more than half of the file is free.
func (r defragRules) worth(s fileState) bool {
	return r.every > 0 && s.size >= r.least && s.inUse < s.size/2
}

// decide says whether to defragment now; if not, why not, "" if there is no need to.
func (r defragRules) decide(s fileState) (now bool, why string) {
	switch {
	case !r.worth(s):
		return false, ""
	case s.inUse > r.most:
		return false, fmt.Sprintf("%s are in use, and to copy more than %s takes too long to go unnoticed", mib(uint64(s.inUse)), mib(uint64(r.most)))
	case s.free < uint64(s.inUse)+enoughRoom:
		return false, fmt.Sprintf("there is no room for a copy: %s free", mib(s.free))
	case s.reachable < s.members:
		return false, fmt.Sprintf("%d of %d members are reachable", s.reachable, s.members)
	case s.rate > r.calm && s.due < r.patience:
		return false, fmt.Sprintf("%.0f changes in a second", s.rate)
	case s.leads && s.due < time.Duration(s.members-1)*r.turn:
		return false, "the others come first, this member leads"
	}
	return true, ""
}

// defrag keeps the engine's file small.
type defrag struct {
	m     *Member
	e     *embed.Etcd
	rules defragRules

	revision int64 // at the last look, and when that was
	looked   time.Time
	since    time.Time // it has been worth it; zero: it is not
	why      string    // as last told
}

// keepSmall looks at the file until ctx is done. A copy that is under way is
// finished first.
func (m *Member) keepSmall(ctx context.Context, e *embed.Etcd) {
	if m.defrag.every == 0 {
		return
	}
	d := defrag{m: m, e: e, rules: m.defrag, revision: e.Server.KV().Rev(), looked: time.Now()}
	tick := time.NewTicker(d.rules.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		d.look(ctx, time.Now())
	}
}

// look decides, and does what was decided.
func (d *defrag) look(ctx context.Context, now time.Time) {
	s := d.state(ctx, now)
	do, why := d.rules.decide(s)
	if !do {
		d.tell(why)
		return
	}
	err := d.inTurn(ctx, s.members, d.run)
	switch {
	case errors.Is(err, concurrency.ErrLocked):
		d.tell("another member has its turn")
	case err != nil && ctx.Err() == nil:
		d.m.log.Warn("the store's file could not be made smaller", "err", err)
	}
}

// state looks at everything that counts; at the other members only if need be.
func (d *defrag) state(ctx context.Context, now time.Time) fileState {
	b, revision := d.e.Server.Backend(), d.e.Server.KV().Rev()
	s := fileState{size: b.Size(), inUse: b.SizeInUse(), members: 1, reachable: 1, leads: d.e.Server.Leader() == d.e.Server.MemberID()}
	s.rate = float64(revision-d.revision) / now.Sub(d.looked).Seconds()
	d.revision, d.looked = revision, now
	if !d.rules.worth(s) {
		d.since = time.Time{}
		return s
	}
	if d.since.IsZero() {
		d.since = now
	}
	s.due = now.Sub(d.since)
	if free, err := freeBytes(d.e.Config().Dir); err == nil {
		s.free = free
	}
	s.members, s.reachable = d.m.scout.count(ctx)
	return s
}

// tell says why the file stays as it is, once for each reason.
func (d *defrag) tell(why string) {
	if why != "" && why != d.why {
		d.m.log.Debug("the store's file is not made smaller yet", "because", why)
	}
	d.why = why
}

// inTurn does something while no other member does it.
func (d *defrag) inTurn(ctx context.Context, members int, do func() error) error {
	if members == 1 {
		return do()
	}
	client := v3client.New(d.e.Server)
	defer client.Close()
	ctx, cancel := context.WithTimeout(d.e.Server.AuthStore().WithRoot(ctx), defragTTL)
	defer cancel()
	lease, err := client.Grant(ctx, int64(defragTTL/time.Second))
	if err != nil {
		return fmt.Errorf("ask for a lease: %w", err)
	}
	defer d.giveBack(ctx, client, lease.ID)
	session, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask for a turn: %w", err)
	}
	defer session.Orphan()
	if err := concurrency.NewMutex(session, defragLock).TryLock(ctx); err != nil {
		return fmt.Errorf("ask for a turn: %w", err)
	}
	return do()
}

// giveBack ends the turn, also when the member is about to stop.
func (d *defrag) giveBack(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := client.Revoke(ctx, lease); err != nil {
		d.m.log.Debug("the turn ends by itself", "after", defragTTL, "err", err)
	}
}

// run defragments. It cannot be interrupted.
func (d *defrag) run() error {
	b, began := d.e.Server.Backend(), time.Now()
	before := b.Size()
	if err := b.Defrag(); err != nil {
		return fmt.Errorf("copy what is in use of it: %w", err)
	}
	d.m.log.Info("the store's file was made smaller", "before", mib(uint64(before)), "after", mib(uint64(b.Size())), "took", time.Since(began).Round(time.Millisecond))
	return nil
}
