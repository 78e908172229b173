package unitfake

import (
	"context"
	"fmt"
	"time"

	"flotilla/internal/unit"
)

var _ unit.Fencer = (*Manager)(nil)

// KillUnit implements unit.Fencer.
func (m *Manager) KillUnit(ctx context.Context, name string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	defer m.mu.Unlock()
	m.kill(name)
	return nil
}

// kill ends a unit's process; a stop job under way has ended then.
func (m *Manager) kill(name string) {
	u := m.units[name]
	if u == nil || !u.loaded() || u.st.Active == "failed" {
		return
	}
	if b := u.job; b != nil && b.job.Kind == unit.Stop {
		if b.timer != nil {
			b.timer.Stop()
		}
		m.finish(u, b, Script{})
		return
	}
	m.set(u, "failed", "failed", "signal")
}

// Guard implements unit.Fencer.
func (m *Manager) Guard(ctx context.Context, after, grace time.Duration, names ...string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer m.mu.Unlock()
	if m.guard != nil {
		m.guard.Stop()
	}
	m.guard = nil
	if len(names) == 0 {
		return nil
	}
	m.guard = time.AfterFunc(after, func() {
		for _, name := range names {
			m.begin(context.Background(), unit.Job{Kind: unit.Stop, Unit: name})
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.guard = time.AfterFunc(grace, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, name := range names {
				m.kill(name)
			}
		})
	})
	return nil
}
