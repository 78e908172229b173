package health

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/unit/unittest"
	"flotilla/internal/unitfile"
)

func TestCgroupIn(t *testing.T) {
	const unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	const hybrid = "30 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	for _, c := range []struct{ mounts, groups, want string }{
		{unified, "0::/system.slice/fleet.service\n", "/sys/fs/cgroup/system.slice/fleet.service"},
		{hybrid, "1:cpu:/x\n0::/\n", "/sys/fs/cgroup/unified"},
		{hybrid, "1:cpu:/x\n", ""},
		{"30 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "1:cpu:/x\n0::/\n", ""},
		{"", "", ""},
	} {
		if got := cgroupIn(c.mounts, c.groups); got != c.want {
			t.Errorf("cgroupIn(%q, %q) = %q, want %q", c.mounts, c.groups, got, c.want)
		}
	}
}

// gone reports whether a process has ended, or is only waiting to be reaped.
func gone(pid int) error {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	if _, after, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(after, "Z") {
		return nil
	}
	return errors.New("process " + strconv.Itoa(pid) + " runs on")
}

// What a check leaves behind in a session of its own ends with it, whether the check was
// well, was not, or took too long.
func TestNothingStaysOfACheck(t *testing.T) {
	f := newFold()
	if f == nil {
		t.Log("no cgroup can be made here: what leaves its process group stays")
		return
	}
	f.end()
	for _, c := range []struct{ then, want string }{
		{"exit 0", ""},
		{"exit 3", "exit status 3"},
		{"sleep 1000", "killed"},
	} {
		dir := t.TempDir()
		pidFile, script := filepath.Join(dir, "pid"), filepath.Join(dir, "check")
		text := "setsid sh -c 'echo $$ >" + pidFile + "; exec sleep 1000' &\nuntil test -s " + pidFile + "; do sleep 0.01; done\n" + c.then + "\n"
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := command(ctx, "/bin/sh "+script, "")
		cancel()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.then, err, c.want)
		}
		said, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(said)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unittest.Eventually(t.Context(), func() error { return gone(pid) }); err != nil {
			t.Errorf("%s: %v", c.then, err)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	left, err := filepath.Glob(filepath.Join(ownCgroup(), "health-"+strconv.Itoa(os.Getpid())+"-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("cgroups left: %v, %v", left, err)
	}
}

// A check that makes cgroups of its own, as those do that enter a container, leaves none
// behind, and is not waited for.
func TestNoCgroupStaysOfACheck(t *testing.T) {
	f := newFold()
	if f == nil {
		t.Log("no cgroup can be made here")
		return
	}
	if err := os.MkdirAll(filepath.Join(f.dir, "inner", "most"), 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.end()
	if took := time.Since(began); took >= foldLimit {
		t.Errorf("its end took %v", took)
	}
	if _, err := os.Stat(f.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
		for _, dir := range []string{"inner/most", "inner", ""} {
			_ = os.Remove(filepath.Join(f.dir, dir))
		}
	}
}

// Without a cgroup, as for somebody who is not root, a check runs all the same.
func TestCheckWithoutAFold(t *testing.T) {
	var none *fold
	if err := none.run(exec.Command("/bin/true")); err != nil {
		t.Error(err)
	}
	none.end()
}

func TestCheckThatIsNoCommand(t *testing.T) {
	for line, want := range map[string]string{"/nowhere": "no such file", "/etc/passwd": "permission denied", "": "is no command"} {
		if err := Probe(t.Context(), unitfile.HealthProbe{Command: line + " "}, ""); err == nil || line != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}
