package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// found is a unit that a command line names, and where its text was found.
type found struct {
	name   string
	exists bool // in the cluster, which then has its text
	// file is the text to create the unit with, or to replace it by; nil: the
	// cluster keeps the text it has.
	file *unitfile.Bundle
}

// finder looks up units' texts. known is what the cluster holds, without options.
type finder struct {
	s       *session
	client  *fleet.Client
	known   map[string]api.Unit
	replace func(desired string) bool  // nil: nothing is replaced
	fetched map[string]unitfile.Bundle // texts from the cluster, by name
}

// find looks up every argument: the cluster first, then the path given, then the
// template in the cluster, then the template beside the path. It checks what it
// reads, and returns every problem of every argument in one error.
func (f *finder) find(ctx context.Context, args []string) ([]found, error) {
	f.prefetch(ctx, args)
	var units []found
	var errs []error
	seen := map[string]bool{}
	for _, arg := range args {
		name := unitfile.Complete(arg)
		if seen[name] {
			continue
		}
		seen[name] = true
		u, err := f.one(ctx, name, arg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		units = append(units, u)
	}
	return units, errors.Join(errs...)
}

// prefetch reads side by side the texts of units that have local files to compare
// them with. What fails here is read again, and told, when it is compared.
func (f *finder) prefetch(ctx context.Context, args []string) {
	var g errgroup.Group
	g.SetLimit(parallel)
	var mu sync.Mutex // guards f.fetched
	asked := map[string]bool{}
	for _, arg := range args {
		name, dir := unitfile.Complete(arg), filepath.Dir(arg)
		template, _ := unitfile.TemplateOf(name)
		if _, ok := f.known[name]; !ok || asked[name] || !isFile(dir, name) && !isFile(dir, template) {
			continue
		}
		asked[name] = true
		g.Go(func() error {
			if u, err := f.client.Unit(ctx, name); err == nil {
				mu.Lock()
				defer mu.Unlock()
				f.fetched[name] = bundleOf(u)
			}
			return nil
		})
	}
	_ = g.Wait() // never an error: see above
}

func isFile(dir, name string) bool {
	st, err := os.Stat(filepath.Join(dir, name))
	return name != "" && err == nil && st.Mode().IsRegular()
}

func (f *finder) one(ctx context.Context, name, arg string) (found, error) {
	dir := filepath.Dir(arg)
	if err := unitfile.CheckName(name); err != nil {
		return found{}, fmt.Errorf("%s: %w", name, err)
	}
	if u, ok := f.known[name]; ok {
		return f.existing(ctx, u, dir)
	}
	u := found{name: name}
	local, path, err := f.read(name, filepath.Join(dir, name))
	if err != nil || local != nil {
		if err == nil {
			f.s.notices(path, *local)
		}
		u.file = local
		return u, err
	}
	template, isInstance := unitfile.TemplateOf(name)
	if !isInstance {
		if err := otherSuffix(name, arg); err != nil {
			return u, err
		}
		return u, f.unknown(name, "unable to find Unit(%s) in Registry or on filesystem", name)
	}
	u.file, err = f.template(ctx, name, template, dir)
	return u, err
}

// otherSuffix is the error about a file that is there but is no unit file by its
// name, so that another one was looked for; nil if that is not what happened.
func otherSuffix(name, arg string) error {
	base := filepath.Base(arg)
	if _, err := os.Stat(arg); err != nil || base == name {
		return nil
	}
	if err := misplaced(arg); err != nil {
		return err
	}
	if err := unitfile.CheckName(base); err != nil {
		return fault.Hint(fmt.Errorf("%s: %w", arg, err), "name it %s.service, or as what else it is (.socket, .timer, .path, .mount, ...)", strings.TrimSuffix(base, filepath.Ext(base)))
	}
	return nil
}

// template returns the text of an instance's template: the cluster's if it has
// one, else the file's.
func (f *finder) template(ctx context.Context, name, template, dir string) (*unitfile.Bundle, error) {
	local, path, err := f.read(name, filepath.Join(dir, template))
	if err != nil {
		return nil, err
	}
	if _, ok := f.known[template]; !ok {
		if local == nil {
			return nil, f.unknown(name, "failed getting Unit(%s) from template: unable to find template Unit(%s) in Registry or on filesystem", name, template)
		}
		f.s.notices(path, *local)
		return local, nil
	}
	text, err := f.fetch(ctx, template)
	if err != nil {
		return nil, err
	}
	if local != nil && local.Hash() != text.Hash() {
		f.s.warn("WARNING: Template unit %s in registry differs from local template unit file %s: the registry's is used.", template, path)
	}
	return &text, check(name, fmt.Sprintf("%s (template %s)", name, template), text, nil)
}

// existing is a unit that the cluster has. A local file with another text replaces
// it if that was asked for, and is told otherwise.
func (f *finder) existing(ctx context.Context, u api.Unit, dir string) (found, error) {
	keep := found{name: u.Name, exists: true}
	local, path, kind, err := f.localOf(u.Name, dir)
	if err != nil || local == nil {
		return keep, f.unlessReplacing(err)
	}
	text, err := f.fetch(ctx, u.Name)
	if err != nil {
		return keep, err
	}
	same := text.Hash() == local.Hash()
	switch {
	case f.replace == nil && !same:
		f.s.warn("WARNING: Unit %s in registry differs from local %s %s. Add --replace to override.", u.Name, kind, path)
	case f.replace == nil:
	case same:
		fmt.Fprintf(f.s.env.Stdout, "Found same Unit(%s) in Registry, nothing to do\n", u.Name)
	case !f.replace(u.DesiredState):
		f.s.warn("Warning: can not replace Unit(%s) in state '%s', use the appropriate command", u.Name, u.DesiredState)
	default:
		f.s.notices(path, *local)
		keep.file = local
	}
	return keep, nil
}

// unlessReplacing drops what is wrong with a local file that nobody asked to use:
// the cluster's text counts.
func (f *finder) unlessReplacing(err error) error {
	if f.replace == nil {
		return nil
	}
	return err
}

// localOf reads the file of the unit, or of the template it is an instance of.
func (f *finder) localOf(name, dir string) (file *unitfile.Bundle, path, kind string, err error) {
	file, path, err = f.read(name, filepath.Join(dir, name))
	if file != nil || err != nil {
		return file, path, "unit file", err
	}
	if template, ok := unitfile.TemplateOf(name); ok {
		file, path, err = f.read(name, filepath.Join(dir, template))
	}
	return file, path, "template unit file", err
}

// read returns the checked text of a file that is to be the unit of that name; nil
// if there is no such file.
func (f *finder) read(name, path string) (*unitfile.Bundle, string, error) {
	file, err := readBundle(name, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	if err != nil {
		return nil, path, err
	}
	return &file, path, nil
}

// fetch returns the text that the cluster has of a unit.
func (f *finder) fetch(ctx context.Context, name string) (unitfile.Bundle, error) {
	if text, ok := f.fetched[name]; ok {
		return text, nil
	}
	u, err := f.client.Unit(ctx, name)
	if err != nil {
		return unitfile.Bundle{}, fmt.Errorf("read unit %s: %w", name, err)
	}
	text := bundleOf(u)
	f.fetched[name] = text
	return text, nil
}

// unknown is the error about a unit that is nowhere, with the nearest name that is
// somewhere.
func (f *finder) unknown(name, format string, args ...any) error {
	names := make([]string, 0, len(f.known))
	for n := range f.known {
		names = append(names, n)
	}
	err := fmt.Errorf(format, args...)
	if near := fault.Nearest(name, names); near != "" {
		return fault.Hint(err, "did you mean %s?", near)
	}
	return err
}

// readLimited reads a file, but no more than a unit file may have.
func readLimited(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular() && !st.Mode().IsDir():
		// A pipe or /dev/stdin: its length is known when it ends.
	case st.IsDir():
		return "", fmt.Errorf("%s: is a directory, not a unit file", path)
	case st.Size() > unitfile.MaxSize:
		return "", tooLarge(path, st.Size())
	}
	b, err := io.ReadAll(io.LimitReader(f, unitfile.MaxSize+1))
	if err == nil && len(b) > unitfile.MaxSize {
		err = tooLarge(path, int64(len(b)))
	}
	return string(b), err
}

func tooLarge(path string, size int64) error {
	return fault.Hint(fmt.Errorf("%s: unit file too large: %d bytes (max %d)", path, size, unitfile.MaxSize),
		"a unit file says how to run something; keep what it runs on the machines or in an image")
}

// warn prints a line on standard error.
func (s *session) warn(format string, args ...any) {
	fmt.Fprintf(s.env.Stderr, format+"\n", args...)
}
