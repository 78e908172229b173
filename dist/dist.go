// Package dist holds what a distribution's package installs beside the program: the
// systemd units of the daemons. They are in the program too, so that it can install
// them itself.
package dist

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed systemd/*.service systemd/*.socket
var units embed.FS

// Units returns the units by the path they are installed at.
func Units() map[string]string {
	out := map[string]string{}
	err := fs.WalkDir(units, "systemd", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := units.ReadFile(path)
		out["/usr/lib/systemd/system/"+d.Name()] = string(text)
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("read files of the program itself: %v", err))
	}
	return out
}
