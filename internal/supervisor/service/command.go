package service

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"flotilla/internal/unitfile"
)

// Command is one command of an Exec line.
type Command struct {
	Path          string   // absolute, or a bare name to look up in SearchPath
	Args          []string // argv, with argv[0]; variables not yet replaced
	IgnoreFailure bool     // "-"
	NoExpand      bool     // ":": variables stay as they are
	Privileged    bool     // "+" and "!": User= and Group= do not apply
	Line          int      // in the unit file, or in DropIn
	DropIn        string   // the drop-in that has it, "" for the unit file itself
}

// SearchPath is where a command without a slash is looked for, and the PATH that
// units get: the one that systemd has built in.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// parseCommands reads the value of an Exec option: commands separated by a ";"
// that stands alone, each with its prefixes (systemd.service(5), "Command lines").
func parseCommands(value string, line int, expand func(string) string) ([]Command, error) {
	words, err := unitfile.QuotedWords(value, unitfile.Lenient)
	if err != nil {
		return nil, err
	}
	var out []Command
	for len(words) > 0 {
		end := slices.Index(words, unitfile.Word{Text: ";"})
		if end < 0 {
			end = len(words)
		}
		if end > 0 {
			c, err := parseCommand(words[:end], line, expand)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
		words = words[min(end+1, len(words)):]
	}
	return out, nil
}

func parseCommand(words []unitfile.Word, line int, expand func(string) string) (Command, error) {
	c := Command{Line: line}
	rest, ownName, err := c.prefixes(words[0].Text)
	if err != nil {
		return Command{}, err
	}
	c.Path = expand(rest)
	switch {
	case c.Path == "":
		return Command{}, errors.New("no command after the prefixes")
	case strings.HasSuffix(c.Path, "/"):
		return Command{}, fmt.Errorf("%s is a directory", c.Path)
	case strings.Contains(c.Path, "/"):
		if !path.IsAbs(c.Path) {
			return Command{}, fmt.Errorf("%s is neither an absolute path nor a bare name", c.Path)
		}
		c.Path = path.Clean(c.Path)
	}
	if ownName && len(words) < 2 {
		return Command{}, errors.New("'@' wants the name to run under as second word")
	}
	if !ownName {
		c.Args = []string{c.Path}
	}
	for _, w := range words[1:] {
		c.Args = append(c.Args, expand(w.Text))
	}
	return c, nil
}

// prefixes takes the special characters off the executable. Each counts once;
// "+", "!" and "!!" exclude each other.
func (c *Command) prefixes(word string) (rest string, ownName bool, err error) {
	privileges := 0
	for {
		switch {
		case strings.HasPrefix(word, "-") && !c.IgnoreFailure:
			c.IgnoreFailure = true
		case strings.HasPrefix(word, "@") && !ownName:
			ownName = true
		case strings.HasPrefix(word, ":") && !c.NoExpand:
			c.NoExpand = true
		case strings.HasPrefix(word, "!!"):
			// With ambient capabilities in the kernel, "!!" means nothing: they
			// are older than any kernel that we run on.
			privileges++
			word = word[1:]
		case strings.HasPrefix(word, "+"), strings.HasPrefix(word, "!"):
			c.Privileged = true
			privileges++
		default:
			if privileges > 1 {
				err = errors.New("only one of the prefixes '+', '!' and '!!' can be used")
			}
			return word, ownName, err
		}
		word = word[1:]
	}
}

// Argv replaces variables in the arguments (systemd.service(5), "Command lines"):
// a word that is $NAME becomes the words of the value, ${NAME} is replaced inside
// a word, $$ is a dollar sign; a dollar sign within a word is just that. The command itself is never replaced. A variable
// that is not set is empty; unset returns the names of those.
func (c Command) Argv(env []string) (argv, unset []string) {
	if c.NoExpand {
		return slices.Clone(c.Args), nil
	}
	e := expander{env: env}
	argv = append(argv, c.Args[0])
	for _, a := range c.Args[1:] {
		argv = append(argv, e.words(a)...)
	}
	return argv, e.unset
}

type expander struct {
	env   []string
	unset []string
}

func (e *expander) get(name string) string {
	v, ok := Getenv(e.env, name)
	if !ok && !slices.Contains(e.unset, name) {
		e.unset = append(e.unset, name)
	}
	return v
}

// Getenv returns the value of a variable in a list of NAME=VALUE: the last counts.
func Getenv(env []string, name string) (string, bool) {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// words is what becomes of one argument. One that begins with a lone dollar is the
// variable of all that follows, be that a name or not: $ONE$TWO and $ONE-x name no
// variable, so that nothing is left of them.
func (e *expander) words(arg string) []string {
	name, ok := strings.CutPrefix(arg, "$")
	if ok && !strings.HasPrefix(name, "{") && !strings.HasPrefix(name, "$") {
		value := e.get(name)
		words, err := unitfile.Words(value, unitfile.Lenient)
		if err != nil {
			return strings.Fields(value)
		}
		return words
	}
	return []string{e.inside(arg)}
}

func (e *expander) inside(arg string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(arg, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			arg = after[1:]
		case strings.HasPrefix(after, "{") && closed && unitfile.CheckEnvName(name) == nil:
			b.WriteString(e.get(name))
			arg = rest
		default:
			b.WriteByte('$')
			arg = after
		}
	}
}

// String is the command line as a person reads it in messages.
func (c Command) String() string { return strings.Join(append([]string{c.Path}, c.Args[1:]...), " ") }
