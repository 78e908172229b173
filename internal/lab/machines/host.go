package machines

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"flotilla/internal/fault"
)

// tool is a command that the lab calls and the Debian and Ubuntu package it is in.
type tool struct{ command, pkg string }

var tools = []tool{
	{"systemd-nspawn", "systemd-container"},
	{"dbus-daemon", "dbus"},
	{"ip", "iproute2"},
}

// Host is what the lab needs to know of the machine that it runs on.
type Host struct {
	Root    bool     // running as root
	Missing []string // packages whose commands are not installed
	Overlay bool     // the kernel knows overlay file systems
	Systemd bool     // PID 1 is systemd: it hands out cgroups
	Cgroups []cgroup // mounted hierarchies
	Docker  string   // docker.service of the distribution; "" if not installed
	Typed   string   // the command line, for who has to repeat it as root; "" is not known
}

// Inspect looks at this machine.
func Inspect() (Host, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Host{}, fmt.Errorf("look at this machine's mounts: %w", err)
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return Host{}, fmt.Errorf("look at the kernel's file systems: %w", err)
	}
	h := Host{
		Root:    os.Geteuid() == 0,
		Overlay: strings.Contains(string(filesystems), "\toverlay\n"),
		Systemd: isDir("/run/systemd/system"), // sd_booted(3)
		Cgroups: cgroups(string(mounts)),
		Docker:  dockerUnit(),
	}
	for _, t := range tools {
		if _, err := lookPath(t.command); err != nil {
			h.Missing = append(h.Missing, t.pkg)
		}
	}
	if !h.Overlay && h.Root {
		// The module is loaded on demand by the first mount; ask for it here so
		// that the answer is known before anything is made.
		h.Overlay = exec.Command("modprobe", "overlay").Run() == nil
	}
	return h, nil
}

// Check says why no lab can run on h: all reasons at once.
func (h Host) Check() error {
	var errs []error
	if !h.Root {
		errs = append(errs, fault.Hint(errors.New("not root: mounts, namespaces and cgroups of machines are root's"), "sudo %s", cmp.Or(h.Typed, "flotilla lab ...")))
	}
	if len(h.Missing) > 0 {
		errs = append(errs, fault.Hint(fmt.Errorf("not installed: %s", strings.Join(h.Missing, ", ")), "apt-get install %s", strings.Join(h.Missing, " ")))
	}
	if h.Root && !h.Overlay {
		errs = append(errs, fault.Hint(errors.New("this kernel has no overlay file system"), "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS"))
	}
	if len(h.Cgroups) == 0 {
		errs = append(errs, fault.Hint(errors.New("no cgroup hierarchy is mounted"), "mount -t cgroup2 cgroup2 /sys/fs/cgroup"))
	}
	return joined(errs)
}

// joined makes one error of several that a person reads in one line, with the hints
// of all.
func joined(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	var texts []string
	for _, e := range errs {
		texts = append(texts, e.Error())
	}
	err := errors.New(strings.Join(texts, "; "))
	for _, e := range errs {
		for _, h := range fault.Hints(e) {
			err = fault.Hint(err, "%s", h)
		}
	}
	return err
}

// lookPath finds a command also where an ordinary user's PATH does not reach.
func lookPath(command string) (string, error) {
	if path, err := exec.LookPath(command); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + command); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", command, exec.ErrNotFound)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
