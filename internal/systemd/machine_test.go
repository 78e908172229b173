package systemd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv is set for the copy of this test binary that runs on the machine.
const insideEnv = "FLOTILLA_TEST_ON_SYSTEMD"

func inside() bool { return os.Getenv(insideEnv) != "" }

// machine is a systemd of its own: systemd-nspawn boots this machine's root file
// system, under an overlay, with the target that the tests need and nothing else.
type machine struct {
	tb     testing.TB
	name   string
	dir    string // a tmpfs: upper, work, merged
	nspawn *exec.Cmd
	output lockedBuffer
	pid1   int
}

// runOnMachine boots a machine, runs this test binary on it with args, and takes
// the machine down. What it prints is the result.
func runOnMachine(tb testing.TB, args ...string) (output string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("only root can boot a machine with systemd-nspawn")
	}
	for program, pkg := range map[string]string{
		"systemd-nspawn": "systemd-container", "nsenter": "util-linux", "dbus-daemon": "dbus",
	} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Fatalf("%s is missing: install the package %s", program, pkg)
		}
	}
	sweep(tb)
	m := &machine{tb: tb, name: fmt.Sprintf("%s%d", namePrefix, os.Getpid())}
	m.dir = filepath.Join(os.TempDir(), m.name)
	tb.Cleanup(func() { m.down() })
	m.prepare()
	m.boot()
	out, err := m.command(append([]string{"/opt/systemd.test"}, args...)...).CombinedOutput()
	if err != nil {
		tb.Errorf("on the machine: %v", err)
	}
	return string(out)
}

// namePrefix is followed by the PID of the test that made the machine.
const namePrefix = "flotilla-systemd-"

// sweep removes what a test that was killed has left.
func sweep(tb testing.TB) {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), namePrefix+"*"))
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), namePrefix))
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		tb.Logf("remove the machine that test process %d has left", pid)
		old := &machine{tb: tb, name: filepath.Base(dir), dir: dir}
		old.down()
	}
}

func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

func (m *machine) must(err error) {
	m.tb.Helper()
	if err != nil {
		m.tb.Fatalf("machine %s: %v", m.name, err)
	}
}

// target is what the machine boots to: what a unit can count on (basic.target)
// and the message bus.
const target = `[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
AllowIsolate=yes
`

// prepare makes the machine's root.
func (m *machine) prepare() {
	m.must(os.Mkdir(m.dir, 0o755))
	m.must(unix.Mount("tmpfs", m.dir, "tmpfs", 0, "mode=755"))
	for _, d := range []string{"upper/etc/systemd/system", "upper/opt", "work", "merged"} {
		m.must(os.MkdirAll(m.path(d), 0o755))
	}
	self, err := os.ReadFile("/proc/self/exe")
	m.must(err)
	for name, data := range map[string]string{
		"etc/machine-id": strings.Repeat("0", 24) + fmt.Sprintf("%08x\n", os.Getpid()),
		"etc/hostname":   m.name + "\n",
		"etc/systemd/system/flotilla-test.target": target,
		"opt/systemd.test":                        string(self),
	} {
		m.must(os.WriteFile(m.path("upper", name), []byte(data), 0o755))
	}
	m.must(os.Symlink("/dev/null", m.path("upper/etc/systemd/system/timers.target")))
	m.must(os.Symlink("flotilla-test.target", m.path("upper/etc/systemd/system/default.target")))
	m.must(unix.Mount("overlay", m.path("merged"), "overlay", 0,
		fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", m.path("upper"), m.path("work"))))
}

// cgroups are a cgroup for the machine in every hierarchy: without, two machines
// that are up at once would have the same cgroup for units of one name.
func (m *machine) cgroups() []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		roots = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	var out []string
	for _, r := range roots {
		out = append(out, filepath.Join(filepath.Dir(r), m.name))
	}
	return out
}

func (m *machine) makeCgroups() {
	for _, dir := range m.cgroups() {
		m.must(os.Mkdir(dir, 0o755))
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), f)); err == nil {
				m.must(os.WriteFile(filepath.Join(dir, f), data, 0o644))
			}
		}
	}
}

// intoCgroups moves the shell to the cgroups that come before "--" and becomes the
// command that comes after it.
const intoCgroups = `while test "$1" != --; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"`

func (m *machine) boot() {
	m.makeCgroups()
	args := append([]string{"-c", intoCgroups, "boot"}, m.cgroups()...)
	args = append(args, "--", "systemd-nspawn", "-q", "-D", m.path("merged"), "-M", m.name, "--hostname="+m.name,
		"--register=no", "--keep-unit", "--private-network", "--capability=all",
		"--system-call-filter=@keyring bpf @mount", "--console=pipe", "-b")
	m.nspawn = exec.Command("/bin/sh", args...)
	m.nspawn.Stdout, m.nspawn.Stderr = &m.output, &m.output
	m.must(m.nspawn.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.nspawn.Wait() // how it ended is in the output
	}()
	m.until("its systemd is up", func() bool {
		select {
		case <-ended:
			m.tb.Fatalf("machine %s: systemd-nspawn ended:\n%s", m.name, m.output.String())
		default:
		}
		m.pid1 = onlyChild(m.nspawn.Process.Pid)
		return m.pid1 != 0 && m.command("systemctl", "is-active", "-q", "flotilla-test.target").Run() == nil
	})
}

// onlyChild returns the PID of the process's child, 0 if there is none yet.
func onlyChild(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return child
}

// command runs on the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.pid1), "-a", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", insideEnv + "=1"}
	return cmd
}

func (m *machine) until(what string, cond func() bool) {
	m.tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			m.tb.Fatalf("machine %s: waited a minute until %s\n%s", m.name, what, m.output.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// down ends the machine and removes all that it had. It may be called for a machine
// that is half made, and again.
func (m *machine) down() {
	for _, pid := range m.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.until("its processes have ended", func() bool { return len(m.processes()) == 0 })
	for _, mount := range []string{m.path("merged"), m.dir} {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			m.tb.Errorf("machine %s: unmount %s: %v", m.name, mount, err)
		}
	}
	for _, top := range m.cgroups() {
		removeCgroup(top)
		if _, err := os.Stat(top); err == nil {
			m.tb.Errorf("machine %s: cannot remove cgroup %s", m.name, top)
		}
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.tb.Errorf("machine %s: %v", m.name, err)
	}
}

// processes are those in the machine's cgroups. They need not be children of this
// process: down also works for the machine of a test that was killed.
func (m *machine) processes() []int {
	var out []int
	for _, top := range m.cgroups() {
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return nil
			}
			data, _ := os.ReadFile(path)
			for _, word := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
					out = append(out, pid)
				}
			}
			return nil
		})
	}
	return out
}

// removeCgroup removes a cgroup with those below it, the deepest first.
func removeCgroup(top string) {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = os.Remove(dirs[i])
	}
}

// lockedBuffer keeps what the machine's console prints.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
