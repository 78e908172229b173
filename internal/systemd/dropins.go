package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// Drop-ins lie as our unit files do: the files in a directory of our own, NAME.d
// beside NAME, and a link to each in systemd's runtime directory. Whatever else is
// in that directory, or in NAME.d of any other, is the machine's: it counts, as
// systemd has it, and is not touched.

func (f *fileStore) dropInDir(name string) string    { return f.path(name) + ".d" }
func (f *fileStore) dropIn(name, conf string) string { return filepath.Join(f.dropInDir(name), conf) }
func (f *fileStore) dropInLinks(name string) string  { return f.link(name) + ".d" }
func (f *fileStore) linkTo(name, conf string) string { return filepath.Join(f.dropInLinks(name), conf) }

// oursAt says whether path is a link to target.
func oursAt(path, target string) bool {
	got, err := os.Readlink(path)
	return err == nil && got == target
}

// read returns the text of an installed unit; false: there is none.
func (f *fileStore) read(name string) (text string, found bool, err error) {
	main, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	t := unitfile.Texts{Main: string(main)}
	confs, err := listConfs(f.dropInDir(name))
	if err != nil {
		return "", false, err
	}
	for _, conf := range confs {
		b, err := os.ReadFile(f.dropIn(name, conf))
		if err != nil {
			return "", false, err
		}
		if t.DropIns == nil {
			t.DropIns = map[string]string{}
		}
		t.DropIns[conf] = string(b)
	}
	return t.String(), true, nil
}

// listConfs names the drop-ins of a directory, which need not be there.
func listConfs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		// Anything else is a temporary file of an Install that was cut short.
		if unitfile.CheckDropInName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// checkDropIns says no to drop-ins that could not be told from those that the
// machine has: of two files of one name systemd reads one.
func (f *fileStore) checkDropIns(dirs []string, name string, t unitfile.Texts) error {
	for _, conf := range slices.Sorted(maps.Keys(t.DropIns)) {
		if err := unitfile.CheckDropInName(conf); err != nil {
			return fmt.Errorf("%w: %w", unit.ErrRefused, err)
		}
		for _, dir := range f.before(dirs, name) {
			path := filepath.Join(dir, name+".d", conf)
			if oursAt(path, f.dropIn(name, conf)) {
				continue
			}
			if _, err := os.Lstat(path); err == nil {
				return fault.Hint(fmt.Errorf("the machine has a drop-in of its own at %s", path),
					"give the unit's drop-in another name; of two with one name systemd reads one")
			}
		}
	}
	return nil
}

// writeDropIns makes the texts the unit's drop-ins: those that are not among them
// any more go, each after its link.
func (f *fileStore) writeDropIns(name string, t unitfile.Texts) error {
	have, err := listConfs(f.dropInDir(name))
	if err != nil {
		return err
	}
	if len(t.DropIns) > 0 {
		if err := os.MkdirAll(f.dropInDir(name), 0o755); err != nil {
			return err
		}
	}
	for _, conf := range slices.Sorted(maps.Keys(t.DropIns)) {
		if old, err := os.ReadFile(f.dropIn(name, conf)); err == nil && string(old) == t.DropIns[conf] {
			continue
		}
		if err := atomicfile.Write(f.dropIn(name, conf), []byte(t.DropIns[conf]), 0o644); err != nil {
			return err
		}
		touch(f.dropIn(name, conf))
	}
	for _, conf := range have {
		if _, wanted := t.DropIns[conf]; wanted {
			continue
		}
		if err := f.deleteDropIn(name, conf); err != nil {
			return err
		}
	}
	return f.dropEmptyDirs(name)
}

// linkDropIns makes the links to the unit's drop-ins that are not there.
func (f *fileStore) linkDropIns(name string) error {
	confs, err := listConfs(f.dropInDir(name))
	if err != nil || len(confs) == 0 {
		return err
	}
	if err := os.MkdirAll(f.dropInLinks(name), 0o755); err != nil {
		return err
	}
	for _, conf := range confs {
		if oursAt(f.linkTo(name, conf), f.dropIn(name, conf)) {
			continue
		}
		if err := os.Symlink(f.dropIn(name, conf), f.linkTo(name, conf)); err != nil {
			return err
		}
		// systemd looks for new directories of drop-ins where its own have changed.
		touch(f.dropInLinks(name))
		touch(f.links)
	}
	return nil
}

// deleteDropIns removes all drop-ins of ours.
func (f *fileStore) deleteDropIns(name string) error {
	return f.writeDropIns(name, unitfile.Texts{})
}

func (f *fileStore) deleteDropIn(name, conf string) error {
	if oursAt(f.linkTo(name, conf), f.dropIn(name, conf)) {
		if err := os.Remove(f.linkTo(name, conf)); err != nil {
			return err
		}
	}
	return os.Remove(f.dropIn(name, conf))
}

// dropEmptyDirs removes the unit's directories of drop-ins if nothing is left in
// them, whoever made them.
func (f *fileStore) dropEmptyDirs(name string) error {
	for _, dir := range []string{f.dropInLinks(name), f.dropInDir(name)} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 0 {
			continue // not there, or in use
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		touch(filepath.Dir(dir))
	}
	return nil
}
