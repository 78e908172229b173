package v2

import "time"

// Mark says that the store stood at the revision at that time.
type Mark struct {
	At       time.Time
	Revision uint64
}

// Retention is how much history is kept for watches.
type Retention struct {
	Revisions uint64        // at least so many
	Age       time.Duration // and all younger than that,
	Most      uint64        // but not more revisions than that, for the sake of space
}

// DefaultRetention keeps 100,000 revisions or an hour, whichever is more, up to a
// million: at some 300 bytes a revision that is 300 MB of the store's quota.
var DefaultRetention = Retention{Revisions: 100_000, Age: time.Hour, Most: 1_000_000}

// CompactTo is the revision that the history may be compacted to, 0 for not at all.
// marks are the observations so far, oldest first; the last one is now.
func (r Retention) CompactTo(marks []Mark) uint64 {
	if len(marks) == 0 {
		return 0
	}
	last := marks[len(marks)-1]
	old := uint64(0) // the latest revision that is known to be older than Age
	for _, m := range marks {
		if last.At.Sub(m.At) >= r.Age {
			old = m.Revision
		}
	}
	return max(before(last.Revision, r.Most), min(old, before(last.Revision, r.Revisions)))
}

// before is the revision n before the given one, 0 if there is none.
func before(revision, n uint64) uint64 {
	if revision <= n {
		return 0
	}
	return revision - n
}
