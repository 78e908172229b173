package programs

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
)

// Every program has a page in docs/cli, which has all of its commands and flags: a flag in
// the row of its command, or in what is said of more than one. No row has a flag that its
// command does not.
func TestPages(t *testing.T) {
	for _, a := range All {
		if a.Group == "" || a.Name == "completion" { // started by other programs; on every page
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			name := a.Name
			if name == "cloudinit" {
				name = "coreos-cloudinit"
			}
			text, err := os.ReadFile(filepath.Join("../../../docs/cli", name+".md"))
			if err != nil {
				t.Fatal(err)
			}
			commands := commandsOf(a)
			p := read(string(text), commands)
			for _, path := range slices.Sorted(maps.Keys(commands)) {
				p.has(t, path, commands[path])
			}
		})
	}
}

// page is a page of docs/cli, taken apart.
type page struct {
	rows map[string]string // of tables, by the path of the command in their first cell
	rest string            // all other lines
}

func read(text string, commands map[string][]string) page {
	p := page{rows: map[string]string{}}
	for line := range strings.Lines(strings.ReplaceAll(text, "_", "-")) {
		line = strings.ReplaceAll(line, `\|`, "/")
		if path := commandOf(line, commands); path != "" {
			p.rows[path] += line
		} else {
			p.rest += line
		}
	}
	return p
}

// commandOf is the path of the command that a row of a table is about, "" if it is about none.
func commandOf(line string, commands map[string][]string) string {
	cell, isRow := strings.CutPrefix(line, "| `")
	if !isRow {
		return ""
	}
	words := regexp.MustCompile("[ `|]+").Split(cell, 3)
	for n := min(2, len(words)); n > 0; n-- {
		if path := strings.Join(words[:n], " "); commands[path] != nil {
			return path
		}
	}
	return ""
}

// has wants a command of the program to be on the page, with its flags.
func (p page) has(t *testing.T, path string, flags []string) {
	row := p.rows[path]
	inText := regexp.MustCompile("`[a-z ]+ " + path + "`") // `PROGRAM PATH`
	if path != "" && row == "" && !inText.MatchString(p.rest) {
		t.Errorf("there is no %q on the page", path)
	}
	for _, flag := range flags {
		if !said(row, flag) && !said(p.rest, flag) {
			t.Errorf("%s of %q is not on the page", flag, path)
		}
	}
	for line := range strings.Lines(row) {
		cells := strings.Join(strings.SplitN(line, " | ", 3)[:2], " ")
		for _, m := range longFlag.FindAllStringSubmatch(cells, -1) {
			if !slices.Contains(flags, m[1]) && !said(p.rest, m[1]) {
				t.Errorf("%s is on the page, and is no flag of %q", m[1], path)
			}
		}
	}
}

var longFlag = regexp.MustCompile(`(?:^|[^-\w])(--[a-z][-a-z0-9]*)`)

// said tells whether a text has a flag, or for programs with a configuration file the
// setting of its name. Long flags may have one dash there.
func said(text, flag string) bool {
	name := strings.TrimLeft(flag, "-")
	dashes := "-"
	if len(name) > 1 {
		dashes = "--?"
		if strings.Contains(text, "`"+name+"`") {
			return true
		}
	}
	return regexp.MustCompile(`(^|[^-\w])` + dashes + regexp.QuoteMeta(name) + `($|[^-\w])`).MatchString(text)
}

// commandsOf is the flags of a program's commands, by the path of each; those of the program
// itself are at "". They are written with dashes alone.
func commandsOf(a applet.Applet) map[string][]string {
	out := map[string][]string{}
	if cmd, help := cli.Describe(context.Background(), a); cmd != nil {
		fromCobra(out, cmd, "")
	} else {
		fromHelp(out, a, help)
	}
	return out
}

func fromCobra(out map[string][]string, cmd *cobra.Command, path string) {
	flags := []string{}
	add := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		flags = append(flags, "--"+strings.ReplaceAll(f.Name, "_", "-"))
		if f.Shorthand != "" {
			flags = append(flags, "-"+f.Shorthand)
		}
	}
	cmd.LocalFlags().VisitAll(add)
	out[path] = flags
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && cmd.Name() != "completion" { // which has a command for each shell
			fromCobra(out, sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
}

var (
	helpFlags = regexp.MustCompile(`(?m)^ +(-.*?)(?:  .*)?$`)
	flagWord  = regexp.MustCompile(`(?:^|[ ,])(--?[a-z][-a-z0-9]*)`)
)

// fromHelp is for programs that are not made of cobra's commands: their help lists them.
func fromHelp(out map[string][]string, a applet.Applet, help string, path ...string) {
	flags := []string{}
	for _, line := range helpFlags.FindAllStringSubmatch(help, -1) {
		for _, m := range flagWord.FindAllStringSubmatch(line[1], -1) {
			flags = append(flags, m[1])
		}
	}
	_, list, _ := strings.Cut(help, "\nCOMMANDS:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	if list == "" || len(path) == 0 { // what has commands below it does nothing itself
		out[strings.Join(path, " ")] = flags
	}
	for line := range strings.Lines(list) {
		path := append(slices.Clone(path), strings.Fields(line)[0])
		var help bytes.Buffer
		a.Run(context.Background(), applet.Env{Args: append([]string{"help"}, path...), Stdout: &help, Stderr: io.Discard})
		fromHelp(out, a, help.String(), path...)
	}
}
