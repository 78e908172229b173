package proc

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flotilla/internal/supervisor/service"
)

// Spec is a process to start.
type Spec struct {
	Path   string // without a slash: looked up in service.SearchPath
	Argv   []string
	Env    []string
	Dir    string
	UMask  uint32
	Cred   *syscall.Credential // nil: ours
	Nice   *int
	OOM    *int
	Limits []service.Limit
	Stdout *os.File // nil: /dev/null
	Stderr *os.File
	Group  *Group // the process is born in its cgroup
}

// StartError is why a process could not be started, with the exit status that
// systemd gives for it.
type StartError struct {
	Status int
	Err    error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Start starts a process in a session of its own and returns once its execve has
// succeeded. onExit is called when it has ended. Errors are *StartError.
func (t *Table) Start(s Spec, onExit func(service.Exit)) (int, error) {
	path, err := s.lookPath()
	if err != nil {
		return 0, &StartError{service.ExitExec, err}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, &StartError{208, err}
	}
	defer null.Close()
	fd := -1
	attr := &syscall.ProcAttr{
		Dir:   s.Dir,
		Env:   s.Env,
		Files: []uintptr{null.Fd(), fileOr(s.Stdout, null).Fd(), fileOr(s.Stderr, null).Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: s.Cred, PidFD: &fd, Ptrace: s.held()},
	}
	if dir := s.Group.open(); dir != nil {
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	// The lock keeps Sweep from reaping the child before it is known.
	t.mu.Lock()
	defer t.mu.Unlock()
	pid, err := s.fork(path, attr)
	if err != nil {
		return 0, s.explain(path, err)
	}
	if fd < 0 {
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			return 0, &StartError{service.ExitExec, fmt.Errorf("watch process %d: %w", pid, err)}
		}
	}
	if err := t.add(pid, fd, onExit); err != nil {
		return 0, &StartError{service.ExitExec, err}
	}
	return pid, nil
}

func fileOr(f, other *os.File) *os.File {
	if f == nil {
		return other
	}
	return f
}

func (s *Spec) lookPath() (string, error) {
	if strings.Contains(s.Path, "/") {
		return s.Path, nil
	}
	for dir := range strings.SplitSeq(service.SearchPath, ":") {
		p := filepath.Join(dir, s.Path)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", s.Path, exec.ErrNotFound)
}

// held reports whether the process must be stopped at its execve: what is set
// then holds from its first instruction on. Tracing is the only way to do that
// without a program in between.
func (s *Spec) held() bool { return s.Nice != nil || s.OOM != nil || len(s.Limits) > 0 }

// fork starts the process. The mask belongs to all our threads: the lock of the
// table keeps other starts out, and what we create meanwhile sets its own mode.
func (s *Spec) fork(path string, attr *syscall.ProcAttr) (int, error) {
	old := syscall.Umask(int(s.UMask))
	defer syscall.Umask(old)
	if !s.held() {
		return syscall.ForkExec(path, s.Argv, attr)
	}
	runtime.LockOSThread() // only the thread that forked is the tracer
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(path, s.Argv, attr)
	if err != nil {
		return 0, err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return 0, fmt.Errorf("process %d did not stop at its execve: %w", pid, err)
	}
	if err := s.adjust(pid); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, &ws, 0, nil)
		return 0, err
	}
	return pid, syscall.PtraceDetach(pid)
}

func (s *Spec) adjust(pid int) error {
	if s.Nice != nil {
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, pid, *s.Nice); err != nil {
			return &StartError{service.ExitNice, fmt.Errorf("set nice level %d: %w", *s.Nice, err)}
		}
	}
	if s.OOM != nil {
		name := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
		if err := os.WriteFile(name, []byte(strconv.Itoa(*s.OOM)), 0); err != nil {
			return &StartError{service.ExitOOMAdjust, fmt.Errorf("set OOM score %d: %w", *s.OOM, err)}
		}
	}
	for _, l := range s.Limits {
		r := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		if err := unix.Prlimit(pid, l.Resource, &r, nil); err != nil {
			return &StartError{service.ExitLimits, fmt.Errorf("set resource limit %d to %s: %w", l.Resource, limitText(l.Hard), err)}
		}
	}
	return nil
}

func limitText(n uint64) string {
	if n == math.MaxUint64 {
		return "infinity"
	}
	return strconv.FormatUint(n, 10)
}

// explain finds out which step of the start failed. The kernel only says why.
func (s *Spec) explain(path string, err error) error {
	var known *StartError
	if errors.As(err, &known) {
		return known
	}
	if s.Dir != "" {
		if st, statErr := os.Stat(s.Dir); statErr != nil || !st.IsDir() {
			return &StartError{service.ExitChdir, fmt.Errorf("change to directory %s: %w", s.Dir, err)}
		}
	}
	if _, statErr := os.Stat(path); statErr == nil && s.Cred != nil && errors.Is(err, syscall.EPERM) {
		return &StartError{service.ExitUser, fmt.Errorf("change to user %d: %w", s.Cred.Uid, err)}
	}
	return &StartError{service.ExitExec, fmt.Errorf("execute %s: %w", path, err)}
}
