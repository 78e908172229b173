package access

import "time"

// Ration decides what of many alike is written down, caller by caller: Burst at once,
// and one more for each Every that goes by. It bounds what somebody without rights can
// have written by asking all the time. The zero value writes nothing down; it has no
// lock.
type Ration struct {
	Burst int
	Every time.Duration
	// Callers is how many are told apart; what others do counts together.
	Callers int
	of      map[string]*ration
}

type ration struct {
	left int
	at   time.Time // when left was right
	held int       // not written down since the last that was
}

// Take reports whether what a caller does now is to be written down, and how much of
// its doing has not been since the last that was.
func (r *Ration) Take(caller string, now time.Time) (ok bool, held int) {
	c := r.caller(caller, now)
	if r.Every > 0 && now.After(c.at) {
		earned := int64(now.Sub(c.at) / r.Every)
		c.left = int(min(int64(r.Burst), int64(c.left)+earned))
		c.at = c.at.Add(time.Duration(earned) * r.Every)
	}
	if c.left <= 0 {
		c.held++
		return false, c.held
	}
	if c.left == r.Burst {
		c.at = now // a full ration earns nothing
	}
	held, c.held = c.held, 0
	c.left--
	return true, held
}

// caller is the ration of one caller. Where there are too many, those go that have all
// of theirs and nothing held back: they are as new ones.
func (r *Ration) caller(name string, now time.Time) *ration {
	if r.of == nil {
		r.of = map[string]*ration{}
	}
	if c := r.of[name]; c != nil {
		return c
	}
	if len(r.of) >= max(1, r.Callers) {
		for other, c := range r.of {
			if c.held == 0 && now.Sub(c.at) >= time.Duration(r.Burst-c.left)*r.Every {
				delete(r.of, other)
			}
		}
	}
	if len(r.of) >= max(1, r.Callers) {
		name = "" // all others
	}
	c := r.of[name]
	if c == nil {
		c = &ration{left: r.Burst, at: now}
		r.of[name] = c
	}
	return c
}
