package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// maxNoted is how many events wait to be written at most. When a store is away for
// long the oldest are given up.
const maxNoted = 20_000

// scribe writes events, beside the decisions: it holds nothing up.
type scribe struct {
	store Store
	log   *slog.Logger
	wake  chan struct{}

	mu     sync.Mutex
	noted  []model.Event
	missed int
}

func newScribe(st Store, log *slog.Logger) *scribe {
	return &scribe{store: st, log: log, wake: make(chan struct{}, 1)}
}

// note has events written.
func (s *scribe) note(es ...model.Event) {
	if len(es) == 0 {
		return
	}
	s.mu.Lock()
	s.noted = append(s.noted, es...)
	if over := len(s.noted) - maxNoted; over > 0 {
		s.noted = append([]model.Event(nil), s.noted[over:]...)
		s.missed += over
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *scribe) take() []model.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	es, missed := s.noted, s.missed
	s.noted, s.missed = nil, 0
	if missed > 0 {
		es = append(es, model.Event{
			At: es[len(es)-1].At, Kind: model.Held, What: fmt.Sprintf("%d events before this were not written down", missed),
			Why: "the store was away",
		})
	}
	return es
}

// run writes until ctx is done. While the store is away events wait; what it refuses
// for another reason is given up.
func (s *scribe) run(ctx context.Context) {
	retry := registry.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	var open []model.Event
	for {
		if len(open) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			}
			open = s.take()
		}
		n := min(len(open), eventBatch)
		err := s.store.WriteEvents(ctx, open[:n])
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, registry.ErrAway):
			retry.Wait(ctx)
			continue
		case err != nil:
			s.log.Warn("events not written", "err", err, "events", n)
		}
		retry.Reset()
		open = open[n:]
	}
}

// eventBatch is how many events are written in one transaction.
const eventBatch = 1000
