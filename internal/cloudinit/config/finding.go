package config

import (
	"fmt"
	"strings"
)

// String is "line N: kind: text", as coreos-cloudinit printed it, and the hint: on
// the same line if it is one line, else indented below.
func (f Finding) String() string {
	s := fmt.Sprintf("line %d: %s: %s", f.Line, f.Severity, f.Message)
	switch {
	case f.Hint == "":
		return s
	case strings.Contains(f.Hint, "\n"):
		return s + "; write:\n    " + strings.ReplaceAll(f.Hint, "\n", "\n    ")
	}
	return s + "; write: " + f.Hint
}
