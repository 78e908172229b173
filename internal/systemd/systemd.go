// Package systemd makes a machine's systemd a unit.Manager, over D-Bus.
//
// What shaped it: a daemon-reload costs a second with 800 units loaded, a list of
// all units 40 ms, the state of one unit by name 0.4 ms, and a job a few
// milliseconds of systemd's own. So units that are new or stopped are loaded by
// their start job and never by a reload; jobs are sent together and their
// JobRemoved signals collected; and states are asked for by name after a signal
// said that something changed.
//
// A unit's file lies in a directory of our own and systemd finds it by a link in
// its runtime unit directory, as "systemctl link --runtime" makes: the unit has its
// own name, "systemctl cat" shows the file, and which units are ours can be told
// from the directory alone. Both are on a volatile file system: a reboot starts
// with nothing.
package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/fault"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// ErrLost is the error of a call that found the connection to systemd broken, or
// could not make one again in time.
var ErrLost = errors.New("connection to systemd lost")

// Config says which systemd, and where our files lie.
type Config struct {
	// User chooses the calling user's own systemd ("systemctl --user").
	User bool
	// UnitsDir holds the unit files. "" means /run/fleet/units, with User
	// fleet/units below RuntimeDir.
	UnitsDir string
	// RuntimeDir is where the user's systemd keeps its runtime files. "" means
	// $XDG_RUNTIME_DIR. Without User it is not looked at.
	RuntimeDir string
	// AdoptedDir keeps the machine's own files of units that were taken over. ""
	// means /var/lib/fleet/adopted, with User fleet/adopted below ConfigHome.
	AdoptedDir string
	// ConfigHome is where the user keeps unit files. "" means $XDG_CONFIG_HOME or
	// $HOME/.config. Without User it is not looked at.
	ConfigHome string
}

func (c Config) withDefaults() Config {
	if c.User && c.RuntimeDir == "" {
		c.RuntimeDir = os.Getenv("XDG_RUNTIME_DIR")
	}
	if c.User && c.ConfigHome == "" {
		c.ConfigHome = os.Getenv("XDG_CONFIG_HOME")
	}
	if c.User && c.ConfigHome == "" {
		c.ConfigHome = filepath.Join(os.Getenv("HOME"), ".config")
	}
	run, state := "/run", "/var/lib"
	if c.User {
		run, state = c.RuntimeDir, c.ConfigHome
	}
	c.UnitsDir = cmp.Or(c.UnitsDir, filepath.Join(run, "fleet/units"))
	c.AdoptedDir = cmp.Or(c.AdoptedDir, filepath.Join(state, "fleet/adopted"))
	return c
}

// linkDir is the unit directory of systemd's own that our links go to.
func (c Config) linkDir() string {
	if c.User {
		return filepath.Join(c.RuntimeDir, "systemd/user")
	}
	return "/run/systemd/system"
}

// Manager is a connection to systemd. It is made when it is first needed and made
// again when it was lost.
type Manager struct {
	cfg  Config
	open func(Config, ...dbus.ConnOption) (*dbus.Conn, error)

	mu       sync.Mutex // guards what follows
	bus      *bus       // nil: not connected
	known    bool       // there was a connection before
	unitPath []string   // the directories systemd reads units from

	files fileStore
	watch watchers
}

var _ unit.Manager = (*Manager)(nil)

// New returns a Manager that has not connected yet.
func New(cfg Config) *Manager {
	cfg = cfg.withDefaults()
	return &Manager{
		cfg:   cfg,
		open:  open,
		files: fileStore{dir: cfg.UnitsDir, links: cfg.linkDir(), adopted: cfg.AdoptedDir},
	}
}

// Close ends the connection and with it all watches. Units do not notice, and a
// later call connects again.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bus == nil {
		return nil
	}
	err := m.bus.conn.Close()
	m.bus = nil
	return err
}

// How long a call tries to get a connection back: a systemd that executes itself
// anew answers again within a second.
const (
	patience  = 5 * time.Second
	firstWait = 50 * time.Millisecond
	maxWait   = time.Second
)

// callLimit bounds each exchange with systemd. A reload with some thousands of
// units takes about ten seconds, everything else milliseconds.
const callLimit = time.Minute

// connect returns the connection, making it if there is none. Where there has never
// been one it fails at once: then systemd is not there or does not let us.
func (m *Manager) connect(ctx context.Context) (*bus, error) {
	deadline := time.Now().Add(patience)
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		b, again, err := m.tryConnect()
		if err == nil {
			return b, nil
		}
		if !again || time.Now().Add(wait).After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%v)", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// tryConnect says with its second result whether trying again may help.
func (m *Manager) tryConnect() (*bus, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bus != nil && m.bus.conn.Connected() {
		return m.bus, false, nil
	}
	b, err := m.dial()
	switch {
	case err == nil:
		m.bus, m.known = b, true
		return b, false, nil
	case m.known:
		return nil, true, fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil, false, fault.Hint(fmt.Errorf("connect to systemd: %w", err),
		"systemd has to be PID 1 here and the caller root or allowed by polkit; without it use the built-in supervisor")
}

// do calls f with a connection, once more if it was lost meanwhile. f may be called
// twice, so it does nothing that must not be done twice.
func (m *Manager) do(ctx context.Context, f func(ctx context.Context, b *bus) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	for again := true; ; again = false {
		b, err := m.connect(ctx)
		if err != nil {
			return err
		}
		if err = f(ctx, b); !errors.Is(err, ErrLost) || !again {
			return err
		}
	}
}

// Reload implements unit.Manager.
func (m *Manager) Reload(ctx context.Context) error {
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		return b.call(ctx, managerPath, managerIface+".Reload")
	})
	if err != nil {
		return fmt.Errorf("reload systemd's units: %w", err)
	}
	m.reloaded()
	return nil
}

// Show implements unit.Manager.
func (m *Manager) Show(ctx context.Context, w io.Writer, name string) (int, error) {
	if err := unitfile.CheckName(name); err != nil {
		return 0, fmt.Errorf("show unit: %w", err)
	}
	cmd := exec.CommandContext(ctx, "systemctl", "status", "-l", "--no-pager")
	if m.cfg.User {
		cmd.Args = append(cmd.Args, "--user")
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+m.cfg.RuntimeDir)
	}
	cmd.Args = append(cmd.Args, "--", name) // a name may begin with a dash
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("show %s with systemctl: %w", name, err)
	}
	return 0, nil
}

// unitDirs returns the directories systemd reads units from, first found wins.
func (m *Manager) unitDirs(ctx context.Context) ([]string, error) {
	m.mu.Lock()
	dirs := m.unitPath
	m.mu.Unlock()
	if dirs != nil {
		return dirs, nil
	}
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		v, err := b.property(ctx, managerPath, managerIface, "UnitPath")
		if err == nil {
			err = dbus.Store([]any{v.Value()}, &dirs)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask systemd for its unit directories: %w", err)
	}
	m.mu.Lock()
	m.unitPath = dirs
	m.mu.Unlock()
	return dirs, nil
}
