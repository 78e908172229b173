package locksmithd

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A machine without any data on time zones: windows have theirs all the same, and where
// none is named, the one that the machine's /etc/localtime means.
func TestZonesWithoutData(t *testing.T) {
	if root := os.Getenv("LOCKSMITHD_TEST_ROOT"); root != "" {
		inBareRoot(t, root)
		return
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/share/zoneinfo/Asia/Kolkata", filepath.Join(root, "etc/localtime")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestZonesWithoutData$", "-test.v")
	c.Env = []string{"LOCKSMITHD_TEST_ROOT=" + root, "ZONEINFO=/nowhere"}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER, // may change its root in there, whoever we are
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// inBareRoot is the test itself, in a process of its own.
func inBareRoot(t *testing.T, root string) {
	if err := syscall.Chroot(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/usr/share/zoneinfo"); err == nil {
		t.Fatal("there are data on time zones")
	}
	cfg := Defaults()
	cfg.WindowStart, cfg.WindowLength = "04:00", "1h"
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for zone, want := range map[string]string{
		"Europe/Berlin": "14h0m0s",  // 04:00 there is 02:00 UTC
		"":              "10h30m0s", // 04:00 there is 22:30 UTC
	} {
		cfg.WindowZone = zone
		w, _, err := cfg.window()
		if err != nil {
			t.Error(err)
			continue
		}
		if got := w.UntilStart(noon).String(); got != want {
			t.Errorf("zone %q: opens in %s, want %s", zone, got, want)
		}
	}
}
