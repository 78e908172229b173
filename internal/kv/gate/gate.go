package gate

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

	"flotilla/internal/kv/auth"
)

// The reasons why a gate cannot tell; they are no refusals.
var (
	// ErrNotRead: the users and roles have not been read yet.
	ErrNotRead = errors.New("the store's users and roles have not been read yet")
	// ErrBusy: too many passwords are being verified.
	ErrBusy = errors.New("too many passwords wait to be verified; try again")
	// ErrEngineAuth: the engine's own authentication is on.
	ErrEngineAuth = errors.New("the store's v3 authentication is enabled: the v2 API is closed until it is disabled")
)

// Config is what a Gate needs. Client and Log are required.
type Config struct {
	// Client speaks to the v3 store past the gate: an in-process client.
	Client *clientv3.Client
	Log    *slog.Logger
	// Remote: Client comes to the store through the gates of its members, as a user
	// who should have the role root. As soon as it is refused, or not shown what counts,
	// this gate cannot tell who may come in.
	Remote bool
	// EngineAuth tells whether the engine's own authentication is on; nil: never.
	EngineAuth func() bool
	// Cost is bcrypt's, for new passwords; 0 means 10, as it always was: some 60 ms.
	Cost int
	// TokenTTL is how long the token of a v3 client is good for; then the client
	// sends its password again, by itself. 0 means 5 minutes.
	TokenTTL time.Duration
	// Timeout is how long a change may take; 0 means 7 s.
	Timeout time.Duration
	// Now is the clock that tokens end by; nil means time.Now.
	Now func() time.Time
}

// Gate decides who is let in. Its methods are safe for concurrent use.
type Gate struct {
	cfg    Config
	logins *logins

	mu      sync.RWMutex
	state   *auth.State // nil until read
	changed chan struct{}
	holds   map[*hold]struct{}
}

// New makes a gate, which is closed until Run has read the state.
func New(cfg Config) *Gate {
	if cfg.EngineAuth == nil {
		cfg.EngineAuth = func() bool { return false }
	}
	if cfg.Cost == 0 {
		cfg.Cost = 10
	}
	if cfg.TokenTTL == 0 {
		cfg.TokenTTL = 5 * time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 7 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{cfg: cfg, logins: newLogins(cfg.Cost), changed: make(chan struct{}), holds: map[*hold]struct{}{}}
}

// current is the state to decide on.
func (g *Gate) current() (*auth.State, error) {
	if g.cfg.EngineAuth() {
		return nil, ErrEngineAuth
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.state == nil {
		return nil, ErrNotRead
	}
	return g.state, nil
}

// pause is between two attempts to follow the store.
const pause = 500 * time.Millisecond

// Run follows the store's users and roles until ctx ends, and returns nil. It calls
// ready when the gate can tell who may come in, or need not, since the engine's
// own authentication is on. While the store cannot be followed the gate goes by
// what it knows.
func (g *Gate) Run(ctx context.Context, ready func()) error {
	once := sync.OnceFunc(ready)
	failing := false
	for {
		if g.cfg.EngineAuth() {
			once()
		}
		err := g.follow(ctx, func() {
			if failing {
				g.cfg.Log.Info("following the store's users and roles again")
			}
			failing = false
			once()
		})
		if ctx.Err() != nil {
			return nil
		}
		if g.cfg.Remote && refusedAsUser(err) {
			g.forget()
		}
		if !failing {
			g.cfg.Log.Warn("cannot follow the store's users and roles; trying again until it works", "err", err)
			failing = true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow reads the records and then takes over each change of them, until the watch
// ends, which is always an error.
func (g *Gate) follow(ctx context.Context, following func()) error {
	resp, err := g.read(ctx)
	if err != nil {
		return err
	}
	records := map[string]auth.Record{}
	for _, kv := range resp.Kvs {
		records[string(kv.Key)] = auth.Record{Key: string(kv.Key), Value: string(kv.Value), Revision: kv.ModRevision}
	}
	if g.cfg.Remote && withheldIn(records) {
		return errNotShown
	}
	g.install(records)
	following()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := g.cfg.Client.Watch(clientv3.WithRequireLeader(ctx), auth.RecordsStart,
		clientv3.WithRange(auth.RecordsEnd), clientv3.WithRev(resp.Header.Revision+1))
	for w := range watch {
		if err := w.Err(); err != nil {
			return fmt.Errorf("watch users and roles: %w", err)
		}
		for _, e := range w.Events {
			if key := string(e.Kv.Key); e.Type == clientv3.EventTypeDelete {
				delete(records, key)
			} else {
				records[key] = auth.Record{Key: key, Value: string(e.Kv.Value), Revision: e.Kv.ModRevision}
			}
		}
		if _, on := records[auth.SwitchKey]; on && g.cfg.Remote && g.Open() {
			return errNotShown // nor were the users and roles of before
		}
		g.install(records)
	}
	return errors.New("watch users and roles: the watch has ended")
}

// read gets the records as a quorum knows them.
func (g *Gate) read(ctx context.Context) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	resp, err := g.cfg.Client.Get(ctx, auth.RecordsStart, clientv3.WithRange(auth.RecordsEnd))
	if err != nil {
		return nil, fmt.Errorf("read users and roles: %w", err)
	}
	return resp, nil
}

// errNotShown: while authentication is off the values of the records are withheld, so
// that they have to be read anew when it is switched on.
var errNotShown = errors.New("authentication has been switched on: users and roles have to be read anew")

// withheldIn reports whether the records say that authentication is on, and are not
// shown all the same.
func withheldIn(records map[string]auth.Record) bool {
	r, on := records[auth.SwitchKey]
	return on && r.Value == ""
}

// refusedAsUser reports whether the members' gates have refused this one.
func refusedAsUser(err error) bool {
	if errors.Is(err, errNotShown) {
		return true
	}
	for _, refusal := range []error{rpctypes.ErrUserEmpty, rpctypes.ErrPermissionDenied, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthFailed} {
		if strings.Contains(err.Error(), refusal.Error()) { // a watch tells the reason as a text
			return true
		}
	}
	return false
}

// forget ends what was allowed, until the state is read again.
func (g *Gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = nil
	for h := range g.holds {
		delete(g.holds, h)
		h.end()
	}
}

// Knows reports whether the gate can tell who may come in.
func (g *Gate) Knows() bool {
	_, err := g.current()
	return err == nil
}

// install puts a new state in place and ends what it no longer allows.
func (g *Gate) install(records map[string]auth.Record) {
	list := make([]auth.Record, 0, len(records))
	for _, r := range records {
		list = append(list, r)
	}
	state := auth.Load(list)
	g.mu.Lock()
	defer g.mu.Unlock()
	if was := g.state != nil && g.state.Enabled(); was != state.Enabled() {
		g.cfg.Log.Info("authentication switched", "enabled", state.Enabled())
	}
	g.state = state
	close(g.changed)
	g.changed = make(chan struct{})
	for h := range g.holds {
		if !h.allowed(state) {
			delete(g.holds, h)
			h.end()
		}
	}
}

// hold is something that lasts, and ends when it is no longer allowed.
type hold struct {
	allowed func(*auth.State) bool // called with the gate's lock held: it must not block
	end     func()                 // called at most once, likewise
}

// hold watches over h until the function that it returns is called. If h is not
// allowed even now, it is ended at once.
func (g *Gate) hold(h *hold) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != nil && !h.allowed(g.state) {
		h.end()
		return func() {}
	}
	g.holds[h] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.holds, h)
	}
}

// reached waits until the gate decides by a state of that version or a later one.
func (g *Gate) reached(ctx context.Context, version int64) error {
	for {
		g.mu.RLock()
		state, changed := g.state, g.changed
		g.mu.RUnlock()
		if state != nil && state.Version() >= version {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for users and roles of revision %d: %w", version, ctx.Err())
		}
	}
}
