package updateengine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/systemd/bustest"
	"flotilla/internal/systemd/updateengine"
)

const (
	path   = dbus.ObjectPath("/com/coreos/update1")
	iface  = "com.coreos.update1.Manager"
	signal = iface + ".StatusUpdate"
)

// imitation is an update engine that has installed an update.
type imitation struct{}

func (imitation) GetStatus() (int64, float64, string, string, int64, *dbus.Error) {
	return 1700000000, 1, updateengine.NeedReboot, "2.0", 4096, nil
}

func serve(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	conn := bustest.Connect(t, address)
	if err := conn.Export(imitation{}, path, iface); err != nil {
		t.Fatal(err)
	}
	bustest.Own(t, conn, "com.coreos.update1")
	return conn
}

func TestStatus(t *testing.T) {
	t.Parallel()
	address := bustest.Start(t)
	e := updateengine.New(address)
	defer e.Close()
	if _, err := e.Status(t.Context()); !errors.Is(err, updateengine.ErrAbsent) {
		t.Errorf("without an engine: %v", err)
	}
	serve(t, address)
	got, err := e.Status(t.Context())
	want := updateengine.Status{LastChecked: 1700000000, Progress: 1, Operation: updateengine.NeedReboot, NewVersion: "2.0", NewSize: 4096}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// watching is a watch under way.
type watching struct {
	said    chan updateengine.Status
	refused chan error
	ended   chan error
}

func watch(t *testing.T, e *updateengine.Engine) *watching {
	t.Helper()
	w := &watching{make(chan updateengine.Status, 9), make(chan error, 9), make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	go func() {
		w.ended <- e.Watch(ctx, func() { close(ready) },
			func(s updateengine.Status) { w.said <- s }, func(err error) { w.refused <- err })
	}()
	t.Cleanup(func() { cancel(); e.Close() })
	select {
	case <-ready:
	case err := <-w.ended:
		t.Fatal(err)
	}
	return w
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing within 10 s")
		panic("unreachable")
	}
}

// Malformed signals are told and otherwise left out: the next good one counts.
func TestWatch(t *testing.T) {
	t.Parallel()
	address := bustest.Start(t)
	engine := serve(t, address)
	w := watch(t, updateengine.New(address))
	for _, values := range [][]any{
		{}, {"UPDATE_STATUS_UPDATED_NEED_REBOOT"}, {int64(1), "half", updateengine.NeedReboot, "2", int64(3)},
		{int64(1), 0.5, []string{"x"}, "2", int64(3)},
	} {
		if err := engine.Emit(path, signal, values...); err != nil {
			t.Fatal(err)
		}
		if err := next(t, w.refused); !strings.Contains(err.Error(), "malformed StatusUpdate") {
			t.Errorf("%v: %v", values, err)
		}
	}
	if err := engine.Emit(path, signal, int64(1), 0.5, "UPDATE_STATUS_DOWNLOADING", "2.0", int64(3)); err != nil {
		t.Fatal(err)
	}
	if got := next(t, w.said); got.Operation != "UPDATE_STATUS_DOWNLOADING" || got.Progress != 0.5 {
		t.Errorf("got %+v", got)
	}
}

// An engine that comes later is asked for its status, which may have been said while
// nobody listened.
func TestEngineComes(t *testing.T) {
	t.Parallel()
	address := bustest.Start(t)
	w := watch(t, updateengine.New(address))
	serve(t, address)
	if got := next(t, w.said); got.Operation != updateengine.NeedReboot {
		t.Errorf("got %+v", got)
	}
}

// What is sent in the engine's name arrives also where there is none.
func TestSendNeedReboot(t *testing.T) {
	t.Parallel()
	address := bustest.Start(t)
	w := watch(t, updateengine.New(address))
	e := updateengine.New(address)
	defer e.Close()
	if err := e.SendNeedReboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := next(t, w.said); got.Operation != updateengine.NeedReboot {
		t.Errorf("got %+v", got)
	}
}
