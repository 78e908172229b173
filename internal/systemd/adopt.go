package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// How a unit changes hands.
//
// systemd reads a unit's file from the first of its directories that has one:
// /etc/systemd/system comes before /run/systemd/system, where ours are linked, and
// that before /usr/lib/systemd/system. So a file in /etc has to go if ours is to
// count. It is kept, with its drop-ins, below AdoptedDir. A file of the distribution
// stays where it is: ours hides it. In both cases the unit is disabled, since it is
// the cluster's to start. The unit's directory below AdoptedDir says, also after a
// reboot, that our file may stand in the place of another.

var _ unit.Adopter = (*Manager)(nil)

// adminDir is where a machine's owner keeps unit files.
func (c Config) adminDir() string {
	if c.User {
		return filepath.Join(c.ConfigHome, "systemd/user")
	}
	return "/etc/systemd/system"
}

// ownProps say where a unit comes from.
type ownProps struct {
	id, load, state, fragment, source string
	dropIns                           []string
}

func (m *Manager) origin(ctx context.Context, name string) (ownProps, error) {
	var props map[string]dbus.Variant
	err := m.do(ctx, func(ctx context.Context, b *bus) (err error) {
		props, err = b.properties(ctx, name)
		return err
	})
	if err != nil {
		return ownProps{}, err
	}
	return ownProps{
		id: get[string](props, "Id"), load: get[string](props, "LoadState"), state: get[string](props, "UnitFileState"),
		fragment: get[string](props, "FragmentPath"), source: get[string](props, "SourcePath"),
		dropIns: get[[]string](props, "DropInPaths"),
	}, nil
}

// Own implements unit.Adopter.
func (m *Manager) Own(ctx context.Context, name string) (string, error) {
	text, err := m.own(ctx, name)
	if err != nil {
		return "", fmt.Errorf("read the machine's unit %s: %w", name, err)
	}
	return text, nil
}

func (m *Manager) own(ctx context.Context, name string) (string, error) {
	if err := unitfile.CheckName(name); err != nil {
		return "", err
	}
	o, err := m.origin(ctx, name)
	if err == nil {
		err = o.refuse(name, m.files.has(name))
	}
	if err != nil {
		return "", err
	}
	main, err := os.ReadFile(o.fragment)
	if err != nil {
		return "", err
	}
	t := unitfile.Texts{Main: string(main), DropIns: map[string]string{}}
	for _, path := range o.ownDropIns(name) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		t.DropIns[filepath.Base(path)] = string(b)
	}
	bundle, err := unitfile.ParseBundle(t.String())
	if err != nil {
		return "", err
	}
	return bundle.String(), nil
}

// refuse says why a unit cannot be taken over.
func (o ownProps) refuse(name string, ours bool) error {
	switch {
	case ours:
		return errors.New("it is the cluster's already")
	case o.load == "masked":
		return errors.New("it is masked")
	case o.load != "loaded":
		return fmt.Errorf("systemd has no such unit (%s)", o.load)
	case o.id != name:
		return fault.Hint(fmt.Errorf("that is another name of %s", o.id), "adopt %s", o.id)
	case o.fragment == "":
		return errors.New("it has no unit file")
	case o.source != "" || strings.HasPrefix(o.fragment, "/run/systemd/generator") || o.state == "generated":
		return fmt.Errorf("another program makes its file at every boot, from %s", cmp.Or(o.source, o.fragment))
	case o.state == "transient" || strings.HasPrefix(o.fragment, "/run/systemd/transient"):
		return errors.New("it is transient: whoever started it has no file for it")
	}
	return nil
}

// ownDropIns are the drop-ins that are the unit's: its own and its template's. Those
// of its type, and what "systemctl set-property" wrote, go on counting by themselves.
func (o ownProps) ownDropIns(name string) []string {
	template, _ := unitfile.TemplateOf(name)
	var out []string
	for _, path := range o.dropIns {
		dir := filepath.Base(filepath.Dir(path))
		mine := dir == name+".d" || template != "" && dir == template+".d"
		if mine && !strings.Contains(path, ".control/") {
			out = append(out, path)
		}
	}
	return out
}

// TakeOver implements unit.Adopter.
func (m *Manager) TakeOver(ctx context.Context, name, text string) error {
	if err := m.takeOver(ctx, name, text); err != nil {
		return fmt.Errorf("take over %s: %w", name, err)
	}
	return nil
}

func (m *Manager) takeOver(ctx context.Context, name, text string) error {
	o, err := m.origin(ctx, name)
	if err == nil {
		err = o.refuse(name, m.files.has(name))
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.files.kept(name), 0o755); err != nil {
		return err
	}
	// Its links go while its own file says which they are.
	err = m.do(ctx, func(ctx context.Context, b *bus) error {
		return b.call(ctx, managerPath, managerIface+".DisableUnitFiles", []string{name}, false)
	})
	if err == nil {
		err = m.putAside(name)
	}
	if err == nil {
		err = m.install(ctx, name, text)
	}
	if err != nil {
		return errors.Join(err, m.putBack(name))
	}
	return nil
}

// kept is the directory of what was put aside for a unit.
func (f *fileStore) kept(name string) string { return filepath.Join(f.adopted, name) }

// putAside moves the machine's own files out of the way of ours. Those in /usr, and a
// template's, are not in the way.
func (m *Manager) putAside(name string) error {
	f := &m.files
	for _, dir := range []string{m.cfg.adminDir(), m.cfg.linkDir()} {
		confs, err := listConfs(filepath.Join(dir, name+".d"))
		if err != nil {
			return err
		}
		files := []string{name}
		for _, conf := range confs {
			files = append(files, filepath.Join(name+".d", conf))
		}
		for _, file := range files {
			if err := move(filepath.Join(dir, file), filepath.Join(f.kept(name), file)); err != nil {
				return err
			}
		}
		_ = os.Remove(filepath.Join(dir, name+".d")) // if nothing else is there
		touch(dir)
	}
	return nil
}

// putBack is the reverse of putAside, to the directory of the machine's owner.
func (m *Manager) putBack(name string) error {
	kept := m.files.kept(name)
	err := filepath.WalkDir(kept, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		file, err := filepath.Rel(kept, path)
		if err != nil {
			return err
		}
		return move(path, filepath.Join(m.cfg.adminDir(), file))
	})
	return errors.Join(err, os.RemoveAll(kept))
}

// move moves a file, also to another file system. One that is not there is no error,
// a link is followed.
func move(from, to string) error {
	b, err := os.ReadFile(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := atomicfile.Write(to, b, 0o644); err != nil {
		return err
	}
	return os.Remove(from)
}

// Eject implements unit.Adopter.
func (m *Manager) Eject(ctx context.Context, name string) error {
	if err := m.eject(ctx, name); err != nil {
		return fmt.Errorf("eject %s: %w", name, err)
	}
	return nil
}

func (m *Manager) eject(ctx context.Context, name string) error {
	text, err := m.letGo(ctx, name)
	if err != nil {
		return err
	}
	if wantsEnable(text) {
		err = m.do(ctx, func(ctx context.Context, b *bus) error {
			return b.call(ctx, managerPath, managerIface+".EnableUnitFiles", []string{name}, false, false)
		})
	}
	return errors.Join(err, m.Reload(ctx), os.RemoveAll(m.files.kept(name)))
}

// letGo writes the unit's files for the machine's owner, then removes ours: at no
// moment is the unit without a file.
func (m *Manager) letGo(ctx context.Context, name string) (text string, err error) {
	f := &m.files
	f.mu.Lock()
	defer f.mu.Unlock()
	text, found, err := f.read(name)
	switch {
	case err != nil:
		return "", err
	case !found:
		return "", errors.New("it is none of the cluster's units here")
	}
	t := unitfile.CutTexts(text)
	files := map[string]string{name: t.Main}
	for conf, text := range t.DropIns {
		files[filepath.Join(name+".d", conf)] = text
	}
	var paths []string
	for file := range files {
		paths = append(paths, file)
	}
	slices.Sort(paths)
	for _, file := range paths {
		if err := writeOwn(filepath.Join(m.cfg.adminDir(), file), files[file]); err != nil {
			return "", err
		}
	}
	if wantsEnable(text) {
		if err := m.disable(ctx, name); err != nil {
			return "", err
		}
	}
	return text, f.delete(name)
}

// writeOwn writes a file, but not over another one.
func writeOwn(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) != text {
		return fault.Hint(fmt.Errorf("the machine has a file of its own at %s", path), "move it away, or destroy the unit instead")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := atomicfile.Write(path, []byte(text), 0o644); err != nil {
		return err
	}
	touch(filepath.Dir(path))
	return nil
}
