// Package dist holds what a distribution's package installs beside the program: the
// systemd units of the daemons, the user that the store runs as, the group that may
// use the fleet API, and directories. They are in the program too, so that it can
// install them itself.
//
// package/ has what a package does when it comes and goes, nfpm.yaml what is in it.
// "make package" builds packages; docs/package.md says what they promise.
package dist

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed systemd/*.path systemd/*.service systemd/*.socket systemd/*.target
var units embed.FS

//go:embed sysusers/*.conf
var users embed.FS

// Units returns the units by the path they are installed at.
func Units() map[string]string { return installed(units, "systemd", "/usr/lib/systemd/system/") }

// Users returns the files of systemd-sysusers(8) by the path they are installed at.
// It has to be run before the units are started.
func Users() map[string]string { return installed(users, "sysusers", "/usr/lib/sysusers.d/") }

//go:embed tmpfiles/*.conf
var directories embed.FS

// Directories returns the files of systemd-tmpfiles(8) by the path they are installed
// at. They name users, so that [Users] come first.
func Directories() map[string]string {
	return installed(directories, "tmpfiles", "/usr/lib/tmpfiles.d/")
}

// Shared reports whether distributions have a unit of this name themselves. A package
// has to leave theirs alone.
func Shared(unit string) bool { return unit == "etcd.service" }

// Daemons returns the names of the units that run until they are stopped, sorted, so
// that an upgrade restarts them. The others do their work and end, or listen.
func Daemons() []string {
	var out []string
	for at, text := range Units() {
		if strings.Contains(text, "\nType=notify\n") && !strings.Contains(at, "@") {
			out = append(out, path.Base(at))
		}
	}
	slices.Sort(out)
	return out
}

func installed(files embed.FS, from, to string) map[string]string {
	out := map[string]string{}
	err := fs.WalkDir(files, from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		out[to+d.Name()] = string(text)
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("read files of the program itself: %v", err))
	}
	return out
}
