package member

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPersist(t *testing.T) {
	refused, carriedOut := errors.New("refused"), errors.New("there already")
	lost := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, c := range map[string]struct {
		attempts []error // context.DeadlineExceeded: the attempt gets lost
		want     error
		after    time.Duration
	}{
		"at once":                      {[]error{nil}, nil, 0},
		"refused":                      {[]error{refused}, refused, 0},
		"there before":                 {[]error{carriedOut}, carriedOut, 0},
		"lost, then done":              {[]error{context.DeadlineExceeded, nil}, nil, time.Second},
		"done, but not told":           {[]error{context.DeadlineExceeded, carriedOut}, nil, time.Second},
		"lost, then refused":           {[]error{context.DeadlineExceeded, context.DeadlineExceeded, refused}, refused, 2 * time.Second},
		"no majority: the whole limit": {nil, context.DeadlineExceeded, 7 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			defer cancel()
			began, n := time.Now(), 0
			err := persist(ctx, carriedOut, func(ctx context.Context) error {
				n++
				if n > len(c.attempts) || errors.Is(c.attempts[n-1], context.DeadlineExceeded) {
					return lost(ctx)
				}
				return c.attempts[n-1]
			})
			if !errors.Is(err, c.want) || time.Since(began) != c.after {
				t.Errorf("%s: %v after %v, want %v after %v", name, err, time.Since(began), c.want, c.after)
			}
		})
	}
}
