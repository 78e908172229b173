package fleetctl

import (
	"bytes"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"flotilla/internal/tunnel"
	"flotilla/internal/unitfile"
)

// unified is the difference of two texts in the unified format, "" if there is none.
func unified(fromName, from, toName, to string) string {
	d := diff.Diff(fromName, []byte(from), toName, []byte(to))
	_, d, _ = bytes.Cut(d, []byte("\n")) // "diff A B", which only says the names again
	return string(d)
}

// bundleDiff is what is different between two texts of a unit, the files that
// belong to it one below the other.
func bundleDiff(name, fromName, toName string, from, to unitfile.Bundle) string {
	return unified(fromName+"/"+name, catText(name, from), toName+"/"+name, catText(name, to))
}

// printDiff writes a difference, in colours on a terminal: added lines green, removed
// ones red.
func (s *session) printDiff(d string) {
	colour := s.colours()
	for line := range strings.Lines(d) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
			text = colour(bold, text)
		case strings.HasPrefix(line, "+"):
			text = colour(green, text)
		case strings.HasPrefix(line, "-"):
			text = colour(red, text)
		}
		s.say("%s", text)
	}
}

// The colours of a terminal (ECMA-48).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// colours returns what puts text into a colour where standard output is a terminal,
// and leaves it alone elsewhere and with NO_COLOR.
func (s *session) colours() func(colour, text string) string {
	if !isTerminal(s.env.Stdout) || s.env.Getenv("NO_COLOR") != "" {
		return func(_, text string) string { return text }
	}
	return func(colour, text string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }
}

// confirm asks the person at the terminal and returns nil for yes. Where nobody can be
// asked, yes has to have been said by a flag.
func (s *session) confirm(said bool, question string) error {
	if said {
		return nil
	}
	t := tunnel.TerminalOf(s.env.Stdin, s.env.Stderr)
	if t == nil {
		return errNobody
	}
	answer, err := t.Ask(s.ctx, question+" (yes/no) ", true)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}
