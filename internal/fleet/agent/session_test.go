package agent

import (
	"context"
	"testing"

	"flotilla/internal/fleet/registry"
)

// counted is a context that knows how many wait for its end.
type counted struct {
	context.Context
	waiting int
}

// AfterFunc is how package context asks a context that it does not know to be told.
func (c *counted) AfterFunc(f func()) (stop func() bool) {
	c.waiting++
	undo := context.AfterFunc(c.Context, f)
	return func() bool {
		c.waiting--
		return undo()
	}
}

// Whoever has used a lease leaves nothing behind with it, nor with the agent's life: a
// lease may live for months, and a unit be started each minute.
func TestSessionLeavesNothingBehind(t *testing.T) {
	life, held := &counted{Context: t.Context()}, &counted{Context: t.Context()}
	s := newSession()
	s.begin(held, registry.Lease{})
	for range 10 {
		_, both, release, ok := s.wait(life)
		if !ok || both.Err() != nil {
			t.Fatal("there is a lease")
		}
		release()
		if both.Err() == nil {
			t.Error("it goes on")
		}
	}
	if life.waiting != 0 || held.waiting != 0 {
		t.Errorf("%d wait for the end of the agent, %d for that of the lease", life.waiting, held.waiting)
	}
}
