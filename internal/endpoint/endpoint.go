// Package endpoint is where the command lines look for the daemons of this
// machine when nobody tells them.
//
// "flotilla up" writes down where it listens in DIR/run and makes the link
// "current" beside its default directory point to DIR; the command lines follow
// that link. Classic sockets and ports of installed daemons come first.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/applet"
)

// Names of the files below an up directory's run/.
const (
	FleetSocket = "fleet.sock"  // the fleet API
	ClientURLs  = "client-urls" // the store's client URLs, one a line
)

// classicSocket is where an installed fleetd listens (fleet.socket).
const classicSocket = "/run/fleet.sock"

// ClassicStore is where a store listens that was started with default flags.
var ClassicStore = []string{"http://127.0.0.1:2379", "http://127.0.0.1:4001"}

// stateHome is the directory that holds the default up directory and the link
// "current": $XDG_STATE_HOME/flotilla, by default ~/.local/state/flotilla (XDG
// Base Directory Specification).
func stateHome(env applet.Env) (string, error) {
	if dir := env.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "flotilla"), nil
	}
	home := env.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("neither XDG_STATE_HOME nor HOME is an absolute path")
	}
	return filepath.Join(home, ".local", "state", "flotilla"), nil
}

// DefaultDir is the directory of "flotilla up" without --dir.
func DefaultDir(env applet.Env) (string, error) {
	home, err := stateHome(env)
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "up"), nil
}

// SetCurrent makes dir the one that the command lines find.
func SetCurrent(env applet.Env, dir string) error {
	home, err := stateHome(env)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(home, fmt.Sprintf(".current-%d", os.Getpid()))
	os.Remove(tmp)
	if err := os.Symlink(dir, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(home, "current"))
}

// runDir is DIR/run of the current up directory, "" if there is none.
func runDir(env applet.Env) string {
	home, err := stateHome(env)
	if err != nil {
		return ""
	}
	return filepath.Join(home, "current", "run")
}

// Fleet is the fleet API's endpoint as a URL: the socket of a running "flotilla
// up" where there is one and no installed fleetd, else the classic one.
func Fleet(env applet.Env) string {
	if answers(classicSocket) {
		return "unix://" + classicSocket
	}
	if dir := runDir(env); dir != "" && answers(filepath.Join(dir, FleetSocket)) {
		return "unix://" + filepath.Join(dir, FleetSocket)
	}
	return "unix://" + classicSocket
}

// Store is the store's client URLs: those of a running "flotilla up" where there
// is one, else the classic ports on loopback.
func Store(env applet.Env) []string {
	if dir := runDir(env); dir != "" {
		if b, err := os.ReadFile(filepath.Join(dir, ClientURLs)); err == nil {
			if urls := strings.Fields(string(b)); len(urls) > 0 {
				return urls
			}
		}
	}
	return ClassicStore
}

// answers reports whether somebody listens on a socket: a file that a crash left
// is none.
func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return errors.Is(err, os.ErrPermission) // somebody does, and not for us: say so later
	}
	conn.Close()
	return true
}
