package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/fault"
)

// A reader walks a document once: it compares it with the schema, notes what is
// wrong at the very node, and keeps what is right.
type reader struct {
	findings []Finding
	lines    []string // of the document
	values   int      // read so far, aliases counted each time
	bytes    int      // of texts read so far, likewise
	spent    bool
}

func (r *reader) add(n *node, s Severity, key, format string, args ...any) *Finding {
	r.findings = append(r.findings, Finding{Line: n.line, Column: n.col, Severity: s, Key: key, Message: fmt.Sprintf(format, args...)})
	return &r.findings[len(r.findings)-1]
}

// spend counts a value that is read, and reports whether that is still within the
// limits: few aliases can stand for very much.
func (r *reader) spend(n *node) bool {
	r.values++
	r.bytes += len(n.text)
	if r.values <= MaxTokens && r.bytes <= MaxUnpacked {
		return true
	}
	if !r.spent {
		r.spent = true
		r.add(n, Error, "", "aliases repeat too much: the document stands for more than %d values or %d bytes", MaxTokens, MaxUnpacked)
	}
	return false
}

// fields are the options of one mapping that were right.
type fields struct {
	node   *node
	path   string // coreos.units[2]
	values map[string]value
	bad    map[string]bool // those that were there and wrong
}

// A value of the type that its entry says.
type value struct {
	key, node *node
	path      string
	text      string
	texts     []string
	items     []fields // of Mappings; of Mapping the one
}

func (f fields) text(name string) string    { return f.values[name].text }
func (f fields) texts(name string) []string { return f.values[name].texts }
func (f fields) flag(name string) bool      { return f.values[name].text == "true" }
func (f fields) items(name string) []fields { return f.values[name].items }

// wrong reports whether an option is there and was wrong, which has been said.
func (f fields) wrong(name string) bool { return f.bad[name] }

// section is the mapping of that name; one without options if there is none.
func (f fields) section(name string) fields {
	if items := f.items(name); len(items) > 0 {
		return items[0]
	}
	return fields{}
}

// mapping reads the options of a section. The node is a mapping.
func (r *reader) mapping(section, path string, n *node) fields {
	f := fields{node: n, path: path, values: map[string]value{}, bad: map[string]bool{}}
	seen := map[string]*node{}
	for _, p := range n.pairs {
		name := canonical(p.key.text)
		if first, again := seen[name]; again {
			r.repeated(join(path, name), first, p.key)
			continue
		}
		seen[name] = p.key
		e, ok := lookup(section, name)
		if !ok {
			r.unknown(section, path, p.key)
			continue
		}
		if e.Deprecated != "" {
			r.add(p.key, Warning, join(path, name), "deprecated key %q (%s)", p.key.text, e.Deprecated)
		}
		if v, ok := r.value(e, join(path, name), p); ok {
			f.values[name] = v
		} else {
			f.bad[name] = true
		}
	}
	return f
}

// like spells a name as n does: with hyphens if n has some.
func (n *node) like(name string) string {
	if strings.Contains(n.text, "-") {
		return strings.ReplaceAll(name, "_", "-")
	}
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func lookup(section, name string) (Entry, bool) {
	i := slices.IndexFunc(schema, func(e Entry) bool { return e.Section == section && e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return schema[i], true
}

func (r *reader) repeated(path string, first, again *node) {
	if first.text == again.text {
		r.add(again, Error, path, "key %q is there twice: first in line %d, which counts", again.text, first.line)
		return
	}
	r.add(again, Error, path, "%q and %q are two spellings of one option: the one in line %d counts", first.text, again.text, first.line)
}

// unknown complains about a key and names the one that was meant.
func (r *reader) unknown(section, path string, key *node) {
	name := canonical(key.text)
	f := r.add(key, Warning, join(path, name), "unrecognized key %q", key.text)
	var known, homes []string
	for _, e := range schema {
		if e.Section == section {
			known = append(known, e.Name)
		}
		if e.Name == name {
			homes = append(homes, e.Section)
		}
	}
	if near := fault.Nearest(name, known); near != "" {
		f.Message += "; did you mean " + key.like(near) + "?"
	} else if len(homes) == 0 || len(homes) > 2 {
		f.Message += "; there are: " + strings.Join(known, ", ")
		return
	}
	if 0 < len(homes) && len(homes) <= 2 {
		r.add(key, Info, join(path, name), "%s doesn't belong %s; it belongs %s", key.text, under(section), under(homes...))
	}
}

// under says where keys of sections are.
func under(sections ...string) string {
	for i, s := range sections {
		if s == "" {
			sections[i] = "at the top level"
			continue
		}
		sections[i] = "under " + s
	}
	return strings.Join(sections, " or ")
}

// value reads the value of an option; false if it is not of the type or is not
// allowed, which has then been said.
func (r *reader) value(e Entry, path string, p pair) (value, bool) {
	v := value{key: p.key, node: p.value, path: path}
	if !r.spend(p.value) {
		return v, false
	}
	if !fits(e.Type, p.value) {
		r.wrongType(e, path, p)
		return v, false
	}
	switch e.Type {
	case Mapping:
		v.items = []fields{r.mapping(e.path(), path, p.value)}
	case Mappings:
		v.items = r.mappings(e, path, p.value)
	case Texts:
		v.texts = r.texts(e, path, p.value)
	default:
		v.text = normal(e, p.value)
		return v, r.check(e, path, p.key.text, v.text, p.value)
	}
	return v, true
}

func (r *reader) mappings(e Entry, path string, n *node) []fields {
	var all []fields
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !r.spend(item):
			return all
		case item.kind != mapping:
			f := r.add(item, Warning, at, "incorrect type for an entry of %q (want %s, have %s)", e.Name, Mapping, item.is())
			if item.kind == scalar && !item.block {
				f.Hint = "- name: " + written(item)
			}
		default:
			all = append(all, r.mapping(e.path(), at, item))
		}
	}
	return all
}

func (r *reader) texts(e Entry, path string, n *node) []string {
	var all []string
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !r.spend(item) {
			return all
		}
		if item.kind != scalar {
			r.add(item, Warning, at, "incorrect type for an entry of %q (want %s, have %s)", e.Name, Text, item.is())
			continue
		}
		if normal(e, item) == "" {
			r.add(item, Warning, at, "an empty entry of %q", e.Name)
			continue
		}
		if text := normal(e, item); r.check(e, at, e.Name, text, item) {
			all = append(all, text)
		}
	}
	return all
}

// fits reports whether a node is of a type.
func fits(t Type, n *node) bool {
	switch t {
	case Mapping:
		return n.kind == mapping
	case Mappings, Texts:
		return n.kind == list
	case Text:
		return n.kind == scalar
	}
	if n.kind != scalar || !n.plain {
		return false
	}
	switch t {
	case Boolean:
		return isBool(n.text)
	case Integer:
		return isInteger(n.text)
	}
	return isInteger(n.text) || isNumber(n.text)
}

// The words of YAML 1.1 for booleans, which the original read.
var (
	trueWords  = []string{"true", "yes", "y", "on"}
	falseWords = []string{"false", "no", "n", "off"}
)

func isBool(s string) bool {
	s = strings.ToLower(s)
	return slices.Contains(trueWords, s) || slices.Contains(falseWords, s)
}

func isInteger(s string) bool { _, err := strconv.ParseInt(s, 0, 64); return err == nil }

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && strings.Trim(s, "+-.0123456789eE_") == ""
}

// normal is a scalar as programs want it: booleans as true or false, integers in
// decimal, texts of one line without the newline that | leaves at their end.
func normal(e Entry, n *node) string {
	switch e.Type {
	case Boolean:
		return strconv.FormatBool(slices.Contains(trueWords, strings.ToLower(n.text)))
	case Integer:
		i, _ := strconv.ParseInt(n.text, 0, 64)
		return strconv.FormatInt(i, 10)
	case Number:
		f, _ := strconv.ParseFloat(n.text, 64)
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	if e.Name == "content" {
		return n.text
	}
	return strings.TrimRight(n.text, "\n")
}
