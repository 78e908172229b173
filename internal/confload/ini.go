package confload

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// assignment is one key=value of a file.
type assignment struct {
	Name  string
	Value string
	Line  int // from 1
}

// parseINI reads the format of the classic daemons' files: key=value, one a line,
// outside any section. # and ; begin a comment, also after a value that is not in
// quotes. A value may be in single or double quotes. What is inside a section is
// left out. Problems have the line's number in Where.
func parseINI(text string) (out []assignment, problems []Problem) {
	inSection := false
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		fail := func(msg string) {
			problems = append(problems, Problem{Where: strconv.Itoa(number), Msg: msg})
		}
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case line[0] == '[':
			inSection = true
			if !strings.Contains(line, "]") {
				fail("a section header without ]")
			}
			continue
		case inSection:
			continue
		}
		name, rest, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			fail("not of the form key=value")
			continue
		}
		value, msg := iniValue(strings.TrimSpace(rest))
		if msg != "" {
			fail(name + ": " + msg)
			continue
		}
		out = append(out, assignment{Name: name, Value: value, Line: number})
	}
	return out, problems
}

// iniValue reads what follows the =; msg says what is wrong with it.
func iniValue(s string) (value, msg string) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		if i := strings.IndexAny(s, "#;"); i >= 0 {
			s = s[:i]
		}
		return strings.TrimSpace(s), ""
	}
	value, rest, ok := strings.Cut(s[1:], s[:1])
	if !ok {
		return "", "the quote is not closed"
	}
	rest = strings.TrimSpace(rest)
	if rest != "" && rest[0] != '#' && rest[0] != ';' {
		return "", "text after the closing quote"
	}
	return value, ""
}

// quote writes a value so that iniValue reads it back.
func quote(v string) string {
	switch {
	case v == "" || v == strings.TrimSpace(v) && !strings.ContainsAny(v, "#;\"'\n"):
		return v
	case !strings.Contains(v, `"`):
		return `"` + v + `"`
	}
	return "'" + v + "'"
}

func joinPairs(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}
