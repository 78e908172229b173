package lab

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/lab/machines"
)

// A machine reboots by itself when its user asks for it, stays the machine that it was, and
// stays off when it is switched off; a blank one has nothing of ours in it.
func TestMachineReboots(t *testing.T) {
	ownLab(t, 1, machines.Blank, machines.With("/opt/greeting", []byte("hello"), 0o600))
	l := lab
	all, err := l.Machines()
	if err != nil {
		t.Fatal(err)
	}
	m := all[0].Name
	on := func(line string) string {
		t.Helper()
		out, err := l.Output(t.Context(), m, "sh", "-c", line)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	if got := on("cat /opt/greeting; stat -c %a /opt/greeting"); got != "hello600" {
		t.Errorf("the file it was given: %q", got)
	}
	if got := on("ls /usr/bin/etcd* /usr/bin/fleet* /usr/bin/flotilla 2>/dev/null; systemctl list-unit-files --no-legend 'etcd*' 'fleet*' 'locksmith*'; dpkg -l | grep etcd; getent passwd etcd; true"); got != "" {
		t.Errorf("a blank machine has %s", got)
	}
	who := "cat /etc/machine-id; hostname; ip -br -4 addr show eth0"
	before, boot := on(who), on("cat /proc/sys/kernel/random/boot_id; echo kept >/root/kept")
	if id, err := l.BootID(m); err != nil || id != boot {
		t.Errorf("from outside its boot is %s, %v; from inside %s", id, err, boot)
	}
	for range 2 {
		began := time.Now()
		if err := l.Reboot(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		t.Logf("a reboot takes %.1f s", time.Since(began).Seconds())
	}
	// Whoever is in the machine with a command when it goes down does not hold it up.
	var inside sync.WaitGroup
	for range 20 {
		inside.Go(func() { _, _ = l.Output(t.Context(), m, "sleep", "300") }) // ended by the reboot
	}
	(&cluster{T: t}).eventually(10*time.Second, "20 commands run in it", func() error {
		out, err := l.Output(t.Context(), m, "pgrep", "-c", "-x", "sleep")
		if err == nil && strings.TrimSpace(out) != "20" {
			err = fmt.Errorf("there are %s", out)
		}
		return err
	})
	began := time.Now()
	if err := l.Reboot(t.Context(), m); err != nil || time.Since(began) > rebootLimit {
		t.Errorf("with commands in it a reboot takes %.1f s: %v", time.Since(began).Seconds(), err)
	}
	inside.Wait()
	// One that has just begun to boot cannot be asked yet: it is asked again.
	early, err := l.BootID(m)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = l.Output(t.Context(), m, "systemctl", "reboot") // it need not live to say that it was obeyed
	(&cluster{T: t}).eventually(10*time.Second, "its next boot has begun", func() error {
		if id, err := l.BootID(m); err != nil || id == early {
			return fmt.Errorf("boot %s, %v", id, err)
		}
		return nil
	})
	if err := l.Reboot(t.Context(), m); err != nil {
		t.Error(err)
	}
	if after := on(who); after != before || on("cat /root/kept") != "kept" {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
	status := func() machines.Status {
		t.Helper()
		all, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if s := status(); s.Boots != 6 || s.Power != "on" || s.BootID == boot {
		t.Errorf("after five reboots: %+v", s)
	}
	off := func(how string, prepare func() error) {
		t.Helper()
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		_, _ = l.Output(t.Context(), m, "systemctl", how) // it need not live to say that it was obeyed
		c := &cluster{T: t}
		c.eventually(20*time.Second, "off by "+how, func() error {
			if s := status(); s.Power != "off" {
				return fmt.Errorf("it is %+v", s)
			}
			return nil
		})
		if err := l.Boot(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	off("poweroff", func() error { return nil })
	off("reboot", func() error { return l.StayOff(m) })
	if s := status(); s.Boots != 8 {
		t.Errorf("after a power-off and a reboot that ended in one: %+v", s)
	}
}
