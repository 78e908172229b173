package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
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

// slot is a unit's hold on one of its slots, or its wait for one.
type slot struct {
	giveBack context.CancelFunc
	given    context.Context // done once giveBack has been called
	waits    chan struct{}   // holds one token when a start waits to be let go on
	heard    time.Time       // since when the start waits that was heard of last
	over     chan struct{}   // closed when the store has the slot back
}

// goesOn notes that a start waits, since a time that tells it from the one before.
func (s *slot) goesOn(since time.Time) {
	if s.heard.Equal(since) {
		return
	}
	s.heard = since
	select {
	case s.waits <- struct{}{}:
	default:
	}
}

func (s *slot) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// keepSlots has slots taken for units that wait for one, kept for those that run, and
// given back for those at rest. A unit that is started again at once may never have
// been heard of as at rest: it keeps its slot, and waits for its file anew.
func (a *Agent) keepSlots(ctx context.Context) {
	maps.DeleteFunc(a.slots, func(_ string, s *slot) bool { return s.isOver() })
	for name, u := range a.units {
		switch {
		case !u.known:
		case quiet(u.status):
			a.giveSlotBack(name)
		default:
			if s := a.slotOf(ctx, name, u); s != nil && u.status.Sub == "condition" {
				s.goesOn(u.status.Since)
			}
		}
	}
}

// slotOf is the slot that a unit which runs holds or waits for; nil: it needs none.
func (a *Agent) slotOf(ctx context.Context, name string, u *local) *slot {
	s := a.slots[name]
	if (s == nil || s.given.Err() != nil) && u.slotted(name) {
		return a.seekSlot(ctx, name, u.rule.req.MaxRunning)
	}
	return s
}

// seekSlot has one of n slots taken for a unit, once the store has the one back that
// it had before: what is given back must not be what is taken anew.
func (a *Agent) seekSlot(ctx context.Context, name string, n int) *slot {
	s := &slot{waits: make(chan struct{}, 1), over: make(chan struct{})}
	s.given, s.giveBack = context.WithCancel(ctx)
	before := a.slots[name]
	a.slots[name] = s
	a.inbox.jobs.Go(func() {
		defer close(s.over)
		if before != nil {
			<-before.over
		}
		a.holdSlot(s, name, n)
	})
	return s
}

// giveSlotBack ends a unit's hold, if it has one.
func (a *Agent) giveSlotBack(name string) {
	if s := a.slots[name]; s != nil {
		s.giveBack()
	}
}

// holdSlot takes a slot, lets starts go on that wait for it, and keeps the slot across
// leases until it is to be given back. When the agent ends it is the lease that ends
// it, or the next run of the agent that takes it over.
func (a *Agent) holdSlot(s *slot, name string, n int) {
	for s.given.Err() == nil {
		lease, lost, release, ok := a.session.wait(s.given)
		if !ok {
			break
		}
		if a.takeSlot(lost, lease, name, n) {
			a.letGoOn(lost, s, name)
		}
		release()
	}
	if !a.ending() {
		a.freeSlot(name)
	}
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

// letGoOn writes the file that a start waits for, whenever one does, until ctx is done.
func (a *Agent) letGoOn(ctx context.Context, s *slot, name string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.waits:
		}
		err := os.MkdirAll(a.slotsDir(), 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(a.slotsDir(), name), nil, 0o644)
		}
		if err != nil {
			a.log.Error("unit waits for its slot in vain", "unit", name, "err", err)
			continue
		}
		a.log.Info("slot taken", "unit", name)
	}
}

// freeSlot gives the slot back, as soon as the store is there to take it.
func (a *Agent) freeSlot(name string) {
	err := os.Remove(filepath.Join(a.slotsDir(), name)) // one that was not used
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("remove a slot's file", "unit", name, "err", err)
	}
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
}

// ending reports whether the agent ends.
func (a *Agent) ending() bool { return a.life.Err() != nil }
