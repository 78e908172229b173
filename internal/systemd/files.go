package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// fileStore is the directory of our unit files and the links that lead to it.
type fileStore struct {
	dir     string // ours
	links   string // systemd's
	adopted string // what was put aside for ours

	mu     sync.Mutex
	loaded bool
	have   map[string]bool // installed units

	unread nameSet
}

// nameSet holds the units that were enabled or disabled since systemd read its
// units: what their [Install] sections say counts from the next reload on. It has
// a lock of its own because it is cleared on the connection's reader.
type nameSet struct {
	mu    sync.Mutex
	names map[string]bool
}

func (s *nameSet) put(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[string]bool{}
	}
	s.names[name] = true
}

func (s *nameSet) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

func (s *nameSet) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name]
}

func (s *nameSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.names)
}

func (f *fileStore) path(name string) string { return filepath.Join(f.dir, name) }
func (f *fileStore) link(name string) string { return filepath.Join(f.links, name) }

// load reads once which units are there.
func (f *fileStore) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loadLocked()
}

func (f *fileStore) loadLocked() error {
	if f.loaded {
		return nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the units directory: %w", err)
	}
	f.have = map[string]bool{}
	for _, e := range entries {
		// Anything else is a temporary file of an Install that was cut short.
		if e.Type().IsRegular() && unitfile.CheckName(e.Name()) == nil {
			f.have[e.Name()] = true
		}
	}
	f.loaded = true
	return nil
}

// names returns the installed units.
func (f *fileStore) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.have))
}

// has reports whether a unit is installed.
func (f *fileStore) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have[name]
}

// Installed implements unit.Manager. The directory is read each time: it is the
// truth, and a person may have had a hand in it.
func (m *Manager) Installed(ctx context.Context) (map[string]string, error) {
	f := &m.files
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded = false
	if err := f.loadLocked(); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name := range f.have {
		text, found, err := f.read(name)
		if err != nil {
			return nil, fmt.Errorf("read unit file: %w", err)
		}
		if found {
			out[name] = text
		}
	}
	return out, ctx.Err()
}

// Install implements unit.Manager.
func (m *Manager) Install(ctx context.Context, name, text string) error {
	if err := m.install(ctx, name, text); err != nil {
		return fmt.Errorf("install %s: %w", name, err)
	}
	return nil
}

func (m *Manager) install(ctx context.Context, name, text string) error {
	if err := unitfile.CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", unit.ErrRefused, err)
	}
	dirs, err := m.unitDirs(ctx)
	if err != nil {
		return err
	}
	f := &m.files
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.loadLocked(); err != nil {
		return err
	}
	if err := f.foreign(dirs, name); err != nil {
		return err
	}
	if err := f.checkDropIns(dirs, name, unitfile.CutTexts(text)); err != nil {
		return err
	}
	old, found, err := f.read(name)
	switch {
	case err != nil:
		return err
	case found && old == text:
		f.have[name] = true
		return m.link(ctx, name, text)
	case !found:
		if err := m.machineHas(ctx, name); err != nil {
			return err
		}
	}
	return m.replace(ctx, name, old, text)
}

// replace writes the files and makes the links to them; where that fails it puts the
// old text back, or nothing if there was none. f.mu is held.
func (m *Manager) replace(ctx context.Context, name, old, text string) error {
	f := &m.files
	if wantsEnable(old) {
		if err := m.disable(ctx, name); err != nil {
			return err
		}
	}
	f.have[name] = true
	err := f.write(name, text)
	if err == nil && wantsEnable(text) {
		err = m.enable(ctx, name) // its [Install] section may be new
	} else if err == nil {
		err = m.link(ctx, name, text)
	}
	if err != nil {
		if old == "" {
			return errors.Join(err, f.delete(name))
		}
		return errors.Join(err, f.write(name, old), f.linkDropIns(name), f.addLink(name))
	}
	if old != "" {
		m.watch.mark(unitPath(name))
		return m.forget(ctx, name)
	}
	return nil
}

// forget ends a failed state and the count of starts.
func (m *Manager) forget(ctx context.Context, name string) error {
	return m.do(ctx, func(ctx context.Context, b *bus) error {
		err := b.call(ctx, managerPath, managerIface+".ResetFailedUnit", name)
		switch errorName(err) {
		case noSuchUnit, invalidArgs:
			return nil // not loaded, or a template: nothing to forget
		}
		return err
	})
}

// link makes the links that lead to the unit's files, if they are not there. The
// drop-ins come first: they count when the unit is enabled.
func (m *Manager) link(ctx context.Context, name, text string) error {
	f := &m.files
	if wantsEnable(text) && !f.ours(f.link(name), name) {
		return m.enable(ctx, name)
	}
	if err := f.linkDropIns(name); err != nil {
		return err
	}
	return f.addLink(name)
}

// write makes the text the unit's files. systemd notices changes by the times of
// files and directories, which the kernel takes from a clock that stands still for
// some milliseconds: both get a time of their own.
func (f *fileStore) write(name, text string) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	t := unitfile.CutTexts(text)
	if err := atomicfile.Write(f.path(name), []byte(t.Main), 0o644); err != nil {
		return err
	}
	touch(f.path(name))
	return f.writeDropIns(name, t)
}

// touch gives path a time of its own. Where that fails the kernel's time stands.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

func (f *fileStore) addLink(name string) error {
	if f.ours(f.link(name), name) {
		return nil
	}
	if err := os.MkdirAll(f.links, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(f.path(name), f.link(name)); err != nil {
		return err
	}
	touch(f.links)
	return nil
}

// delete removes the drop-ins, the link, then the file: the file says that there is
// something left to remove.
func (f *fileStore) delete(name string) error {
	if err := f.deleteDropIns(name); err != nil {
		return err
	}
	if f.ours(f.link(name), name) {
		if err := os.Remove(f.link(name)); err != nil {
			return err
		}
		touch(f.links)
	}
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(f.have, name)
	f.unread.drop(name)
	return nil
}

// foreign says no to a name that the machine has a unit file for already: ours
// would hide it or be hidden by it. An instance is looked for under its template's
// name too.
func (f *fileStore) foreign(dirs []string, name string) error {
	names := []string{name}
	before := f.before(dirs, name)
	if template, ok := unitfile.TemplateOf(name); ok && len(before) == len(dirs) {
		names = append(names, template)
	}
	for _, n := range names {
		for _, dir := range before {
			path := filepath.Join(dir, n)
			if f.ours(path, n) {
				continue
			}
			if _, err := os.Lstat(path); err == nil {
				return fault.Hint(fmt.Errorf("the machine has a unit file of its own at %s", path),
					"use another name; two units cannot share one")
			}
		}
	}
	return nil
}

// before is the directories in which another file of the unit's name would be in the
// way: all of them, or those that come before ours if the unit has been taken over.
func (f *fileStore) before(dirs []string, name string) []string {
	if _, err := os.Stat(f.kept(name)); err != nil {
		return dirs
	}
	if i := slices.Index(dirs, f.links); i >= 0 {
		return dirs[:i]
	}
	return dirs
}

// ours says whether path is the link to our file.
func (f *fileStore) ours(path, name string) bool { return oursAt(path, f.path(name)) }

// machineHas says no to a unit that exists without a file: mounted, plugged in,
// swapped on, or made by another program.
func (m *Manager) machineHas(ctx context.Context, name string) error {
	switch filepath.Ext(name) {
	case ".mount", ".swap", ".device", ".slice", ".scope":
	default:
		return nil
	}
	var active any
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		v, err := b.property(ctx, unitPath(name), unitIface, "ActiveState")
		active = v.Value()
		return err
	})
	if err == nil && active != "inactive" && active != "failed" {
		err = fault.Hint(fmt.Errorf("the machine has such a unit already, and it is %v", active), "use another name")
	}
	return err
}

// wantsEnable says whether a unit's text has an [Install] section.
func wantsEnable(text string) bool {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "[Install]" {
			return true
		}
	}
	return false
}

// enable makes the link to our file and those that the unit's [Install] section asks
// for, until reboot. The latter count from the next reload on: Status says NeedReload
// until then.
func (m *Manager) enable(ctx context.Context, name string) error {
	// By its name: by the path of its file systemd would not see its drop-ins.
	if err := errors.Join(m.files.linkDropIns(name), m.files.addLink(name)); err != nil {
		return err
	}
	err := m.unitFiles(ctx, name, ".EnableUnitFiles", []string{name}, true, true)
	touch(m.files.links)
	return err
}

// disable removes the links again, and with them the one to our file.
func (m *Manager) disable(ctx context.Context, name string) error {
	return m.unitFiles(ctx, name, ".DisableUnitFiles", []string{name}, true)
}

func (m *Manager) unitFiles(ctx context.Context, name, method string, args ...any) error {
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		return b.call(ctx, managerPath, managerIface+method, args...)
	})
	if err != nil {
		return fmt.Errorf("links of its [Install] section: %w", err)
	}
	m.files.unread.put(name)
	return nil
}

// Remove implements unit.Manager.
func (m *Manager) Remove(ctx context.Context, name string) error {
	if err := m.remove(ctx, name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func (m *Manager) remove(ctx context.Context, name string) error {
	if err := unitfile.CheckName(name); err != nil {
		return err
	}
	f := &m.files
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.loadLocked(); err != nil {
		return err
	}
	text, found, err := f.read(name)
	if err == nil && !found {
		return f.delete(name)
	}
	if err == nil && wantsEnable(text) {
		err = m.disable(ctx, name)
	}
	if err != nil {
		return err
	}
	if err := f.delete(name); err != nil {
		return err
	}
	return m.forget(ctx, name)
}
