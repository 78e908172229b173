package unitfile

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a unit file. systemd cuts lines at its LINE_MAX, fleet refused them.
const (
	MaxLine = 2048    // a line of so many bytes, without its newline, is refused
	MaxSize = 1 << 20 // a whole text of more bytes is refused
)

// Problem is one thing wrong with a unit file.
type Problem struct {
	Line int // 1-based; 0: the file as a whole
	Col  int // 1-based, in bytes
	Msg  string
}

// String is "LINE:COL: msg", or the message alone for the file as a whole.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.Msg
	}
	return fmt.Sprintf("%d:%d: %s", p.Line, p.Col, p.Msg)
}

// ParseError is every problem of a unit file, in order of lines.
type ParseError struct {
	File     string // prefixed to each line of Error; "" none
	Problems []Problem
}

// In returns the same error about a file of that name.
func (e *ParseError) In(file string) *ParseError {
	return &ParseError{File: file, Problems: e.Problems}
}

// Error has one line for each problem: "FILE:LINE:COL: msg".
func (e *ParseError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
		switch {
		case e.File != "" && p.Line == 0:
			lines[i] = e.File + ": " + lines[i]
		case e.File != "":
			lines[i] = e.File + ":" + lines[i]
		}
	}
	return strings.Join(lines, "\n")
}

// Parse reads a unit file. On failure it returns a *ParseError that names every
// problem, and no options.
//
// What is read past: lines before the first section header, which is told in
// Notices, blank lines, and comments. Where a line goes on is systemd's word, not
// fleet's: no comment does, and none of two backslashes at the end of a line is one
// that continues it.
func Parse(text string) (File, error) {
	if len(text) > MaxSize {
		return File{}, &ParseError{Problems: []Problem{{Msg: tooLarge(len(text))}}}
	}
	p := parser{lines: splitLines(text)}
	p.checkLines()
	for p.next < len(p.lines) {
		p.statement()
	}
	if len(p.problems) > 0 {
		sortProblems(p.problems)
		return File{}, &ParseError{Problems: p.problems}
	}
	return File{Options: p.options, Notices: p.notices, Strays: p.strays}, nil
}

func tooLarge(n int) string {
	return fmt.Sprintf("unit file too large: %d bytes (max %d)", n, MaxSize)
}

// splitLines cuts text into lines without their ends, be these LF or CR LF. A
// byte order mark is no part of the first line.
func splitLines(text string) []string {
	text = strings.TrimPrefix(text, "\ufeff")
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

type parser struct {
	lines    []string
	next     int // index of the line to read
	section  string
	inside   bool // a section header has been read
	options  []Option
	problems []Problem
	notices  []Problem
	strays   []Problem
}

func (p *parser) problem(line, col int, format string, args ...any) {
	p.problems = append(p.problems, Problem{Line: line + 1, Col: col + 1, Msg: fmt.Sprintf(format, args...)})
}

func (p *parser) notice(line, col int, format string, args ...any) {
	p.notices = append(p.notices, Problem{Line: line + 1, Col: col + 1, Msg: fmt.Sprintf(format, args...)})
}

// checkLines looks for what is wrong with a line whatever it means. The text
// travels as JSON, which cannot carry bytes that are not UTF-8.
func (p *parser) checkLines() {
	for i, line := range p.lines {
		if len(line) >= MaxLine {
			p.problem(i, 0, "line too long (max %d bytes)", MaxLine)
		}
		if at := strings.IndexByte(line, 0); at >= 0 {
			p.problem(i, at, "a NUL byte")
		}
		if at := strings.IndexByte(line, '\r'); at >= 0 {
			p.problem(i, at, "a carriage return inside the line: systemd would end it there")
		}
		if at := invalidUTF8(line); at >= 0 {
			p.problem(i, at, "not valid UTF-8")
		}
	}
}

func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			return i
		}
	}
	return -1
}

// statement reads the next line and those that continue it.
func (p *parser) statement() {
	at := p.next
	line := p.lines[at]
	p.next++
	rest := strings.TrimSpace(line)
	col := strings.Index(line, rest)
	switch {
	case rest == "":
	case isComment(line):
	case rest[0] == '[':
		p.header(at, col, rest)
	case !p.inside:
		p.notice(at, col, "ignored: it is before the first [section]")
		p.value(line)
	default:
		p.option(at, col, line)
	}
}

func isComment(line string) bool {
	line = strings.TrimSpace(line)
	return strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
}

// continues reports whether the next line belongs to this one, which has no line end:
// its last backslash is not escaped by one before it.
func continues(line string) bool {
	rest := strings.TrimRight(line, `\`)
	return (len(line)-len(rest))%2 == 1
}

func (p *parser) header(at, col int, rest string) {
	p.inside = true
	end := strings.IndexByte(rest, ']')
	if end < 0 {
		p.problem(at, col, "unable to find end of section: %q has no ]", rest)
		return
	}
	p.section = rest[1:end]
	if p.section == "" {
		p.problem(at, col, "the section has no name")
	}
	if msg := stray(p.section); msg != "" {
		p.strays = append(p.strays, Problem{Line: at + 1, Col: col + 1, Msg: msg})
	}
	if junk := strings.TrimSpace(rest[end+1:]); junk != "" {
		p.problem(at, col+end+1, "found garbage after section name %s: %q", p.section, junk)
	}
}

func (p *parser) option(at, col int, line string) {
	name, value, found := strings.Cut(line, "=")
	if !found {
		p.problem(at, col, "unexpected newline encountered while parsing option name: %q has no =", strings.TrimSpace(line))
		return
	}
	o := Option{Section: p.section, Name: strings.TrimSpace(name), Line: at + 1, Col: col + 1}
	if o.Name == "" {
		p.problem(at, col, "the option has no name before =")
	}
	o.Value = p.value(value)
	p.options = append(p.options, o)
}

// value reads the value that begins with first. A backslash at the end of a line
// continues it; both stay in the value, comments between do not. A blank line ends a
// continued value as it ends any other, and leaves the last backslash and newline in
// it: so does the end of the file, as if a blank line followed.
func (p *parser) value(first string) string {
	var b strings.Builder
	for part := first; ; {
		if strings.TrimSpace(part) == "" {
			break
		}
		b.WriteString(part)
		if !continues(part) {
			if continues(strings.TrimSpace(part)) {
				p.problem(p.next-1, len(strings.TrimRight(p.lines[p.next-1], " \t"))-1,
					"blanks after the backslash: the line is not continued")
			}
			break
		}
		b.WriteByte('\n')
		for p.next < len(p.lines) && isComment(p.lines[p.next]) {
			p.next++
		}
		if p.next == len(p.lines) {
			break
		}
		part = p.lines[p.next]
		p.next++
	}
	v := strings.TrimSpace(b.String())
	if continues(v) {
		v += "\n"
	}
	return v
}
