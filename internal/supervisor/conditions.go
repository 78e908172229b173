package supervisor

import (
	"fmt"
	"os"
	"path/filepath"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// checkConditions says whether a start ends before it begins, and how: a condition
// that does not hold skips it, an assertion fails it (systemd.unit(5), "Conditions
// and Asserts").
func (s *Supervisor) checkConditions(u *svc) (ended bool, r unit.Result) {
	list := u.m.Config().Conditions
	if c, ok := unmet(list, false); ok {
		s.logUnit(u.name, 6, fmt.Sprintf("%s was skipped because of an unmet condition check (%s).", u.title(), c))
		return true, unit.Done
	}
	if c, ok := unmet(list, true); ok {
		s.logUnit(u.name, 5, fmt.Sprintf("%s: Starting requested but asserts failed: %s", u.name, c))
		s.explain(u, unit.Start, unit.Assert)
		return true, unit.Assert
	}
	return false, ""
}

// unmet names what does not hold: all plain ones must, and one of those with "|".
func unmet(list []service.Condition, assert bool) (string, bool) {
	triggers, pulled, last := false, false, ""
	for _, c := range list {
		if c.Assert != assert {
			continue
		}
		ok := holds(c) != c.Negate
		if c.Trigger {
			triggers, pulled, last = true, pulled || ok, describe(c)
		} else if !ok {
			return describe(c), true
		}
	}
	return last, triggers && !pulled
}

func describe(c service.Condition) string {
	kind, not := "Condition", ""
	if c.Assert {
		kind = "Assert"
	}
	if c.Negate {
		not = "!"
	}
	return kind + c.Name + "=" + not + c.Value
}

func holds(c service.Condition) bool {
	if c.Name == "PathExistsGlob" {
		found, _ := filepath.Glob(c.Value)
		return len(found) > 0
	}
	if c.Name == "PathIsSymbolicLink" {
		st, err := os.Lstat(c.Value)
		return err == nil && st.Mode()&os.ModeSymlink != 0
	}
	st, err := os.Stat(c.Value)
	if err != nil {
		return false
	}
	switch c.Name {
	case "PathIsDirectory":
		return st.IsDir()
	case "DirectoryNotEmpty":
		entries, err := os.ReadDir(c.Value)
		return err == nil && len(entries) > 0
	case "FileNotEmpty":
		return st.Mode().IsRegular() && st.Size() > 0
	case "FileIsExecutable":
		return st.Mode().IsRegular() && st.Mode()&0o111 != 0
	}
	return true // PathExists
}
