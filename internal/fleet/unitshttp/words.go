package unitshttp

import (
	"net/http"
	"strings"
	"unicode"
)

// Words that come from outside are kept in the store many times over, and end up in
// terminals: so many bytes of them, and nothing that steers a terminal.
const (
	maxWhy   = 1000 // of a reason
	maxNoted = 1000 // of each part of an event
)

// checkWhy judges the reason that a request gives for itself.
func checkWhy(why string) error {
	steers := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
	switch {
	case len(why) > maxWhy:
		return refuse(http.StatusBadRequest, "why is too long: %d bytes, at most %d", len(why), maxWhy)
	case strings.ContainsFunc(why, steers):
		return refuse(http.StatusBadRequest, "why holds characters that cannot be printed: %.100q", why)
	}
	return nil
}

// short is as much of a text as an event keeps.
func short(text string) string {
	if len(text) <= maxNoted {
		return text
	}
	return strings.ToValidUTF8(text[:maxNoted], "") + "..."
}
