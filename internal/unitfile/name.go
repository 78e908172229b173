package unitfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxName is the longest unit name, in bytes (systemd.unit(5)). It is that of a file's
// name, too; fleet allowed one byte more.
const maxName = 255

// The types of units, and those that can be templates.
var (
	unitTypes = []string{"automount", "busname", "device", "mount", "path", "scope", "service",
		"slice", "snapshot", "socket", "swap", "target", "timer"}
	templateTypes = []string{"path", "service", "socket", "target", "timer"}
	// completedTypes are the suffixes that Complete leaves alone.
	completedTypes = []string{"service", "socket", "timer", "path", "device", "mount", "automount"}
)

// CheckName says what is wrong with a unit name, the first problem found, in the
// words of the fleet API where that found it; nil if nothing is.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("unit name cannot be empty")
	case len(name) > maxName:
		return fmt.Errorf("unit name exceeds maximum length (%d)", maxName)
	}
	dot := strings.LastIndexByte(name, '.')
	switch {
	case dot < 0:
		return errors.New(`unit name must contain "."`)
	case dot == len(name)-1:
		return errors.New(`unit name cannot end in "."`)
	case dot == 0:
		return errors.New("unit name must have something before its type")
	}
	stem, typ := name[:dot], name[dot+1:]
	switch {
	case !slices.Contains(unitTypes, typ):
		return fmt.Errorf("invalid unit type: %q", typ)
	case strings.Contains(stem, "@") && !slices.Contains(templateTypes, typ):
		return fmt.Errorf("invalid unit type for template: %q", typ)
	}
	for _, r := range stem {
		if !nameRune(r) {
			return fmt.Errorf("invalid character %q in unit name", r)
		}
	}
	if stem[0] == '@' {
		return errors.New(`unit name cannot start in "@"`)
	}
	return nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(`:-_.\@`, r)
}

// Split takes a unit name apart at the first @ and the last dot:
// "a@b@c.service" is "a", "b@c", "service". What is missing is empty; a name
// without a dot has no type.
func Split(name string) (prefix, instance, typ string) {
	stem := name
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		stem, typ = name[:dot], name[dot+1:]
	}
	prefix, instance, _ = strings.Cut(stem, "@")
	return prefix, instance, typ
}

// IsTemplate reports whether name is a template: "foo@.service".
func IsTemplate(name string) bool {
	prefix, instance, typ := Split(name)
	return instance == "" && name == prefix+"@."+typ
}

// TemplateOf returns the template that name is an instance of, and whether it is
// one.
func TemplateOf(name string) (string, bool) {
	prefix, instance, typ := Split(name)
	if instance == "" {
		return "", false
	}
	return prefix + "@." + typ, true
}

// Complete turns a command line argument into a unit name: the base name of a
// path, with ".service" appended unless it ends in one of the types that the
// original client knew. So "x.target" becomes "x.target.service".
func Complete(arg string) string {
	base := path.Base(arg)
	if i := strings.LastIndexByte(base, '.'); i >= 0 && slices.Contains(completedTypes, base[i+1:]) {
		return base
	}
	return base + ".service"
}

// ExpandFleet replaces the specifiers that [X-Fleet] values know, from the unit's
// own name: %n the name, %N the name without its type, %p the prefix, %i the
// instance. There are no others, and no %%.
func ExpandFleet(value, name string) string {
	prefix, instance, typ := Split(name)
	value = strings.ReplaceAll(value, "%n", name)
	value = strings.ReplaceAll(value, "%N", strings.TrimSuffix(name, "."+typ))
	value = strings.ReplaceAll(value, "%p", prefix)
	return strings.ReplaceAll(value, "%i", instance)
}
