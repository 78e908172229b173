package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sync/semaphore"

	"flotilla/internal/fault"
)

// Names of systemd's D-Bus interface, org.freedesktop.systemd1(5).
const (
	busName      = "org.freedesktop.systemd1"
	managerPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	unitRoot     = "/org/freedesktop/systemd1/unit/"
	managerIface = busName + ".Manager"
	unitIface    = busName + ".Unit"
	serviceIface = busName + ".Service"
	propsIface   = "org.freedesktop.DBus.Properties"
	dbusIface    = "org.freedesktop.DBus"

	noSuchUnit    = busName + ".NoSuchUnit"
	noSuchJob     = busName + ".NoSuchJob"
	badSetting    = busName + ".BadUnitSetting"
	invalidArgs   = dbusIface + ".Error.InvalidArgs"
	unknownObject = dbusIface + ".Error.UnknownObject"
	accessDenied  = dbusIface + ".Error.AccessDenied"
	needsAuth     = dbusIface + ".Error.InteractiveAuthorizationRequired"
)

// bus is one connection to systemd, from its making to its loss.
type bus struct {
	conn *dbus.Conn
	jobs jobTable
	// room is for calls whose reply is outstanding: a message bus allows 128 to a
	// connection (dbus-daemon(1), max_replies_per_connection).
	room *semaphore.Weighted
}

const maxPending = 120

func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath(unitRoot + sddbus.PathBusEscape(name))
}

// dialLimit bounds the making of a connection: a systemd that is frozen accepts and
// says nothing.
const dialLimit = 10 * time.Second

// dial connects. Every signal that is not about a job goes to m.signal, on the
// goroutine that reads the connection: it must not block.
func (m *Manager) dial() (*bus, error) {
	if m.cfg.User && m.cfg.RuntimeDir == "" {
		return nil, errors.New("XDG_RUNTIME_DIR is not set: the user's runtime directory is not known")
	}
	b := &bus{jobs: newJobTable(), room: semaphore.NewWeighted(maxPending)}
	ctx, cancel := context.WithCancel(context.Background()) // its end closes the connection
	limit := time.AfterFunc(dialLimit, cancel)
	defer limit.Stop()
	var err error
	b.conn, err = m.open(m.cfg, dbus.WithContext(ctx), dbus.WithSignalHandler(&signals{
		jobs: &b.jobs, lost: cancel, other: m.signal,
	}))
	if err != nil {
		cancel()
		return nil, err
	}
	return b, nil
}

// open tries systemd's private socket, which needs no message bus and no other
// permission than being root or the user, then the message bus.
func open(cfg Config, opts ...dbus.ConnOption) (*dbus.Conn, error) {
	private := "/run/systemd/private"
	if cfg.User {
		private = filepath.Join(cfg.RuntimeDir, "systemd/private")
	}
	if !cfg.User && os.Geteuid() != 0 {
		return openMessageBus(cfg, opts...)
	}
	// A peer of systemd's gets all signals without asking for them.
	conn, errPrivate := authenticated(dbus.Dial("unix:path="+private, opts...))
	if errPrivate == nil {
		return conn, nil
	}
	conn, err := openMessageBus(cfg, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w; %w", errPrivate, err)
	}
	return conn, nil
}

// authenticated says who we are, by number: looking up the name would need libc.
func authenticated(conn *dbus.Conn, err error) (*dbus.Conn, error) {
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func openMessageBus(cfg Config, opts ...dbus.ConnOption) (*dbus.Conn, error) {
	kind, dialBus := "system", dbus.SystemBusPrivate
	if cfg.User {
		kind, dialBus = "session", dbus.SessionBusPrivateNoAutoStartup
	}
	conn, err := authenticated(dialBus(opts...))
	if err != nil {
		return nil, fmt.Errorf("%s bus: %w", kind, err)
	}
	if err := subscribe(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s bus: %w", kind, err)
	}
	return conn, nil
}

// subscribe asks the message bus for the signals that are needed and no others.
func subscribe(conn *dbus.Conn) error {
	if err := conn.Hello(); err != nil {
		return err
	}
	sender := dbus.WithMatchSender(busName)
	matches := [][]dbus.MatchOption{
		{dbus.WithMatchInterface(dbusIface), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)},
		{sender, dbus.WithMatchInterface(managerIface), dbus.WithMatchMember("JobRemoved")},
		{sender, dbus.WithMatchInterface(managerIface), dbus.WithMatchMember("Reloading")},
		{sender, dbus.WithMatchInterface(propsIface), dbus.WithMatchMember("PropertiesChanged"),
			dbus.WithMatchPathNamespace("/org/freedesktop/systemd1/unit"), dbus.WithMatchArg(0, unitIface)},
	}
	for _, m := range matches {
		if err := conn.AddMatchSignal(m...); err != nil {
			return err
		}
	}
	return conn.Object(busName, managerPath).Call(managerIface+".Subscribe", 0).Err
}

// signals is the connection's signal handler.
type signals struct {
	jobs  *jobTable
	lost  func()
	other func(*dbus.Signal)
}

// DeliverSignal implements dbus.SignalHandler.
func (s *signals) DeliverSignal(_, _ string, sig *dbus.Signal) {
	switch sig.Name {
	case managerIface + ".JobRemoved":
		var id uint32
		var job dbus.ObjectPath
		var name, result string
		if err := dbus.Store(sig.Body, &id, &job, &name, &result); err == nil {
			s.jobs.removed(job, result)
		}
	case dbusIface + ".NameOwnerChanged":
		// The systemd behind the bus is gone, perhaps for another: what was under
		// way there has to be looked at anew. (Without an owner before, the bus has
		// just been started and systemd joins it.)
		if len(sig.Body) == 3 && sig.Body[1] != "" {
			s.lost()
		}
	default:
		s.other(sig)
	}
}

func (b *bus) send(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return b.conn.Object(busName, path).Go(method, 0, make(chan *dbus.Call, 1), args...)
}

// reply waits for what send began. A connection that broke is ErrLost.
func (b *bus) reply(ctx context.Context, call *dbus.Call, into ...any) error {
	select {
	case <-call.Done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if call.Err != nil {
		return b.explain(call.Err)
	}
	if len(into) == 0 {
		return nil
	}
	return call.Store(into...)
}

// explain tells an answer of systemd's from a connection that is broken. A write
// may notice that before the reader does: then the connection is given up here.
func (b *bus) explain(err error) error {
	name := errorName(err)
	switch {
	case name == accessDenied || name == needsAuth:
		return fault.Hint(err, "be root, or let polkit allow org.freedesktop.systemd1.manage-units to this user")
	case name != "" && !gone(name), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	b.conn.Close()
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// gone says whether the error is the message bus's own, about a systemd that is not
// there: it is executing itself anew.
func gone(name string) bool {
	reason, ok := strings.CutPrefix(name, dbusIface+".Error.")
	if !ok {
		return false
	}
	switch reason {
	case "NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected", "TimedOut":
		return true
	}
	return strings.HasPrefix(reason, "Spawn.")
}

// errorName returns the D-Bus name of an error that systemd answered with, or "".
func errorName(err error) string {
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

func (b *bus) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) error {
	return b.reply(ctx, b.send(path, method, args...))
}

func (b *bus) property(ctx context.Context, path dbus.ObjectPath, iface, name string) (dbus.Variant, error) {
	var v dbus.Variant
	err := b.reply(ctx, b.send(path, propsIface+".Get", iface, name), &v)
	return v, err
}

// jobTable matches JobRemoved signals with whoever waits for a job.
type jobTable struct {
	mu      sync.Mutex
	waiting map[dbus.ObjectPath][]chan string
	// A signal can overtake the reply that names its job, on the way to whoever
	// waits: while replies are outstanding, results are kept here.
	sending int
	early   map[dbus.ObjectPath]string
}

func newJobTable() jobTable {
	return jobTable{
		waiting: map[dbus.ObjectPath][]chan string{},
		early:   map[dbus.ObjectPath]string{},
	}
}

func (t *jobTable) removed(job dbus.ObjectPath, result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.waiting[job] {
		c <- result // has room
	}
	delete(t.waiting, job)
	if t.sending > 0 {
		t.early[job] = result
	}
}

// sent says that a job was asked for whose reply is outstanding.
func (t *jobTable) sent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sending++
}

// named says that the reply has come: "" if it was an error. The channel gives the
// job's result.
func (t *jobTable) named(job dbus.ObjectPath) chan string {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := make(chan string, 1)
	if result, ok := t.early[job]; ok {
		c <- result
	} else if job != "" {
		t.waiting[job] = append(t.waiting[job], c)
	}
	if t.sending--; t.sending == 0 {
		clear(t.early)
	}
	return c
}

// forget gives up waiting for the job on c.
func (t *jobTable) forget(job dbus.ObjectPath, c chan string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[job] = slices.DeleteFunc(t.waiting[job], func(w chan string) bool { return w == c })
	if len(t.waiting[job]) == 0 {
		delete(t.waiting, job)
	}
}
