package unitfake

import (
	"context"
	"errors"
	"fmt"

	"flotilla/internal/unit"
)

var _ unit.Adopter = (*Manager)(nil)

// Native makes a unit that runs from a file of the machine's own.
func (m *Manager) Native(name, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := &fakeUnit{native: true, text: text, st: unit.Status{Name: name, Active: "inactive", Sub: "dead"}}
	m.units[name] = u
	m.up(u)
}

// native returns a unit of the machine's own. m.mu is held.
func (m *Manager) native(name string) (*fakeUnit, error) {
	u := m.units[name]
	if u == nil || !u.native {
		return nil, errors.New("the machine has no such unit of its own")
	}
	return u, nil
}

// Own implements unit.Adopter.
func (m *Manager) Own(ctx context.Context, name string) (string, error) {
	if err := m.lock(ctx); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	defer m.mu.Unlock()
	u, err := m.native(name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return u.text, nil
}

// TakeOver implements unit.Adopter.
func (m *Manager) TakeOver(ctx context.Context, name, text string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("take over %s: %w", name, err)
	}
	defer m.mu.Unlock()
	u, err := m.native(name)
	if err != nil {
		return fmt.Errorf("take over %s: %w", name, err)
	}
	u.native, u.installed, u.file = false, true, text
	m.tell(u)
	return nil
}

// Eject implements unit.Adopter.
func (m *Manager) Eject(ctx context.Context, name string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("eject %s: %w", name, err)
	}
	defer m.mu.Unlock()
	u := m.units[name]
	if u == nil || !u.installed {
		return fmt.Errorf("eject %s: it is not installed", name)
	}
	u.native, u.installed, u.text = true, false, u.file
	return nil
}
