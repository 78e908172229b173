package engine

import (
	"maps"
	"time"

	"flotilla/internal/fleet/model"
)

// roll is who is present, and since when who is not.
type roll struct {
	present map[string]bool
	lost    map[string]time.Time
	// seen is how many were present at once before the present losses began.
	seen int
}

// call takes the whole roll: whoever was present and is not named is lost now.
func (r *roll) call(ms []model.Machine, now time.Time) {
	there := make(map[string]bool, len(ms))
	for _, m := range ms {
		there[m.ID] = true
		r.mark(m.ID, true, now)
	}
	for id := range maps.Clone(r.present) {
		if !there[id] {
			r.mark(id, false, now)
		}
	}
}

// mark notes that a machine has come or gone.
func (r *roll) mark(id string, present bool, now time.Time) {
	switch {
	case present:
		r.present[id] = true
		delete(r.lost, id)
		if len(r.lost) == 0 {
			r.seen = len(r.present)
		} else {
			r.seen = max(r.seen, len(r.present))
		}
	case r.present[id]:
		delete(r.present, id)
		r.lost[id] = now
	}
}

// restart makes now the time since when all that are away are away.
func (r *roll) restart(now time.Time) {
	for id := range r.lost {
		r.lost[id] = now
	}
}

// forget drops the machines that have been away for an hour and hold nothing: they
// are not coming back, and count no more in how many were seen at once.
func (r *roll) forget(holds map[string]bool, now time.Time) {
	for id, since := range r.lost {
		if !holds[id] && now.Sub(since) > time.Hour {
			delete(r.lost, id)
		}
	}
	if len(r.lost) == 0 {
		r.seen = len(r.present)
	}
}

// report returns copies for a snapshot.
func (r *roll) report() (map[string]time.Time, int) { return maps.Clone(r.lost), r.seen }
