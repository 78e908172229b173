package etcdctl

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"flotilla/client/keys"
)

func completionCommand() command {
	var out string
	shells := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
	return command{
		name: "completion", args: "bash|zsh|fish", summary: "print what makes the shell complete commands, flags and keys", local: true,
		check: func(args []string) error {
			if len(args) == 1 {
				out = shells[args[0]]
			}
			if out == "" {
				return badUsage("which shell: bash, zsh or fish?")
			}
			return nil
		},
		run: func(_ context.Context, s *session, _ []string) error {
			fmt.Fprint(s.env.Stdout, out)
			return nil
		},
	}
}

// The scripts ask "etcdctl complete" for the words that fit, one a line. They add
// no blank behind a directory, so that a key can be typed on.
const (
	bashScript = `# bash completion for etcdctl: . <(etcdctl completion bash)
_etcdctl() {
	local line=${COMP_LINE:0:COMP_POINT}
	local -a words
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	mapfile -t COMPREPLY < <(etcdctl complete -- "${words[@]:1}" 2>/dev/null)
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]]; then
		compopt -o nospace 2>/dev/null
	fi
}
complete -F _etcdctl etcdctl
`
	zshScript = `#compdef etcdctl
# zsh completion for etcdctl: source <(etcdctl completion zsh)
_etcdctl() {
	local -a fits
	fits=("${(@f)$(etcdctl complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	[[ -n $fits ]] || return 1
	compadd -S '' -- ${(M)fits:#*/}
	compadd -- ${fits:#*/}
}
compdef _etcdctl etcdctl
`
	fishScript = `# fish completion for etcdctl: etcdctl completion fish | source
function __etcdctl_complete
	set -l words (commandline -opc)
	etcdctl complete -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c etcdctl -f -a '(__etcdctl_complete)'
`
)

// completeCommand is what the scripts above ask.
func completeCommand() command {
	return command{
		name: "complete", args: "-- WORD...", summary: "the words that fit the last one, for the shell", local: true, hidden: true,
		run: func(ctx context.Context, s *session, args []string) error {
			if len(args) == 0 {
				args = []string{""}
			}
			for _, fit := range s.complete(ctx, args[:len(args)-1], args[len(args)-1]) {
				fmt.Fprintln(s.env.Stdout, fit)
			}
			return nil
		},
	}
}

// answerShell is what "flotilla completion" asks its programs: the words that fit
// the last one, and then, in cobra's numbers, that no file name does, nor a blank
// behind a directory.
func (s *session) answerShell(ctx context.Context, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	fits := s.complete(ctx, words[:len(words)-1], words[len(words)-1])
	for _, fit := range fits {
		fmt.Fprintln(s.env.Stdout, fit)
	}
	if len(fits) == 1 && strings.HasSuffix(fits[0], "/") {
		fmt.Fprintln(s.env.Stdout, ":6")
		return
	}
	fmt.Fprintln(s.env.Stdout, ":4")
}

// complete lists the words that begin with typed and may come behind the others:
// commands, flags, or keys of the store.
func (s *session) complete(ctx context.Context, before []string, typed string) []string {
	global := newSession(s.env).global
	cmd, among, fs := place(before, global)
	switch {
	case strings.HasPrefix(typed, "-"):
		return flagsWith(fs, typed)
	case cmd == nil:
		var fits []string
		for _, c := range among {
			if strings.HasPrefix(c.name, typed) && !c.hidden {
				fits = append(fits, c.name)
			}
		}
		return fits
	case cmd.takesKey():
		return s.keysWith(ctx, before, typed)
	}
	return nil
}

// place is the command that the words have come to, with the flags that it knows;
// or, while there is none yet, the commands among which it will be.
func place(words []string, global *flag.FlagSet) (cmd *command, among []command, fs *flag.FlagSet) {
	among, fs = commands(), global
	for i := 0; i < len(words); i++ {
		if name, hasValue, isFlag := asFlag(words[i]); isFlag {
			if f := fs.Lookup(name); f != nil && !hasValue && !isBool(f) {
				i++ // its value
			}
			continue
		}
		if cmd != nil {
			continue // an argument
		}
		c, ok := find(among, words[i])
		switch {
		case !ok:
			return nil, nil, fs
		case c.sub != nil:
			among = c.sub
		default:
			cmd, fs = &c, flagsWithGlobal(c, global)
		}
	}
	return cmd, among, fs
}

// takesKey tells whether the command's first argument is a key.
func (c command) takesKey() bool {
	return strings.HasPrefix(strings.TrimPrefix(c.args, "["), "KEY")
}

func flagsWith(fs *flag.FlagSet, typed string) []string {
	var fits []string
	fs.VisitAll(func(f *flag.Flag) {
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		if strings.HasPrefix(dashes+f.Name, typed) {
			fits = append(fits, dashes+f.Name)
		}
	})
	return fits
}

// completeWithin is how long a shell waits for keys: a person has pressed a key.
const completeWithin = time.Second

// keysWith is the keys that begin with typed, in the directory that it is in; a
// directory ends in a slash. None if the store does not answer: a shell has nowhere
// to show an error.
func (s *session) keysWith(ctx context.Context, before []string, typed string) []string {
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	asked := newSession(s.env)
	if asked.global.Parse(before) != nil || asked.connect(ctx, true) != nil {
		return nil
	}
	defer asked.client.Close()
	dir := typed[:strings.LastIndexByte(typed, '/')+1]
	r, err := asked.client.Get(ctx, dir, keys.GetOptions{Sorted: true})
	if err != nil {
		return nil
	}
	var fits []string
	for _, n := range r.Node.Nodes {
		key := n.Key
		if n.Dir {
			key += "/"
		}
		if strings.HasPrefix(key, "/"+strings.TrimPrefix(typed, "/")) {
			fits = append(fits, key)
		}
	}
	return fits
}
