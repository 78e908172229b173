package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flotilla/internal/lab/machines"
)

// A machine's disk is in memory and has nothing that could be slowed down. So the
// store's data moves to a file system of its own on a loop device, over a file on this
// machine's disk: then an fsync is one, too.

// loopDisk is that device.
type loopDisk struct {
	image  string
	device string // such as /dev/loop3
	number string // major:minor
}

// diskBytes is room for the data of a run of hours.
const diskBytes = 1 << 30

// The unit that mounts it is one that the store requires, so that a machine which boots
// does not start the store on what was there before.
const (
	node      = `[ -b /dev/faults ] || mknod /dev/faults b %d %d; `
	mountUnit = "/etc/systemd/system/faults-disk.service"
	dropIn    = "/etc/systemd/system/etcd.service.d/faults.conf"
	requires  = "[Unit]\nRequires=faults-disk.service\nAfter=faults-disk.service\n"
)

// giveDisks moves the data of every member, one after the other.
func (s *site) giveDisks(ctx context.Context, dir string) error {
	for _, m := range s.machines {
		d, err := makeDisk(ctx, filepath.Join(dir, m.Name+".img"))
		if err != nil {
			return fmt.Errorf("a disk for %s: %w", m.Name, err)
		}
		s.disks[m.Name] = d
		if err := s.moveIn(ctx, m, d); err != nil {
			return fmt.Errorf("a disk for %s: %w", m.Name, err)
		}
	}
	return nil
}

func makeDisk(ctx context.Context, image string) (loopDisk, error) {
	d := loopDisk{image: image}
	f, err := os.Create(image)
	if err != nil {
		return d, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close()); err != nil {
		return d, err
	}
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		return d, fmt.Errorf("losetup: %w: %s", err, out)
	}
	d.device = strings.TrimSpace(string(out))
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", d.device).CombinedOutput(); err != nil {
		return d, errors.Join(fmt.Errorf("mkfs.ext4: %w: %s", err, out), d.remove())
	}
	var st unix.Stat_t
	if err := unix.Stat(d.device, &st); err != nil {
		return d, errors.Join(err, d.remove())
	}
	d.number = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	return d, nil
}

// remove gives the device and the file back; a device that is still mounted goes when
// its machine does (losetup(8)).
func (d loopDisk) remove() error {
	out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("losetup --detach %s: %w: %s", d.device, err, out)
	}
	return errors.Join(err, os.Remove(d.image))
}

func (d loopDisk) node() string {
	var major, minor int
	fmt.Sscanf(d.number, "%d:%d", &major, &minor)
	return fmt.Sprintf(node, major, minor)
}

func (s *site) moveIn(ctx context.Context, m machines.Machine, d loopDisk) error {
	mount := "mountpoint -q /var/lib/etcd || { " + d.node() + "mount /dev/faults /var/lib/etcd; }"
	unit := "[Service]\nType=oneshot\nRemainAfterExit=true\nExecStart=/bin/sh -ec '" + mount + "'\n"
	for path, text := range map[string]string{mountUnit: unit, dropIn: requires} {
		if err := s.lab.WriteFile(m.Name, path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return in("sh", "-ec", "systemctl stop etcd; "+d.node()+`
		mkdir -p /mnt/faults; mount /dev/faults /mnt/faults; rm -rf /mnt/faults/lost+found
		cp -a /var/lib/etcd/. /mnt/faults/; umount /mnt/faults
		systemctl daemon-reload; systemctl start etcd; mountpoint -q /var/lib/etcd`)(ctx, s, m)
}

// takeDisks moves the data back.
func (s *site) takeDisks(ctx context.Context) error {
	var errs []error
	for _, m := range s.machines {
		d, ok := s.disks[m.Name]
		if !ok {
			continue
		}
		errs = append(errs, in("sh", "-ec", `systemctl stop etcd faults-disk; rm -f `+dropIn+" "+mountUnit+`
			umount /var/lib/etcd
			`+d.node()+`mount /dev/faults /mnt/faults; rm -rf /var/lib/etcd/*
			cp -a /mnt/faults/. /var/lib/etcd/; umount /mnt/faults
			systemctl daemon-reload; systemctl start etcd`)(ctx, s, m), d.remove())
	}
	return errors.Join(errs...)
}
