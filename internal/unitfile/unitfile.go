// Package unitfile reads and writes unit files: the grammar of systemd.syntax(7)
// as fleet narrowed it, the canonical text and its hash, names, templates and
// instances, and the value syntaxes that systemd.service(5) and systemd.unit(5)
// use.
//
// The canonical text is what the cluster stores and what its hash is taken of.
// Parse and String are inverse on it: parsing a canonical text and writing it
// again gives the same bytes.
package unitfile

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
)

// Option is one assignment of a unit file.
type Option struct {
	Section string
	Name    string
	Value   string // backslash-newline of a continued line is kept
	Line    int    // 1-based, of the name; 0: not read from a file
	Col     int    // 1-based, in bytes
}

// File is a unit file: its options in order.
type File struct {
	Options []Option
	// Notices says what Parse read past because the grammar has it so, and which
	// the author can hardly have meant. They are no part of the canonical text.
	Notices []Problem
	// Strays says which sections have names that begin or end with blanks: systemd
	// knows none of them and reads past, with a warning in its log. Check refuses
	// them; text that is stored already may have them.
	Strays []Problem
}

// stray says what is wrong with the name of a section; "" if nothing is.
func stray(section string) string {
	meant := strings.TrimSpace(section)
	switch meant {
	case section:
		return ""
	case "":
		return "systemd ignores a section whose name is all blanks"
	}
	return fmt.Sprintf("systemd ignores the section [%s] for the blanks in its brackets; did you mean [%s]?", section, meant)
}

// FromOptions makes a file of options that did not come from a text: an API
// request. Names and values are trimmed. It fails, with a *ParseError whose
// problems name every option at fault, if some option would not read back as it
// is from the canonical text: an empty name, a newline that is no continuation, a
// trailing backslash, a line that is too long.
func FromOptions(options []Option) (File, error) {
	f := File{Options: make([]Option, 0, len(options))}
	var problems []Problem
	for _, o := range options {
		o = trimmed(o)
		if msg := unwritable(o); msg != "" {
			problems = append(problems, Problem{Line: o.Line, Col: o.Col,
				Msg: fmt.Sprintf("option %q in section %q: %s", o.Name, o.Section, msg)})
		}
		f.Options = append(f.Options, o)
	}
	for _, section := range f.Sections() {
		if msg := stray(section); msg != "" {
			f.Strays = append(f.Strays, Problem{Msg: msg})
		}
	}
	if n := len(f.String()); n > MaxSize {
		problems = append(problems, Problem{Msg: tooLarge(n)})
	}
	if len(problems) > 0 {
		return File{}, &ParseError{Problems: problems}
	}
	return f, nil
}

// trimmed is o as the parser would have read it: blanks around name and value
// vanish, except the newline of a continuation into nothing.
func trimmed(o Option) Option {
	o.Name = strings.TrimSpace(o.Name)
	v := strings.TrimSpace(o.Value)
	if continues(v) && strings.HasSuffix(strings.TrimRight(o.Value, " \t"), "\\\n") {
		v += "\n"
	}
	o.Value = v
	return o
}

// unwritable says why o alone, written canonically, does not read back as o; ""
// if it does.
func unwritable(o Option) string {
	f, err := Parse(File{Options: []Option{o}}.String())
	if err != nil {
		return err.(*ParseError).Problems[0].Msg
	}
	if len(f.Options) == 1 {
		got := f.Options[0]
		if got.Section == o.Section && got.Name == o.Name && got.Value == o.Value {
			return ""
		}
	}
	if strings.HasSuffix(o.Value, "\\") {
		return "the value ends in a backslash, which would swallow the next line"
	}
	if strings.Contains(o.Value, "\n") {
		return "the value has a newline that is not a continuation (a backslash before it)"
	}
	return "it would not read back as it is from a unit file"
}

// String is the canonical text: for each section in order of first appearance its
// header and its options as name=value, one a line; an empty line between
// sections; a newline at the end. No options make an empty text.
func (f File) String() string {
	bySection := make(map[string][]Option)
	for _, o := range f.Options {
		bySection[o.Section] = append(bySection[o.Section], o)
	}
	var b strings.Builder
	for i, section := range f.Sections() {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("[" + section + "]\n")
		for _, o := range bySection[section] {
			b.WriteString(o.Name + "=" + o.Value + "\n")
		}
	}
	return b.String()
}

// Hash is the SHA-1 of the canonical text in 40 hex digits. Units with equal
// hashes are the same unit text; it is a name, not a safeguard.
func (f File) Hash() string { return HashText(f.String()) }

// HashText is the hash of a text that is canonical already.
func HashText(canonical string) string {
	sum := sha1.Sum([]byte(canonical))
	return hex.EncodeToString(sum[:])
}

// Sections returns the names of the sections that have options, in order of first
// appearance.
func (f File) Sections() []string {
	var names []string
	seen := make(map[string]bool)
	for _, o := range f.Options {
		if !seen[o.Section] {
			seen[o.Section] = true
			names = append(names, o.Section)
		}
	}
	return names
}

// All returns the values of an option in order. It knows nothing of the option's
// meaning: that an empty value resets a list is for the caller.
func (f File) All(section, name string) []string {
	var values []string
	for _, o := range f.Options {
		if o.Section == section && o.Name == name {
			values = append(values, o.Value)
		}
	}
	return values
}

// Get returns the last value of an option, which is the one that counts where
// only one can, and whether there is any.
func (f File) Get(section, name string) (string, bool) {
	for i := len(f.Options) - 1; i >= 0; i-- {
		if o := f.Options[i]; o.Section == section && o.Name == name {
			return o.Value, true
		}
	}
	return "", false
}
