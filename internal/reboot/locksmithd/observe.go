package locksmithd

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"flotilla/internal/reboot/fleetlock"
	"flotilla/internal/reboot/sema"
)

// observe looks whether the others that hold the lock live, until ctx is done. Every
// machine does, by its own clock; who finds one dead first says so.
func (d *Daemon) observe(ctx context.Context, started func()) error {
	started()
	eye := sema.Observer{Timeout: d.cfg.HolderTimeout}
	w := warden{machine: d.cfg.MachineID, now: d.now, log: d.log}
	return each(ctx, sema.RefreshEvery, func() {
		if d.others.Load() {
			w.look(ctx, d.deps.Lock, &eye)
		}
	})
}

// each calls do again and again until ctx is done.
func each(ctx context.Context, every time.Duration, do func()) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			do()
		}
	}
}

// warden finds the dead among those who hold a lock, and says so in it.
type warden struct {
	machine string // its own, which it does not judge
	now     func() time.Duration
	log     *slog.Logger
}

// look looks at a lock once. A store that is away is no news: who asks it for the lock
// says so.
func (w warden) look(ctx context.Context, l fleetlock.Locker, eye *sema.Observer) {
	state, err := l.Read(ctx)
	if err != nil {
		return
	}
	for _, dead := range eye.Look(state.Semaphore, state.Index, w.now()) {
		if dead.Machine == w.machine {
			continue
		}
		why, at := lostText(dead, state.Details[dead.Machine]), time.Now().UTC().Truncate(time.Second)
		_, err := l.Change(ctx, func(s sema.Semaphore) (sema.Semaphore, error) {
			return s.Lose(dead.Machine, dead.Mark, why, at)
		})
		switch {
		case err == nil:
			w.log.Error("a machine that holds the lock is lost", "machine", dead.Machine, "why", why)
		case !errors.Is(err, sema.ErrChanged) && !errors.Is(err, sema.ErrNotHolder) && ctx.Err() == nil:
			w.log.Warn("a machine that is lost is not noted", "machine", dead.Machine, "err", err)
		}
	}
}

// locks is all locks of a store.
type locks struct {
	open   func(group string) (fleetlock.Locker, error)
	groups func(ctx context.Context) ([]string, error)
}

// observeGroups is observe for the clients of FleetLock, who are in any group, also in
// those that no machine of ours is in: nobody else may be looking after these. Of the
// group that the daemon itself looks after, if it does, it leaves the lock alone.
func (w warden) observeGroups(ctx context.Context, all locks, timeout time.Duration, but func(group string) bool) error {
	eyes := map[string]*sema.Observer{}
	return each(ctx, sema.RefreshEvery, func() {
		groups, err := all.groups(ctx)
		if err != nil {
			return
		}
		for _, group := range append(groups, "") {
			l, err := all.open(group)
			if err != nil || but(group) {
				continue
			}
			if eyes[group] == nil {
				eyes[group] = &sema.Observer{Timeout: timeout}
			}
			w.look(ctx, l, eyes[group])
		}
	})
}
