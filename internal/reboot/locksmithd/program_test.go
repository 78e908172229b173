package locksmithd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/client/keys"
	"flotilla/internal/applet"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/systemd/bustest"
	"flotilla/internal/systemd/updateengine"
)

// imitation is a logind that reboots nothing.
type imitation struct{ reboots chan bool }

func (i imitation) Reboot(interactive bool) *dbus.Error { i.reboots <- interactive; return nil }

func (i imitation) ListSessions() ([]struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}, *dbus.Error) {
	return nil, nil
}

func (i imitation) ListInhibitors() ([]struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}, *dbus.Error) {
	return nil, nil
}

// startLogind starts a bus with an imitation of logind, for this process's system bus.
func startLogind(t *testing.T) chan bool {
	address := bustest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	conn, i := bustest.Connect(t, address), imitation{make(chan bool, 9)}
	if err := conn.Export(i, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		t.Fatal(err)
	}
	bustest.Own(t, conn, "org.freedesktop.login1")
	return i.reboots
}

// started is the program while it runs.
type started struct {
	errs *logBuffer
	stop func() int
}

func startProgram(t *testing.T, args ...string) *started {
	p := &started{errs: &logBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, applet.Env{Args: args, Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: p.errs})
	}()
	p.stop = func() int { cancel(); return <-code }
	return p
}

// The program as it is installed, up to the call that reboots: what locksmithctl says
// on the bus is heard, the lock is taken in a real store, and logind is asked.
func TestProgram(t *testing.T) {
	reboots := startLogind(t)
	url, c := startStore(t)
	dir := t.TempDir()
	p := startProgram(t,
		"--reboot_strategy=etcd-lock", "--endpoint="+url, "--machine_id="+strings.Repeat("a", 32), "--hostname=web-1",
		"--run_dir="+dir+"/run", "--state_dir="+dir+"/state", "--coordinator_file="+dir+"/coordinator.conf",
		"--required_file="+dir+"/reboot-required", "--veto_dir="+dir+"/veto", "--verbosity=1")
	defer func() {
		if t.Failed() {
			t.Log(p.errs)
		}
	}()
	w := newWorld(t, 0)
	w.within(10*time.Second, "it waits", func() bool { return strings.Contains(p.errs.String(), "nothing wants a reboot") })

	e := updateengine.New("")
	defer e.Close()
	for len(reboots) == 0 { // until it listens
		if err := e.SendNeedReboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatal("not heard")
		}
	}
	if interactive := <-reboots; interactive {
		t.Error("logind is to ask somebody")
	}
	s, err := mustLock(t, c).Read(t.Context())
	d := s.Details[strings.Repeat("a", 32)]
	if err != nil || d.Phase != "rebooting" || d.Hostname != "web-1" || d.Boot == "" {
		t.Errorf("the lock is %s, %v", s.Encode(), err)
	}
	if b, _ := os.ReadFile(dir + "/coordinator.conf"); !strings.Contains(string(b), "STATE=rebooting") {
		t.Errorf("the coordinator's file says %q", b)
	}
	if _, err := os.Stat(filepath.Join(dir, "run", AskedFile)); err != nil {
		t.Errorf("a restart would forget what was asked: %v", err)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func mustLock(t *testing.T, c *keys.Client) *lock.Lock {
	t.Helper()
	l, err := lock.New(c, "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
