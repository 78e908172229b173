// Package dist holds what a distribution's package installs beside the program: the
// systemd units of the daemons, the user that the store runs as and the group that may
// use the fleet API. They are in the program too, so that it can install them itself.
package dist

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed systemd/*.service systemd/*.socket
var units embed.FS

//go:embed sysusers/*.conf
var users embed.FS

// Units returns the units by the path they are installed at.
func Units() map[string]string { return installed(units, "systemd", "/usr/lib/systemd/system/") }

// Users returns the files of systemd-sysusers(8) by the path they are installed at.
// It has to be run before the units are started.
func Users() map[string]string { return installed(users, "sysusers", "/usr/lib/sysusers.d/") }

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
