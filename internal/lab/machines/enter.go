package machines

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaces are those that a machine has of its own (namespaces(7)).
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// startIn starts a command in the namespaces of a process, found by name in the PATH of
// its environment there.
//
// nsenter(1) would do, were it not for machines that go down: it waits in a process of
// its own, outside the machine, and stops itself when the command is stopped. The last
// that systemd does before a reboot is to stop all processes, end them and let them go on;
// nsenter is not among those who go on, nobody takes note of the command's end, and the
// machine waits for it, for three minutes. We are told of the end by the kernel.
func startIn(pid int, cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// What a thread has entered it does not leave: it ends with this goroutine.
		runtime.LockOSThread()
		started <- enterAndStart(pid, cmd)
	}()
	return <-started
}

// enterAndStart moves the thread into the namespaces of a process, and starts a command
// there. The thread can do nothing else afterwards.
func enterAndStart(pid int, cmd *exec.Cmd) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("find its process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// A thread that shares its root directory with others cannot enter another's.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the root directory: %w", err)
	}
	if err := unix.Setns(fd, namespaces); err != nil {
		return fmt.Errorf("enter the namespaces of process %d: %w", pid, err)
	}
	if err := find(cmd); err != nil {
		return err
	}
	return cmd.Start()
}

// find has the command be what its environment's PATH leads to, from where the thread is.
func find(cmd *exec.Cmd) error {
	name := cmd.Args[0]
	if strings.Contains(name, "/") {
		cmd.Path, cmd.Err = name, nil
		return nil
	}
	var path string
	for _, v := range cmd.Env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value // the last counts
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if at, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			cmd.Path, cmd.Err = at, nil
			return nil
		}
	}
	return &exec.Error{Name: name, Err: exec.ErrNotFound}
}
