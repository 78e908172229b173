package systemd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/systemd"
	"flotilla/internal/unit"
)

// put writes a file of the machine's own.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(path)
		os.Remove(filepath.Dir(path)) // if it is empty
	})
}

// handOver takes a running unit over and lets go of it again: its process is the same
// all along. within is called while it is ours.
func handOver(t *testing.T, m *systemd.Manager, name, wantText string, within func()) {
	t.Helper()
	t.Cleanup(func() {
		tell(t, "systemctl", "disable", "--now", name)
		os.RemoveAll("/etc/systemd/system/" + name)
		os.RemoveAll("/etc/systemd/system/" + name + ".d")
		tell(t, "systemctl", "daemon-reload")
	})
	before := status(t, m, name)
	text, err := m.Own(t.Context(), name)
	if err != nil || text != wantText {
		t.Fatalf("text %q, error %v; want %q", text, err, wantText)
	}
	if err := m.TakeOver(t.Context(), name, text); err != nil {
		t.Fatal(err)
	}
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := status(t, m, name)
	if st.MainPID != before.MainPID || st.Active != "active" || st.NeedReload || st.Fragment != "/run/systemd/system/"+name {
		t.Errorf("taken over: %+v, before %+v", st, before)
	}
	if _, err := m.Own(t.Context(), name); err == nil || !strings.Contains(err.Error(), "the cluster's already") {
		t.Errorf("read again: %v", err)
	}
	within()
	// As after a reboot, and with a text that has changed since.
	if err := m.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	text += "#### 99-later.conf\n[Unit]\nDescription=Later\n"
	install(t, m, text, name)
	if err := m.Eject(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	st = status(t, m, name)
	if st.MainPID != before.MainPID || st.Active != "active" || st.NeedReload || st.Fragment != "/etc/systemd/system/"+name || st.Description != "Later" {
		t.Errorf("let go: %+v, before %+v", st, before)
	}
	if have, err := m.Installed(t.Context()); err != nil || len(have) != 0 {
		t.Errorf("installed are %q, error %v", have, err)
	}
	left, _ := filepath.Glob("/run/systemd/system/" + name + "*")
	kept, _ := filepath.Glob("/var/lib/fleet/adopted/*")
	if len(left)+len(kept) != 0 {
		t.Errorf("left are %q and %q", left, kept)
	}
}

const wanted = "[Install]\nWantedBy=multi-user.target\n"

// A unit of the machine's owner, enabled, with a drop-in: its files are put aside.
func adoptsFromEtc(t *testing.T, m *systemd.Manager) {
	put(t, "/etc/systemd/system/mine.service", "# my comment\n"+sleeper+wanted)
	put(t, "/etc/systemd/system/mine.service.d/10-a.conf", "[Service]\nEnvironment=A=1\n")
	tell(t, "systemctl", "enable", "--now", "mine.service")
	text := strings.Replace(sleeper, "\n\n", "\n", 1)
	text = strings.Replace(text, "[Service]", "\n[Service]", 1) + "\n" + wanted + "#### 10-a.conf\n[Service]\nEnvironment=A=1\n"
	handOver(t, m, "mine.service", text, func() {
		if got := tell(t, "systemctl", "is-enabled", "mine"); got != "enabled-runtime\n" {
			t.Errorf("is-enabled says %q", got)
		}
		for _, gone := range []string{"mine.service", "mine.service.d", "multi-user.target.wants/mine.service"} {
			if _, err := os.Lstat("/etc/systemd/system/" + gone); err == nil {
				t.Errorf("%s is there still", gone)
			}
		}
		if b, _ := os.ReadFile("/var/lib/fleet/adopted/mine.service/mine.service"); !strings.HasPrefix(string(b), "# my comment") {
			t.Errorf("put aside is %q", b)
		}
	})
	if got := tell(t, "systemctl", "is-enabled", "mine"); got != "enabled\n" {
		t.Errorf("let go, is-enabled says %q", got)
	}
}

// A unit of the distribution: its file stays, hidden by ours.
func adoptsFromUsr(t *testing.T, m *systemd.Manager) {
	const vendor = "/usr/lib/systemd/system/vendor.service"
	plain := "[Service]\nExecStart=/bin/sleep 1000\n"
	put(t, vendor, plain)
	tell(t, "systemctl", "daemon-reload")
	tell(t, "systemctl", "start", "vendor.service")
	handOver(t, m, "vendor.service", plain, func() {})
	if b, err := os.ReadFile(vendor); err != nil || string(b) != plain {
		t.Errorf("the distribution's file is %q, error %v", b, err)
	}
}

// An instance gets a file of its own; its template is left to the others.
func adoptsAnInstance(t *testing.T, m *systemd.Manager) {
	plain := "[Service]\nExecStart=/bin/sleep 1000\n"
	put(t, "/etc/systemd/system/many@.service", plain)
	put(t, "/etc/systemd/system/many@.service.d/10-a.conf", "[Unit]\nDescription=Template's\n")
	tell(t, "systemctl", "daemon-reload")
	tell(t, "systemctl", "start", "many@1.service", "many@2.service")
	defer tell(t, "systemctl", "stop", "many@2.service")
	handOver(t, m, "many@1.service", plain+"#### 10-a.conf\n[Unit]\nDescription=Template's\n", func() {})
	if st := status(t, m, "many@2.service"); st.Active != "active" || st.Description != "Template's" {
		t.Errorf("another instance: %+v", st)
	}
}

// What has no file, or one that is not there to be moved, stays as it is.
func refusesToAdopt(t *testing.T, m *systemd.Manager) {
	tell(t, "systemd-run", "--unit=passing.service", "/bin/sleep", "1000")
	defer tell(t, "systemctl", "stop", "passing.service")
	for name, want := range map[string]string{
		"passing.service": "it is transient",
		"nothere.service": "systemd has no such unit",
		"a b.service":     "invalid character",
		"tmp.mount":       "",
	} {
		_, err := m.Own(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	install(t, m, sleeper, "ours.service")
	if err := m.Eject(t.Context(), "theirs.service"); err == nil {
		t.Error("a unit that is not there is let go")
	}
	put(t, "/etc/systemd/system/ours.service", "[Service]\nExecStart=/bin/true\n")
	if err := m.Eject(t.Context(), "ours.service"); err == nil || !strings.Contains(err.Error(), "a file of its own at /etc/systemd/system/ours.service") {
		t.Errorf("over another file: %v", err)
	}
	var _ unit.Adopter = m
}
