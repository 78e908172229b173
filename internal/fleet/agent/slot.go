package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/fleet/registry"
	"flotilla/internal/unitfile"
)

// A global unit with MaxRunning= runs on so many machines at a time, whoever starts
// it: a timer mostly, on all machines at once. Each start waits for one of so many
// slots in the store.
//
// It waits in an ExecCondition= that the agent adds to the unit, which does nothing
// but wait for a file and take it away. The agent sees the unit in that state, takes
// a slot, and writes the file; it gives the slot back when the unit is at rest. So
// nothing has to be asked over a socket, and how long a start may wait is for the
// unit's TimeoutStartSec=.
//
// While the store is away, what runs goes on and what waits goes on waiting. A slot
// is held by the machine's lease: a machine that has lost touch for longer than that
// no longer counts, though its unit may still run.

// slotDropIn is the name of the drop-in that the agent adds. It is no part of the
// unit's text.
const slotDropIn = "99-fleet-slot.conf"

// withSlot is a unit's text with the drop-in that waits for a slot.
func withSlot(text, slots, name string) string {
	file := strings.ReplaceAll(filepath.Join(slots, name), "%", "%%")
	t := unitfile.CutTexts(text)
	if t.DropIns == nil {
		t.DropIns = map[string]string{}
	}
	t.DropIns[slotDropIn] = "[Service]\nExecCondition=+/bin/sh -c 'until rm \"$$0\" 2>/dev/null; do sleep 0.2; done' " + quoteWord(file) + "\n"
	return t.String()
}

// quoteWord makes one word of a command line of s (systemd.service(5)).
func quoteWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `$$`).Replace(s) + `"`
}

// withoutSlot is the reverse of withSlot.
func withoutSlot(text string) string {
	if !strings.Contains(text, slotDropIn) {
		return text // most units: spare the taking apart
	}
	t := unitfile.CutTexts(text)
	delete(t.DropIns, slotDropIn)
	return t.String()
}

// How long a machine waits between looks for a slot.
const (
	slotLook    = time.Second
	slotMaxLook = 4 * time.Second
)

func (a *Agent) slotsDir() string { return filepath.Join(a.cfg.RunDir, "slots") }

// slotted reports whether a unit's starts wait for slots: services alone can.
func (u *local) slotted(name string) bool {
	return u.rule.req.MaxRunning > 0 && strings.HasSuffix(name, ".service")
}

// keepSlots has slots taken for units that wait for one, kept for those that run, and
// given back for those at rest.
func (a *Agent) keepSlots(ctx context.Context) {
	for name, u := range a.units {
		switch {
		case !u.known || u.slot == nil && !u.slotted(name):
		case quiet(u.status) && u.slot != nil:
			u.slot()
			u.slot = nil
		case !quiet(u.status) && u.slot == nil:
			ctx, stop := context.WithCancel(ctx)
			u.slot = stop
			waits := u.status.Sub == "condition"
			a.inbox.jobs.Go(func() { a.holdSlot(ctx, name, u.rule.req.MaxRunning, waits) })
		}
	}
}

// holdSlot takes a slot, lets the unit go on if it waits for it, and keeps the slot
// across leases until ctx is done. When the agent ends it is the lease that ends it,
// or the next run of the agent that takes it over.
func (a *Agent) holdSlot(ctx context.Context, name string, n int, waits bool) {
	for ctx.Err() == nil {
		lease, lost, release, ok := a.session.wait(ctx)
		if !ok {
			break
		}
		if a.takeSlot(lost, lease, name, n) {
			if waits {
				a.log.Info("slot taken", "unit", name, "slots", n)
				a.letGoOn(name)
				waits = false
			}
			select {
			case <-ctx.Done():
			case <-lost.Done():
			}
		}
		release()
	}
	if a.ending() {
		return
	}
	a.freeSlot(name)
}

// takeSlot tries until it has one; false: the lease was lost.
func (a *Agent) takeSlot(ctx context.Context, lease registry.Lease, name string, n int) bool {
	retry := registry.Backoff{Min: slotLook, Max: slotMaxLook}
	for ctx.Err() == nil {
		got, err := a.store.TakeSlot(ctx, lease, name, a.cfg.Presence.ID, n)
		if got {
			return true
		}
		if err != nil && ctx.Err() == nil {
			a.log.Debug("slot not taken yet", "unit", name, "err", err)
		}
		retry.Wait(ctx)
	}
	return false
}

// letGoOn writes the file that the unit waits for.
func (a *Agent) letGoOn(name string) {
	err := os.MkdirAll(a.slotsDir(), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(a.slotsDir(), name), nil, 0o644)
	}
	if err != nil {
		a.log.Error("unit waits for its slot in vain", "unit", name, "err", err)
	}
}

// freeSlot gives the slot back, as soon as the store is there to take it.
func (a *Agent) freeSlot(name string) {
	err := os.Remove(filepath.Join(a.slotsDir(), name)) // one that was not used
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("remove a slot's file", "unit", name, "err", err)
	}
	a.inbox.jobs.Go(func() {
		retry := registry.Backoff{Min: slotLook, Max: slotMaxLook}
		for {
			_, held, release, ok := a.session.wait(a.life)
			if !ok {
				return
			}
			err := a.store.FreeSlot(held, name, a.cfg.Presence.ID)
			if err != nil {
				retry.Wait(held)
			}
			release()
			if err == nil {
				return
			}
		}
	})
}

// ending reports whether the agent ends.
func (a *Agent) ending() bool { return a.life.Err() != nil }
