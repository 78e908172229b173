package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/fleet/sched"
)

// Stats counts what an engine has done since the daemon started.
type Stats struct {
	failed atomic.Int64
	passes atomic.Int64
	spent  atomic.Int64 // nanoseconds in passes

	mu    sync.Mutex
	since time.Time
	tasks map[sched.Op]int64
}

func (s *Stats) leader(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = since
}

func (s *Stats) passed(took time.Duration) {
	s.passes.Add(1)
	s.spent.Add(int64(took))
}

func (s *Stats) decided(op sched.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks == nil {
		s.tasks = map[sched.Op]int64{}
	}
	s.tasks[op]++
}

// LeaderSince is since when this engine leads; zero: it does not.
func (s *Stats) LeaderSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// Tasks is how many decisions of a kind were carried out.
func (s *Stats) Tasks(op sched.Op) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tasks[op]
}

// Passes is how often the engine has decided, and how long that took together.
func (s *Stats) Passes() (int64, time.Duration) {
	return s.passes.Load(), time.Duration(s.spent.Load())
}

// Failures is how many passes could not be written.
func (s *Stats) Failures() int64 { return s.failed.Load() }
