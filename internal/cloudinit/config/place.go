package config

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"flotilla/internal/fault"
	"flotilla/internal/unitfile"
)

// A locator tells where in the document the bytes of a scalar stand.
type locator struct {
	n      *node
	lines  []string // of its text
	source []string // of the document
}

func (r *reader) locate(n *node) locator {
	return locator{n: n, lines: strings.Split(n.text, "\n"), source: r.lines}
}

// at is the place of a byte: a line of the text from 0, a byte in it. exact is false
// where quotes, escapes or folding hide it; the place is then that of the scalar.
func (l locator) at(line, col int) (place *node, exact bool) {
	n := l.n
	if line >= len(l.lines) || col > len(l.lines[line]) {
		return n, false
	}
	col = utf8.RuneCountInString(l.lines[line][:col])
	if n.plain && len(l.lines) == 1 {
		return &node{line: n.line, col: n.col + col}, true
	}
	if source := n.line + line; n.block && source < len(l.source) {
		// Line n.line holds the sign |, the text begins below it.
		indent := utf8.RuneCountInString(l.source[source]) - utf8.RuneCountInString(l.lines[line])
		if indent >= 0 {
			return &node{line: source + 1, col: indent + col + 1}, true
		}
	}
	return n, false
}

// maxOdd is how many names of variables of one text are complained about.
const maxOdd = 20

var variable = regexp.MustCompile(`\\?\$\{?[A-Za-z][A-Za-z0-9_]*\}?`)

// variables looks for names after a dollar sign that are nearly those of variables.
// In contents other programs' variables are to be expected: what is assigned in the
// same content is one.
func (r *reader) variables(n *node, key string, content bool) {
	if n.binary || !strings.Contains(n.text, "$") {
		return
	}
	l, odd := r.locate(n), 0
	for i, line := range l.lines {
		if content && strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, m := range variable.FindAllStringIndex(line, -1) {
			word := line[m[0]:m[1]]
			msg := oddVariable(word)
			if msg == "" {
				continue
			}
			if odd++; odd > maxOdd {
				return
			}
			if !content || !strings.Contains(n.text, strings.Trim(word, "${}")+"=") {
				at, _ := l.at(i, m[0])
				r.add(at, Warning, key, "%s", msg)
			}
		}
	}
}

// oddVariable says what is odd about $NAME or ${NAME}; "" if nothing is.
func oddVariable(word string) string {
	if strings.HasPrefix(word, `\`) {
		return ""
	}
	name := strings.Trim(word, "${}")
	known := variableAt("$" + name)
	switch {
	case known == name && !strings.HasPrefix(word, "${"):
		return ""
	case known == name:
		return fmt.Sprintf("%s stays as it is: braces are not read; did you mean $%s?", word, name)
	case known != "" && !strings.HasPrefix(word, "${"):
		return fmt.Sprintf("%s is read as $%s and %q", word, known, name[len(known):])
	}
	near := fault.Nearest(name, variables)
	if near == "" || !strings.Contains(strings.ToLower(name), "ip") {
		return ""
	}
	return fmt.Sprintf("%s is not a variable and stays as it is; did you mean $%s? There are: $%s", word, near, strings.Join(variables, ", $"))
}

// unitText reports what systemd would stumble over in the text of a unit file or
// drop-in.
func (r *reader) unitText(v value) {
	if v.node == nil || v.text == "" {
		return
	}
	f, err := unitfile.Parse(v.text)
	problems := append(unitfile.Notices(f), f.Strays...)
	if perr, ok := err.(*unitfile.ParseError); ok {
		problems = perr.Problems
	} else if len(f.Options) == 0 {
		problems = append(problems, unitfile.Problem{Msg: "no options: a unit file needs a [Section] and an option below it"})
	}
	l := r.locate(v.node)
	for _, p := range problems {
		at, exact := v.node, true
		if p.Line > 0 {
			at, exact = l.at(p.Line-1, p.Col-1)
		}
		msg := p.Msg
		if !exact {
			msg = fmt.Sprintf("line %d of the content: %s", p.Line, msg)
		}
		r.add(at, Warning, v.path, "%s", msg)
	}
}
