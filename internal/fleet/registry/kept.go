package registry

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// Kept reads all of a registry for those who may ask again soon: what was read once is
// kept current by a watch, until nobody has asked for a minute. Then nothing of it is
// left, in memory or running. Make it with Registry.Keep; it ends with the registry.
// Several goroutines may use it.
type Kept struct {
	store    keepable
	patience time.Duration // keptPatience

	mu  sync.Mutex
	now *keeping // nil: nothing is kept
	// ended is closed when the last watch is over: two at once would be told of each
	// other's progress.
	ended chan struct{}
}

// keepable is what it takes to keep a view.
type keepable interface {
	Read(ctx context.Context, scope string) (*View, error)
	passing() context.Context
	position(ctx context.Context) (position, error)
	watchAfter(ctx context.Context, rev int64) clientv3.WatchChan
	askProgress(ctx context.Context) error
	tellsProgress(ctx context.Context) bool
}

// position is which store it is, and how far it has come.
type position struct {
	cluster uint64
	mark    string
	rev     int64
}

const (
	// keptFor is how long a view is kept that nobody asks for.
	keptFor = time.Minute
	// keptPatience is how long a watch may take to bring what the store has had at the
	// time of a request: the whole would have been read by then.
	keptPatience = 250 * time.Millisecond
	// askAgain is the time between two questions how far a watch has come. The store
	// leaves them without an answer while it still has something to tell.
	askAgain = 10 * time.Millisecond
)

// Keep makes a reader of all of the registry.
func (r *Registry) Keep() *Kept {
	return newKept(&ownStream{r, strconv.FormatInt(streams.Add(1), 10)})
}

func newKept(store keepable) *Kept {
	ended := make(chan struct{})
	close(ended)
	return &Kept{store: store, patience: keptPatience, ended: ended}
}

// Read returns what Registry.Read does of Everything: a view of what the store holds
// now, with everything that was written before the call. It does not change any more.
// Of a store that cannot say how far a watch has come nothing is kept.
func (k *Kept) Read(ctx context.Context) (*View, error) {
	if w := k.wanted(); w != nil {
		v, err := w.read(ctx, k.patience)
		if v != nil || err != nil {
			return v, err
		}
		k.letGo(w)
	}
	life := k.store.passing()
	v, err := k.store.Read(ctx, Everything)
	if err == nil && k.store.tellsProgress(ctx) {
		k.keep(v.copied(), life)
	}
	return v, err
}

// wanted is what is kept, for longer from now on.
func (k *Kept) wanted() *keeping {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil {
		k.now.idle.Reset(keptFor)
	}
	return k.now
}

// keep has a view be kept that was read in the life of a passage, unless there is one.
func (k *Kept) keep(v *View, life context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil {
		return
	}
	ctx, cancel := within(context.Background(), life)
	w := &keeping{store: k.store, view: v, life: life, cancel: cancel, ended: make(chan struct{}), moved: make(chan struct{})}
	w.idle = time.AfterFunc(keptFor, func() { k.letGo(w) })
	before := k.ended
	k.now, k.ended = w, w.ended
	go func() {
		defer k.letGo(w)
		defer close(w.ended)
		<-before
		w.follow(ctx)
	}()
}

func (k *Kept) letGo(w *keeping) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == w {
		k.now = nil
	}
	w.idle.Stop()
	w.cancel()
}

// keeping is a view while it is kept.
type keeping struct {
	store  keepable
	view   *View
	idle   *time.Timer
	life   context.Context // of the passage: what comes after it is told by another watch
	cancel context.CancelFunc
	ended  chan struct{} // closed when the view will not change any more

	mu    sync.Mutex
	moved chan struct{} // closed, and another made, when the view has come further
}

// follow brings the view what the store tells, until it tells no more.
func (w *keeping) follow(ctx context.Context) {
	for resp := range w.store.watchAfter(ctx, w.view.Rev()) {
		if resp.Err() != nil {
			w.cancel() // and wait until the client is done with it
			continue
		}
		w.view.apply(events(resp.Events), reached(resp))
		w.mu.Lock()
		close(w.moved)
		w.moved = make(chan struct{})
		w.mu.Unlock()
	}
}

// progress is how far the view has come, and what is closed when it has come further.
func (w *keeping) progress() (position, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view.position(), w.moved
}

// read returns the view with everything that the store has now; nil if it cannot be
// had of the watch within patience.
func (w *keeping) read(ctx context.Context, patience time.Duration) (*View, error) {
	before, _ := w.progress()
	want, err := w.store.position(ctx)
	if err != nil {
		return nil, err
	}
	if want.rev < before.rev || w.life.Err() != nil { // an older state was put back, or may have been
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch {
	case w.comesTo(limited, want):
		return w.view.copied(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("read the registry: %w", ctx.Err())
	}
	return nil, nil
}

// comesTo waits until the view has what the store had at a position. Most of what
// happens to a store may be none of the registry's, and then no event says that there
// is nothing to wait for.
func (w *keeping) comesTo(ctx context.Context, want position) bool {
	ask := time.NewTimer(0)
	defer ask.Stop()
	for {
		at, moved := w.progress()
		if at.rev >= want.rev {
			return at.cluster == want.cluster && at.mark == want.mark
		}
		select {
		case <-moved:
		case <-ask.C:
			if w.store.askProgress(ctx) != nil {
				return false
			}
			ask.Reset(askAgain)
		case <-w.ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// ownStream is a registry whose watch has a stream of its own: the client keeps one for
// each set of metadata. How far a stream has come counts for all watches on it, also for
// one that has just begun and has been told of nothing.
type ownStream struct {
	*Registry
	id string
}

var streams atomic.Int64 // numbers them

func (s *ownStream) ctx(ctx context.Context) context.Context {
	return clientv3.WithRequireLeader(metadata.AppendToOutgoingContext(ctx, "flotilla-view", s.id))
}

func (s *ownStream) passing() context.Context { return s.passage.now() }

func (s *ownStream) watchAfter(ctx context.Context, rev int64) clientv3.WatchChan {
	return s.client.Watch(s.ctx(ctx), s.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
}

func (s *ownStream) askProgress(ctx context.Context) error {
	return s.client.RequestProgress(s.ctx(ctx))
}

// tellsProgress reports whether the member that is asked can be believed about how far
// a watch has come.
func (r *Registry) tellsProgress(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, keptPatience)
	defer cancel()
	resp, err := etcdserverpb.NewMaintenanceClient(r.client.ActiveConnection()).Status(ctx, &etcdserverpb.StatusRequest{})
	return err == nil && ordersProgress(resp.Version)
}

// ordersProgress reports whether a release of etcd puts what it tells of a watch's
// progress behind the events that came before. The first releases of 3.4 and 3.5 did
// not, and a mixed cluster may have one of those: 3.6 is the first without.
func ordersProgress(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); err != nil {
		return false
	}
	return major > 3 || major == 3 && minor >= 6
}

// position asks for where the store is now; the read is linearizable.
func (r *Registry) position(ctx context.Context) (position, error) {
	resp, err := r.get(ctx, "read the registry", r.key(Key{Kind: KindMark}))
	if err != nil {
		return position{}, err
	}
	p := position{cluster: resp.Header.ClusterId, rev: resp.Header.Revision}
	for _, kv := range resp.Kvs {
		p.mark = string(kv.Value)
	}
	return p, nil
}
