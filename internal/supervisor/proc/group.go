package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group finds the processes of one unit. With a cgroup the kernel keeps the list
// and nothing escapes it. Without, a process belongs to the unit if it descends
// from one that does, is in the session of one that the unit started, or carries
// the run's id in its environment: a process that leaves all three behind is lost
// until the supervisor, as its subreaper, ends everything.
type Group struct {
	Cgroup   string // its directory, "" for none
	RunID    string // INVOCATION_ID of the run
	Sessions []int  // PIDs that the run started: each leads a session
}

func (g *Group) open() *os.File {
	if g == nil || g.Cgroup == "" {
		return nil
	}
	f, err := os.Open(g.Cgroup)
	if err != nil {
		return nil
	}
	return f
}

// Make creates the cgroup, if there is to be one.
func (g *Group) Make() error {
	if g.Cgroup == "" {
		return nil
	}
	return os.MkdirAll(g.Cgroup, 0o755)
}

// Remove removes the cgroup with those that the unit made below it. It stays if
// there are processes in it.
func (g *Group) Remove() {
	if g.Cgroup == "" {
		return
	}
	dirs := below(g.Cgroup)
	for _, d := range slices.Backward(dirs) {
		_ = os.Remove(d) // a directory of cgroupfs goes as a whole
	}
}

// below lists a cgroup and those below it, parents first.
func below(dir string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			out = append(out, p)
		}
		return nil
	})
	return out
}

// PIDs returns the group's processes that have not ended.
func (g *Group) PIDs() []int {
	if g.Cgroup != "" {
		return cgroupPIDs(g.Cgroup)
	}
	return g.scan()
}

func cgroupPIDs(dir string) []int {
	var out []int
	for _, d := range below(dir) {
		data, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue
		}
		for line := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
	}
	return out
}

// scan looks at every process of the machine.
func (g *Group) scan() []int {
	all := List()
	in := map[int]bool{}
	for _, s := range all {
		if slices.Contains(g.Sessions, s.Session) || g.marked(s.PID) {
			in[s.PID] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if in[s.Parent] && !in[s.PID] {
				in[s.PID], grown = true, true
			}
		}
	}
	delete(in, os.Getpid())
	var out []int
	for _, s := range all {
		if in[s.PID] && !s.Ended() {
			out = append(out, s.PID)
		}
	}
	return out
}

func (g *Group) marked(pid int) bool {
	if g.RunID == "" {
		return false
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	mark := []byte("INVOCATION_ID=" + g.RunID)
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(kv, mark) {
			return true
		}
	}
	return false
}

// List returns every process that can be seen.
func List() []Stat {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var out []Stat
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if s, err := Lookup(pid); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// Descendants returns all processes below pid that have not ended.
func Descendants(pid int) []int {
	all := List()
	in := map[int]bool{pid: true}
	var out []int
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if in[s.Parent] && !in[s.PID] {
				in[s.PID], grown = true, true
				if !s.Ended() {
					out = append(out, s.PID)
				}
			}
		}
	}
	return out
}

// KillAll ends every process of the group at once. The kernel does it if it can. No
// process may be started in the group afterwards: Linux 6.18 also kills those that
// are born into a cgroup which was killed once.
func (g *Group) KillAll() {
	if g.Cgroup != "" && os.WriteFile(filepath.Join(g.Cgroup, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	g.KillEach()
}

// KillEach ends the group's processes one by one. It goes on until a look finds
// nobody new, since processes fork meanwhile.
func (g *Group) KillEach() {
	seen := map[int]bool{}
	for {
		fresh := false
		for _, pid := range g.PIDs() {
			if !seen[pid] {
				seen[pid], fresh = true, true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !fresh {
			return
		}
	}
}

// AwaitEmpty waits until no process of the group is left, at most for limit.
func (g *Group) AwaitEmpty(limit time.Duration) { Await(g.PIDs, limit) }

// Await waits until list finds no process, at most for limit.
func Await(list func() []int, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for {
		pids := list()
		left := time.Until(deadline)
		if len(pids) == 0 || left <= 0 {
			return
		}
		fd, err := unix.PidfdOpen(pids[0], 0)
		if err != nil {
			continue // it ended just now
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		unix.Close(fd)
	}
}

// ErrNoCgroup says that there is no place for cgroups of our own.
var ErrNoCgroup = errors.New("no cgroup can be made here")

// CgroupRoot makes a cgroup called name below our own one and returns its
// directory. It fails with ErrNoCgroup where there is no cgroup2 file system, or
// it is not ours to write.
func CgroupRoot(name string) (string, error) {
	mount, err := cgroup2Mount()
	if err != nil {
		return "", err
	}
	own, err := ownCgroup()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(mount, own, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	// A directory can be ours while moving processes into it is not.
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	return dir, f.Close()
}

func cgroup2Mount() (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "", fmt.Errorf("%w: cgroup2 is not mounted", ErrNoCgroup)
}

func ownCgroup() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: we are in no cgroup2", ErrNoCgroup)
}
