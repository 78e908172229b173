package dist_test

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const version = "1.2.0+r5.g0123456789"

// build builds packages of a source tree and returns the directory that they are in.
func build(t *testing.T, tree string, targets ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("sh", append([]string{"scripts/package", dir}, targets...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1790000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/package: %v\n%s", err, out)
	}
	return dir
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// contents are files and directories that a package has to have.
var contents = []string{
	"/usr/bin/flotilla",
	"/usr/lib/flotilla/systemd/etcd.service",
	"/usr/lib/systemd/system/fleet.service",
	"/usr/lib/systemd/system/fleet.socket",
	"/usr/lib/systemd/system/flotilla-discovery.service",
	"/usr/lib/sysusers.d/flotilla.conf",
	"/usr/lib/tmpfiles.d/flotilla.conf",
	"/usr/libexec/flotilla/names",
	"/usr/share/bash-completion/completions/fleetctl",
	"/usr/share/fish/vendor_completions.d/fleetctl.fish",
	"/usr/share/man/man1/fleetctl-start.1.gz",
	"/usr/share/man/man8/flotilla-etcd.8.gz",
	"/usr/share/doc/flotilla/examples/etcd.default",
	"/etc/flotilla/health.d",
}

// taken are files that packages of distributions have: ours must not.
var taken = []string{
	"/usr/bin/etcd", "/usr/bin/etcdctl", "/usr/lib/systemd/system/etcd.service", "/lib/systemd/system/etcd.service",
	"/etc/default/etcd", "/usr/share/man/man1/etcd.1.gz", "/usr/share/man/man1/etcdctl.1.gz",
}

func holds(t *testing.T, what, list string, also ...string) {
	t.Helper()
	files := strings.Fields(list)
	for _, path := range slices.Concat(contents, also) {
		if !slices.Contains(files, path) {
			t.Errorf("%s does not have %s", what, path)
		}
	}
	for _, path := range taken {
		if slices.Contains(files, path) {
			t.Errorf("%s has %s, which is another package's", what, path)
		}
	}
}

// A package for each format and processor holds what it should, in the form that the
// distribution wants.
func TestPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program for two processors")
	}
	dir := build(t, "..", "deb-amd64", "rpm-amd64", "deb-arm64", "rpm-arm64")
	for _, arch := range []struct {
		deb, rpm string
		machine  elf.Machine
	}{{"amd64", "x86_64", elf.EM_X86_64}, {"arm64", "aarch64", elf.EM_AARCH64}} {
		deb := filepath.Join(dir, "flotilla_"+version+"_"+arch.deb+".deb")
		rpm := filepath.Join(dir, "flotilla-"+version+"-1."+arch.rpm+".rpm")
		checkDeb(t, deb, arch.deb, arch.machine)
		checkRPM(t, rpm, arch.rpm, arch.machine)
	}
	checkReproducible(t, dir, "flotilla_"+version+"_amd64.deb", "flotilla-"+version+"-1.x86_64.rpm")
}

func checkDeb(t *testing.T, deb, arch string, machine elf.Machine) {
	t.Helper()
	root := t.TempDir()
	output(t, "dpkg-deb", "-x", deb, root)
	var files []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		files = append(files, strings.TrimPrefix(path, root))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, deb, strings.Join(files, "\n"), "/usr/share/doc/flotilla/copyright", "/usr/share/doc/flotilla/changelog.gz", "/usr/share/zsh/vendor-completions/_fleetctl")
	for field, want := range map[string]string{"Package": "flotilla", "Version": version, "Architecture": arch, "Depends": "systemd", "Conffiles": ""} {
		if got := strings.TrimSpace(output(t, "dpkg-deb", "-f", deb, field)); got != want {
			t.Errorf("%s: %s is %q, want %q", deb, field, got, want)
		}
	}
	for line := range strings.Lines(output(t, "dpkg-deb", "-c", deb)) {
		if !strings.Contains(line, "root/root") {
			t.Errorf("%s: not root's: %s", deb, line)
		}
	}
	checkProgram(t, filepath.Join(root, "usr/bin/flotilla"), machine)
	if out := output(t, "lintian", "--allow-root", "--fail-on=error,warning", deb); out != "" {
		t.Errorf("lintian:\n%s", out)
	}
}

func checkRPM(t *testing.T, rpm, arch string, machine elf.Machine) {
	t.Helper()
	holds(t, rpm, output(t, "rpm", "-qpl", rpm), "/usr/share/licenses/flotilla/LICENSE", "/usr/share/zsh/site-functions/_fleetctl")
	if got, want := output(t, "rpm", "-qp", "--queryformat", "%{name} %{version} %{arch}", rpm), "flotilla "+version+" "+arch; got != want {
		t.Errorf("%s is %s, want %s", rpm, got, want)
	}
	scripts := output(t, "rpm", "-qp", "--scripts", rpm)
	for _, want := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("%s has no %s", rpm, want)
		}
	}
	program := filepath.Join(t.TempDir(), "flotilla")
	unpack := exec.Command("sh", "-c", `rpm2archive -n - <"$1" | tar -xO ./usr/bin/flotilla >"$2"`, "sh", rpm, program)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Errorf("unpack %s: %v\n%s", rpm, err, out)
	}
	checkProgram(t, program, machine)
}

// The program is for the processor, and asks for no dynamic linker.
func checkProgram(t *testing.T, path string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if f.Machine != machine || f.Section(".interp") != nil {
		t.Errorf("%s is for %v and has the linker %v; want %v and none", path, f.Machine, f.Section(".interp"), machine)
	}
}

// The same tree gives the same packages, byte by byte: elsewhere, for somebody else.
func checkReproducible(t *testing.T, here string, names ...string) {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "elsewhere")
	cmd := exec.Command("sh", "-c", `umask 077; mkdir "$1" && git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$1"`, "sh", tree)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
	there := build(t, tree, "deb-amd64", "rpm-amd64")
	for _, name := range names {
		if !same(t, filepath.Join(here, name), filepath.Join(there, name)) {
			t.Errorf("%s differs when it is built elsewhere", name)
		}
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	first, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(first, second)
}
