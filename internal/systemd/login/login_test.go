package login_test

import (
	"errors"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/fault"
	"flotilla/internal/systemd/bustest"
	"flotilla/internal/systemd/login"
)

const path = dbus.ObjectPath("/org/freedesktop/login1")

// imitation is a logind with what the tests need.
type imitation struct {
	reboots int
	refuse  *dbus.Error
}

func (i *imitation) Reboot(interactive bool) *dbus.Error {
	if interactive {
		return dbus.MakeFailedError(errors.New("nobody is there to be asked"))
	}
	i.reboots++
	return i.refuse
}

type sessionRow struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}

func (i *imitation) ListSessions() ([]sessionRow, *dbus.Error) {
	return []sessionRow{
		{"7", 1000, "ann", "", path + "/session/_37"},
		{"2", 0, "root", "seat0", path + "/session/_32"},
		{"9", 1001, "gone", "", path + "/session/_39"},
	}, nil
}

type inhibitorRow struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

func (i *imitation) ListInhibitors() ([]inhibitorRow, *dbus.Error) {
	return []inhibitorRow{{"shutdown:sleep", "dpkg", "packages are being installed", "block", 0, 42}}, nil
}

// session has a terminal.
type session struct{ tty string }

func (s session) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	if iface != "org.freedesktop.login1.Session" || name != "TTY" {
		return dbus.Variant{}, dbus.MakeFailedError(errors.New("no such property"))
	}
	return dbus.MakeVariant(s.tty), nil
}

func start(t *testing.T) (*imitation, *login.Manager) {
	address := bustest.Start(t)
	conn, i := bustest.Connect(t, address), &imitation{}
	must(t, conn.Export(i, path, "org.freedesktop.login1.Manager"))
	must(t, conn.Export(session{"pts/3"}, path+"/session/_37", "org.freedesktop.DBus.Properties"))
	must(t, conn.Export(session{"tty1"}, path+"/session/_32", "org.freedesktop.DBus.Properties"))
	bustest.Own(t, conn, "org.freedesktop.login1")
	m := login.New(address)
	t.Cleanup(func() { m.Close() })
	return i, m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReboot(t *testing.T) {
	t.Parallel()
	i, m := start(t)
	must(t, m.Reboot(t.Context()))
	i.refuse = dbus.NewError("org.freedesktop.login1.OperationInProgress", nil)
	must(t, m.Reboot(t.Context()))
	i.refuse = dbus.NewError("org.freedesktop.login1.BlockedByInhibitorLock", []any{"dpkg"})
	if err := m.Reboot(t.Context()); !errors.Is(err, login.ErrBlocked) {
		t.Errorf("while it is inhibited: %v", err)
	}
	if i.reboots != 3 {
		t.Errorf("%d reboots", i.reboots)
	}
}

// A session that ends while it is asked about is left out.
func TestSessions(t *testing.T) {
	t.Parallel()
	_, m := start(t)
	got, err := m.Sessions(t.Context())
	must(t, err)
	want := []login.Session{{ID: "2", User: "root", TTY: "tty1"}, {ID: "7", User: "ann", TTY: "pts/3"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestInhibitors(t *testing.T) {
	t.Parallel()
	_, m := start(t)
	got, err := m.Inhibitors(t.Context())
	must(t, err)
	if len(got) != 1 || !got[0].BlocksReboot() || got[0].String() != "dpkg: packages are being installed" {
		t.Errorf("got %+v", got)
	}
	if got, err := m.Blockers(t.Context()); err != nil || len(got) != 1 || got[0] != "dpkg: packages are being installed" {
		t.Errorf("blockers: %q, %v", got, err)
	}
}

func TestBlocksReboot(t *testing.T) {
	for _, c := range []struct {
		what, mode string
		want       bool
	}{
		{"shutdown", "block", true},
		{"sleep:shutdown:idle", "block", true},
		{"shutdown", "delay", false},
		{"shutdown", "block-weak", false},
		{"sleep", "block", false},
		{"handle-power-key", "block", false},
		{"", "", false},
	} {
		if got := (login.Inhibitor{What: c.what, Mode: c.mode}).BlocksReboot(); got != c.want {
			t.Errorf("%s %s: %t", c.mode, c.what, got)
		}
	}
}

func TestNoLogind(t *testing.T) {
	t.Parallel()
	m := login.New(bustest.Start(t))
	defer m.Close()
	err := m.Reboot(t.Context())
	if !errors.Is(err, login.ErrAbsent) || len(fault.Hints(err)) == 0 {
		t.Errorf("got %v", err)
	}
}

func TestNoBus(t *testing.T) {
	if err := login.New("unix:path=/nowhere/bus").Reboot(t.Context()); err == nil {
		t.Error("no error without a bus")
	}
}
