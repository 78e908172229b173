package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// Install implements unit.Manager. What the supervisor cannot do is refused as
// *service.Problems, every directive with its line.
func (s *Supervisor) Install(ctx context.Context, name, text string) error {
	if err := check(name, text); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		// Written in the loop: units are seldom installed, and it orders writers.
		if err := atomicfile.Write(s.path("units", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
		old, had := s.files[name]
		s.files[name] = text
		if u := s.units[name]; u != nil && had && old != text {
			u.apply(u.m.Forget(s.now()))
			s.publish(u)
		}
		s.reloadIdle(name)
		return nil
	})
}

// check says whether a text can run here.
func check(name, text string) error {
	if err := unitfile.CheckName(name); err != nil {
		return refusal{fmt.Errorf("install %q: %w", name, err)}
	}
	_, err := compile(name, text)
	var refused *service.Problems
	if errors.As(err, &refused) {
		return fault.Hint(refusal{fmt.Errorf("install %s: the supervisor cannot run it:\n%w", name, refused)},
			"remove these lines, or run the unit on a machine with systemd")
	}
	if err != nil {
		return refusal{fmt.Errorf("install %s: %w", name, err)}
	}
	return nil
}

// refusal is a unit.ErrRefused whose own text says all there is to say.
type refusal struct{ error }

// Is makes it a unit.ErrRefused.
func (refusal) Is(target error) bool { return target == unit.ErrRefused }

// Unwrap returns the reason.
func (r refusal) Unwrap() error { return r.error }

// reloadIdle lets the dead units that are read from a file have its new text: they
// count as not loaded.
func (s *Supervisor) reloadIdle(file string) {
	for name, u := range s.units {
		if name == file || isInstanceOf(name, file) {
			if u.m.State == service.Dead {
				s.refresh(u)
			}
			s.publish(u)
		}
	}
	if u := s.find(file); u != nil {
		s.publish(u)
	}
}

func isInstanceOf(name, template string) bool {
	t, ok := unitfile.TemplateOf(name)
	return ok && t == template
}

// file returns the text that name would be loaded from, its own or its template's,
// and its path, "" if there is none. An instance has its template's drop-ins too,
// also where it has a file of its own.
func (s *Supervisor) file(name string) (text, path string) {
	own, ok := s.files[name]
	template, _ := unitfile.TemplateOf(name)
	shared, templated := s.files[template]
	switch {
	case ok && templated:
		return withDropIns(own, shared), s.path("units", name)
	case ok:
		return own, s.path("units", name)
	case templated:
		return shared, s.path("units", template)
	}
	return "", ""
}

// withDropIns is a unit's text with those drop-ins of another's that it has none of
// the same name for.
func withDropIns(text, other string) string {
	t, more := unitfile.CutTexts(text), unitfile.CutTexts(other).DropIns
	if len(more) == 0 {
		return text
	}
	if t.DropIns == nil {
		t.DropIns = map[string]string{}
	}
	for name, dropIn := range more {
		if _, has := t.DropIns[name]; !has {
			t.DropIns[name] = dropIn
		}
	}
	return t.String()
}

// refresh loads what is on disk, if that is something else.
func (s *Supervisor) refresh(u *svc) {
	if text, path := s.file(u.name); path != "" && (text != u.text || path != u.path) {
		s.load(u.name, path, text)
	}
}

// Remove implements unit.Manager.
func (s *Supervisor) Remove(ctx context.Context, name string) error {
	return s.do(ctx, func() error {
		err := os.Remove(s.path("units", name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		delete(s.files, name)
		if u := s.units[name]; u != nil {
			u.apply(u.m.Forget(s.now()))
			s.forgetIfGone(u)
			s.publish(u)
		}
		return nil
	})
}

// forgetIfGone forgets a dead unit that has no file any more; true if it did.
func (s *Supervisor) forgetIfGone(u *svc) bool {
	_, path := s.file(u.name)
	_, _, job := s.queue.Job(u.name)
	if path != "" || job || u.m.State != service.Dead {
		return false
	}
	delete(s.units, u.name)
	return true
}

// Installed implements unit.Manager.
func (s *Supervisor) Installed(ctx context.Context) (map[string]string, error) {
	var out map[string]string
	err := s.do(ctx, func() error {
		out = maps.Clone(s.files)
		return nil
	})
	return out, err
}

// Reload implements unit.Manager: it reads all unit files again, also what others
// than Install have written. A running unit goes by its new text from then on.
func (s *Supervisor) Reload(ctx context.Context) error {
	return s.do(ctx, func() error {
		if err := s.readFiles(); err != nil {
			return fmt.Errorf("reload: %w", err)
		}
		for _, name := range sortedKeys(s.units) {
			u := s.units[name]
			s.refresh(u)
			s.publish(u)
		}
		return nil
	})
}

func (s *Supervisor) readFiles() error {
	entries, err := os.ReadDir(s.path("units"))
	if err != nil {
		return err
	}
	files := map[string]string{}
	for _, e := range entries {
		if unitfile.CheckName(e.Name()) != nil {
			continue // a temporary file of an install that was cut short
		}
		text, err := os.ReadFile(s.path("units", e.Name()))
		if err != nil {
			return err
		}
		files[e.Name()] = string(text)
	}
	s.files = files
	return nil
}
