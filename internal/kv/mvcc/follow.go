package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// Run loads the tree, follows the store and calls ready when requests can be
// answered. It blocks until ctx ends, and returns nil. While the store cannot be
// read it tries again: reads are answered from what is known.
func (s *Store) Run(ctx context.Context, ready func()) error {
	defer s.endWatches(ErrStopped)
	var wg sync.WaitGroup
	defer wg.Wait()
	loaded := func() {
		wg.Go(func() { s.keepHouse(ctx) })
		ready()
	}
	failing := false
	for {
		err := s.follow(ctx, func() {
			if failing {
				s.cfg.Log.Info("following the store again", "revision", s.Index())
				failing = false
			}
			loaded()
			loaded = func() {}
		})
		if ctx.Err() != nil {
			return nil
		}
		if !failing {
			s.cfg.Log.Warn("cannot follow the store; trying again until it works", "err", err)
			failing = true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// pause is between two attempts to follow the store.
const pause = 500 * time.Millisecond

// errGap: revisions that the gateway has not seen are compacted.
var errGap = errors.New("revisions are missing")

// follow feeds the tree until the watch ends, which is always an error. following
// is called when the tree is what the store was a moment ago.
func (s *Store) follow(ctx context.Context, following func()) error {
	from := s.Index()
	if from == 0 {
		tree, err := s.load(ctx, 0)
		if err != nil {
			return fmt.Errorf("read the store: %w", err)
		}
		s.install(tree)
		from = tree.Index()
	}
	following()
	err := s.backend.watch(ctx, from, s.take)
	if errors.Is(err, errGap) {
		s.abandon()
	}
	return fmt.Errorf("watch from revision %d: %w", from+1, err)
}

// abandon gives up the tree, which has missed something.
func (s *Store) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree = nil
}

// trusted is a context for the gateway's own work, which its engine's authentication,
// should that be on, must not stop. What clients want never gets it.
func (s *Store) trusted(ctx context.Context) context.Context {
	if s.cfg.Engine == nil {
		return ctx
	}
	return s.cfg.Engine.AuthStore().WithRoot(ctx)
}

// pageSize is how many keys one range request loads.
const pageSize = 5000

// load builds the tree at the revision; 0 is the latest.
func (s *Store) load(ctx context.Context, revision int64) (*v2.Tree, error) {
	ctx = s.trusted(ctx)
	var tree *v2.Tree
	for key := v2.RangeStart; ; {
		resp, err := s.cfg.Client.Get(ctx, key, clientv3.WithRange(v2.RangeEnd),
			clientv3.WithRev(revision), clientv3.WithLimit(pageSize))
		if err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				err = fmt.Errorf("%w: %w", errGap, err)
			}
			return nil, err
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		if tree == nil {
			tree = v2.NewTree(uint64(revision))
		}
		kvs := make([]v2.KV, len(resp.Kvs))
		for i, kv := range resp.Kvs {
			kvs[i] = v2.KV{Key: string(kv.Key), Value: string(kv.Value),
				Created: uint64(kv.CreateRevision), Modified: uint64(kv.ModRevision)}
		}
		tree.Load(kvs)
		if !resp.More {
			return tree, nil
		}
		key = kvs[len(kvs)-1].Key + "\x00"
	}
}

// install puts a loaded tree in place. What happened before it is not in memory.
// Who watches has missed something, unless this is the first tree.
func (s *Store) install(tree *v2.Tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failWatches(keys.NewError(keys.CodeWatcherCleared, "", tree.Index()))
	s.tree = tree
	s.recent = ring{floor: tree.Index()}
	s.wake()
}

// endWatches tells all watchers that nothing more will come.
func (s *Store) endWatches(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failWatches(err)
}

func (s *Store) failWatches(err error) {
	for _, set := range s.watchers {
		for w := range set {
			w.fail(err)
		}
	}
	clear(s.watchers)
}

// take feeds the tree with what the watch delivered.
func (s *Store) take(u update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, c := range commits(u.events) {
		for _, change := range s.tree.Apply(c, now) {
			s.publish(change)
		}
	}
	s.tree.Advance(u.progress)
	s.wake()
}

// commits groups events by revision.
func commits(events []*mvccpb.Event) []v2.Commit {
	out := make([]v2.Commit, 0, len(events))
	kvs := make([]v2.KV, len(events))
	for i, e := range events {
		revision := uint64(e.Kv.ModRevision)
		kvs[i] = v2.KV{
			Key: string(e.Kv.Key), Value: string(e.Kv.Value),
			Created: uint64(e.Kv.CreateRevision), Modified: revision,
			Deleted: e.Type == mvccpb.Event_DELETE,
		}
		if n := len(out); n > 0 && out[n-1].Revision == revision {
			out[n-1].KVs = kvs[i-len(out[n-1].KVs) : i+1]
			continue
		}
		out = append(out, v2.Commit{Revision: revision, KVs: kvs[i : i+1]})
	}
	return out
}

// publish hands a change to the writers and watchers that it concerns.
func (s *Store) publish(change v2.Change) {
	s.recent.add(change)
	if s.observe != nil {
		s.observe(change.Event)
	}
	for w := range s.writers[change.Event.Node.Key] {
		w.events = append(w.events, change.Event)
	}
	for path, all := range change.Audience() {
		for w := range s.watchers[path] {
			if all || w.recursive {
				w.push(change)
			}
		}
	}
}

// Await returns when the gateway has caught up with the index: for who has heard
// of it elsewhere, from another gateway, and is to read nothing older here.
func (s *Store) Await(ctx context.Context, index uint64) error {
	return s.await(ctx, index, false)
}

// wait is somebody who waits for a revision.
type wait struct {
	revision uint64
	done     chan struct{}
}

// wake tells all that wait for the tree's revision or an earlier one, and the
// housekeeper when something else expires next.
func (s *Store) wake() {
	rest := s.waits[:0]
	for _, w := range s.waits {
		if w.revision > s.tree.Index() {
			rest = append(rest, w)
			continue
		}
		close(w.done)
	}
	clear(s.waits[len(rest):])
	s.waits = rest
	next, _ := s.tree.NextExpiry()
	if next.Equal(s.nextExpiry) {
		return
	}
	s.nextExpiry = next
	select {
	case s.expiry <- struct{}{}:
	default:
	}
}

// How long await lets the watch come up with the revision by itself, and how
// often it asks again: the store ignores the question while a watch is behind.
const (
	patience = 20 * time.Millisecond
	askAgain = 20 * time.Millisecond
)

// await returns when the tree has reached the revision. ask tells that the
// revision may be one that changed nothing in the range, of which the watch speaks
// only when asked for its progress.
func (s *Store) await(ctx context.Context, revision uint64, ask bool) error {
	s.mu.Lock()
	if s.tree != nil && s.tree.Index() >= revision {
		s.mu.Unlock()
		return nil
	}
	w := &wait{revision: revision, done: make(chan struct{})}
	s.waits = append(s.waits, w)
	s.mu.Unlock()

	delay := patience
	if ask {
		delay = 0
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			s.unwait(w)
			return fmt.Errorf("wait for revision %d: %w", revision, ctx.Err())
		case <-timer.C:
			if err := s.backend.askProgress(ctx); err != nil {
				s.unwait(w)
				return fmt.Errorf("ask for the watch's progress: %w", err)
			}
			timer.Reset(askAgain)
		}
	}
}

// unwait forgets somebody who waits no more.
func (s *Store) unwait(w *wait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waits, w); i >= 0 {
		s.waits = slices.Delete(s.waits, i, i+1)
	}
}

// writer waits for the change that its transaction makes.
type writer struct {
	path   string
	s      *Store
	events []*keys.Event // at path since the writer came
}

// expect makes a writer, before its transaction is sent.
func (s *Store) expect(path string) *writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &writer{path: path, s: s}
	if s.writers[path] == nil {
		s.writers[path] = map[*writer]struct{}{}
	}
	s.writers[path][w] = struct{}{}
	return w
}

func (s *Store) forget(w *writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writers[w.path], w)
	if len(s.writers[w.path]) == 0 {
		delete(s.writers, w.path)
	}
}

// at returns the event of that index, nil if there was none.
func (w *writer) at(index uint64) *keys.Event {
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	for _, e := range w.events {
		if e.Node.ModifiedIndex == index {
			return e
		}
	}
	return nil
}
