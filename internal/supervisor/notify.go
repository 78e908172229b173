package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/supervisor/service"
)

// notifier is the notify socket of one unit (sd_notify(3)). With a socket of its
// own a unit's message is known as its own even when the sender has ended.
type notifier struct {
	conn *net.UnixConn
	path string
}

// listen opens the unit's notify socket if it may use one and has none.
func (u *svc) listen() error {
	if u.notify != nil || u.m.Config().NotifyAccess == service.NotifyNone {
		return nil
	}
	path := u.s.path("run", "notify", short(u.name))
	_ = os.Remove(path) // of a supervisor that was killed
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("open notify socket: %w", err)
	}
	if err := passCredentials(conn); err != nil {
		conn.Close()
		return fmt.Errorf("open notify socket: %w", err)
	}
	// Services run as any user; whose messages count is NotifyAccess=.
	if err := os.Chmod(path, 0o666); err != nil {
		conn.Close()
		return fmt.Errorf("open notify socket: %w", err)
	}
	u.notify = &notifier{conn: conn, path: path}
	go u.readNotify(conn)
	return nil
}

func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, set)
}

func (n *notifier) close() {
	n.conn.Close()
	_ = os.Remove(n.path)
}

// release closes the socket; the next supervisor opens it again under its name.
func (n *notifier) release() { n.conn.Close() }

func (u *svc) readNotify(conn *net.UnixConn) {
	buf, oob := make([]byte, 4096), make([]byte, 512)
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return // closed
		}
		pid := ancillary(oob[:oobn])
		msg := parseNotify(string(buf[:n]))
		msg.PID = pid
		u.s.post(func() { u.notified(msg) })
	}
}

// ancillary returns the sender and closes the descriptors that came along: a
// barrier of sd_notify_barrier(3) is reached when its descriptor is closed.
func ancillary(oob []byte) (pid int) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range list {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
	return pid
}

// parseNotify reads the assignments of a message. What it does not know it leaves
// out, as sd_notify(3) wants it.
func parseNotify(text string) service.Message {
	var m service.Message
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "READY":
			m.Ready = value == "1"
		case "RELOADING":
			m.Reloading = value == "1"
		case "STOPPING":
			m.Stopping = value == "1"
		case "WATCHDOG":
			m.Alive, m.Trigger = value == "1", value == "trigger"
		case "STATUS":
			m.Status = &value
		case "MAINPID":
			m.MainPID, _ = strconv.Atoi(value)
		case "EXTEND_TIMEOUT_USEC":
			usec, _ := strconv.ParseInt(value, 10, 64)
			m.Extend = time.Duration(min(usec, 1<<53)) * time.Microsecond
		}
	}
	return m
}

// notified hands a message to the machine. A main process must be one of the
// unit's: signals go there.
func (u *svc) notified(msg service.Message) {
	if msg.MainPID != 0 && !u.owns(msg.MainPID) {
		u.s.logUnit(u.name, 4, fmt.Sprintf("%s: New main PID %d does not belong to service, refusing.", u.name, msg.MainPID))
		msg.MainPID = 0
	}
	u.apply(u.m.Notified(u.s.now(), msg))
	u.s.publish(u)
}

func (u *svc) owns(pid int) bool {
	for _, p := range u.group.PIDs() {
		if p == pid {
			return true
		}
	}
	return false
}

// dirWatch tells of changes in a directory.
type dirWatch struct{ f *os.File }

// watchDirOf calls f, outside the loop, after each change in the file's directory.
func watchDirOf(file string, f func()) (*dirWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &dirWatch{os.NewFile(uintptr(fd), "inotify")}
	dir := filepath.Dir(file)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		w.close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := w.f.Read(buf); err != nil {
				return // closed
			}
			f()
		}
	}()
	return w, nil
}

func (w *dirWatch) close() { w.f.Close() }
