package member

import (
	"log/slog"
	"sync"
	"time"
)

// calmAfter is how long a disk has to keep up before it is no longer called slow.
const calmAfter = time.Minute

// lag is whether the disk keeps up with the engine's log: one line when it begins
// to fall behind, one when it has recovered, however often it was late in between.
type lag struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	since time.Time // zero: it keeps up
	last  time.Time
	worst time.Duration
	times int
}

// late notes a flush of the log that took longer than the engine expects.
func (l *lag) late(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = l.now()
	if l.since.IsZero() {
		l.since, l.worst, l.times = l.last, 0, 0
		l.log.Warn("the disk is slow: every write waits for it", "flush_of_the_log_took", took.Round(time.Millisecond))
	}
	l.worst, l.times = max(l.worst, took), l.times+1
}

// look says that the disk has recovered, once it has.
func (l *lag) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() || l.now().Sub(l.last) < calmAfter {
		return
	}
	l.log.Info("the disk keeps up again", "slow_for", l.last.Sub(l.since).Round(time.Second),
		"slow_flushes", l.times, "worst", l.worst.Round(time.Millisecond))
	l.since = time.Time{}
}
