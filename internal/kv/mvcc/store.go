package mvcc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"golang.org/x/sync/semaphore"

	"flotilla/api/keys"
	"flotilla/internal/fault"
	"flotilla/internal/kv/v2"
)

// Config is what a Store needs. Client and Log are required.
type Config struct {
	// Client speaks to the v3 store; an in-process client will do. The gateway
	// asks for progress on the watch stream that watches with a plain context
	// share, so it should have the client to itself.
	Client *clientv3.Client
	Log    *slog.Logger

	// Engine is the store's engine, if it runs in this process: writes, reads and
	// the watch then go to it and not through Client.
	Engine *etcdserver.EtcdServer

	// Active reports whether this gateway is the one that expires keys and
	// compacts the history: the leader's. nil means always; a second active
	// gateway does no harm, it only loses guards.
	Active func() bool

	// KeepHistory leaves compaction to somebody else.
	KeepHistory bool

	// Timeout is how long a write or a quorum read may take before it is
	// answered with error 300. 0 means 7 s, as etcd has it: 5 s and two elections.
	Timeout time.Duration

	// Now is the clock that TTLs are counted by; nil means time.Now.
	Now func() time.Time
}

// Store is a gateway to the v3 store. Its methods are safe for concurrent use.
type Store struct {
	cfg     Config
	backend backend

	// turns keeps an in-order POST alone among the writes of this gateway, so
	// that its name is its index: a Post takes all turns, another write takes one.
	turns   *semaphore.Weighted
	recalls recalls

	mu       sync.RWMutex
	tree     *v2.Tree // nil until loaded
	recent   ring
	past     past
	waits    []*wait
	writers  map[string]map[*writer]struct{}
	watchers map[string]map[*Watcher]struct{}
	observe  func(*keys.Event) // nil: nobody

	nextExpiry time.Time     // as the housekeeper was last told
	expiry     chan struct{} // 1 slot: nextExpiry is new
}

const allTurns = 1 << 20

// New makes a store; it touches nothing before Run.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 7 * time.Second
	}
	if cfg.Active == nil {
		cfg.Active = func() bool { return true }
	}
	var b backend = remote{cfg.Client}
	if cfg.Engine != nil {
		b = newLocal(cfg.Engine)
	}
	return &Store{
		cfg:      cfg,
		backend:  b,
		turns:    semaphore.NewWeighted(allTurns),
		writers:  map[string]map[*writer]struct{}{},
		watchers: map[string]map[*Watcher]struct{}{},
		expiry:   make(chan struct{}, 1),
	}
}

// Answer is what a request that succeeded is answered with.
type Answer struct {
	Event *keys.Event // shared with watchers: do not modify
	Index uint64      // X-Etcd-Index
}

// Index is the index that the gateway has caught up with, 0 before it is ready.
func (s *Store) Index() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tree == nil {
		return 0
	}
	return s.tree.Index()
}

// Read answers a Get. Without Quorum it is what this gateway knows now. An
// answer of the API that is an error comes as a *keys.Error.
func (s *Store) Read(ctx context.Context, r v2.Request) (Answer, error) {
	if r.Quorum {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		if _, err := s.catchUp(ctx); err != nil {
			return Answer{}, s.storeError(err)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tree == nil {
		return Answer{}, errNotLoaded()
	}
	e, kerr := s.tree.Get(r.Path, r.Recursive, s.cfg.Now())
	if kerr != nil {
		return Answer{}, kerr
	}
	return Answer{Event: e, Index: s.tree.Index()}, nil
}

// Write carries out a write. An answer of the API that is an error comes as a
// *keys.Error; with code 300 nobody knows whether the write was done.
func (s *Store) Write(ctx context.Context, r v2.Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	n := int64(1)
	if r.Op == v2.Post {
		n = allTurns
	}
	if err := s.turns.Acquire(ctx, n); err != nil {
		return Answer{}, s.storeError(err)
	}
	defer s.turns.Release(n)
	answer, err := s.write(ctx, r)
	if _, ok := errors.AsType[*keys.Error](err); err != nil && !ok {
		return Answer{}, s.storeError(err)
	}
	return answer, err
}

// write evaluates and commits until a guard holds, or until an error is known to
// be fresh.
func (s *Store) write(ctx context.Context, r v2.Request) (Answer, error) {
	var confirmed uint64 // the store was at this revision after the request came
	if r.Op == v2.Post { // the index that makes the name must be the latest
		var err error
		if confirmed, err = s.catchUp(ctx); err != nil {
			return Answer{}, err
		}
	}
	for {
		plan, index, kerr := s.evaluate(r)
		if kerr != nil && confirmed != 0 && index >= confirmed {
			return Answer{}, kerr
		}
		if kerr != nil {
			var err error
			if confirmed, err = s.catchUp(ctx); err != nil {
				return Answer{}, err
			}
			continue
		}
		event, revision, err := s.commit(ctx, plan)
		if err != nil {
			return Answer{}, err
		}
		if event != nil {
			return Answer{Event: event, Index: revision}, nil
		}
	}
}

func (s *Store) evaluate(r v2.Request) (v2.Plan, uint64, *keys.Error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tree == nil {
		return v2.Plan{}, 0, errNotLoaded()
	}
	plan, kerr := s.tree.Evaluate(r, s.cfg.Now())
	return plan, s.tree.Index(), kerr
}

// commit runs the plan and waits until the tree has taken it over. No event and no error:
// a guard was lost, and the tree has caught up with the reason.
func (s *Store) commit(ctx context.Context, plan v2.Plan) (*keys.Event, uint64, error) {
	w := s.expect(plan.Path)
	defer s.forget(w)
	ok, revision, err := s.transact(ctx, plan)
	if err != nil {
		return nil, 0, err
	}
	if err := s.await(ctx, revision, !ok); err != nil {
		return nil, 0, err
	}
	if !ok {
		return nil, revision, nil
	}
	event := w.at(revision)
	if event == nil {
		// To evaluate again would do it again.
		return nil, 0, fmt.Errorf("write %s: done at index %d, but the history that tells the outcome is gone", plan.Path, revision)
	}
	return event, revision, nil
}

// transact runs the plan as one transaction. It returns whether the guards held
// and the store's revision.
func (s *Store) transact(ctx context.Context, plan v2.Plan) (bool, uint64, error) {
	ok, revision, err := s.backend.commit(ctx, plan)
	if err != nil {
		return false, 0, fmt.Errorf("write %s: %w", plan.Path, err)
	}
	return ok, revision, nil
}

// catchUp asks a quorum for the store's revision and waits for the tree to get
// there.
func (s *Store) catchUp(ctx context.Context) (uint64, error) {
	revision, err := s.backend.confirm(ctx)
	if err != nil {
		return 0, fmt.Errorf("confirm the store's revision: %w", err)
	}
	return revision, s.await(ctx, revision, true)
}

// storeError is how the API tells of a store that could not do its work.
func (s *Store) storeError(err error) error {
	if kerr, ok := errors.AsType[*keys.Error](err); ok {
		return kerr
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrTimeout) {
		return fault.Hint(keys.NewError(keys.CodeRaftInternal, "etcdserver: request timed out", 0),
			"see whether a majority of the store's members runs: etcdctl cluster-health")
	}
	cause := err.Error()
	if i := strings.Index(cause, "etcdserver: "); i >= 0 {
		cause = cause[i:] // clients know the engine's own words
	}
	return keys.NewError(keys.CodeRaftInternal, cause, 0)
}

func errNotLoaded() *keys.Error {
	return keys.NewError(keys.CodeRaftInternal, "the gateway has not read the store yet", 0)
}
