package up

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flotilla/internal/fleet/fleetd"
)

// restartAfter is the pause before a daemon that has ended is started again, as in
// fleet.service.
const restartAfter = time.Second

// launchLimit is how long a supervisor may take to start.
const launchLimit = 10 * time.Second

// The daemons of a machine, by what people are told of them.
const (
	supervisorDaemon = "supervisor"
	fleetDaemon      = "fleetd"
)

// faults is what is wrong with a machine that is on. The zero value is nothing.
type faults struct {
	mu     sync.Mutex
	daemon map[string]error // why it does not run
}

// set says why a daemon does not run, nil if it does, and tells whether that is news.
func (f *faults) set(daemon string, err error) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.daemon[daemon]
	if f.daemon == nil {
		f.daemon = map[string]error{}
	}
	f.daemon[daemon] = err
	return (before == nil) != (err == nil) || err != nil && before.Error() != err.Error()
}

// err is everything that is wrong, nil if nothing is.
func (f *faults) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.daemon[supervisorDaemon], f.daemon[fleetDaemon])
}

// keep has the daemons of a machine run until ctx is done. What became of fleetd's first
// start goes to first, which takes one.
func (h *hosts) keep(ctx context.Context, m *host, first chan<- error) {
	var both sync.WaitGroup
	both.Go(func() { h.keepFleetd(ctx, m, first) })
	if m.init.ended != nil {
		both.Go(func() { h.keepInit(ctx, m) })
	}
	both.Wait()
	m.faults.set(supervisorDaemon, nil)
	m.faults.set(fleetDaemon, nil)
}

func (h *hosts) keepFleetd(ctx context.Context, m *host, first chan<- error) {
	for {
		daemon := fleetd.New(h.fleetConfig(m), fleetd.Deps{
			Manager: m.init.manager, Log: m.init.log, Epoch: m.init.epoch, Logger: h.log.With("part", "fleet", "machine", m.name),
		})
		err := daemon.Run(ctx, func() {
			h.note(m, fleetDaemon, nil)
			offer(first, nil)
		})
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("fleetd ended: %w", err)
		h.note(m, fleetDaemon, err)
		offer(first, err)
		if !pause(ctx, restartAfter) {
			return
		}
	}
}

// keepInit starts the machine's supervisor again when it has ended: the new one adopts the
// units that still run.
func (h *hosts) keepInit(ctx context.Context, m *host) {
	for {
		err := m.init.ended(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // it runs, and does not answer
			h.note(m, supervisorDaemon, err)
		} else {
			h.note(m, supervisorDaemon, errors.New("its supervisor has ended"))
			err = h.launchInit(ctx, m)
		}
		if err != nil && !pause(ctx, restartAfter) {
			return
		}
	}
}

// launchInit starts the supervisor until it runs. The error is that ctx is done.
func (h *hosts) launchInit(ctx context.Context, m *host) error {
	for {
		// Not ctx: whoever cuts the power is to find a supervisor or none, not one that is
		// about to be.
		launch, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchLimit)
		err := m.init.again(launch)
		cancel()
		if err != nil {
			err = fmt.Errorf("its supervisor has ended, and does not start: %w", err)
		}
		h.note(m, supervisorDaemon, err)
		if err == nil || !pause(ctx, restartAfter) {
			return err
		}
	}
}

// note keeps why a daemon does not run, nil if it does, and tells people once.
func (h *hosts) note(m *host, daemon string, err error) {
	switch news := m.faults.set(daemon, err); {
	case !news:
	case err != nil:
		h.log.Error("machine has failed, trying again", "machine", m.name, "err", err)
	default:
		h.log.Warn("machine is well again", "machine", m.name, "daemon", daemon)
	}
}

// offer sends to a channel that takes one value, unless it has had it.
func offer(c chan<- error, err error) {
	select {
	case c <- err:
	default:
	}
}

// pause waits; false: ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
