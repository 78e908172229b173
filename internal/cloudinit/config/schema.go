package config

import (
	"slices"
	"strings"
)

// A Type is what kind of value an option takes, in the words of messages.
type Type string

// The types. A Text takes numbers and booleans too and keeps their spelling, a
// Number takes integers; all others take their like alone.
const (
	Text     Type = "a text"
	Boolean  Type = "a boolean"
	Integer  Type = "an integer"
	Number   Type = "a number"
	Texts    Type = "a list of texts"
	Mapping  Type = "a mapping"
	Mappings Type = "a list of mappings"
)

// An Entry is one option of the schema. Options that hold others are themselves
// entries, of type Mapping or Mappings; the section they open is Section.Name.
type Entry struct {
	Section    string // "" for the top level, coreos.etcd, coreos.units.drop_ins
	Name       string // with underscores; hyphens are taken for them
	Type       Type
	Since      string // release of coreos-cloudinit; "" for 2014 or before 1.0, "Flotilla" for none
	Deprecated string // why; "" if it is not
	Variable   string // in the daemon's environment; "" if it goes nowhere
	About      string

	values []string                 // those allowed; nil for any
	check  func(text string) string // what is wrong with a text of any value; nil for nothing
}

// path is the section that the entry opens.
func (e Entry) path() string {
	if e.Section == "" {
		return e.Name
	}
	return e.Section + "." + e.Name
}

// Schema returns every option there is, in the order of the documentation.
func Schema() []Entry { return slices.Clone(schema) }

// canonical is the spelling of a name in the schema.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Allowed are the only values that the option takes; nil if there are others.
func (e Entry) Allowed() []string { return slices.Clone(e.values) }
