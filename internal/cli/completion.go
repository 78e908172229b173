package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
)

// shells is how a command's completion is written for each shell. All of them ask
// the program itself ("flotilla __complete WORDS..."), which hands the question to
// the applet that the first word names.
var shells = map[string]func(*cobra.Command, io.Writer) error{
	"bash": func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
	"zsh":  func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) },
	"fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
}

// Completion is the program that prints what a shell completes the binary's own
// command line with: the names of the programs, and behind each what it completes.
func Completion() applet.Applet {
	return applet.Applet{
		Name:      "completion",
		Group:     "Shell",
		Summary:   "print what bash, zsh or fish completes commands with",
		Completes: true,
		Run:       runCompletion,
	}
}

func runCompletion(ctx context.Context, env applet.Env) int {
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print what a shell completes commands with",
		Long: "Print what a shell completes commands with. In bash, for this session and for all:\n\n" +
			"  source <(flotilla completion bash)\n" +
			"  flotilla completion bash >/etc/bash_completion.d/flotilla",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(_ *cobra.Command, args []string) error {
			return shells[args[0]](&cobra.Command{Use: "flotilla"}, env.Stdout)
		},
	}
	return Run(ctx, env, cmd)
}
