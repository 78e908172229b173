package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"flotilla/cmd/flotilla/programs"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
)

// section is the manual's section: 8 for what a machine runs and its owner, 1 for what
// people type.
func section(program string) string {
	if strings.HasSuffix(program, "d") || strings.Contains(program, "cloudinit") {
		return "8"
	}
	return "1"
}

// manuals adds a page for every program, every command of those that are made of
// commands, and one for the binary.
func (b book) manuals(t tree) error {
	var overview bytes.Buffer
	programs.All.Overview(&overview)
	t["usr/share/man/man1/flotilla.1"] = []byte(b.page("flotilla", "1", "many machines as one", overview.String()))
	for _, a := range programs.All {
		if a.Group == "" {
			continue // started by other programs
		}
		if err := b.manual(t, a); err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
	}
	return nil
}

func (b book) manual(t tree, a applet.Applet) error {
	sec := section(a.Name)
	cmd, help := cli.Describe(context.Background(), a)
	name := pageName(a.Name)
	if cmd == nil {
		t[manPath(name, sec)] = []byte(b.page(name, sec, a.Summary, help) + below(a, help))
	} else if err := b.commands(t, cmd, name, sec); err != nil {
		return err
	}
	for _, alias := range a.Aliases {
		t[manPath(alias, sec)] = fmt.Appendf(nil, ".so man%s/%s.%s\n", sec, name, sec)
	}
	return nil
}

// pageName is where a program's manual is: under its classic name, unless that may be
// another package's; what has no link of its own is typed as "flotilla NAME".
func pageName(program string) string {
	for _, name := range programs.All.Links() {
		if name == program && !contested(name) {
			return name
		}
	}
	return own + program
}

func manPath(name, sec string) string { return "usr/share/man/man" + sec + "/" + name + "." + sec }

// commands adds the page of a command, and those of the commands below it. How to have
// completion is said in one place, flotilla-completion(1).
func (b book) commands(t tree, cmd *cobra.Command, name, sec string) error {
	cmd.DisableAutoGenTag = true // it has today's date
	cmd.InitDefaultHelpFlag()
	var page bytes.Buffer
	err := doc.GenMan(cmd, &doc.GenManHeader{Section: sec, Date: &b.date, Source: "flotilla " + b.version, Manual: "Flotilla"}, &page)
	if err != nil {
		return err
	}
	t[manPath(name, sec)] = page.Bytes()
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "completion" {
			continue
		}
		if err := b.commands(t, sub, name+"-"+sub.Name(), sec); err != nil {
			return err
		}
	}
	return nil
}

// page is the manual of a program that says itself how it is used (man(7)).
func (b book) page(name, sec, summary, help string) string {
	return fmt.Sprintf(".TH %q %q %q %q \"Flotilla\"\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n%s",
		strings.ToUpper(name), sec, b.date.Format(time.DateOnly), "flotilla "+b.version, escape(name), escape(summary), roff(".SH", help))
}

// below is the help on each command that a program's help lists, and on those below
// them: a section each.
func below(a applet.Applet, help string, path ...string) string {
	var out strings.Builder
	_, list, _ := strings.Cut(help, "\nCOMMANDS:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		path := append(slices.Clone(path), strings.Fields(line)[0])
		var help bytes.Buffer
		a.Run(context.Background(), applet.Env{Args: append([]string{"help"}, path...), Stdout: &help, Stderr: io.Discard})
		fmt.Fprintf(&out, ".SH %s\n%s", escape(strings.ToUpper(strings.Join(path, " "))), roff(".SS", help.String()))
		out.WriteString(below(a, help.String(), path...))
	}
	return out.String()
}

var (
	heading = regexp.MustCompile(`^(\S.*):$`)
	// A flag or a command: alone on its line, or with what it does two blanks away.
	term = regexp.MustCompile(`^ {2,4}(\S.*?)(?: {2,}(\S.*))?$`)
)

// roff is a help text as a manual: headings (with the macro for them) at the margin that end in a colon, what is
// indented a little and explained behind it or, further in, below it, and text.
func roff(head, help string) string {
	var out strings.Builder
	prose := false
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, " \n")
		h, t := heading.FindStringSubmatch(line), term.FindStringSubmatch(line)
		switch {
		case line == "":
			prose = false
			continue
		case h != nil:
			fmt.Fprintf(&out, "%s %s\n", head, escape(strings.ToUpper(h[1])))
		case t != nil:
			fmt.Fprintf(&out, ".TP\n\\fB%s\\fP\n", escape(t[1]))
			if t[2] != "" {
				fmt.Fprintf(&out, "%s\n", escape(t[2]))
			}
		case strings.HasPrefix(line, " "):
			fmt.Fprintf(&out, "%s\n", escape(strings.TrimSpace(line)))
		case prose:
			fmt.Fprintf(&out, ".br\n%s\n", escape(line))
		default:
			fmt.Fprintf(&out, ".PP\n%s\n", escape(line))
		}
		prose = line[0] != ' ' && h == nil
	}
	return out.String()
}

// escape has roff print the text as it is.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}
