package agent

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// herald says in the store that the machine is there and how its units are. It
// writes what has changed and nothing else.
type herald struct {
	news chan struct{} // holds one token when there is something to write

	mu       sync.Mutex
	presence registry.Presence
	renewed  bool // presence has changed since it was written
	current  map[string]model.UnitState
	problem  error
	claims   claims
}

func newHerald(p registry.Presence) herald {
	return herald{news: make(chan struct{}, 1), presence: p,
		claims: claims{asked: map[string]claim{}, held: map[string]model.UnitState{}}}
}

// announce sets what is to be published of the units.
func (h *herald) announce(states map[string]model.UnitState) {
	h.mu.Lock()
	same := maps.Equal(h.current, states)
	h.current = states
	h.mu.Unlock()
	if !same {
		h.poke()
	}
}

// Update changes what the machine says of itself: metadata or address.
func (h *herald) Update(change func(*registry.Presence)) {
	h.mu.Lock()
	change(&h.presence)
	h.renewed = true
	h.mu.Unlock()
	h.poke()
}

// Problem is why this machine takes no part in the cluster; nil if it does, or
// the store is away.
func (h *herald) Problem() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

func (h *herald) setProblem(err error) (fresh bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh = (h.problem == nil) != (err == nil)
	h.problem = err
	return fresh
}

func (h *herald) poke() {
	select {
	case h.news <- struct{}{}:
	default:
	}
}

func (h *herald) snapshot() (registry.Presence, map[string]model.UnitState, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	renewed := h.renewed
	h.renewed = false
	return h.presence, h.overlaid(), renewed
}

// attend keeps the machine present until ctx is done. Whoever joined under our id
// while we were joined is left the field: yieldTo is that daemon's boot token.
func (a *Agent) attend(ctx context.Context) {
	yieldTo := ""
	a.store.Hold(ctx, a.cfg.TTL, false, func(ctx context.Context, lease registry.Lease) {
		if !a.join(ctx, lease, yieldTo) {
			return
		}
		a.fence.joined(lease.Pulse)
		defer a.fence.joined(nil)
		ctx, leave := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer leave()
		a.session.begin(ctx, lease)
		wg.Go(func() {
			defer leave()
			other, err := a.store.Displaced(ctx, lease, a.cfg.Presence.ID)
			if err == nil && other != nil && other.Boot != a.cfg.Presence.Boot {
				yieldTo = other.Boot
			}
		})
		wg.Go(func() {
			a.store.Follow(ctx, registry.ScheduleOf(a.cfg.Presence.ID), a.schedule, func([]registry.Change, bool) {
				a.inbox.scheduleChanged()
			})
		})
		a.publish(ctx, lease)
	})
}

// join publishes the presence, trying until ctx is done.
func (a *Agent) join(ctx context.Context, lease registry.Lease, yieldTo string) bool {
	retry := registry.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		presence, _, _ := a.snapshot()
		err := a.store.Join(ctx, lease, presence, yieldTo)
		if err == nil {
			if a.setProblem(nil) {
				a.log.Info("machine id is free, taking part")
			}
			a.log.Debug("joined", "machine", presence.ID)
			return true
		}
		var taken *registry.TakenError
		if errors.As(err, &taken) && a.setProblem(taken) {
			a.log.Error("this machine takes no part in the cluster", "err", taken, "hint", "give one of the two another /etc/machine-id ('systemd-machine-id-setup' after removing it) and restart fleetd")
		}
		retry.Wait(ctx)
	}
	return false
}

// publish writes states until the lease is lost.
func (a *Agent) publish(ctx context.Context, lease registry.Lease) {
	written := map[string]model.UnitState{}
	retry := registry.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for {
		var claimErr error
		written, claimErr = a.askClaims(ctx, lease, written)
		presence, states, renewed := a.snapshot()
		if renewed {
			if err := a.store.Join(ctx, lease, presence, ""); err != nil {
				a.log.Debug("machine's record not renewed yet", "err", err)
				a.Update(func(*registry.Presence) {}) // again, beside the states
				retry.Wait(ctx)
			}
		}
		put, remove := difference(written, states)
		err := a.store.Publish(ctx, lease, presence.ID, put, remove)
		if err == nil {
			written, err = states, claimErr
		}
		switch {
		case errors.Is(err, registry.ErrLeaseLost):
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			retry.Wait(ctx)
			continue
		}
		retry.Reset()
		select {
		case <-ctx.Done():
			return
		case <-a.news:
		}
	}
}

// difference is what to write and what to remove to get from one to the other.
func difference(from, to map[string]model.UnitState) (put []model.UnitState, remove []string) {
	for _, s := range sortedValues(to) {
		if old, ok := from[s.Unit]; !ok || old != s {
			put = append(put, s)
		}
	}
	for _, s := range sortedValues(from) {
		if _, ok := to[s.Unit]; !ok {
			remove = append(remove, s.Unit)
		}
	}
	return put, remove
}
