// Package unitfile reads and writes unit files: the grammar of systemd.syntax(7)
// as fleet narrowed it, the canonical text and its hash, names, templates and
// instances, and the value syntaxes that systemd.service(5) and systemd.unit(5)
// use.
package unitfile

// Option is one assignment of a unit file.
type Option struct {
	Section string
	Name    string
	Value   string // backslash-newline of a continued line is kept
	Line    int    // 1-based, of the name; 0: not read from a file
	Col     int    // 1-based, in bytes
}

// File is a unit file: its options in order.
type File struct {
	Options []Option
}
