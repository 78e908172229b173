package machines

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// questionLimit is how long one look at a machine may take: whoever asks one that goes
// down just then may never hear from it, and asks the next time again.
const questionLimit = 10 * time.Second

// until polls cond until it is true, ctx is done or the limit is reached. The context
// that cond is given ends with it, and after questionLimit.
func until(ctx context.Context, limit time.Duration, cond func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ask := func() bool {
		one, done := context.WithTimeout(ctx, questionLimit)
		defer done()
		return cond(one)
	}
	for !ask() {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// commandLine returns a process's arguments, none for one that is gone or a zombie.
func commandLine(pid int) []string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// boots reports whether args start systemd-nspawn on the directory root: its own, or
// those of the shell that is about to become it.
func boots(args []string, root string) bool {
	if len(args) == 0 || !slices.Contains(args, "--directory="+root) {
		return false
	}
	name := filepath.Base(args[0])
	return name == "systemd-nspawn" || name == "sh"
}

// nspawns finds the systemd-nspawn processes that run on root: one for a machine
// that runs, for a moment more while it starts.
func nspawns(root string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // no /proc, no processes to find
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && boots(commandLine(pid), root) {
			out = append(out, pid)
		}
	}
	return out
}

// initOf finds PID 1 of the machine on root: the process below systemd-nspawn that
// is number 1 in its own namespace and has become the machine's init. 0 if there is
// none (yet).
func initOf(root string) int {
	for _, parent := range nspawns(root) {
		for _, pid := range children(parent) {
			if isInit(pid) && !boots(commandLine(pid), root) {
				return pid
			}
		}
	}
	return 0
}

func children(pid int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread is gone
		}
		for _, field := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

func isInit(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(rest)
			return len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return false
}

// killIf kills the process if it still is the one meant. The process is held by a
// pidfd (os.FindProcess) while it is looked at, so its number cannot pass to another
// in between.
func killIf(pid int, meant func() bool) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer p.Release()
	if !meant() {
		return nil
	}
	if err := p.Signal(syscall.SIGKILL); err != nil && err != os.ErrProcessDone {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// powerOff ends the machine on root as a power cut does: its PID 1 dies, and with it
// the kernel kills all in its process namespace, containers included. Then
// systemd-nspawn, which has nothing left to wait for. It is no error if none runs.
func powerOff(ctx context.Context, root string) error {
	err := until(ctx, 10*time.Second, func(context.Context) bool {
		pids := nspawns(root)
		if init := initOf(root); init != 0 {
			_ = killIf(init, func() bool { return initOf(root) == init }) // the next look tells whether it worked
			return false
		}
		for _, pid := range pids {
			_ = killIf(pid, func() bool { return boots(commandLine(pid), root) })
		}
		return len(pids) == 0
	})
	if err != nil {
		return fmt.Errorf("cut the power of %s: processes %v are still there: %w", root, nspawns(root), err)
	}
	return nil
}
