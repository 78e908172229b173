package agent

import (
	"context"
	"sync"

	"flotilla/internal/fleet/registry"
)

// session is the lease by which the machine is present, for whoever needs one.
type session struct {
	mu      sync.Mutex
	lease   registry.Lease
	held    context.Context // ends with the lease; nil: there is none
	changed chan struct{}   // closed and replaced when there is another
}

func newSession() *session { return &session{changed: make(chan struct{})} }

// begin notes a lease that lives as long as held.
func (s *session) begin(held context.Context, lease registry.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease, s.held = lease, held
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the lease when there is one, with a context that ends with it, with ctx or
// with release, which is to be called; false: ctx is done, and there is nothing to release.
func (s *session) wait(ctx context.Context) (lease registry.Lease, both context.Context, release func(), ok bool) {
	for {
		s.mu.Lock()
		lease, held, changed := s.lease, s.held, s.changed
		s.mu.Unlock()
		if held != nil && held.Err() == nil && ctx.Err() == nil {
			both, cancel := context.WithCancel(ctx)
			forget := context.AfterFunc(held, cancel)
			return lease, both, func() { forget(); cancel() }, true
		}
		select {
		case <-ctx.Done():
			return registry.Lease{}, nil, nil, false
		case <-changed:
		}
	}
}
