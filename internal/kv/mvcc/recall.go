package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/kv/v2"
)

const (
	// maxReplays bounds the trees of the past that are in memory at one time.
	maxReplays = 4
	// replaySpan is how many indexes apart watchers may begin that one replay
	// serves: to read so many revisions costs less than to load another tree.
	replaySpan = 10_000
)

// recalls are the watchers that wait for a replay. Those that wait together are
// served together, so that a thousand watchers that come back after a break cost a
// few readings of the store and not a thousand.
type recalls struct {
	mu      sync.Mutex
	waiting []*recall
	running int // replays
}

// recall is what one watcher wants to know of what happened from its first index on
// until it was registered: the first event, or all of them for a stream.
type recall struct {
	w      *Watcher
	ctx    context.Context // the watcher's client
	done   chan error      // 1 slot; the watcher's history is complete
	closed bool            // it knows what it wants to know; for the replay alone
}

// recall reads the watcher's history from the store. It fails with errGap if that
// is compacted.
func (w *Watcher) recall(ctx context.Context) error {
	r := &recall{w: w, ctx: ctx, done: make(chan error, 1)}
	w.s.enqueue(r)
	select {
	case err := <-r.done:
		if err != nil {
			return fmt.Errorf("read the history from revision %d: %w", w.since, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err() // what the replay finds for it nobody reads
	}
}

func (s *Store) enqueue(r *recall) {
	q := &s.recalls
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, r)
	if q.running < maxReplays {
		q.running++
		go s.replayAll()
	}
}

// replayAll serves those that wait until nobody does.
func (s *Store) replayAll() {
	for batch := s.recalls.next(); batch != nil; batch = s.recalls.next() {
		s.replayFor(batch)
	}
}

// next takes those out that the next replay serves.
func (q *recalls) next() []*recall {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*recall
	batch, q.waiting = similar(q.waiting)
	if batch == nil {
		q.running--
	}
	return batch
}

// similar parts those who begin within replaySpan of the oldest index from the rest.
func similar(all []*recall) (batch, rest []*recall) {
	if len(all) == 0 {
		return nil, nil
	}
	from := oldest(all)
	for _, r := range all {
		if r.w.since <= from+replaySpan {
			batch = append(batch, r)
		} else {
			rest = append(rest, r)
		}
	}
	return batch, rest
}

func oldest(all []*recall) uint64 {
	return slices.MinFunc(all, func(a, b *recall) int {
		if a.w.since < b.w.since {
			return -1
		}
		return 1
	}).w.since
}

// replayFor leads a tree from the oldest index to the latest, tells each watcher
// what is for it, and keeps what it has read for those who ask next. If the beginning is compacted it is so for the oldest: the others
// are tried again.
func (s *Store) replayFor(all []*recall) {
	for len(all) > 0 {
		from, until := oldest(all), uint64(0)
		b := batch{byPath: map[string][]*recall{}, open: len(all), read: &stretch{floor: from - 1}}
		for _, r := range all {
			until = max(until, r.w.index)
			b.byPath[r.w.path] = append(b.byPath[r.w.path], r)
		}
		ctx, cancel := whileAny(all)
		err := s.replay(ctx, from, until, b.tell)
		cancel()
		if err == nil {
			s.remember(b.read, until)
		}
		var again []*recall
		for _, r := range all {
			switch {
			case r.closed:
				r.done <- nil
			case errors.Is(err, errGap) && r.w.since > from:
				again = append(again, r)
			default:
				r.done <- err
			}
		}
		all = again
	}
}

// remember keeps a stretch of the history that was read up to an index.
func (s *Store) remember(read *stretch, until uint64) {
	if !read.full {
		read.until = until
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.keep(read)
}

// whileAny returns a context that ends when the clients of all are gone. Its watches
// have a stream of their own.
func whileAny(all []*recall) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ownStream(clientv3.WithRequireLeader(context.Background())))
	var there sync.WaitGroup
	stops := make([]func() bool, len(all))
	there.Add(len(all))
	for i, r := range all {
		stops[i] = context.AfterFunc(r.ctx, there.Done)
	}
	go func() {
		there.Wait()
		cancel()
	}()
	return ctx, func() {
		for _, stop := range stops {
			if stop() {
				there.Done()
			}
		}
		cancel()
	}
}

// batch are the watchers that one replay serves, by their paths.
type batch struct {
	byPath map[string][]*recall
	open   int // still want to know something
	read   *stretch
}

// tell hands the change to those that it concerns, and reports whether more is
// wanted: by them, or to be remembered.
func (b *batch) tell(c v2.Change) bool {
	for path, all := range c.Audience() {
		for _, r := range b.byPath[path] {
			if !r.closed && (all || r.w.recursive) && r.w.since <= c.Index() && c.Index() <= r.w.index {
				b.keep(r, c)
			}
		}
	}
	b.read.add(c)
	return b.open > 0 || !b.read.full
}

// keep adds the change to the watcher's history, which has its limit.
func (b *batch) keep(r *recall, c v2.Change) {
	w := r.w
	if w.cut = w.stream && w.history.full(maxHistory); !w.cut {
		w.history.add(c.Event)
	}
	if w.cut || !w.stream {
		r.closed = true
		b.open--
	}
}
