package etcdctl

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

func (s *session) help(w io.Writer) {
	called := s.env.CalledOr("etcdctl")
	fmt.Fprintf(w, "NAME:\n   %s - keys of the store from the command line (v2)\n\n"+
		"USAGE:\n   %s [global options] command [command options] [arguments...]\n\nCOMMANDS:\n", called, called)
	list(w, commands())
	fmt.Fprintf(w, "\nGLOBAL OPTIONS:\n")
	options(w, s.global)
}

// helpOn is "etcdctl help [COMMAND [SUBCOMMAND]]".
func (s *session) helpOn(names []string) error {
	if len(names) == 0 {
		s.help(s.env.Stdout)
		return nil
	}
	path, among := s.env.CalledOr("etcdctl"), commands()
	for i, name := range names {
		c, ok := find(among, name)
		if !ok {
			return unknownCommand(name, among)
		}
		path += " " + c.name
		if c.sub != nil && i+1 < len(names) {
			among = c.sub
			continue
		}
		if c.sub != nil {
			helpGroup(s.env.Stdout, path, c)
		} else {
			helpCommand(s.env.Stdout, path, c)
		}
		break
	}
	return nil
}

func helpGroup(w io.Writer, path string, c command) {
	fmt.Fprintf(w, "NAME:\n   %s - %s\n\nUSAGE:\n   %s command [command options] [arguments...]\n\nCOMMANDS:\n", path, c.summary, path)
	list(w, c.sub)
}

func helpCommand(w io.Writer, path string, c command) {
	fmt.Fprintf(w, "NAME:\n   %s - %s\n\nUSAGE:\n   %s [command options] %s\n", path, c.summary, path, c.args)
	if c.flags == nil {
		return
	}
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.flags(fs)
	fmt.Fprintf(w, "\nOPTIONS:\n")
	options(w, fs)
}

func list(w io.Writer, cs []command) {
	for _, c := range cs {
		if c.hidden {
			continue
		}
		fmt.Fprintf(w, "   %-15s %s\n", c.name, c.summary)
	}
}

// options lists flags, one letter names behind the long name they stand for.
func options(w io.Writer, fs *flag.FlagSet) {
	short := map[string]string{} // by usage text, which the two names share
	fs.VisitAll(func(f *flag.Flag) {
		if len(f.Name) == 1 {
			short[f.Usage] = ", -" + f.Name
		}
	})
	fs.VisitAll(func(f *flag.Flag) {
		if len(f.Name) == 1 && strings.HasPrefix(f.Usage, "add a slash") {
			fmt.Fprintf(w, "   %-28s %s\n", "-"+f.Name, f.Usage)
		}
		if len(f.Name) == 1 {
			return
		}
		name := "--" + f.Name
		if !isBool(f) {
			name += " VALUE"
		}
		text := f.Usage
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "   %-28s %s\n", name+short[f.Usage], text)
	})
}
