package main

import (
	"fmt"
	"strings"
	"time"
)

// maintainer is who answers for the package (deb-control(5)).
const maintainer = "Flotilla maintainers <maintainers@flotilla.invalid>"

// debianChangelog is the newest section of the project's list of changes as Debian
// writes it (deb-changelog(5)): an entry for the version that the package has. An item
// may go on on indented lines.
func debianChangelog(changes, version string, date time.Time) string {
	var out strings.Builder
	fmt.Fprintf(&out, "flotilla (%s) unstable; urgency=medium\n\n", version)
	_, section, _ := strings.Cut("\n"+changes, "\n## ")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, item := range items(section) {
		out.WriteString(wrap("  * ", "    ", item))
	}
	fmt.Fprintf(&out, "\n -- %s  %s\n", maintainer, date.Format(time.RFC1123Z))
	return out.String()
}

// items are the list items of a text in Markdown, each on one line.
func items(markdown string) []string {
	var out []string
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, " \n")
		if item, ok := strings.CutPrefix(line, "- "); ok {
			out = append(out, item)
		} else if more, ok := strings.CutPrefix(line, "  "); ok && len(out) > 0 {
			out[len(out)-1] += " " + more
		}
	}
	return out
}

// wrap breaks a text into lines of up to 79 bytes, or one word.
func wrap(first, others, text string) string {
	var out strings.Builder
	line := first
	for i, word := range strings.Fields(text) {
		if i > 0 && len(line)+1+len(word) > 79 {
			out.WriteString(line + "\n")
			line = others
		} else if i > 0 {
			line += " "
		}
		line += word
	}
	return out.String() + line + "\n"
}
