package fleetctl

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	api "flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// readBundle reads and checks the file that is to be the unit of that name, with the
// drop-ins of the directory beside it. An instance that is made of its template's file
// has those of both, its own before the template's of the same name. Without the file
// the error is fs.ErrNotExist, whatever drop-ins there are.
func readBundle(name, path string) (unitfile.Bundle, error) {
	var b unitfile.Bundle
	if err := misplaced(path); err != nil {
		return b, err
	}
	main, mainErr := readFile(path)
	if errors.Is(mainErr, fs.ErrNotExist) {
		return b, mainErr
	}
	b.Main = main
	errs := []error{mainErr}
	from := map[string]string{} // path by name
	dirs := []string{path + ".d"}
	if own := filepath.Join(filepath.Dir(path), name+".d"); own != filepath.Clean(path+".d") {
		dirs = append(dirs, own)
	}
	for _, dir := range dirs {
		found, err := dropInFiles(dir)
		errs = append(errs, err)
		for _, f := range found {
			from[filepath.Base(f)] = f
		}
	}
	for _, n := range sortedKeys(from) {
		f, err := readFile(from[n])
		errs = append(errs, err)
		if err == nil && len(f.Options) > 0 { // one that says nothing would be refused
			b.DropIns = append(b.DropIns, unitfile.DropIn{Name: n, File: f})
		}
	}
	if mainErr == nil {
		errs = append(errs, check(name, path, b, from))
	}
	return b, errors.Join(errs...)
}

// dropInFiles are the paths of a directory's *.conf, in order; none if there is no
// such directory.
func dropInFiles(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var errs []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".conf" || strings.HasPrefix(e.Name(), ".") {
			continue // an editor's backup, say
		}
		path := filepath.Join(dir, e.Name())
		if err := unitfile.CheckDropInName(e.Name()); err != nil {
			errs = append(errs, &unitfile.ParseError{File: path, Problems: []unitfile.Problem{{Msg: err.Error()}}})
			continue
		}
		paths = append(paths, path)
	}
	return paths, cmp.Or(err, errors.Join(errs...))
}

// readFile reads a unit file, or a drop-in; its errors begin with the path.
func readFile(path string) (unitfile.File, error) {
	text, err := readLimited(path)
	if err != nil {
		return unitfile.File{}, err
	}
	file, err := unitfile.Parse(text)
	var bad *unitfile.ParseError
	if errors.As(err, &bad) {
		err = bad.In(path)
	}
	return file, err
}

// check returns everything that is wrong with a unit, each under the file that it is
// in: where for the unit file, from for the drop-ins by name. What is wrong only with
// all of them together is said of the unit.
func check(name, where string, b unitfile.Bundle, from map[string]string) error {
	var errs []error
	said := map[string]bool{}
	note := func(file string, problems []unitfile.Problem) {
		var fresh []unitfile.Problem
		for _, p := range problems {
			if !said[p.Msg] {
				fresh = append(fresh, p)
			}
		}
		for _, p := range fresh {
			said[p.Msg] = true
		}
		if len(fresh) > 0 {
			errs = append(errs, &unitfile.ParseError{File: file, Problems: fresh})
		}
	}
	note(where, model.Check(name, b.Main))
	if len(b.DropIns) == 0 {
		return errors.Join(errs...)
	}
	for _, d := range b.DropIns {
		note(cmp.Or(from[d.Name], d.Name), unitfile.CheckFleet(name, d.File))
	}
	together := model.Check(name, b.Effective())
	for i := range together {
		together[i].Line, together[i].Col = 0, 0 // of which file, it cannot tell
	}
	note(where+" with its drop-ins", together)
	return errors.Join(errs...)
}

// bundleOf is the text of a unit as the API tells it.
func bundleOf(u api.Unit) unitfile.Bundle {
	b := unitfile.Bundle{Main: fileOf(u.Options)}
	for _, d := range u.DropIns {
		b.DropIns = append(b.DropIns, unitfile.DropIn{Name: d.Name, File: fileOf(d.Options)})
	}
	return b
}

// putOf is a unit with a text, as it is given to the API.
func putOf(name, desired string, b unitfile.Bundle) *api.Unit {
	u := &api.Unit{Name: name, DesiredState: desired, Options: optionsOf(b.Main)}
	for _, d := range b.DropIns {
		u.DropIns = append(u.DropIns, api.DropIn{Name: d.Name, Options: optionsOf(d.File)})
	}
	return u
}

// isGlobalUnit reads Global of [X-Fleet] with the drop-ins.
func isGlobalUnit(u api.Unit) bool { return isGlobal(bundleOf(u).Effective()) }

// catText is a unit's text for people: the unit file, and each drop-in below a
// comment with its path, as systemctl cat has it.
func catText(name string, b unitfile.Bundle) string {
	var out strings.Builder
	out.WriteString(b.Main.String())
	for _, d := range b.DropIns {
		out.WriteString("\n# " + name + ".d/" + d.Name + "\n" + d.File.String())
	}
	return out.String()
}

// notices tells what works in a unit's files and should be written otherwise.
func (s *session) notices(path string, b unitfile.Bundle) {
	s.fileNotices(path, b.Main)
	for _, d := range b.DropIns {
		s.fileNotices(filepath.Join(path+".d", d.Name), d.File)
	}
}

func (s *session) fileNotices(path string, file unitfile.File) {
	if notices := unitfile.Notices(file); len(notices) > 0 {
		about := &unitfile.ParseError{File: path, Problems: notices}
		for line := range strings.Lines(about.Error()) {
			s.warn("note: %s", strings.TrimSuffix(line, "\n"))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// misplaced is the error about an argument that is a drop-in, or a directory of them.
func misplaced(path string) error {
	dir := path
	if filepath.Ext(path) == ".conf" {
		dir = filepath.Dir(path)
	}
	unit, ok := strings.CutSuffix(filepath.Base(dir), ".d")
	if !ok || unitfile.CheckName(unit) != nil {
		return nil
	}
	return fault.Hint(&unitfile.ParseError{File: path, Problems: []unitfile.Problem{{Msg: "a drop-in goes with its unit file"}}},
		"name the unit file, %s: what is in %s comes with it", filepath.Join(filepath.Dir(dir), unit), dir)
}
