package main

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"

	"flotilla/cmd/flotilla/programs"
)

// shells are where each shell looks for the completion of a command, and how it is
// written. Debian and Fedora have zsh look in places of their own.
var shells = []struct {
	dir, prefix, suffix string
	write               func(*cobra.Command, io.Writer) error
}{
	{"usr/share/bash-completion/completions/", "", "", func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) }},
	{"usr/share/zsh/vendor-completions/", "_", "", func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) }},
	{"usr/share/zsh/site-functions/", "_", "", func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) }},
	{"usr/share/fish/vendor_completions.d/", "", ".fish", func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) }},
}

// completions adds the completion of the binary and of every link to a program that
// completes. What completes is asked for at run time: the script has to know no more
// than the name.
func completions(t tree) error {
	names := []string{"flotilla"}
	for _, name := range programs.All.Links() {
		if a, _ := programs.All.Find(name); a.Completes {
			names = append(names, name)
		}
	}
	for _, name := range names {
		file := name
		if contested(name) {
			file = own + name
		}
		for _, sh := range shells {
			var script bytes.Buffer
			if err := sh.write(&cobra.Command{Use: name}, &script); err != nil {
				return err
			}
			t[sh.dir+sh.prefix+file+sh.suffix] = script.Bytes()
		}
	}
	return nil
}
