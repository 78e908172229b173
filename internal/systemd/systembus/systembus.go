// Package systembus keeps a connection to the system's message bus for those who call
// services on it.
package systembus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// The message bus's own interface, D-Bus specification, "Message Bus Messages".
const Name = "org.freedesktop.DBus"

// Errors by which the bus says that nobody is behind a name, or that who was is gone.
const (
	serviceUnknown = Name + ".Error.ServiceUnknown"
	noOwner        = Name + ".Error.NameHasNoOwner"
	noReply        = Name + ".Error.NoReply"
)

// callLimit bounds a call: a service that is frozen is no reason to wait for ever.
const callLimit = 25 * time.Second

// ErrAbsent is the error of a call to a service that is not on the bus.
var ErrAbsent = errors.New("not on the message bus")

// A Bus is a connection that is made when it is first needed, and made again when it
// was lost. Make it with New; it may be used by several goroutines.
type Bus struct {
	address string

	mu   sync.Mutex // guards conn
	conn *dbus.Conn // nil: not connected
}

// New returns a bus that has not connected yet. An empty address is the system's bus:
// $DBUS_SYSTEM_BUS_ADDRESS, else its well-known socket.
func New(address string) *Bus { return &Bus{address: address} }

// Close ends the connection. A later call connects again.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}

// Call calls a method of an object and stores what it returns, if into is given. A
// service that is not there is not started for it: the error is ErrAbsent.
func (b *Bus) Call(ctx context.Context, dest string, path dbus.ObjectPath, method string, args []any, into ...any) error {
	conn, err := b.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	call := conn.Object(dest, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		return fmt.Errorf("%s: %w", method, explain(dest, call.Err))
	}
	if len(into) == 0 {
		return nil
	}
	if err := call.Store(into...); err != nil {
		return fmt.Errorf("%s: answer of %s: %w", method, dest, err)
	}
	return nil
}

// Property reads a property of an object.
func (b *Bus) Property(ctx context.Context, dest string, path dbus.ObjectPath, iface, name string) (any, error) {
	var v dbus.Variant
	err := b.Call(ctx, dest, path, Name+".Properties.Get", []any{iface, name}, &v)
	return v.Value(), err
}

// Emit sends a signal and waits until the bus has it.
func (b *Bus) Emit(ctx context.Context, path dbus.ObjectPath, name string, values ...any) error {
	conn, err := b.connect()
	if err != nil {
		return err
	}
	if err := conn.Emit(path, name, values...); err != nil {
		return fmt.Errorf("send signal %s: %w", name, err)
	}
	// The bus carries out what a connection sends in order: an answer to the next
	// message means that it has passed on this one.
	var id string
	return b.Call(ctx, Name, "/org/freedesktop/DBus", Name+".GetId", nil, &id)
}

// Sender is the user at the other end of a connection on the bus.
func (b *Bus) Sender(ctx context.Context, unique string) (uid uint32, err error) {
	err = b.Call(ctx, Name, "/org/freedesktop/DBus", Name+".GetConnectionUnixUser", []any{unique}, &uid)
	return uid, err
}

func (b *Bus) connect() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	conn, err := dial(b.address)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return conn, nil
}

// Listen calls fn for every signal that one of the matches asks for, on the goroutine
// that reads the connection (it must not block), until ctx is done or the connection
// is lost. It calls ready when no signal is missed any more.
func (b *Bus) Listen(ctx context.Context, ready func(), fn func(*dbus.Signal), matches ...[]dbus.MatchOption) error {
	conn, err := dial(b.address, dbus.WithSignalHandler(handler(fn)))
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, m := range matches {
		if err := conn.AddMatchSignalContext(ctx, m...); err != nil {
			return fmt.Errorf("ask the message bus for signals: %w", err)
		}
	}
	ready()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-conn.Context().Done():
		return errors.New("connection to the message bus lost")
	}
}

type handler func(*dbus.Signal)

// DeliverSignal implements dbus.SignalHandler.
func (h handler) DeliverSignal(_, _ string, s *dbus.Signal) { h(s) }

// dial connects to the bus and says who we are, by number: looking up the name would
// need libc.
func dial(address string, opts ...dbus.ConnOption) (*dbus.Conn, error) {
	open := func() (*dbus.Conn, error) { return dbus.SystemBusPrivate(opts...) }
	if address != "" {
		open = func() (*dbus.Conn, error) { return dbus.Dial(address, opts...) }
	}
	conn, err := open()
	if err != nil {
		return nil, fmt.Errorf("connect to the message bus: %w", err)
	}
	if err := greet(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to the message bus: %w", err)
	}
	return conn, nil
}

func greet(conn *dbus.Conn) error {
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return err
	}
	return conn.Hello()
}

// explain tells a service that is not there from one that answered with an error.
func explain(dest string, err error) error {
	switch ErrorName(err) {
	case serviceUnknown, noOwner, noReply:
		return fmt.Errorf("%s is %w: %w", dest, ErrAbsent, err)
	}
	return err
}

// ErrorName is the D-Bus name of an error that a service answered with, or "".
func ErrorName(err error) string {
	var value dbus.Error
	var pointer *dbus.Error
	switch {
	case errors.As(err, &value):
		return value.Name
	case errors.As(err, &pointer):
		return pointer.Name
	}
	return ""
}
