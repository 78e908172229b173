package fleetd

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// How many events wait for the store at most, how many go there at once, and how
// long the last ones may take at the end.
const (
	notesKept  = 4096
	notesBatch = 100
	lastNotes  = 2 * time.Second
)

// notebook writes events into the store behind the back of whoever tells them: no
// request waits for that. While the store is away they wait; what there is no room
// for, the log alone has.
type notebook struct {
	write func(context.Context, []model.Event) error
	log   *slog.Logger
	queue chan model.Event

	kept, lost atomic.Int64 // events, for metrics
}

func newNotebook(write func(context.Context, []model.Event) error, log *slog.Logger) *notebook {
	return &notebook{write: write, log: log, queue: make(chan model.Event, notesKept)}
}

// tell takes note of an event and does not block.
func (n *notebook) tell(e model.Event) {
	select {
	case n.queue <- e:
	default:
		n.lost.Add(1)
		n.log.Warn("event not kept: too many wait for the store", "what", e.What, "unit", e.Unit, "machine", e.Machine)
	}
}

// run writes until ctx is done, and then for a moment what there is still.
func (n *notebook) run(ctx context.Context, ready func()) error {
	ready()
	var left []model.Event // the store did not take them
	for ctx.Err() == nil {
		select {
		case e := <-n.queue:
			left = n.put(ctx, n.more(e))
		case <-ctx.Done():
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), lastNotes)
	defer cancel()
	left = n.put(limited, left)
	for len(n.queue) > 0 && limited.Err() == nil {
		left = n.put(limited, n.more(<-n.queue))
	}
	if lost := len(left) + len(n.queue); lost > 0 {
		n.lost.Add(int64(lost))
		n.log.Warn("events not kept: the store is away", "events", lost)
	}
	return nil
}

// more is the event with those that wait behind it.
func (n *notebook) more(first model.Event) []model.Event {
	batch := []model.Event{first}
	for len(batch) < notesBatch {
		select {
		case e := <-n.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// put writes a batch, anew while the store is away. It returns what is left when ctx
// is done before.
func (n *notebook) put(ctx context.Context, batch []model.Event) []model.Event {
	if len(batch) == 0 {
		return nil
	}
	retry := registry.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		err := n.write(ctx, batch)
		switch {
		case err == nil:
			n.kept.Add(int64(len(batch)))
			return nil
		case ctx.Err() == nil && !errors.Is(err, registry.ErrAway):
			n.lost.Add(int64(len(batch)))
			n.log.Warn("events not kept", "events", len(batch), "err", err)
			return nil
		}
		retry.Wait(ctx)
	}
	return batch
}
