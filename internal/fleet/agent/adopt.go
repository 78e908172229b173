package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"flotilla/internal/fault"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// Adopt returns the text of a unit that runs here from a file of the machine's own,
// and allows the cluster to take it over: when an entry with that very text comes into
// the machine's schedule, the unit's files become the cluster's and its process goes
// on. Nothing has changed until then. The leave is forgotten at a reboot.
func (a *Agent) Adopt(ctx context.Context, name string) (text string, err error) {
	m, err := a.adopter()
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", name, err)
	}
	if text, err = m.Own(ctx, name); err != nil {
		return "", fmt.Errorf("adopt %s: %w", name, err)
	}
	statuses, err := a.manager.Status(ctx, name)
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", name, err)
	}
	if quiet(statuses[0]) {
		return "", fault.Hint(fmt.Errorf("adopt %s: it is %s here", name, statuses[0].Active), "start it first, or submit its file as any other")
	}
	err = a.inLoop(ctx, func() error {
		a.consent(name, unitfile.HashText(text))
		a.rememberWork()
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", name, err)
	}
	return text, nil
}

// Eject leaves a unit of the cluster on this machine as an ordinary one: its files are
// the machine's own, it is enabled if it has an [Install] section, and its process
// goes on. The agent lets go of it, and the unit is to be destroyed in the cluster
// after that; until then it counts as placed here.
func (a *Agent) Eject(ctx context.Context, name string) error {
	m, err := a.adopter()
	if err == nil {
		err = a.inLoop(ctx, func() error { return a.detach(name) })
	}
	if err != nil {
		return fmt.Errorf("eject %s: %w", name, err)
	}
	failure := m.Eject(ctx, name)
	// The agent has to know how that ended, whether or not the caller waits for it.
	err = a.inLoop(context.WithoutCancel(ctx), func() error {
		if u, ok := a.units[name]; ok {
			u.ejected = failure == nil
			u.installed = failure != nil
		}
		return nil
	})
	return errors.Join(failure, err) // names the unit
}

// detach has the agent keep its hands off a unit.
func (a *Agent) detach(name string) error {
	u, ok := a.units[name]
	switch {
	case !ok || !u.installed:
		return errors.New("it is not on this machine")
	case u.job != nil:
		return fault.Hint(errors.New("a job for it is under way"), "try again when it is done")
	}
	u.ejected = true
	return nil
}

func (a *Agent) adopter() (unit.Adopter, error) {
	m, ok := a.manager.(unit.Adopter)
	if !ok {
		return nil, errors.New("the machine's init system has no units of its own: that needs systemd")
	}
	return m, nil
}

// inLoop has the loop run f and returns its error. Once it has returned for want of
// time f is not run any more.
func (a *Agent) inLoop(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	var once sync.Once // f, or the giving up
	a.inbox.leave(func(n *news) { n.found = append(n.found, func() { once.Do(func() { done <- f() }) }) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		once.Do(func() { done <- ctx.Err() })
		return <-done
	case <-a.over:
		return errors.New("the agent has ended")
	}
}

// consent notes that a unit of the machine's own with a text of that hash may be
// taken over; "" takes it back.
func (a *Agent) consent(name, hash string) {
	if a.memory.Own[name] == hash {
		return
	}
	if a.memory.Own == nil {
		a.memory.Own = map[string]string{}
	}
	a.memory.Own[name] = hash
	if hash == "" {
		delete(a.memory.Own, name)
	}
	a.memory.dirty = true
}

func (a *Agent) takeOver(ctx context.Context, name string) error {
	m, err := a.adopter()
	if err != nil {
		return err
	}
	return m.TakeOver(ctx, name, a.want.units[name].Text)
}
