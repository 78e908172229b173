package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
)

// shells is how a command's completion is written for each shell. All of them ask
// the program itself ("flotilla __complete WORDS..."), which hands the question to
// the applet that the first word names.
var shells = map[string]func(*cobra.Command, io.Writer) error{
	"bash": func(c *cobra.Command, w io.Writer) error {
		_, err := io.WriteString(w, bashWords)
		return errors.Join(err, c.GenBashCompletionV2(w, true))
	},
	"zsh":  func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) },
	"fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
}

// bashWords stands in for the package bash-completion where that is not installed, as on
// a server: the words of the line, those that bash has parted at = and : put together
// again.
const bashWords = `if ! declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
_get_comp_words_by_ref()
{
    local i before rest=$COMP_LINE
    words=() cword=0
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        before=$rest
        rest=${rest#"${rest%%[![:blank:]]*}"}
        if ((i > 0)) && [[ $before == "$rest" && (${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i - 1]} == *[=:]) ]]; then
            words[${#words[@]} - 1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        rest=${rest#"${COMP_WORDS[i]}"}
        ((i == COMP_CWORD)) && cword=$((${#words[@]} - 1))
    done
    cur=${words[cword]} prev=
    ((cword > 0)) && prev=${words[cword - 1]}
    return 0
}
fi

`

// completeWithoutPackage puts bashWords before what cobra's own command "completion bash"
// prints.
func completeWithoutPackage(root *cobra.Command, args []string) {
	root.InitDefaultCompletionCmd(args...)
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.Name() != "bash" || bash.RunE == nil {
		return
	}
	run := bash.RunE
	bash.RunE = func(c *cobra.Command, args []string) error {
		_, err := io.WriteString(c.OutOrStdout(), bashWords)
		return errors.Join(err, run(c, args))
	}
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
