package mvcc

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"flotilla/internal/kv/v2"
)

const (
	// idleTick is how often a gateway looks whether it has become the active
	// one, and whether keys of the former one have expired.
	idleTick = 500 * time.Millisecond
	// quietTick is the same while there are neither keys that expire nor stale records.
	quietTick = 2 * time.Second
	// markTick is how often the store's revision is noted for compaction.
	markTick = time.Minute
	// sweepMost bounds the stale records that are removed in one tick.
	sweepMost = 64
)

// keepHouse expires keys, removes stale records and compacts the history while
// this gateway is the active one.
func (s *Store) keepHouse(ctx context.Context) {
	h := house{s: s}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.expiry:
		}
		if s.cfg.Active() {
			h.expire(ctx)
			h.tick(ctx)
		}
		timer.Reset(s.untilNext())
	}
}

// untilNext is how long nothing is due.
func (s *Store) untilNext() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tree == nil {
		return idleTick
	}
	at, expires := s.tree.NextExpiry()
	_, stale := s.tree.Sweep()
	if !expires && !stale {
		return quietTick
	}
	if !expires || !s.cfg.Active() {
		return idleTick
	}
	// A due key that is still there has just failed to expire: do not spin.
	return min(max(at.Sub(s.cfg.Now()), 10*time.Millisecond), idleTick)
}

// house is what keeping house remembers.
type house struct {
	s         *Store
	ticked    time.Time
	marks     []v2.Mark
	compacted uint64
	failing   bool
}

// expire removes the keys whose time has come, one transaction each, in order.
func (h *house) expire(ctx context.Context) {
	for ctx.Err() == nil {
		plan, ok := h.s.planned(func(t *v2.Tree) (v2.Plan, bool) { return t.Expire(h.s.cfg.Now()) })
		if !ok || !h.carryOut(ctx, "expire", plan) {
			return
		}
	}
}

// planned asks the tree for work.
func (s *Store) planned(plan func(*v2.Tree) (v2.Plan, bool)) (v2.Plan, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tree == nil {
		return v2.Plan{}, false
	}
	return plan(s.tree)
}

// carryOut runs a plan and waits for its result, lost guard or not. A failure is
// told once until something succeeds.
func (h *house) carryOut(ctx context.Context, what string, plan v2.Plan) bool {
	ctx, cancel := context.WithTimeout(ctx, h.s.cfg.Timeout)
	defer cancel()
	_, _, err := h.s.commit(h.s.trusted(ctx), plan)
	h.report(ctx, what, err)
	return err == nil
}

func (h *house) report(ctx context.Context, what string, err error) {
	switch {
	case err == nil && h.failing:
		h.s.cfg.Log.Info("housekeeping works again", "what", what)
		h.failing = false
	case err != nil && !h.failing && ctx.Err() != context.Canceled:
		h.s.cfg.Log.Warn("housekeeping failed; it is tried again", "what", what, "err", err)
		h.failing = true
	}
}

// tick does what need not be done at once.
func (h *house) tick(ctx context.Context) {
	now := h.s.cfg.Now()
	if now.Sub(h.ticked) < idleTick {
		return
	}
	h.ticked = now
	for range sweepMost {
		plan, ok := h.s.planned((*v2.Tree).Sweep)
		if !ok || !h.carryOut(ctx, "remove stale record", plan) {
			break
		}
	}
	if !h.s.cfg.KeepHistory {
		h.compact(ctx, now)
	}
}

// compact forgets the history that nobody can claim any more.
func (h *house) compact(ctx context.Context, now time.Time) {
	if n := len(h.marks); n > 0 && now.Sub(h.marks[n-1].At) < markTick {
		return
	}
	h.marks = append(h.marks, v2.Mark{At: now, Revision: h.s.Index()})
	keep := v2.DefaultRetention
	for len(h.marks) > 2 && now.Sub(h.marks[1].At) >= keep.Age {
		h.marks = h.marks[1:]
	}
	to := keep.CompactTo(h.marks)
	if to <= h.compacted {
		return
	}
	_, err := h.s.cfg.Client.Compact(h.s.trusted(ctx), int64(to))
	if errors.Is(err, rpctypes.ErrCompacted) { // by the one that was active before
		err = nil
	}
	h.report(ctx, "compact history", err)
	if err == nil {
		h.compacted = to
	}
}
