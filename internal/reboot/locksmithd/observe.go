package locksmithd

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/reboot/sema"
)

// observe looks whether the others that hold the lock live, until ctx is done. Every
// machine does, by its own clock; who finds one dead first says so.
func (d *Daemon) observe(ctx context.Context, started func()) error {
	started()
	eye := sema.Observer{Timeout: d.cfg.HolderTimeout}
	tick := time.NewTicker(sema.RefreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if d.others.Load() {
			d.lookAtOthers(ctx, &eye)
		}
	}
}

func (d *Daemon) lookAtOthers(ctx context.Context, eye *sema.Observer) {
	state, err := d.deps.Lock.Read(ctx)
	if err != nil {
		return // the loop says that the store is away
	}
	for _, dead := range eye.Look(state.Semaphore, state.Index, d.now()) {
		if dead.Machine == d.cfg.MachineID {
			continue
		}
		why, at := lostText(dead), time.Now().UTC().Truncate(time.Second)
		_, err := d.deps.Lock.Change(ctx, func(l sema.Semaphore) (sema.Semaphore, error) {
			return l.Lose(dead.Machine, dead.Mark, why, at)
		})
		switch {
		case err == nil:
			d.log.Error("a machine that holds the lock is lost", "machine", dead.Machine, "why", why)
		case !errors.Is(err, sema.ErrChanged) && !errors.Is(err, sema.ErrNotHolder) && ctx.Err() == nil:
			d.log.Warn("a machine that is lost is not noted", "machine", dead.Machine, "err", err)
		}
	}
}
