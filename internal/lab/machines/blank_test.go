package machines

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

const dpkgStatus = `Package: base-files
Status: install ok installed
Version: 12

Package: etcd-server
Status: install ok installed
Description: a store
 with more lines

Package: etcd-tutorial
Status: install ok installed
`

func TestWithoutPackages(t *testing.T) {
	const want = `Package: base-files
Status: install ok installed
Version: 12

Package: etcd-tutorial
Status: install ok installed
`
	if diff := cmp.Diff(want, string(withoutPackages([]byte(dpkgStatus), rivals))); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "\n", "Package: x", "Version: 1\n\nno field at all\n\n\n"} {
		if got := string(withoutPackages([]byte(text), rivals)); got != text {
			t.Errorf("%q: got %q", text, got)
		}
	}
	if got := withoutPackages([]byte("Package: etcd\n"), rivals); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func FuzzWithoutPackages(f *testing.F) {
	f.Add(dpkgStatus)
	f.Fuzz(func(t *testing.T, text string) {
		once := withoutPackages([]byte(text), rivals)
		if strings.Contains(string(once), "\n\nPackage: etcd\n") {
			t.Errorf("%q keeps the package", once)
		}
	})
}

func TestWithoutAccounts(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/bash\netcd:x:101:102::/var/lib/etcd:/bin/false\netcdx:x:1:1::/:/bin/sh\n"
	const want = "root:x:0:0:root:/root:/bin/bash\netcdx:x:1:1::/:/bin/sh\n"
	if got := string(withoutAccounts([]byte(passwd), ownAccounts)); got != want {
		t.Errorf("got %q", got)
	}
}

// A machine on which a person has installed ours by hand, and the distribution's etcd.
const littered = `-- usr/bin/flotilla --
-- usr/bin/etcd --
-- usr/bin/bash --
-- usr/local/bin/fleetctl --
-- usr/lib/systemd/system/etcd.service --
-- usr/lib/systemd/system/etcd2.service --
-- usr/lib/systemd/system/fleet.socket --
-- usr/lib/systemd/system/locksmithd.service --
-- usr/lib/systemd/system/dbus.service --
-- usr/lib/sysusers.d/flotilla.conf --
-- usr/share/doc/etcd-server/README --
-- usr/share/doc/bash/README --
-- etc/default/etcd --
-- etc/passwd --
root:x:0:0:root:/root:/bin/bash
etcd:x:101:102::/var/lib/etcd:/bin/false
-- var/lib/dpkg/info/etcd-server.list --
/.
/usr
/usr/share/doc/etcd-server/README
/usr/bin/etcd
/usr/bin/gone
-- var/lib/dpkg/info/etcd-server.postrm --
-- var/lib/dpkg/info/bash.list --
/usr/bin/bash
-- var/lib/dpkg/status --
Package: etcd-server
Version: 3
`

func TestBlank(t *testing.T) {
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(littered)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A name of its own for the program, and a directory elsewhere.
	elsewhere := t.TempDir()
	if err := os.WriteFile(elsewhere+"/etcd", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"usr/local/bin/f": "/opt/flotilla", "opt": elsewhere, "usr/sbin": elsewhere} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := blank(root); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a directory that is a link out of the machine: %v", err)
	}
	want := []string{
		"etc/passwd", "opt", "usr/bin/bash", "usr/lib/systemd/system/dbus.service", "usr/sbin", "usr/share/doc/bash/README",
		"var/lib/dpkg/info/bash.list", "var/lib/dpkg/status",
	}
	if diff := cmp.Diff(want, filesOf(t, dir)); diff != "" {
		t.Error(diff)
	}
	if text, err := root.ReadFile("etc/passwd"); err != nil || string(text) != "root:x:0:0:root:/root:/bin/bash\n" {
		t.Errorf("passwd: %q, %v", text, err)
	}
	if _, err := os.Stat(elsewhere + "/etcd"); err != nil {
		t.Errorf("a file of this machine was taken for one of the lab machine: %v", err)
	}
}

func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path) // it is below dir
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}
