package health

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fold is a cgroup that one command runs in. What the command has started stays in it
// whatever it does, a new session included, and ends with it.
type fold struct{ dir string }

// foldLimit is how long the end of a fold waits for its processes: SIGKILL takes effect
// as soon as they leave the kernel.
const foldLimit = time.Second

var folds atomic.Int64 // so that each has another name

// newFold makes a fold below this process's own cgroup; nil where there is no cgroup2
// that is ours to write: for somebody who is not root, mostly.
func newFold() *fold {
	own := ownCgroup()
	if own == "" {
		return nil
	}
	f := &fold{filepath.Join(own, fmt.Sprintf("health-%d-%d", os.Getpid(), folds.Add(1)))}
	if os.Mkdir(f.dir, 0o755) != nil {
		return nil
	}
	return f
}

// ownCgroup is the directory of this process's cgroup; "" for none. Nobody moves it.
var ownCgroup = sync.OnceValue(func() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return cgroupIn(string(mounts), string(groups))
})

// cgroupIn is the directory of the cgroup2 in which a process is, by what its mountinfo
// and cgroup in /proc say; "" for none.
func cgroupIn(mountinfo, cgroup string) string {
	mount, path := "", ""
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 && mount == "" {
			mount = f[4]
		}
	}
	for line := range strings.Lines(cgroup) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSuffix(p, "\n")
		}
	}
	if mount == "" || path == "" {
		return ""
	}
	return filepath.Join(mount, path)
}

// take puts a process into the fold.
func (f *fold) take(pid int) error {
	return os.WriteFile(filepath.Join(f.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// gate is what a command waits behind until it is in its fold, so that it starts
// nothing outside: a line on descriptor 3. To start it inside would take clone3, which
// systemd's RestrictNamespaces= denies.
const gate = `read -r go <&3 && exec 3<&- && exec "$@"`

// run runs a command in the fold; in none where there is none.
func (f *fold) run(cmd *exec.Cmd) error {
	if f == nil {
		return cmd.Run()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.Args = append([]string{"sh", "-c", gate, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path, cmd.ExtraFiles = "/bin/sh", []*os.File{r}
	kill := cmd.Cancel
	cmd.Cancel = func() error { f.kill(); return kill() }
	err = cmd.Start()
	r.Close()
	if err != nil {
		return err
	}
	_ = f.take(cmd.Process.Pid) // if it cannot be, its process group has to do
	_, _ = w.WriteString("go\n")
	return cmd.Wait()
}

// end kills what is in the fold, and removes it.
func (f *fold) end() {
	if f == nil {
		return
	}
	for limit := time.Now().Add(foldLimit); ; {
		f.kill()
		left := time.Until(limit)
		if f.remove() == nil || left <= 0 {
			return
		}
		f.awaitEmpty(min(left, foldLimit/10)) // then what was forked meanwhile
	}
}

// remove removes the fold with the cgroups that were made in it, the inner ones first.
func (f *fold) remove() error {
	var dirs []string
	_ = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what cannot be looked at cannot be removed: that tells
	})
	for _, dir := range slices.Backward(dirs[min(1, len(dirs)):]) {
		_ = os.Remove(dir)
	}
	return os.Remove(f.dir)
}

func (f *fold) kill() {
	if os.WriteFile(filepath.Join(f.dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	pids, err := os.ReadFile(filepath.Join(f.dir, "cgroup.procs")) // before Linux 5.14
	if err != nil {
		return
	}
	for word := range strings.FieldsSeq(string(pids)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// awaitEmpty waits until the kernel says that the fold has other processes than before,
// or a time has passed.
func (f *fold) awaitEmpty(limit time.Duration) {
	events, err := os.Open(filepath.Join(f.dir, "cgroup.events"))
	if err != nil {
		return
	}
	defer events.Close()
	said := make([]byte, 256)
	if n, err := events.Read(said); err != nil || strings.Contains(string(said[:n]), "populated 0") {
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(limit.Milliseconds()))
}
