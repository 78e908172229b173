// Package unitfake is an init system of pretended units, for tests and simulations
// of whoever decides about units.
//
// Units are texts with a state; nothing is executed. Every start succeeds at once
// unless Script says otherwise, and a unit that was started stays up until a stop
// job, Crash or Reboot. Time is the time package's, so that a test in a
// testing/synctest bubble has hours for nothing. The fake passes the parts of the
// suite in unittest that need no processes.
package unitfake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// ErrLost is the error of every call between Disconnect and Connect.
var ErrLost = errors.New("connection to the init system lost")

// Script says how jobs for a unit go. The zero value: at once, and well.
type Script struct {
	StartTakes time.Duration
	StopTakes  time.Duration
	// RestTakes is how long a restart of a unit that runs leaves it down: its start
	// waits for another unit's.
	RestTakes time.Duration
	// StartSub is the sub-state while the unit starts; "" is start.
	StartSub string
	// Start is the result of start jobs; "" means done. After any other result the
	// unit is failed.
	Start unit.Result
	// StartErr keeps a start job from being queued.
	StartErr error
	// InstallErr makes Install refuse the unit.
	InstallErr error
}

// Manager is the fake. Use New.
type Manager struct {
	mu       sync.Mutex
	units    map[string]*fakeUnit
	scripts  map[string]Script
	watchers map[*watcher]bool
	lost     bool
	reloads  int
	nextPID  int
	guard    *time.Timer // of Guard; nil: none

	log     []unit.LogEntry
	newLine chan struct{} // closed and replaced with every line
}

var (
	_ unit.Manager   = (*Manager)(nil)
	_ unit.LogReader = (*Manager)(nil)
)

// fakeUnit is a unit that is installed, loaded or both.
type fakeUnit struct {
	file      string
	installed bool
	text      string // what is loaded; counts while the unit is loaded
	st        unit.Status
	job       *job // under way, or nil
	starts    int
	native    bool // it has a file of the machine's own
}

// loaded says that the unit is kept in memory with the text it was loaded with.
func (u *fakeUnit) loaded() bool { return u.st.Active != "inactive" }

// New returns an init system without units.
func New() *Manager {
	return &Manager{
		units:    map[string]*fakeUnit{},
		scripts:  map[string]Script{},
		watchers: map[*watcher]bool{},
		newLine:  make(chan struct{}),
		nextPID:  1000,
	}
}

// Script sets how jobs for the unit go from now on.
func (m *Manager) Script(name string, s Script) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scripts[name] = s
}

// Crash ends the unit's process badly: the unit is failed.
func (m *Manager) Crash(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.units[name]; u != nil && u.loaded() {
		u.st.ExitCode = 1
		m.set(u, "failed", "failed", "exit-code")
	}
}

// Disconnect loses the connection to the init system: watches end and calls fail
// with ErrLost until Connect. Units and jobs under way do not notice.
func (m *Manager) Disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = true
	for w := range m.watchers {
		w.end()
	}
	clear(m.watchers)
}

// Connect ends what Disconnect began.
func (m *Manager) Connect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = false
}

// Reboot is a restart of the machine: the connection is lost and made again, no
// unit runs and no file of the units directory, which is volatile, is left.
func (m *Manager) Reboot() {
	m.Disconnect()
	m.mu.Lock()
	for _, u := range m.units {
		u.replaceJob(nil)
	}
	clear(m.units)
	m.mu.Unlock()
	m.Connect()
}

// Starts returns how often the unit's process was started, restarts included.
func (m *Manager) Starts(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.units[name]; u != nil {
		return u.starts
	}
	return 0
}

// Reloads returns how often Reload was called.
func (m *Manager) Reloads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reloads
}

// lock takes the mutex for a call over the connection, or says that it is lost.
func (m *Manager) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.lost {
		m.mu.Unlock()
		return ErrLost
	}
	return nil
}

// Install implements unit.Manager.
func (m *Manager) Install(ctx context.Context, name, text string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("install %s: %w", name, err)
	}
	defer m.mu.Unlock()
	if err := m.scripts[name].InstallErr; err != nil {
		return fmt.Errorf("install %s: %w", name, err)
	}
	if !validName(name) {
		return fmt.Errorf("install %q: no unit has such a name", name)
	}
	for conf := range unitfile.CutTexts(text).DropIns {
		if err := unitfile.CheckDropInName(conf); err != nil {
			return fmt.Errorf("install %s: %w: %w", name, unit.ErrRefused, err)
		}
	}
	u := m.units[name]
	if u != nil && u.native {
		return fmt.Errorf("install %s: the machine has a unit file of its own", name)
	}
	if u == nil {
		u = &fakeUnit{st: unit.Status{Name: name, Active: "inactive", Sub: "dead"}}
		m.units[name] = u
	}
	changed := u.installed && u.file != text
	u.installed, u.file = true, text
	if changed {
		if u.st.Active == "failed" {
			u.st.Active, u.st.Sub, u.st.Result = "inactive", "dead", "success"
		}
		m.tell(u)
	}
	return nil
}

func validName(name string) bool {
	_, ok := upState[filepath.Ext(name)]
	return ok && !strings.ContainsAny(name, "/ ")
}

// Remove implements unit.Manager.
func (m *Manager) Remove(ctx context.Context, name string) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	defer m.mu.Unlock()
	u := m.units[name]
	if u == nil {
		return nil
	}
	u.installed = false
	if u.st.Active == "failed" {
		u.st.Active, u.st.Sub = "inactive", "dead"
	}
	if !u.loaded() && u.job == nil {
		delete(m.units, name)
	}
	return nil
}

// Installed implements unit.Manager.
func (m *Manager) Installed(ctx context.Context) (map[string]string, error) {
	if err := m.lock(ctx); err != nil {
		return nil, fmt.Errorf("list installed units: %w", err)
	}
	defer m.mu.Unlock()
	out := map[string]string{}
	for name, u := range m.units {
		if u.installed {
			out[name] = u.file
		}
	}
	return out, nil
}

// Reload implements unit.Manager.
func (m *Manager) Reload(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	defer m.mu.Unlock()
	m.reloads++
	for _, u := range m.units {
		if u.installed && u.loaded() && u.text != u.file {
			u.text = u.file
			m.tell(u)
		}
	}
	return nil
}

// Status implements unit.Manager.
func (m *Manager) Status(ctx context.Context, names ...string) ([]unit.Status, error) {
	if err := m.lock(ctx); err != nil {
		return nil, fmt.Errorf("ask for units: %w", err)
	}
	defer m.mu.Unlock()
	var out []unit.Status
	for _, name := range names {
		out = append(out, m.status(name))
	}
	return out, nil
}

func (m *Manager) status(name string) unit.Status {
	u := m.units[name]
	if u == nil {
		return unit.Status{Name: name, Load: "not-found", Active: "inactive", Sub: "dead"}
	}
	st, text := u.st, u.file
	if u.loaded() {
		text = u.text
	}
	st.Load = "loaded"
	st.Job = u.job != nil
	st.Description = description(name, text)
	if u.installed {
		st.Fragment = "/run/fake/" + name
		st.NeedReload = text != u.file
	}
	return st
}

func description(name, text string) string {
	if d, ok := setting(text, "Description"); ok {
		return d
	}
	return name
}

// setting is what a unit's text, drop-ins included, says last.
func setting(text, key string) (value string, found bool) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			value, found = v, true
		}
	}
	return value, found
}

// Show implements unit.Manager.
func (m *Manager) Show(ctx context.Context, w io.Writer, name string) (int, error) {
	if err := m.lock(ctx); err != nil {
		return 0, fmt.Errorf("show %s: %w", name, err)
	}
	st := m.status(name)
	m.mu.Unlock()
	if st.Load == "not-found" {
		fmt.Fprintf(w, "Unit %s could not be found.\n", name)
		return 4, nil
	}
	fmt.Fprintf(w, "%s - %s\n     Loaded: %s (%s)\n     Active: %s (%s)\n",
		name, st.Description, st.Load, st.Fragment, st.Active, st.Sub)
	if st.Active == "active" {
		return 0, nil
	}
	return 3, nil
}

// Watch implements unit.Manager.
func (m *Manager) Watch(ctx context.Context) (<-chan unit.Status, error) {
	if err := m.lock(ctx); err != nil {
		return nil, fmt.Errorf("watch units: %w", err)
	}
	defer m.mu.Unlock()
	ctx, end := context.WithCancel(ctx)
	w := &watcher{end: end, wake: make(chan struct{}, 1), pending: map[string]unit.Status{}}
	m.watchers[w] = true
	out := make(chan unit.Status)
	go func() {
		defer close(out)
		w.send(ctx, &m.mu, out)
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	return out, nil
}

// watcher holds the last state of the units that changed and were not yet sent.
type watcher struct {
	end     context.CancelFunc
	wake    chan struct{}
	pending map[string]unit.Status
}

func (w *watcher) send(ctx context.Context, mu *sync.Mutex, out chan<- unit.Status) {
	for {
		mu.Lock()
		batch := maps.Clone(w.pending)
		clear(w.pending)
		mu.Unlock()
		for _, st := range batch {
			select {
			case out <- st:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}

// set changes a unit's state and tells the watchers.
func (m *Manager) set(u *fakeUnit, active, sub, result string) {
	if active != u.st.Active {
		u.st.Since = time.Now()
	}
	u.st.Active, u.st.Sub, u.st.Result = active, sub, result
	if active == "failed" || active == "inactive" {
		u.st.MainPID = 0
	}
	m.tell(u)
}

func (m *Manager) tell(u *fakeUnit) {
	if !u.installed {
		return
	}
	for w := range m.watchers {
		w.pending[u.st.Name] = m.status(u.st.Name)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
