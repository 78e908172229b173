package sema

import (
	"maps"
	"slices"
	"time"
)

// How the life of a holder is told. A holder writes a sign of life each
// RefreshEvery; whoever has seen the same entry for HolderTimeout may take the
// holder for dead. 15 minutes are long for a reboot of most machines (firmware
// that counts much memory and a file system check take some 10) and short for a
// person who waits.
const (
	RefreshEvery  = 30 * time.Second
	HolderTimeout = 15 * time.Minute
	// MaxGap is how long two looks of an observer may lie apart for the time in
	// between to count.
	MaxGap = 2 * time.Minute
	// MaxTimeout is the most that an entry may ask for itself (Detail.Timeout): whatever is
	// written there, a slot is not held for ever.
	MaxTimeout = 24 * time.Hour
)

// Mark is a holder's entry as somebody saw it: with each sign of life it is another.
type Mark string

// Mark is the machine's entry now; "" for a holder without details, and for none.
func (s Semaphore) Mark(machine string) Mark {
	d, ok := s.Details[machine]
	if !ok {
		return ""
	}
	return Mark(encode(d))
}

// watched tells whether the holder is one that is expected to come back by itself.
func (s Semaphore) watched(machine string) bool {
	p := s.Details[machine].Phase
	return p != ByHand && !p.over()
}

// Observer finds holders that give no sign of life. It counts the time on the clock
// of the process it lives in and compares it with nobody's: no two clocks need to
// agree. Only time in which it could see the store counts, since a store that is
// away keeps the holders from writing, too.
//
// The zero value uses HolderTimeout and MaxGap. It must not be copied after use.
type Observer struct {
	Timeout time.Duration // 0: HolderTimeout
	MaxGap  time.Duration // 0: the constant MaxGap

	looked  bool
	last    time.Duration // when it last looked
	index   uint64        // the newest index it has seen
	sighted map[string]sighting
}

// sighting is how long a holder's entry has been the same.
type sighting struct {
	mark  Mark
	same  time.Duration
	limit time.Duration // for how long it may be
}

// Suspect is a holder to be taken for dead: hand Mark to Lose.
type Suspect struct {
	Machine string
	Mark    Mark
	Silent  time.Duration // how long its entry has been the same, by the observer's clock
}

// Look tells the observer what the store holds now: a value just read from a
// majority, the index at which it was written, and the time since any fixed point on
// a clock that only runs forward. It returns the holders to be taken for dead, by
// name. A value older than one it knows begins anew: the store has been restored from a
// backup, and nobody can have given a sign of life in it before.
func (o *Observer) Look(s Semaphore, index uint64, now time.Duration) []Suspect {
	if index < o.index {
		o.sighted = nil
	}
	gap := now - o.last
	if !o.looked || gap < 0 || gap > orElse(o.MaxGap, MaxGap) {
		gap = 0
	}
	o.looked, o.last, o.index = true, now, index
	seen := map[string]sighting{}
	for _, m := range s.Holders {
		if !s.watched(m) {
			continue
		}
		at := sighting{mark: s.Mark(m), limit: o.limit(s.Details[m])}
		if before, ok := o.sighted[m]; ok && before.mark == at.mark {
			at.same = before.same + gap
		}
		seen[m] = at
	}
	o.sighted = seen
	return o.suspects()
}

// limit is how long a holder with such an entry may be silent.
func (o *Observer) limit(d Detail) time.Duration {
	if d.Timeout <= 0 {
		return orElse(o.Timeout, HolderTimeout)
	}
	return time.Duration(min(d.Timeout, int(MaxTimeout/time.Second))) * time.Second
}

func (o *Observer) suspects() []Suspect {
	var out []Suspect
	for _, m := range slices.Sorted(maps.Keys(o.sighted)) {
		if at := o.sighted[m]; at.same >= at.limit {
			out = append(out, Suspect{Machine: m, Mark: at.mark, Silent: at.same})
		}
	}
	return out
}

func orElse(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Tenure is how a holder knows that nobody can have taken it for dead: an observer
// must have seen the entry for the whole Timeout, and cannot have seen it before it
// was sent. So a machine that begins to reboot while it is Sure was a holder when
// it began, however the clocks differ.
//
// The zero value is never sure.
type Tenure struct {
	Timeout time.Duration // 0: HolderTimeout
	sent    time.Duration
	held    bool
}

// Wrote notes that a Take or Refresh succeeded that was sent at this time of the
// machine's own clock. The time before sending counts, not that of the answer.
func (t *Tenure) Wrote(sent time.Duration) { t.sent, t.held = sent, true }

// Sure tells whether the machine certainly holds its slot at this time. Half the
// time-out is left for the reboot to begin, and for clocks that run at different
// speeds.
func (t *Tenure) Sure(now time.Duration) bool {
	return t.held && now >= t.sent && now-t.sent < orElse(t.Timeout, HolderTimeout)/2
}
