// Package login speaks to logind, the part of systemd that knows who is logged in and
// who may reboot the machine (org.freedesktop.login1(5)).
package login

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/fault"
	"flotilla/internal/systemd/systembus"
)

const (
	busName      = "org.freedesktop.login1"
	path         = dbus.ObjectPath("/org/freedesktop/login1")
	managerIface = busName + ".Manager"
	sessionIface = busName + ".Session"

	blockedName = busName + ".BlockedByInhibitorLock"
	underWay    = busName + ".OperationInProgress"
)

// ErrAbsent is the error of a call that found no logind on the bus.
var ErrAbsent = systembus.ErrAbsent

// ErrBlocked is the error of Reboot while an inhibitor forbids it; only logind 257 and
// later refuses root for that.
var ErrBlocked = errors.New("an inhibitor forbids it")

// Session is one that somebody has on the machine.
type Session struct {
	ID   string
	User string
	// TTY is the terminal, such as "tty1" or "pts/0"; "" for a session without one.
	TTY string
}

// Inhibitor is somebody's wish that something does not happen now.
type Inhibitor struct {
	What string // what is not to happen, such as "shutdown:sleep"
	Who  string // the program, for people
	Why  string
	Mode string // "block", "block-weak" or "delay"
	UID  uint32
	PID  uint32
}

// BlocksReboot says whether a reboot has to wait until it is gone. One of mode delay
// has its seconds from logind itself; one of mode block-weak is for those who ask to
// be let in, which root need not.
func (i Inhibitor) BlocksReboot() bool {
	return i.Mode == "block" && slices.Contains(strings.Split(i.What, ":"), "shutdown")
}

// String says who forbids it and why.
func (i Inhibitor) String() string {
	who := i.Who
	if who == "" {
		who = fmt.Sprintf("process %d", i.PID)
	}
	if i.Why == "" {
		return who
	}
	return who + ": " + i.Why
}

// Manager is a way to logind. It connects when it is first asked.
type Manager struct{ bus *systembus.Bus }

// New returns a way to the logind on the bus at address; "" is the system's bus.
func New(address string) *Manager { return &Manager{bus: systembus.New(address)} }

// Close ends the connection. A later call makes it again.
func (m *Manager) Close() error { return m.bus.Close() }

// Reboot asks for a reboot, and returns when logind has begun it. That one is under
// way already is no error.
func (m *Manager) Reboot(ctx context.Context) error {
	const interactive = false
	err := m.bus.Call(ctx, busName, path, managerIface+".Reboot", []any{interactive})
	switch {
	case err == nil, systembus.ErrorName(err) == underWay:
		return nil
	case systembus.ErrorName(err) == blockedName:
		return fmt.Errorf("reboot: %w: %w", ErrBlocked, err)
	}
	return fmt.Errorf("reboot: %w", hinted(err))
}

// Sessions lists who is logged in, by id of the session.
func (m *Manager) Sessions(ctx context.Context) ([]Session, error) {
	var rows []struct {
		ID   string
		UID  uint32
		User string
		Seat string
		Path dbus.ObjectPath
	}
	if err := m.bus.Call(ctx, busName, path, managerIface+".ListSessions", nil, &rows); err != nil {
		return nil, fmt.Errorf("list sessions: %w", hinted(err))
	}
	var out []Session
	for _, r := range rows {
		// One that has ended meanwhile is none to be told anything.
		tty, err := m.bus.Property(ctx, busName, r.Path, sessionIface, "TTY")
		if err != nil {
			continue
		}
		text, _ := tty.(string)
		out = append(out, Session{ID: r.ID, User: r.User, TTY: text})
	}
	slices.SortFunc(out, func(a, b Session) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Inhibitors lists what is not to happen now.
func (m *Manager) Inhibitors(ctx context.Context) ([]Inhibitor, error) {
	var rows []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := m.bus.Call(ctx, busName, path, managerIface+".ListInhibitors", nil, &rows); err != nil {
		return nil, fmt.Errorf("list inhibitors: %w", hinted(err))
	}
	var out []Inhibitor
	for _, r := range rows {
		out = append(out, Inhibitor(r))
	}
	return out, nil
}

// Blockers lists who forbids a reboot now and why, for people.
func (m *Manager) Blockers(ctx context.Context) ([]string, error) {
	all, err := m.Inhibitors(ctx)
	var out []string
	for _, i := range all {
		if i.BlocksReboot() {
			out = append(out, i.String())
		}
	}
	return out, err
}

func hinted(err error) error {
	if errors.Is(err, ErrAbsent) {
		return fault.Hint(err, "systemd-logind.service has to run: 'systemctl start systemd-logind'")
	}
	return err
}
