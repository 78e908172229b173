// Package lock keeps the reboot lock in the store, through the v2 API: reads that a
// majority confirms, changes as one compare-and-swap of the whole value on the index
// that was read, watches, and the history beside it. What a change may be is decided
// by package sema.
package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
	"flotilla/internal/fault"
	"flotilla/internal/reboot/sema"
)

// prefix is where the classic clients have the lock.
const prefix = "/coreos.com/updateengine/rebootlock"

// ErrBusy: Change, others were faster every time.
var ErrBusy = errors.New("others change the lock all the time")

// Key is where the lock of a group is; "" is the lock of machines without a group.
func Key(group string) string { return path.Join(dir(group), "semaphore") }

// dir holds the lock and the history of a group.
func dir(group string) string {
	if group == "" {
		return prefix
	}
	return path.Join(prefix, "groups", url.QueryEscape(group))
}

// Lock is the lock of one group. It may be used by several goroutines.
type Lock struct {
	c     *keys.Client
	group string
	// Now is the time for the history; New sets the clock of this machine.
	Now func() time.Time
}

// New makes the lock of a group; it asks the store nothing. A group is any text but
// "." and "..", which would lead to another key.
func New(c *keys.Client, group string) (*Lock, error) {
	if group == "." || group == ".." {
		return nil, fmt.Errorf("%q cannot be the name of a group", group)
	}
	return &Lock{c: c, group: group, Now: time.Now}, nil
}

// Group is the name of the group, "" for none.
func (l *Lock) Group() string { return l.group }

// State is the lock as it was at one index of the store.
type State struct {
	sema.Semaphore
	// Index is the index of the last change; 0 while nobody has written the lock.
	Index uint64

	at uint64 // the store's index when it was read: further changes come behind
}

// Read reads the lock as a majority of the store has it. A lock that nobody has
// written is sema.New at index 0.
func (l *Lock) Read(ctx context.Context) (State, error) {
	r, err := l.c.Get(ctx, Key(l.group), keys.GetOptions{Quorum: true})
	var refused *keys.Error
	if errors.As(err, &refused) && refused.ErrorCode == wire.CodeKeyNotFound {
		return State{Semaphore: sema.New(), at: refused.Index}, nil
	}
	if err != nil {
		return State{}, l.fail("read", err)
	}
	return l.decode(r)
}

// decode reads the value of the lock's node.
func (l *Lock) decode(r *keys.Response) (State, error) {
	n := r.Node
	if n == nil || n.Dir || n.Value == nil {
		return State{}, fault.Hint(l.fail("read", errors.New("the key has no value: it is a directory")),
			"somebody has made it by hand; etcdctl rm --recursive %s", Key(l.group))
	}
	s, err := sema.Decode([]byte(*n.Value))
	if err != nil {
		return State{}, fault.Hint(l.fail("read", err),
			"somebody has written it by hand; a free lock: etcdctl set %s '%s'", Key(l.group), sema.New().Encode())
	}
	return State{Semaphore: s, Index: n.ModifiedIndex, at: r.Index}, nil
}

// Init writes a free lock of one slot unless there is a lock. Classic clients and
// people who list keys find it from then on.
func (l *Lock) Init(ctx context.Context) error {
	_, err := l.c.Create(ctx, Key(l.group), string(sema.New().Encode()), 0)
	if err != nil && !is(err, wire.CodeNodeExist) {
		return l.fail("create", err)
	}
	return nil
}

// Tries of a change, and the pauses between them: random, so that writers who met
// once do not meet again, and longer each time.
const (
	maxTries  = 12
	pauseFrom = 5 * time.Millisecond
	pauseMost = 500 * time.Millisecond
)

// Change reads the lock, has f make the next value of it and writes that, unless the
// lock was changed in between: then again from the start, a bounded number of times
// (ErrBusy). What f refuses is returned as it is, with the state it refused; a value
// that f leaves as it was is not written.
//
// When the answer to a write is lost, Change finds out whether it was carried out.
// If even that fails, the error says that it may have been: read the lock before
// acting on either.
func (l *Lock) Change(ctx context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (State, error) {
	var doubts []attempt // writes whose answer was lost
	for try := range maxTries {
		if err := pause(ctx, try); err != nil {
			return State{}, l.fail("change", unsure(doubts, err))
		}
		now, err := l.Read(ctx)
		if err != nil && len(doubts) > 0 && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return State{}, unsure(doubts, err)
		}
		if a, ok := l.happened(ctx, doubts, now); ok {
			l.record(ctx, a.before, a.after)
			return now, nil
		}
		next, err := f(now.Semaphore)
		if err != nil {
			return now, unsure(doubts, err)
		}
		a := attempt{before: now, after: next, value: string(next.Encode())}
		if now.Index > 0 && a.value == string(now.Encode()) {
			return now, nil
		}
		index, err := l.write(ctx, a)
		switch {
		case err == nil:
			l.record(ctx, a.before, a.after)
			return State{Semaphore: next, Index: index, at: index}, nil
		case is(err, wire.CodeTestFailed), is(err, wire.CodeNodeExist), is(err, wire.CodeKeyNotFound):
			// Somebody was faster. With a write in doubt, it may be that one.
		case mayHaveHappened(err):
			doubts = append(doubts, a)
		default:
			return State{}, l.fail("write", err)
		}
	}
	return State{}, l.fail("change", unsure(doubts, ErrBusy))
}

// attempt is one write: the state it was made from, and what it was to become.
type attempt struct {
	before State
	after  sema.Semaphore
	value  string
}

func (l *Lock) write(ctx context.Context, a attempt) (uint64, error) {
	o := keys.SetOptions{PrevIndex: a.before.Index}
	if a.before.Index == 0 {
		o.PrevExist = keys.MustNotExist
	}
	r, err := l.c.Set(ctx, Key(l.group), a.value, o)
	if err != nil {
		return 0, err
	}
	return r.Node.ModifiedIndex, nil
}

// happened finds the write whose answer was lost and that has been carried out. Each
// was made on one index, so if it was carried out, it is the first change behind that
// index. An equal value there is as good: signs of life and holders differ in their
// numbers and times, and of two equal changes by different people one is enough.
func (l *Lock) happened(ctx context.Context, doubts []attempt, now State) (attempt, bool) {
	for _, a := range doubts {
		if now.Index == a.before.Index {
			continue // not yet; if it is carried out later, the next write fails
		}
		if string(now.Encode()) == a.value || l.firstBehind(ctx, a.before.at) == a.value {
			return a, true
		}
	}
	return attempt{}, false
}

// firstBehind is the first value that the lock got behind an index of the store; ""
// if that cannot be found out.
func (l *Lock) firstBehind(ctx context.Context, index uint64) string {
	ctx, cancel := context.WithTimeout(ctx, lookBack)
	defer cancel()
	first, err := l.c.Watch(Key(l.group), keys.WatchOptions{After: index}).Next(ctx)
	if err != nil || first.Node == nil || first.Node.Value == nil {
		return ""
	}
	return *first.Node.Value
}

// lookBack is how long the store may take to tell of a change that there has been.
const lookBack = 2 * time.Second

// pause waits before a further try.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	most := min(pauseFrom<<try, pauseMost)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(most/2 + rand.N(most/2)):
		return nil
	}
}

// unsure adds to an error that a write may have been carried out.
func unsure(doubts []attempt, err error) error {
	if len(doubts) == 0 {
		return err
	}
	return fmt.Errorf("%w (the change may have been made all the same: its answer was lost)", err)
}

// mayHaveHappened tells whether a write that failed may have been carried out: its
// answer was lost, or the store could not say.
func mayHaveHappened(err error) bool {
	var refused *keys.Error
	if errors.As(err, &refused) {
		return refused.Status() >= 500
	}
	var status *keys.StatusError
	if errors.As(err, &status) {
		return status.Status >= 500
	}
	return true
}

// is tells whether the store refused with this code.
func is(err error, code int) bool {
	var e *keys.Error
	return errors.As(err, &e) && e.ErrorCode == code
}

// fail says which lock something failed with. The store's own hints follow what the
// failure was.
func (l *Lock) fail(doing string, err error) error {
	err = fmt.Errorf("%s reboot lock %s: %w", doing, Key(l.group), err)
	if is(err, wire.CodeUnauthorized) {
		return fault.Hint(err, "the store asks for a user who may read and write below %s", prefix)
	}
	return err
}
