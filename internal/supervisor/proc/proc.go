// Package proc starts processes and learns of their end, also of processes that
// somebody else started, and finds all processes of a unit.
//
// Ends are learned through pidfds, which the runtime polls: a waiting process
// costs no thread.
package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"flotilla/internal/supervisor/service"
)

// Table is the processes that are watched. The zero value is empty. All methods
// are safe for concurrent use.
type Table struct {
	mu    sync.Mutex
	procs map[int]*process
}

type process struct {
	pid    int
	fd     *os.File
	conn   syscall.RawConn // of fd
	onExit []func(service.Exit)
}

// add watches pid through the pidfd, which it takes over. The lock is held.
func (t *Table) add(pid, fd int, onExit func(service.Exit)) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	p := &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd"), onExit: []func(service.Exit){onExit}}
	var err error
	if p.conn, err = p.fd.SyscallConn(); err != nil {
		p.fd.Close()
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	if t.procs == nil {
		t.procs = map[int]*process{}
	}
	t.procs[pid] = p
	go t.await(p)
	return nil
}

func (t *Table) await(p *process) {
	var e service.Exit
	err := p.conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if n == 0 || errors.Is(err, unix.EINTR) {
			return false
		}
		e = status(p.pid, int(fd))
		return true
	})
	if err != nil {
		e = service.Exit{Unknown: true} // Close ended the wait
	}
	t.mu.Lock()
	// The number can be another process's by now.
	if t.procs[p.pid] == p {
		delete(t.procs, p.pid)
	}
	calls := p.onExit
	t.mu.Unlock()
	p.fd.Close()
	if err != nil {
		return
	}
	for _, f := range calls {
		f(e)
	}
	t.Sweep()
}

// status reaps the process if it is our child, and asks the kernel else.
func status(pid, fd int) service.Exit {
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || got != pid {
			return foreign(pid, fd)
		}
		break
	}
	return decode(ws)
}

func decode(ws syscall.WaitStatus) service.Exit {
	if ws.Signaled() {
		return service.Exit{Code: int(ws.Signal()), Signal: true, Core: ws.CoreDump()}
	}
	return service.Exit{Code: ws.ExitStatus()}
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h, first version.
type pidfdInfo struct {
	mask, cgroup uint64
	ids          [11]uint32
	waitStatus   int32
}

// From linux/pidfd.h: PIDFD_GET_INFO with the size of that struct, PIDFD_INFO_EXIT.
const (
	pidfdGetInfo  = 0xc040ff0b
	pidfdInfoExit = 1 << 3
)

// foreign finds out how a process ended that is another one's child. Until it is
// reaped /proc tells, afterwards Linux from 6.15 on does.
func foreign(pid, fd int) service.Exit {
	e := service.Exit{Unknown: true}
	if st, err := Lookup(pid); err == nil && st.Ended() {
		e = decode(st.wait)
	} else if ws, ok := exitInfo(fd); ok {
		e = decode(ws)
	}
	e.Foreign = true
	return e
}

// exitInfo asks the kernel how the process ended.
func exitInfo(fd int) (syscall.WaitStatus, bool) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	return syscall.WaitStatus(info.waitStatus), errno == 0 && info.mask&pidfdInfoExit != 0
}

// Watch calls onExit when the process has ended. start is its StartTime, 0 for any:
// another process under the same number is an error, and so is none.
func (t *Table) Watch(pid int, start uint64, onExit func(service.Exit)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.procs[pid]; p != nil {
		p.onExit = append(p.onExit, onExit)
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	// The number is checked with the pidfd in hand, so it cannot be reused.
	if got, err := StartTime(pid); err != nil || start != 0 && got != start {
		unix.Close(fd)
		return fmt.Errorf("watch process %d: it is not there any more", pid)
	}
	return t.add(pid, fd, onExit)
}

// Signal sends a signal to a process. Through the pidfd of a watched one it can
// reach no other that got the same number.
func (t *Table) Signal(pid int, sig int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[pid]
	if p == nil {
		return syscall.Kill(pid, syscall.Signal(sig))
	}
	var sent error
	err := p.conn.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), syscall.Signal(sig), nil, 0)
	})
	return errors.Join(err, sent)
}

// Sweep reaps children that nobody watches: processes whose parents ended before
// them, and which the kernel handed to us as a subreaper.
func (t *Table) Sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var info [128]byte // siginfo_t
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
		pid := int(binary.NativeEndian.Uint32(info[siPID:]))
		if errno != 0 || pid == 0 || t.procs[pid] != nil {
			// Its own watcher reaps a watched one, and sweeps again.
			return
		}
		if _, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); err != nil {
			return
		}
	}
}

// siPID is where siginfo_t holds si_pid: the union is aligned as a pointer is.
const siPID = 12 + (unsafe.Sizeof(uintptr(0))/8)*4

// Close stops watching; the processes go on, and no onExit is called any more.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid, p := range t.procs {
		delete(t.procs, pid)
		// Ends await.
		p.fd.Close()
	}
}

// Stat is what /proc tells of a process.
type Stat struct {
	PID, Parent, Session int
	State                byte // R, S, D, Z, ...
	Start                uint64
	Comm                 string
	wait                 syscall.WaitStatus // of one that has ended, where we may see it
}

// Ended reports whether the process only waits to be reaped.
func (s Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' }

// Lookup reads /proc/PID/stat (proc(5)).
func Lookup(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	text := string(data)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 20 {
		return Stat{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	s := Stat{PID: pid, State: f[0][0], Comm: text[open+1 : end]}
	s.Parent, _ = strconv.Atoi(f[1])
	s.Session, _ = strconv.Atoi(f[3])
	if n, err := strconv.Atoi(f[len(f)-1]); err == nil {
		s.wait = syscall.WaitStatus(n)
	}
	s.Start, err = strconv.ParseUint(f[19], 10, 64)
	return s, err
}

// StartTime is when the process began, in clock ticks since boot. With the PID it
// names one process for ever.
func StartTime(pid int) (uint64, error) {
	s, err := Lookup(pid)
	if err != nil {
		return 0, err
	}
	return s.Start, nil
}

// Cmdline is the command line of a process for people, its name in brackets if it
// has none.
func Cmdline(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err == nil && len(data) > 0 {
		return strings.Join(strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 }), " ")
	}
	s, err := Lookup(pid)
	if err != nil {
		return "n/a"
	}
	return "[" + s.Comm + "]"
}

// RSS is the resident memory of a process in bytes, 0 if it cannot be told.
func RSS(pid int) int64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
