package unitfile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// DropIn is one file of a unit's drop-in directory (systemd.unit(5)).
type DropIn struct {
	Name string // base name, ending in .conf
	File File
}

// Bundle is a unit file with its drop-ins, which belong to it: they are stored,
// hashed, placed and installed together, as one text.
//
// That text is the canonical text of the unit file and, for each drop-in in order
// of name, a line "#### NAME" and the drop-in's canonical text. Without drop-ins it
// is the unit file's own, so the hash is what it always was.
type Bundle struct {
	Main    File
	DropIns []DropIn // by name
}

// dropInMark begins the line that a drop-in follows in the text of a bundle. In a
// unit file it would be a comment, and no canonical text has one.
const dropInMark = "#### "

// ParseBundle is the reverse of String. On failure it returns a *ParseError.
func ParseBundle(text string) (Bundle, error) {
	var b Bundle
	var problems []Problem
	for i, part := range cutBundle(text) {
		f, err := Parse(part.text)
		problems = append(problems, part.problems(err)...)
		if i == 0 {
			b.Main = f
			continue
		}
		if err := CheckDropInName(part.name); err != nil {
			problems = append(problems, Problem{Line: part.line - 1, Col: 1, Msg: err.Error()})
		}
		b.DropIns = append(b.DropIns, DropIn{Name: part.name, File: f})
	}
	b.sort()
	for i := 1; i < len(b.DropIns); i++ {
		if b.DropIns[i].Name == b.DropIns[i-1].Name {
			problems = append(problems, Problem{Msg: fmt.Sprintf("two drop-ins called %q", b.DropIns[i].Name)})
		}
	}
	if len(text) > MaxSize {
		problems = []Problem{{Msg: tooLarge(len(text))}}
	}
	if len(problems) > 0 {
		return Bundle{}, &ParseError{Problems: problems}
	}
	return b, nil
}

// bundlePart is the text of one file in a bundle.
type bundlePart struct {
	name, text string
	line       int // of its first line, 1-based
}

func cutBundle(text string) []bundlePart {
	parts := []bundlePart{{line: 1}}
	var b strings.Builder
	n := 0
	continued := false // the value before goes on: this line belongs to it
	for line := range strings.Lines(text) {
		n++
		name, marked := strings.CutPrefix(line, dropInMark)
		marked = marked && !continued
		continued = goesOn(continued, line)
		if marked {
			parts[len(parts)-1].text = b.String()
			b.Reset()
			parts = append(parts, bundlePart{name: strings.TrimSpace(name), line: n + 1})
			continue
		}
		b.WriteString(line)
	}
	parts[len(parts)-1].text = b.String()
	return parts
}

// goesOn reports whether the value that line belongs to goes on after it; before is
// whether it began earlier.
func goesOn(before bool, line string) bool {
	if isComment(line) {
		return before
	}
	return continues(strings.TrimRight(line, "\r\n"))
}

// problems are those of err, with lines of the whole text.
func (p bundlePart) problems(err error) []Problem {
	var parse *ParseError
	if !errors.As(err, &parse) {
		return nil
	}
	out := slices.Clone(parse.Problems)
	for i := range out {
		if out[i].Line > 0 {
			out[i].Line += p.line - 1
		}
	}
	return out
}

// CheckDropInName says why a file of that name is no drop-in; nil if it is one.
func CheckDropInName(name string) error {
	stem, ok := strings.CutSuffix(name, ".conf")
	switch {
	case !ok || stem == "":
		return fmt.Errorf("drop-in %q: its name must end in .conf", name)
	case len(name) > 200:
		return fmt.Errorf("drop-in %q: its name is longer than 200 bytes", name)
	case strings.HasPrefix(name, "."):
		return fmt.Errorf("drop-in %q: systemd reads no hidden files", name)
	}
	for _, r := range stem {
		if !nameRune(r) {
			return fmt.Errorf("drop-in %q: invalid character %q in its name", name, r)
		}
	}
	return nil
}

func (b *Bundle) sort() {
	slices.SortStableFunc(b.DropIns, func(x, y DropIn) int { return cmp.Compare(x.Name, y.Name) })
}

// String is the text of the bundle.
func (b Bundle) String() string {
	b.DropIns = slices.Clone(b.DropIns)
	b.sort()
	var out strings.Builder
	out.WriteString(b.Main.String())
	for _, d := range b.DropIns {
		out.WriteString(dropInMark + d.Name + "\n" + d.File.String())
	}
	return out.String()
}

// Hash is the SHA-1 of the text in 40 hex digits.
func (b Bundle) Hash() string { return HashText(b.String()) }

// Effective is the unit file as the init system sees it: the drop-ins' options come
// after its own. What an empty value means is for whoever reads the option.
func (b Bundle) Effective() File {
	f := File{Options: slices.Clone(b.Main.Options), Notices: slices.Clone(b.Main.Notices), Strays: slices.Clone(b.Main.Strays)}
	for _, d := range b.DropIns {
		f.Options = append(f.Options, d.File.Options...)
		f.Notices = append(f.Notices, d.File.Notices...)
		f.Strays = append(f.Strays, d.File.Strays...)
	}
	return f
}

// Texts are the files of a bundle as they were written, comments and all: what lies
// on a disk.
type Texts struct {
	Main    string
	DropIns map[string]string // by name; nil for none
}

// CutTexts takes the text of a bundle apart without reading what the files say.
func CutTexts(text string) Texts {
	parts := cutBundle(text)
	t := Texts{Main: parts[0].text}
	for _, p := range parts[1:] {
		if t.DropIns == nil {
			t.DropIns = map[string]string{}
		}
		t.DropIns[p.name] = p.text
	}
	return t
}

// String is the reverse of CutTexts.
func (t Texts) String() string {
	var out strings.Builder
	out.WriteString(t.Main)
	last := t.Main
	for _, name := range slices.Sorted(maps.Keys(t.DropIns)) {
		out.WriteString(ending(last) + dropInMark + name + "\n" + t.DropIns[name])
		last = t.DropIns[name]
	}
	return out.String()
}

// ending is what a file needs behind it for a mark to count: a newline, and an empty
// line if its last value would go on.
func ending(text string) string {
	end := ""
	if text != "" && !strings.HasSuffix(text, "\n") {
		end = "\n"
	}
	continued := false
	for line := range strings.Lines(text) {
		continued = goesOn(continued, line)
	}
	if continued {
		end += "\n"
	}
	return end
}
