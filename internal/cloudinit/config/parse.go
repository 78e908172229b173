package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"flotilla/internal/fault"
)

// Parse reads a cloud-config document, its first line included. It returns what the
// document asks for as far as that is right, and everything that is wrong, in order
// of lines. Lines are those of text.
//
// A document without the right first line asks for nothing, neither does one beyond
// the limits. Of one that is no YAML, those of its top-level keys that can be read by
// themselves count if they let somebody in: host name, users and keys. Empty data,
// scripts and Ignition documents ask for nothing, and nothing is wrong with them.
func Parse(text string) (Document, []Finding) {
	r := &reader{}
	doc := r.parse(text)
	slices.SortStableFunc(r.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return doc, withoutRepeats(r.findings)
}

// withoutRepeats leaves out what has been said of the same place: an alias brings its
// node to several.
func withoutRepeats(findings []Finding) []Finding {
	seen := map[Finding]bool{}
	return slices.DeleteFunc(findings, func(f Finding) bool {
		f.Key = ""
		again := seen[f]
		seen[f] = true
		return again
	})
}

func (r *reader) parse(text string) Document {
	if len(text) > MaxText {
		r.at(1, 0, Error, "a document of %d bytes: more than %d are not read", len(text), MaxText)
		return Document{}
	}
	switch Classify([]byte(text)) {
	case Empty, Script, Ignition:
		return Document{}
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if rest, marked := strings.CutPrefix(text, byteOrderMark); marked {
		r.at(1, 1, Warning, "a byte order mark before the first line: coreos-cloudinit does not know the document by it")
		text = rest
	}
	r.lines = strings.Split(text, "\n")
	headed := r.header()
	if !headed && !r.familiar(text) {
		return Document{}
	}
	doc := r.body(text)
	if !headed {
		return Document{}
	}
	return doc
}

func (r *reader) at(line, col int, s Severity, format string, args ...any) {
	r.add(&node{line: line, col: col}, s, "", format, args...)
}

// header reports whether the first line is right.
func (r *reader) header() bool {
	first := r.lines[0]
	if strings.TrimRight(first, " \t\r") == Header {
		return true
	}
	if strings.HasPrefix(first, "\xff\xfe") || strings.HasPrefix(first, "\xfe\xff") {
		r.at(1, 1, Error, "the document is text in UTF-16: save it as UTF-8")
		return false
	}
	msg := `the first line must be "#cloud-config" or begin with "#!"`
	later := slices.IndexFunc(r.lines, func(l string) bool { return strings.TrimSpace(l) == Header })
	switch {
	case later == 0:
		msg += ": there are blanks before it"
	case later > 0:
		msg += fmt.Sprintf(": it stands in line %d", later+1)
	case fault.Nearest(strings.TrimSpace(first), []string{Header}) != "":
		msg += "; did you mean " + Header + "?"
	}
	r.at(1, 1, Error, "%s", msg)
	return false
}

// familiar reports whether a text without the right first line is nevertheless meant
// to be a document: some line begins with a key of the top level.
func (r *reader) familiar(text string) bool {
	for _, line := range r.lines {
		name, _, found := strings.Cut(line, ":")
		if _, ok := lookup("", canonical(name)); found && ok {
			return true
		}
	}
	return false
}

// body reads what follows the first line.
func (r *reader) body(text string) Document {
	clean := r.cleaned(text)
	if !r.shortGaps() {
		return Document{}
	}
	root, second, serr := parseYAML(clean, 0)
	if second > 0 {
		r.at(second, 1, Error, "a second YAML document begins here: only the first is read")
	}
	if serr != nil {
		return r.salvage(clean, serr)
	}
	switch root.kind {
	case nothing:
		return Document{}
	case mapping:
	default:
		r.add(root, Error, "", "the document must be %s, it is %s", Mapping, root.is())
		return Document{}
	}
	doc := r.document(r.mapping("", "", root))
	if clean != text || r.spent {
		return lettingIn(doc)
	}
	return doc
}

// lettingIn is the part of a document that a person needs to log in.
func lettingIn(doc Document) Document {
	return Document{Hostname: doc.Hostname, SSHAuthorizedKeys: doc.SSHAuthorizedKeys, Users: doc.Users}
}

// cleaned reports bytes that no YAML has and returns the text with U+FFFD in
// their place, so that the rest can be looked at.
func (r *reader) cleaned(text string) string {
	for i, line := range r.lines {
		bad := strings.IndexFunc(line, forbidden)
		if bad < 0 {
			continue
		}
		what := fmt.Sprintf("the control character %U", []rune(line[bad:])[0])
		switch c, size := utf8.DecodeRuneInString(line[bad:]); {
		case c == 0:
			what = "a NUL byte"
		case c == '\r':
			what = "a carriage return that ends no line"
		case c == utf8.RuneError && size == 1:
			what = fmt.Sprintf("not valid UTF-8 (byte %#x)", line[bad])
		}
		r.at(i+1, utf8.RuneCountInString(line[:bad])+1, Error, "%s: a document is text in UTF-8", what)
	}
	if !strings.ContainsFunc(text, forbidden) {
		return text
	}
	return strings.Map(func(c rune) rune {
		if forbidden(c) {
			return utf8.RuneError
		}
		return c
	}, text)
}

// forbidden are what YAML 1.2 (section 5.1) keeps out of a text, carriage returns, which
// it takes for the ends of lines and nobody sees, and the sign that Go
// puts in the place of what is not UTF-8.
func forbidden(c rune) bool {
	return c < ' ' && c != '\t' && c != '\n' || c == 0x7f || c == utf8.RuneError
}

// shortGaps refuses so many empty lines in a row that reading them takes for ever.
func (r *reader) shortGaps() bool {
	run := 0
	for i, line := range r.lines {
		if run++; strings.TrimSpace(line) != "" {
			run = 0
		}
		if run > MaxBlank && i+1 < len(r.lines) {
			r.at(i+1, 0, Error, "more than %d empty lines in a row", MaxBlank)
			return false
		}
	}
	return true
}

// salvage reads the top-level keys of a broken document one by one: to tell all that
// is wrong with it, and because without keys nobody can log in to mend it.
func (r *reader) salvage(text string, whole *syntaxError) Document {
	root := &node{kind: mapping, line: 1, col: 1}
	var broken []*syntaxError
	lines := strings.Split(text, "\n")
	parts := blocks(lines)
	if whole.limit || len(parts) > MaxParts {
		parts = nil
	}
	for _, b := range parts {
		part, _, serr := parseYAML(strings.Join(lines[b.from:b.to], "\n")+"\n", b.from)
		switch {
		case serr == nil && part.kind == mapping:
			root.pairs = append(root.pairs, part.pairs...)
		case serr != nil && !serr.alias:
			broken = append(broken, serr)
		}
	}
	if len(broken) == 0 {
		broken = append(broken, whole)
	}
	for _, b := range broken {
		r.at(b.line, b.col, Error, "%s", r.explained(b))
	}
	doc := lettingIn(r.document(r.mapping("", "", root)))
	if doc.Hostname != "" || len(doc.SSHAuthorizedKeys)+len(doc.Users) > 0 {
		r.at(broken[0].line, broken[0].col, Info, "of this document only host name, users and keys can be used until that is mended")
	}
	return doc
}

// A block is the lines of one key of the top level: from the first, counted from 0,
// to before the last.
type block struct{ from, to int }

func blocks(lines []string) []block {
	var all []block
	for i, line := range lines {
		if line != "" && !strings.ContainsRune(" \t#-]}:", rune(line[0])) {
			all = append(all, block{from: i})
		}
		if len(all) > 0 {
			all[len(all)-1].to = i + 1
		}
	}
	return all
}

// explained is what the YAML parser says, and what a person is likely to have done.
func (r *reader) explained(e *syntaxError) string {
	if e.limit {
		return e.msg
	}
	msg := "not YAML: " + e.msg
	if e.line > len(r.lines) {
		return msg
	}
	line := r.lines[e.line-1]
	text := strings.TrimLeft(line, " \t")
	switch gap := r.misaligned(e.line - 1); {
	case strings.Contains(line[:len(line)-len(text)], "\t"):
		return "not YAML: a tab in the indentation; indent with blanks"
	case gap != "":
		return msg + "; " + gap
	case !strings.Contains(text, ":") && !hasOther(text[:min(1, len(text))], ""):
		return msg + "; is there a colon missing?"
	case strings.Count(text, ": ") > 1 && !strings.Contains(text, "{"):
		return msg + "; a text with a colon and a blank in it must stand in quotes"
	}
	return msg
}

// misaligned says between which two indentations a line is that has neither; "" if it
// is in line with one above it, or begins a deeper one.
func (r *reader) misaligned(at int) string {
	if first, keys := r.entryAbove(at); keys > indent(r.lines[at]) {
		return fmt.Sprintf("it is indented by %d, and the keys of the entry of line %d by %d", indent(r.lines[at]), first+1, keys)
	}
	var open []int // lines whose indentations are open, each deeper than the one before
	for i, line := range r.lines[:at+1] {
		if t := strings.TrimSpace(line); t == "" || t[0] == '#' {
			continue
		}
		left := -1 // the last that is closed by this line
		for len(open) > 0 && indent(r.lines[open[len(open)-1]]) >= indent(line) {
			left = open[len(open)-1]
			open = open[:len(open)-1]
		}
		if i == at && left >= 0 && len(open) > 0 && indent(r.lines[left]) > indent(line) {
			above := open[len(open)-1]
			return fmt.Sprintf("its indentation of %d is between the %d of line %d and the %d of line %d",
				indent(line), indent(r.lines[above]), above+1, indent(r.lines[left]), left+1)
		}
		if i == at && left >= 0 && len(open) == 0 && indent(r.lines[left]) > indent(line) {
			return fmt.Sprintf("it is indented by %d, and the document by %d, from line %d on", indent(line), indent(r.lines[left]), left+1)
		}
		open = append(open, i)
	}
	return ""
}

// entryAbove is the line with the dash of the list entry that a line stands in by its
// indentation, and the indentation of the entry's keys; 0 if it stands in none.
func (r *reader) entryAbove(at int) (line, keys int) {
	for i := at - 1; i >= 0; i-- {
		text := strings.TrimSpace(r.lines[i])
		if text == "" || text[0] == '#' || indent(r.lines[i]) >= indent(r.lines[at]) {
			continue
		}
		rest, isEntry := strings.CutPrefix(text, "- ")
		if !isEntry || !strings.Contains(rest, ":") {
			return 0, 0
		}
		return i, indent(r.lines[i]) + len(text) - len(strings.TrimLeft(rest, " "))
	}
	return 0, 0
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
