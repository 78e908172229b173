package lock

import (
	"context"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
)

// Update is what a watch delivers: a state, or why there is none now.
type Update struct {
	State
	Err error
}

// How long a watch waits after a failure, at first and at most.
const (
	retryFrom = time.Second
	retryMost = 30 * time.Second
)

// Watch delivers the state of the lock now and after each change, until ctx ends;
// then the channel is closed. While the store does not answer it delivers the error
// of each try and goes on trying. States come in the order of their indexes; one
// that was passed over because the receiver is slow is not made up for.
func (l *Lock) Watch(ctx context.Context) <-chan Update {
	out := make(chan Update)
	go func() {
		defer close(out)
		wait := retryFrom
		for ctx.Err() == nil {
			err := l.follow(ctx, out, func() { wait = retryFrom })
			if ctx.Err() != nil || !send(ctx, out, Update{Err: err}) {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, retryMost)
		}
	}()
	return out
}

// follow reads the lock, then delivers its changes until something fails.
func (l *Lock) follow(ctx context.Context, out chan<- Update, well func()) error {
	for {
		now, err := l.Read(ctx)
		if err != nil {
			return err
		}
		well()
		if !send(ctx, out, Update{State: now}) {
			return ctx.Err()
		}
		// Whatever the change was, the newest state is read: a slow receiver is never
		// behind, and a change that the store has forgotten is none to miss.
		_, err = l.c.Watch(Key(l.group), keys.WatchOptions{After: now.at}).Next(ctx)
		if err != nil && !is(err, wire.CodeEventIndexGone) {
			return l.fail("watch", err)
		}
	}
}

func send(ctx context.Context, out chan<- Update, u Update) bool {
	select {
	case out <- u:
		return true
	case <-ctx.Done():
		return false
	}
}
