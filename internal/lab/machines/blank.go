package machines

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Option says what machines are like when they are first booted.
type Option func(*recipe)

// recipe is what the options amount to.
type recipe struct {
	blank bool
	files []file
}

// file is one that a machine has before its first boot.
type file struct {
	path string
	text []byte
	perm fs.FileMode
}

// Blank machines have nothing of ours and nothing that ours takes the place of, however it
// came onto this machine: no program or link, no unit, no user, no package of etcd. A
// package of ours can be installed on them as on a new machine.
func Blank(r *recipe) { r.blank = true }

// With gives every machine a file before its first boot: a package to be installed, a
// document in a directory that is looked at for one. The path is absolute.
func With(path string, text []byte, perm fs.FileMode) Option {
	return func(r *recipe) { r.files = append(r.files, file{path, text, perm}) }
}

// rivals are packages of distributions that bring programs and units of the same names.
var rivals = []string{"etcd", "etcd-server", "etcd-client", "fleet", "flotilla", "locksmith", "coreos-cloudinit"}

// ownNames are what programs of ours are called, or what is made for them: "etcd" stands for
// etcd, etcd.service and etcd2.conf as well.
var ownNames = []string{"etcd", "fleet", "flotilla", "locksmith", "coreos-cloudinit", "update-engine", "user-cloudinit", "system-cloudinit"}

// ownDirs are where a package or a person puts such files.
var ownDirs = []string{
	"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/bin",
	"/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system-preset",
	"/usr/lib/sysusers.d", "/etc/sysusers.d", "/usr/lib/tmpfiles.d", "/etc/tmpfiles.d",
	"/etc/default", "/etc/init.d", "/usr/share/dbus-1/system-services", "/usr/share/dbus-1/system.d", "/etc/dbus-1/system.d",
}

// isOwn reports whether a file of this name, in one of ownDirs, is ours or in our way.
func isOwn(name string) bool {
	return slices.ContainsFunc(ownNames, func(own string) bool { return strings.HasPrefix(name, own) })
}

// accounts are the files that list users and groups, a line each that begins with the
// name and a colon.
var accounts = []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"}

// ownAccounts are the users and groups that we make.
var ownAccounts = []string{"etcd", "fleet"}

// withoutAccounts leaves out the lines of some users and groups.
func withoutAccounts(text []byte, names []string) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if name, _, _ := bytes.Cut(line, []byte(":")); !slices.Contains(names, string(name)) {
			b.Write(line)
		}
	}
	return b.Bytes()
}

// withoutPackages leaves the stanzas of some packages out of dpkg's status file
// (deb-status: stanzas with an empty line between, the first field is Package).
func withoutPackages(status []byte, names []string) []byte {
	var kept [][]byte
	for stanza := range bytes.SplitSeq(status, []byte("\n\n")) {
		first, _, _ := bytes.Cut(bytes.TrimLeft(stanza, "\n"), []byte("\n"))
		name, ok := bytes.CutPrefix(first, []byte("Package: "))
		if !ok || !slices.Contains(names, string(name)) {
			kept = append(kept, stanza)
		}
	}
	return bytes.Join(kept, []byte("\n\n"))
}

// dpkgDir is where dpkg keeps what it has installed.
const dpkgDir = "/var/lib/dpkg"

// blank takes out of the machine what a blank one does not have. root is its overlay: what
// is removed there is hidden, not lost. Nothing below it leads out, as links may that
// this machine has.
func blank(root *os.Root) error {
	errs := []error{forgetPackages(root, rivals)}
	for _, dir := range ownDirs {
		errs = append(errs, removeOwn(root, dir))
	}
	for _, path := range accounts {
		errs = append(errs, rewrite(root, path, func(text []byte) []byte { return withoutAccounts(text, ownAccounts) }))
	}
	return errors.Join(errs...)
}

// blank makes the machine on the disk a blank one.
func (d disk) blank() error {
	root, err := os.OpenRoot(d.root())
	if err != nil {
		return err
	}
	defer root.Close()
	return blank(root)
}

// removeOwn removes our files from a directory, and links to a program of ours whatever
// they are called.
func removeOwn(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), within(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(within(dir), e.Name())
		target, _ := root.Readlink(path) // "" for what is not a link
		if isOwn(e.Name()) || filepath.Base(target) == "flotilla" {
			if err := root.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetPackages removes packages' files, and what dpkg knows of them, without running
// anything of theirs: it would be run on this machine. Directories stay.
func forgetPackages(root *os.Root, names []string) error {
	for _, name := range names {
		list, err := root.ReadFile(within(dpkgDir + "/info/" + name + ".list"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := removeListed(root, string(list)); err != nil {
			return fmt.Errorf("hide package %s: %w", name, err)
		}
		records, err := fs.Glob(root.FS(), within(dpkgDir+"/info/"+name+".*"))
		if err != nil {
			return err
		}
		for _, path := range records {
			if err := root.Remove(path); err != nil {
				return err
			}
		}
	}
	return rewrite(root, dpkgDir+"/status", func(text []byte) []byte { return withoutPackages(text, names) })
}

func removeListed(root *os.Root, list string) error {
	for line := range strings.Lines(list) {
		path := within(strings.TrimSpace(line))
		st, err := root.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() {
			continue
		}
		if err != nil {
			return err
		}
		if err := root.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// rewrite changes a file; its owner and mode stay. One that does not exist is left alone.
func rewrite(root *os.Root, path string, change func([]byte) []byte) error {
	old, err := root.ReadFile(within(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text := change(old)
	if bytes.Equal(text, old) {
		return nil
	}
	return root.WriteFile(within(path), text, 0) // it exists: no mode is needed
}

// within is an absolute path of the machine as its root's methods want it.
func within(path string) string {
	// "/." is what dpkg calls the root.
	return filepath.Join(".", strings.TrimPrefix(filepath.Clean(path), "/"))
}
