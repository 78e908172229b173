package machines

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
)

// disk is where a machine's file system lies: all below one directory of the lab's
// tmpfs. It outlives a power cut and goes with the lab.
type disk struct {
	dir string
}

func (d disk) root() string    { return filepath.Join(d.dir, "root") }   // the overlay, mounted
func (d disk) upper() string   { return filepath.Join(d.dir, "upper") }  // what differs from this machine
func (d disk) work() string    { return filepath.Join(d.dir, "work") }   // overlayfs' own
func (d disk) docker() string  { return filepath.Join(d.dir, "docker") } // /var/lib/docker: overlay2 cannot lie on an overlay
func (d disk) shared() string  { return filepath.Join(filepath.Dir(d.dir), "shared") }
func (d disk) console() string { return filepath.Join(d.dir, "console.log") }
func (d disk) stayOff() string { return filepath.Join(d.dir, "stay-off") } // if it exists, a reboot ends in a machine that is off

// emptied are the directories that a machine starts without: what this machine's
// owner enabled, configured or stored for this machine alone.
var emptied = []string{
	"/etc/systemd/system", "/etc/systemd/network", "/etc/systemd/user",
	"/etc/rc0.d", "/etc/rc1.d", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d", "/etc/rc6.d", "/etc/rcS.d",
	"/etc/netplan", "/etc/docker", "/etc/etcd", "/etc/fleet", "/etc/flotilla",
	"/etc/coreos", "/var/lib/coreos-cloudinit", "/var/lib/coreos-install",
	"/var/log/journal", "/var/lib/docker", "/var/lib/containerd", "/var/lib/etcd", "/var/lib/fleet", "/var/lib/flotilla",
	"/var/lib/systemd",
}

// masked are units that the distribution itself starts and that a machine without a
// console, a clock or a boot loader of its own has no use for.
var masked = []string{
	"console-getty.service", "getty-static.service", "systemd-timesyncd.service",
	"systemd-firstboot.service", "systemd-networkd-wait-online.service",
}

// hosts is /etc/hosts of every machine.
func hosts(all []Machine) string {
	text := "127.0.0.1 localhost\n"
	for _, m := range all {
		text += m.Address + " " + m.Name + "\n"
	}
	return text
}

// machineFiles are the files that make a machine itself.
func machineFiles(m Machine, all []Machine, id string) map[string]string {
	return map[string]string{
		"/etc/hostname":                         m.Name + "\n",
		"/etc/hosts":                            hosts(all),
		"/etc/machine-id":                       id + "\n",
		"/etc/fstab":                            "",
		"/etc/crypttab":                         "",
		"/etc/resolv.conf":                      "", // names outside are refused at once, not after a timeout
		"/etc/cloud/cloud-init.disabled":        "",
		"/etc/default/etcd":                     "",
		"/etc/environment":                      "",
		"/etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
	}
}

// make mounts the machine's file system and writes what is its own into it.
func (d disk) make(m Machine, all []Machine, host Host, r recipe) error {
	for _, dir := range []string{d.root(), d.upper(), d.work(), d.docker(), d.shared()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the disk of %s: %w", m.Name, err)
		}
	}
	if err := d.bare(); err != nil {
		return fmt.Errorf("make the disk of %s: %w", m.Name, err)
	}
	options := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", d.upper(), d.work())
	if err := unix.Mount("overlay", d.root(), "overlay", 0, options); err != nil {
		return fault.Hint(fmt.Errorf("mount the disk of %s as an overlay over /: %w", m.Name, err), "the kernel says why: dmesg | tail")
	}
	files := machineFiles(m, all, newMachineID())
	if r.blank {
		if err := d.blank(); err != nil {
			return fmt.Errorf("make %s a blank machine: %w", m.Name, err)
		}
		delete(files, "/etc/default/etcd") // a package has its own
	}
	for path, text := range dockerFiles(host) {
		files[path] = text
	}
	if err := d.write(files, 0o644); err != nil {
		return fmt.Errorf("write the files of %s: %w", m.Name, err)
	}
	for _, f := range r.files {
		if err := d.write(map[string]string{f.path: string(f.text)}, f.perm); err != nil {
			return fmt.Errorf("write %s on %s: %w", f.path, m.Name, err)
		}
	}
	if err := d.enable(host); err != nil {
		return fmt.Errorf("enable units of %s: %w", m.Name, err)
	}
	return nil
}

// bare hides the emptied directories: an "opaque" directory in the upper layer shows
// nothing of the lower one (overlayfs, trusted.overlay.opaque).
func (d disk) bare() error {
	for _, dir := range emptied {
		path := filepath.Join(d.upper(), dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}

// enable links the units that the machine starts and masks those it must not.
func (d disk) enable(host Host) error {
	links := map[string]string{}
	for _, unit := range masked {
		links["/etc/systemd/system/"+unit] = "/dev/null"
	}
	if host.Docker != "" {
		links["/etc/systemd/system/multi-user.target.wants/docker.service"] = host.Docker
	}
	return d.link(links)
}

// write writes files into the machine, whole: a machine that runs sees the old one
// or the new one.
func (d disk) write(files map[string]string, perm fs.FileMode) error {
	for path, text := range files {
		if err := d.replace(path, perm, func(tmp string) error {
			return os.WriteFile(tmp, []byte(text), perm)
		}); err != nil {
			return err
		}
	}
	return nil
}

// link makes symbolic links in the machine, from path to target.
func (d disk) link(links map[string]string) error {
	for path, target := range links {
		if err := d.replace(path, 0, func(tmp string) error { return os.Symlink(target, tmp) }); err != nil {
			return err
		}
	}
	return nil
}

// replace makes a file beside path and renames it over path. A symbolic link at path
// is replaced, not followed: it would lead out of the machine. No fsync: a machine's
// disk is memory.
func (d disk) replace(path string, perm fs.FileMode, fill func(tmp string) error) error {
	full := filepath.Join(d.root(), path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	tmp := full + ".lab-new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if perm != 0 {
		if err := os.Chmod(tmp, perm); err != nil { // whatever the umask is
			return err
		}
	}
	return os.Rename(tmp, full)
}

// newMachineID makes an id as machine-id(5) has it: 32 hexadecimal digits of a
// random (version 4) UUID.
func newMachineID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return hex.EncodeToString(b[:])
}

// mountsBelow returns the mount points at and below dir, deepest last, from the text
// of /proc/self/mountinfo.
func mountsBelow(mountinfo, dir string) []string {
	var out []string
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			out = append(out, fields[4])
		}
	}
	return out
}

// unmountAll takes away every mount at and below dir, also where something still
// uses it.
func unmountAll(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for mounts below %s: %w", dir, err)
	}
	points := mountsBelow(string(b), dir)
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", points[i], err))
		}
	}
	return errors.Join(errs...)
}
