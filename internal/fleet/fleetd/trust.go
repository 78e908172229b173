package fleetd

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How long the keys of the machines are taken as read: one that is known, and one
// that is not. A stranger who knocks without end costs the store ten reads a second
// and no more; a machine that has just joined is known at its next try.
const (
	knownFor   = time.Second
	unknownFor = 100 * time.Millisecond
)

// trust knows the keys of the machines that are present.
type trust struct {
	read func(context.Context) (map[string]bool, error)

	mu   sync.Mutex
	keys map[string]bool
	at   time.Time // when keys were read; zero: never
}

// accept returns nil for the key of a machine that is present.
func (t *trust) accept(ctx context.Context, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := unknownFor
	if t.keys[key] {
		limit = knownFor
	}
	if t.at.IsZero() || time.Since(t.at) >= limit {
		keys, err := t.read(ctx)
		if err != nil {
			return err
		}
		t.keys, t.at = keys, time.Now()
	}
	if !t.keys[key] {
		return errors.New("no machine of the cluster has that key")
	}
	return nil
}
