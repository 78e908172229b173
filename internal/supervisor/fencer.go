package supervisor

import (
	"context"
	"net/http"
	"time"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

var (
	_ unit.Fencer = (*Supervisor)(nil)
	_ unit.Fencer = (*Client)(nil)
)

// KillUnit implements unit.Fencer.
func (s *Supervisor) KillUnit(ctx context.Context, name string) error {
	return s.do(ctx, func() error {
		s.killUnit(name)
		return nil
	})
}

func (s *Supervisor) killUnit(name string) {
	u := s.units[name]
	if u == nil || u.m.State == service.Dead {
		return
	}
	s.logUnit(name, 5, name+": Killing all processes with signal SIGKILL, as was asked for.")
	u.group.KillEach()
}

// guard is what Guard was told last.
type guard struct {
	After, Grace time.Duration
	Units        []string
}

// Guard implements unit.Fencer. A supervisor that ends stands guard no more.
func (s *Supervisor) Guard(ctx context.Context, after, grace time.Duration, names ...string) error {
	return s.do(ctx, func() error {
		if s.guard != nil {
			s.guard.Stop()
			s.guard = nil
		}
		if len(names) > 0 {
			s.guard = s.later(after, func() { s.fence(grace, names) })
		}
		return nil
	})
}

// later runs f in the loop after a while.
func (s *Supervisor) later(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { s.post(f) })
}

// fence stops units that nobody has spoken up for, and kills them after the grace.
func (s *Supervisor) fence(grace time.Duration, names []string) {
	for _, name := range names {
		if u := s.units[name]; u != nil && !u.m.State.Inactive() {
			s.logUnit(name, 4, name+": Stopping: whoever looks after it did not come back in time.")
			s.ended(s.queue.Add([]unit.Job{{Kind: unit.Stop, Unit: name}}, "", 0))
		}
	}
	s.guard = s.later(grace, func() {
		for _, name := range names {
			s.killUnit(name)
		}
	})
}

func (s *Supervisor) serveGuard(w http.ResponseWriter, r *http.Request) (any, error) {
	g, err := decodeBody[guard](w, r)
	if err != nil {
		return nil, err
	}
	return nil, s.Guard(r.Context(), g.After, g.Grace, g.Units...)
}

// KillUnit implements unit.Fencer.
func (c *Client) KillUnit(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "kill-unit", name, nil)
}

// Guard implements unit.Fencer.
func (c *Client) Guard(ctx context.Context, after, grace time.Duration, names ...string) error {
	return c.call(ctx, http.MethodPost, "guard", guard{after, grace, names}, nil)
}
