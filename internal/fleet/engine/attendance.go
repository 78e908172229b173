package engine

import (
	"maps"
	"time"

	"flotilla/internal/fleet/model"
)

// attendance is who is present, and since when who is not.
type attendance struct {
	present map[string]bool
	lost    map[string]time.Time
	// seen is how many were present at once before the present losses began.
	seen int
	// news is who came and went, to be told.
	news []model.Event
}

func arrival(id string, lost, now time.Time) model.Event {
	e := model.Event{At: now, Kind: model.Presence, Machine: id, What: "came"}
	if !lost.IsZero() {
		e.What, e.Why = "came back", "it was away for "+now.Sub(lost).Truncate(time.Second).String()
	}
	return e
}

// call takes attendance anew: whoever was present and is not named is lost now.
func (a *attendance) call(ms []model.Machine, now time.Time) {
	there := make(map[string]bool, len(ms))
	for _, m := range ms {
		there[m.ID] = true
		a.mark(m.ID, true, now)
	}
	for id := range maps.Clone(a.present) {
		if !there[id] {
			a.mark(id, false, now)
		}
	}
}

// mark notes that a machine has come or gone.
func (a *attendance) mark(id string, present bool, now time.Time) {
	switch {
	case present && !a.present[id]:
		a.news = append(a.news, arrival(id, a.lost[id], now))
		fallthrough
	case present:
		a.present[id] = true
		delete(a.lost, id)
		if len(a.lost) == 0 {
			a.seen = len(a.present)
		} else {
			a.seen = max(a.seen, len(a.present))
		}
	case a.present[id]:
		delete(a.present, id)
		a.lost[id] = now
		a.news = append(a.news, model.Event{
			At: now, Kind: model.Presence, Machine: id, What: "fell silent", Why: "its lease is gone",
		})
	}
}

// restart makes now the time since when all that are away are away.
func (a *attendance) restart(now time.Time) {
	for id := range a.lost {
		a.lost[id] = now
	}
}

// forget drops the machines that have been away for an hour and hold nothing: they
// are not coming back, and count no more in how many were seen at once.
func (a *attendance) forget(holds map[string]bool, now time.Time) {
	for id, since := range a.lost {
		if !holds[id] && now.Sub(since) > time.Hour {
			a.drop(id)
		}
	}
}

// drop forgets a machine that is away: it counts no more in how many were seen at once.
func (a *attendance) drop(id string) {
	if _, lost := a.lost[id]; !lost {
		return
	}
	delete(a.lost, id)
	a.seen = max(len(a.present), a.seen-1)
	if len(a.lost) == 0 {
		a.seen = len(a.present)
	}
}

// takeNews returns what there is to tell, once.
func (a *attendance) takeNews() []model.Event {
	news := a.news
	a.news = nil
	return news
}

// report returns copies for a snapshot.
func (a *attendance) report() (map[string]time.Time, int) { return maps.Clone(a.lost), a.seen }
