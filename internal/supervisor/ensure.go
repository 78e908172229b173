package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
)

// Options are what Ensure hands to a supervisor that it starts.
type Options struct {
	Machine  string   // see Config
	Provides []string // see Config
	NoCgroup bool     // see Config
}

func (o Options) args() []string {
	var args []string
	if o.Machine != "" {
		args = append(args, "--machine", o.Machine)
	}
	for _, p := range o.Provides {
		args = append(args, "--provide", p)
	}
	if o.NoCgroup {
		args = append(args, "--no-cgroup")
	}
	return args
}

// Ensure returns a client of the supervisor in dir and starts one if none runs:
// exe, usually /proc/self/exe, as "exe supervisor --dir dir". The new process is
// detached: it has a session of its own, writes its log to dir/supervisor.log and
// outlives the caller. Ensure waits until it answers.
func Ensure(ctx context.Context, exe, dir string, o Options) (*Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	c := Dial(dir)
	if _, err := c.Self(ctx); err == nil {
		return c, nil
	}
	if err := launch(ctx, exe, dir, o); err != nil {
		// Somebody else may have been faster.
		if _, selfErr := c.Self(ctx); selfErr == nil {
			return c, nil
		}
		return nil, fmt.Errorf("start supervisor in %s: %w", dir, err)
	}
	if _, err := c.Self(ctx); err != nil {
		return nil, fmt.Errorf("start supervisor in %s: %w", dir, err)
	}
	return c, nil
}

// Wait returns nil when the supervisor has ended, at once if none runs, and ctx's error
// when ctx is done before.
func (c *Client) Wait(ctx context.Context) error {
	self, err := c.Self(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return awaitEnd(ctx, self.PID)
	case running(c.dir):
		return err
	}
	return nil
}

// launch starts the process and waits for the line that says it is ready.
func launch(ctx context.Context, exe, dir string, o Options) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	logName := filepath.Join(dir, "supervisor.log")
	log, err := os.OpenFile(logName, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	args := append([]string{"supervisor", "--dir", dir, "--ready-fd", "3"}, o.args()...)
	// Not CommandContext: the process outlives ctx.
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // reaps it, should it end before us
	return awaitReady(ctx, r, logName)
}

func awaitReady(ctx context.Context, r io.ReadCloser, logName string) error {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	line, err := bufio.NewReader(r).ReadString('\n')
	switch {
	case err == nil && line == readyLine:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.TrimSpace(line) != "":
		return errors.New(strings.TrimSpace(line))
	}
	return fault.Hint(errors.New("it ended before it was ready"), "see %s", logName)
}

// readyLine is what a supervisor writes to --ready-fd; anything else is an error.
const readyLine = "ready\n"

// running reports whether a supervisor holds the lock of dir.
func running(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "run", "lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// awaitEnd waits until a process has ended.
func awaitEnd(ctx context.Context, pid int) error {
	if pid == os.Getpid() {
		return nil // in tests the supervisor is in this process
	}
	var t proc.Table
	ended := make(chan struct{})
	if t.Watch(pid, 0, func(service.Exit) { close(ended) }) != nil {
		return nil // it has ended
	}
	defer t.Close()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the supervisor (process %d) to end: %w", pid, ctx.Err())
	}
}
