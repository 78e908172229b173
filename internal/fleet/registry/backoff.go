package registry

import (
	"context"
	"time"
)

// Backoff is the wait between tries, doubling from Min to Max.
type Backoff struct {
	Min, Max time.Duration
	next     time.Duration
}

// Reset begins again at Min.
func (b *Backoff) Reset() { b.next = 0 }

// Next returns the next wait.
func (b *Backoff) Next() time.Duration {
	b.next = min(max(2*b.next, b.Min), b.Max)
	return b.next
}

// Wait waits for the next wait, at most until ctx is done.
func (b *Backoff) Wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(b.Next()):
	}
}
