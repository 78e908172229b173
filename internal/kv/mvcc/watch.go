package mvcc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// ErrLagging ends a watch whose client reads more slowly than events come. The
// client watches again from the index after the last one that it got.
var ErrLagging = errors.New("watcher is too slow")

// ErrStopped ends a watch because the gateway ends.
var ErrStopped = errors.New("the gateway has stopped")

// How many events wait for a watcher before it counts as lagging: live ones, and ones
// from the store's history; and how many bytes, by weight, as long as more than a few
// wait.
const (
	maxPending = 1000
	maxHistory = 10_000
	maxWaiting = 16 << 20
	fewWaiting = 4
)

// backlog is events that wait for a watcher, oldest first.
type backlog struct {
	events []*keys.Event
	bytes  int
}

// full reports whether the watcher lags, if so many events are the most.
func (b *backlog) full(most int) bool {
	return len(b.events) >= most || b.bytes >= maxWaiting && len(b.events) >= fewWaiting
}

func (b *backlog) add(e *keys.Event) {
	b.events = append(b.events, e)
	b.bytes += eventWeight(e)
}

// take removes the oldest; nil if there is none.
func (b *backlog) take() *keys.Event {
	if len(b.events) == 0 {
		return nil
	}
	e := b.events[0]
	b.events[0] = nil
	b.events = b.events[1:]
	b.bytes -= eventWeight(e)
	return e
}

// Watcher delivers the events of one watch, in the order of their indexes, each
// once.
type Watcher struct {
	s         *Store
	path      string
	recursive bool
	since     uint64 // events before this index are not for it
	stream    bool
	index     uint64
	history   backlog // what happened before the watcher was registered
	cut       bool    // the history goes on: no live event may follow it

	mu      sync.Mutex
	pending backlog
	err     error
	more    chan struct{} // 1 slot: pending or err is new
}

// Watch starts a watch: from r.WaitIndex on, or from now on if that is 0. It
// reaches back to the last compaction of the store; beyond that it fails with
// error 401. The caller closes the watcher.
func (s *Store) Watch(ctx context.Context, r v2.Request) (*Watcher, error) {
	w, from, err := s.register(r)
	if err != nil || from == 0 {
		return w, err
	}
	if err := w.recall(ctx); err != nil {
		w.Close()
		if errors.Is(err, errGap) {
			return nil, s.cleared(ctx, from)
		}
		return nil, s.storeError(err)
	}
	return w, nil
}

// register lets the watcher take part in what happens from now on, and gives it
// what is in memory of the changes before. from is not 0 if the store must be asked
// for what happened from that index on.
func (s *Store) register(r v2.Request) (w *Watcher, from uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil {
		return nil, 0, errNotLoaded()
	}
	w = &Watcher{
		s: s, path: r.Path, recursive: r.Recursive,
		stream: r.Stream, since: r.WaitIndex, index: s.tree.Index(), more: make(chan struct{}, 1),
	}
	if w.since == 0 {
		w.since = w.index + 1
	}
	if s.watchers[w.path] == nil {
		s.watchers[w.path] = map[*Watcher]struct{}{}
	}
	s.watchers[w.path][w] = struct{}{}
	if !w.stream && w.since <= s.recent.floor {
		c, next, ok := s.past.find(w.since, func(c v2.Change) bool { return c.Matches(w.path, w.recursive) })
		if ok {
			w.push(c)
			return w, 0, nil
		}
		w.since = next
	}
	if w.since <= s.recent.floor {
		return w, w.since, nil
	}
	for _, c := range s.recent.since(w.since) {
		if c.Matches(w.path, w.recursive) {
			w.push(c)
			if !r.Stream {
				break
			}
		}
	}
	return w, 0, nil
}

// cleared is the error for an index that is compacted. Where the history begins
// is told by a watch that asks for what is gone.
func (s *Store) cleared(ctx context.Context, wanted uint64) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.cfg.Timeout)
	defer cancel()
	gone := int64(max(wanted-1, 1))
	resp := <-s.cfg.Client.Watch(ctx, v2.RangeStart, clientv3.WithRev(gone))
	oldest := uint64(resp.CompactRevision) + 1
	return keys.NewError(keys.CodeEventIndexGone,
		fmt.Sprintf("the requested history has been cleared [%d/%d]", oldest, wanted), s.Index())
}

// Index is the store's index when the watch began.
func (w *Watcher) Index() uint64 { return w.index }

// Next waits for the next event. The error is ctx's, ErrLagging, ErrStopped or a
// *keys.Error. Next and Close are for one goroutine.
func (w *Watcher) Next(ctx context.Context) (*keys.Event, error) {
	if e := w.history.take(); e != nil {
		return e, nil
	}
	if w.cut {
		return nil, ErrLagging
	}
	for {
		if e, err := w.pop(); e != nil || err != nil {
			return e, err
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pop takes what is there; events come before the error that ends them.
func (w *Watcher) pop() (*keys.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.pending.take(); e != nil {
		return e, nil
	}
	return nil, w.err
}

// push hands the watcher an event, in the order of the indexes.
func (w *Watcher) push(c v2.Change) {
	if c.Index() < w.since {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return
	case w.pending.full(maxPending):
		w.err = ErrLagging
	default:
		w.pending.add(c.Event)
	}
	w.tell()
}

func (w *Watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.tell()
}

func (w *Watcher) tell() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	delete(w.s.watchers[w.path], w)
	if len(w.s.watchers[w.path]) == 0 {
		delete(w.s.watchers, w.path)
	}
}

// replays numbers the watches that have a stream of their own.
var replays atomic.Uint64

// ownStream gives the watch of ctx a stream that it shares with no other: the client
// keeps one for each set of metadata. What is told of the progress of a stream counts
// for all watches on it, also for one that has just begun and has been told of
// nothing; and the gateway's watch must not wait for one that is behind.
func ownStream(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "flotilla-replay", strconv.FormatUint(replays.Add(1), 10))
}

// replay leads a tree of the past through all that happened from one index to
// another, both inclusive, while tell returns true.
func (s *Store) replay(ctx context.Context, from, until uint64, tell func(v2.Change) bool) error {
	base := max(from-1, 1) // revision 1 is the empty store
	tree, err := s.load(ctx, int64(base))
	if err != nil {
		return err
	}
	responses := s.cfg.Client.Watch(ctx, v2.RangeStart, clientv3.WithRange(v2.RangeEnd),
		clientv3.WithRev(int64(base)+1), clientv3.WithFragment())
	for tree.Index() < until {
		resp, err := s.nextResponse(ctx, responses)
		if err != nil {
			return err
		}
		for _, c := range commits(received(resp).events) {
			for _, change := range tree.Apply(c, s.cfg.Now()) {
				if change.Index() <= until && !tell(change) {
					return nil
				}
			}
		}
		if resp.IsProgressNotify() {
			tree.Advance(uint64(resp.Header.Revision))
		}
	}
	return nil
}

// nextResponse waits for what the watch of ctx has to say. It asks for the
// progress meanwhile: the last revisions may have changed nothing in the range.
func (s *Store) nextResponse(ctx context.Context, from clientv3.WatchChan) (clientv3.WatchResponse, error) {
	ticker := time.NewTicker(askAgain)
	defer ticker.Stop()
	for {
		select {
		case resp, ok := <-from:
			if !ok {
				return resp, errors.New("the watch has ended")
			}
			if resp.CompactRevision != 0 {
				return resp, errGap
			}
			return resp, resp.Err()
		case <-ctx.Done():
			return clientv3.WatchResponse{}, ctx.Err()
		case <-ticker.C:
			if err := s.cfg.Client.RequestProgress(ctx); err != nil {
				return clientv3.WatchResponse{}, fmt.Errorf("ask for the watch's progress: %w", err)
			}
		}
	}
}
