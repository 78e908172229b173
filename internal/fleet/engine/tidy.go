package engine

import (
	"context"
	"maps"
	"slices"
	"time"
)

// What is kept, and how often the rest is thrown away.
const (
	keptEvents    = 5000
	keptEventTime = 7 * 24 * time.Hour
	keptDestroyed = 24 * time.Hour // the history of a unit after it was destroyed
	tidyEvery     = 10 * time.Minute
)

// tidy throws away what is too old, now and then: events, the history of units that
// are gone, the memory of machines that have been. It returns when it is to be done
// again. What cannot be done now is done next time.
func (t *term) tidy(ctx context.Context, now time.Time) time.Time {
	if now.Sub(t.tidied) < tidyEvery {
		return t.tidied.Add(tidyEvery)
	}
	t.tidied = now
	t.forgetMachines(now)
	if _, err := t.store.TrimEvents(ctx, t.lead, keptEvents, now.Add(-keptEventTime)); err != nil {
		t.log.Debug("events not trimmed", "err", err)
	}
	gone := t.view.Destroyed()
	maps.DeleteFunc(gone, func(name string, at time.Time) bool {
		_, back := t.view.Unit(name)
		return back || now.Sub(at) < keptDestroyed
	})
	if rev, err := t.store.ForgetUnits(ctx, t.lead, slices.Sorted(maps.Keys(gone))); err != nil {
		t.log.Debug("history of destroyed units not removed", "err", err)
	} else {
		t.settled = max(t.settled, rev)
	}
	return now.Add(tidyEvery)
}

func (t *term) forgetMachines(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.attendance.lost) == 0 {
		return
	}
	holds := map[string]bool{}
	for _, p := range t.view.Placements() {
		holds[p.Machine] = true
	}
	t.attendance.forget(holds, now)
}
