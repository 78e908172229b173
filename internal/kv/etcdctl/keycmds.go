package etcdctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

// seconds is a TTL flag: values up to 0 mean none.
func seconds(n int) time.Duration { return time.Duration(max(n, 0)) * time.Second }

func ttlFlag(fs *flag.FlagSet, p *int) { fs.IntVar(p, "ttl", 0, "seconds to live; 0 is for ever") }

// both declares a flag under a long and a short name.
func both(fs *flag.FlagSet, p *bool, long, short, usage string) {
	fs.BoolVar(p, long, false, usage)
	fs.BoolVar(p, short, false, usage)
}

func key(args []string) (string, error) {
	if len(args) == 0 {
		return "", badUsage("key required")
	}
	return args[0], nil
}

// keyAndValue takes the value from stdin, whole, where it is not an argument.
func keyAndValue(s *session, args []string) (k, v string, err error) {
	if k, err = key(args); err != nil {
		return "", "", err
	}
	if len(args) > 1 {
		return k, args[1], nil
	}
	raw, err := io.ReadAll(s.env.Stdin)
	if err != nil {
		return "", "", fault.Code(exitUsage, fmt.Errorf("read the value from stdin: %w", err))
	}
	if len(raw) == 0 {
		return "", "", badUsage("value required")
	}
	return k, string(raw), nil
}

func setCommand() command {
	var ttl int
	var o keys.SetOptions
	return command{
		name: "set", args: "KEY [VALUE]", summary: "write a key; without VALUE what stdin holds", atMost: 2,
		flags: func(fs *flag.FlagSet) {
			ttlFlag(fs, &ttl)
			fs.StringVar(&o.PrevValue, "swap-with-value", "", "only if this is the value before")
			fs.Uint64Var(&o.PrevIndex, "swap-with-index", 0, "only if this is the modified index before")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			k, v, err := keyAndValue(s, args)
			if err != nil {
				return err
			}
			o.TTL = seconds(ttl)
			r, err := s.client.Set(ctx, k, v, o)
			return s.show(r, err)
		},
	}
}

// show prints an answer, or passes on why there is none.
func (s *session) show(r *keys.Response, err error) error {
	if err != nil {
		return fromStore(err)
	}
	s.print(r)
	return nil
}

func mkCommand() command {
	var ttl int
	var inOrder bool
	return command{
		name: "mk", args: "KEY [VALUE]", summary: "write a key that must not exist", atMost: 2,
		flags: func(fs *flag.FlagSet) {
			ttlFlag(fs, &ttl)
			fs.BoolVar(&inOrder, "in-order", false, "make a key below KEY, named in order of making")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			k, v, err := keyAndValue(s, args)
			if err != nil {
				return err
			}
			if inOrder {
				return s.show(s.client.CreateInOrder(ctx, k, v, seconds(ttl)))
			}
			return s.show(s.client.Create(ctx, k, v, seconds(ttl)))
		},
	}
}

func updateCommand() command {
	var ttl int
	return command{
		name: "update", args: "KEY [VALUE]", summary: "write a key that must exist", atMost: 2,
		flags: func(fs *flag.FlagSet) { ttlFlag(fs, &ttl) },
		run: func(ctx context.Context, s *session, args []string) error {
			k, v, err := keyAndValue(s, args)
			if err != nil {
				return err
			}
			return s.show(s.client.Update(ctx, k, v, seconds(ttl)))
		},
	}
}

func getCommand() command {
	var o keys.GetOptions
	return command{
		name: "get", args: "KEY", summary: "read a key", atMost: 1,
		flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&o.Sorted, "sort", false, "children by key")
			both(fs, &o.Quorum, "quorum", "q", "let a majority confirm what is read")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			k, err := key(args)
			if err != nil {
				return err
			}
			r, err := s.client.Get(ctx, k, o)
			if err != nil {
				return fromStore(err)
			}
			if r.Node.Dir {
				return fault.Code(exitUsage, said{fmt.Errorf("%s: is a directory", r.Node.Key)})
			}
			s.print(r)
			return nil
		},
	}
}

func lsCommand() command {
	var o keys.GetOptions
	var slash bool
	return command{
		name: "ls", args: "[KEY]", summary: "list a directory", atMost: 1,
		flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&o.Sorted, "sort", false, "by key")
			both(fs, &o.Recursive, "recursive", "r", "everything below it too")
			fs.BoolVar(&slash, "p", false, "add a slash to directories")
			both(fs, &o.Quorum, "quorum", "q", "let a majority confirm what is read")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			k := "/"
			if len(args) > 0 {
				k = args[0]
			}
			r, err := s.client.Get(ctx, k, o)
			if err != nil {
				return fromStore(err)
			}
			if s.output != "simple" {
				s.print(r)
				return nil
			}
			if !r.Node.Dir {
				fmt.Fprintln(s.env.Stdout, r.Node.Key)
			}
			listBelow(s.env.Stdout, r.Node, slash)
			return nil
		},
	}
}

// listBelow writes the keys below n, each directory before what is in it.
func listBelow(w io.Writer, n *keys.Node, slash bool) {
	for _, child := range n.Nodes {
		mark := ""
		if child.Dir && slash {
			mark = "/"
		}
		fmt.Fprintln(w, child.Key+mark)
		listBelow(w, child, slash)
	}
}

// dirCommand is what mkdir, setdir and updatedir have in common.
func dirCommand(name, summary string, prev keys.Existence) command {
	var ttl int
	return command{
		name: name, args: "KEY", summary: summary, atMost: 1,
		flags: func(fs *flag.FlagSet) { ttlFlag(fs, &ttl) },
		run: func(ctx context.Context, s *session, args []string) error {
			k, err := key(args)
			if err != nil {
				return err
			}
			r, err := s.client.Set(ctx, k, "", keys.SetOptions{Dir: true, PrevExist: prev, TTL: seconds(ttl)})
			if err != nil {
				return fromStore(err)
			}
			if s.output != "simple" {
				s.print(r)
			}
			return nil
		},
	}
}

func mkdirCommand() command {
	return dirCommand("mkdir", "make a directory that must not exist", keys.MustNotExist)
}

func setdirCommand() command {
	return dirCommand("setdir", "make a directory, in place of a file if there is one", keys.Any)
}

func updatedirCommand() command {
	return dirCommand("updatedir", "change the time to live of a directory", keys.MustExist)
}

func rmCommand() command {
	var o keys.DeleteOptions
	return command{
		name: "rm", args: "KEY", summary: "remove a key or a directory", atMost: 1,
		flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&o.Dir, "dir", false, "an empty directory")
			both(fs, &o.Recursive, "recursive", "r", "a directory with all in it")
			fs.StringVar(&o.PrevValue, "with-value", "", "only if this is its value")
			fs.Uint64Var(&o.PrevIndex, "with-index", 0, "only if this is its modified index")
		},
		run: func(ctx context.Context, s *session, args []string) error { return remove(ctx, s, args, o) },
	}
}

func rmdirCommand() command {
	return command{
		name: "rmdir", args: "KEY", summary: "remove a key or an empty directory", atMost: 1,
		run: func(ctx context.Context, s *session, args []string) error {
			return remove(ctx, s, args, keys.DeleteOptions{Dir: true})
		},
	}
}

func remove(ctx context.Context, s *session, args []string, o keys.DeleteOptions) error {
	k, err := key(args)
	if err != nil {
		return err
	}
	r, err := s.client.Delete(ctx, k, o)
	if err != nil {
		return fromStore(err)
	}
	s.printUnlessPlainDir(r)
	return nil
}

// stopped tells a watch that was interrupted from one that failed.
func stopped(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}
