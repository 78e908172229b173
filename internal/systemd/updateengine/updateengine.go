// Package updateengine speaks to the update engine, the service that installs a new
// version of the system beside the running one: com.coreos.update1 on the system bus.
package updateengine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/systemd/systembus"
)

// Names of the service's D-Bus interface.
const (
	busName = "com.coreos.update1"
	path    = dbus.ObjectPath("/com/coreos/update1")
	iface   = busName + ".Manager"
	signal  = iface + ".StatusUpdate"
)

// NeedReboot is the operation that says: the new version is installed, and runs after
// the next reboot.
const NeedReboot = "UPDATE_STATUS_UPDATED_NEED_REBOOT"

// ErrAbsent is the error of a call while there is no update engine: most systems have
// none.
var ErrAbsent = systembus.ErrAbsent

// Status is what the engine is at.
type Status struct {
	LastChecked int64   // Unix time, seconds; 0: never
	Progress    float64 // of the download, 0 to 1
	Operation   string  // such as UPDATE_STATUS_IDLE
	NewVersion  string
	NewSize     int64 // bytes
}

// Engine is a way to the update engine. It connects when it is first asked.
type Engine struct{ bus *systembus.Bus }

// New returns a way to the engine on the bus at address; "" is the system's bus.
func New(address string) *Engine { return &Engine{bus: systembus.New(address)} }

// Close ends the connection. A later call makes it again.
func (e *Engine) Close() error { return e.bus.Close() }

// Status asks the engine. The error is ErrAbsent if there is none.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	var s Status
	err := e.bus.Call(ctx, busName, path, iface+".GetStatus", nil,
		&s.LastChecked, &s.Progress, &s.Operation, &s.NewVersion, &s.NewSize)
	if err != nil {
		return Status{}, fmt.Errorf("status of the update engine: %w", err)
	}
	return s, nil
}

// linger is how long the sender of a signal stays on the bus: who gets it asks the bus
// who has sent it, and the bus knows only those who are there.
const linger = 500 * time.Millisecond

// SendNeedReboot says on the bus, in the engine's name, that a reboot is needed. Those
// who listen believe it of root alone.
func (e *Engine) SendNeedReboot(ctx context.Context) error {
	s := Status{Operation: NeedReboot}
	err := e.bus.Emit(ctx, path, signal, s.LastChecked, s.Progress, s.Operation, s.NewVersion, s.NewSize)
	if err != nil {
		return fmt.Errorf("say that a reboot is needed: %w", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(linger):
		return nil
	}
}

// Watch calls fn with every status that the engine, or root in its name, says, until
// ctx is done or the connection is lost: that is its error. It calls ready when no
// signal is missed any more. Signals that are malformed, and those of other users, are
// given to refused (which may be nil) and otherwise left out. An engine that comes to
// the bus is asked for its status.
func (e *Engine) Watch(ctx context.Context, ready func(), fn func(Status), refused func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The goroutine that reads the connection must not wait for the bus's answer about
	// a sender.
	got := make(chan *dbus.Signal, 64)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-got:
				e.heard(ctx, sig, fn, refused)
			}
		}
	}()
	return e.bus.Listen(ctx, ready, func(sig *dbus.Signal) {
		select {
		case got <- sig:
		default: // a flood: the engine says its progress again
		}
	},
		[]dbus.MatchOption{dbus.WithMatchInterface(iface), dbus.WithMatchMember("StatusUpdate")},
		[]dbus.MatchOption{dbus.WithMatchInterface(systembus.Name), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)},
	)
}

// heard deals with one signal.
func (e *Engine) heard(ctx context.Context, sig *dbus.Signal, fn func(Status), refused func(error)) {
	var s Status
	var err error
	switch sig.Name {
	case systembus.Name + ".NameOwnerChanged":
		if len(sig.Body) != 3 || sig.Body[2] == "" {
			return // it has left
		}
		s, err = e.Status(ctx)
	case signal:
		if s, err = decode(sig.Body); err == nil {
			err = e.trusted(ctx, sig.Sender)
		}
	default:
		return
	}
	switch {
	case err == nil:
		fn(s)
	case refused != nil && ctx.Err() == nil:
		refused(err)
	}
}

// decode reads a signal's values. What others send may be anything.
func decode(body []any) (Status, error) {
	var s Status
	if err := dbus.Store(body, &s.LastChecked, &s.Progress, &s.Operation, &s.NewVersion, &s.NewSize); err != nil {
		return Status{}, fmt.Errorf("malformed StatusUpdate signal: %w", err)
	}
	return s, nil
}

// errUntrusted is why a signal is not believed: anybody may send signals on the bus.
var errUntrusted = errors.New("StatusUpdate signal of somebody who is not root")

// trusted says whether a signal's sender may say that a reboot is needed: root, or the
// user that we are.
func (e *Engine) trusted(ctx context.Context, sender string) error {
	uid, err := e.bus.Sender(ctx, sender)
	if err != nil {
		return fmt.Errorf("StatusUpdate signal: who has sent it: %w", err)
	}
	if uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("%w: uid %d", errUntrusted, uid)
	}
	return nil
}
