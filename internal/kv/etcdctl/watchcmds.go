package etcdctl

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"strconv"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

// watchFlags are those that both kinds of watch have.
func watchFlags(fs *flag.FlagSet, o *keys.WatchOptions) {
	fs.Uint64Var(&o.After, "after-index", 0, "begin behind this index; 0 is from now on")
	both(fs, &o.Recursive, "recursive", "r", "everything below the key too")
}

func watchCommand() command {
	var o keys.WatchOptions
	var forever bool
	return command{
		name: "watch", args: "KEY", summary: "wait for a change of a key and print it", atMost: 1,
		flags: func(fs *flag.FlagSet) {
			watchFlags(fs, &o)
			both(fs, &forever, "forever", "f", "print every change until interrupted")
		},
		run: func(ctx context.Context, s *session, args []string) error {
			k, err := key(args)
			if err != nil {
				return err
			}
			return s.eachChange(ctx, k, o, func(r *keys.Response) (more bool, err error) {
				if r.Node.Dir {
					return true, nil // has no value to print
				}
				if o.Recursive {
					fmt.Fprintf(s.env.Stdout, "[%s] %s\n", r.Action, r.Node.Key)
				}
				s.print(r)
				return forever, nil
			})
		},
	}
}

// eachChange calls do for each event until it wants no more, fails, or the user
// interrupts.
func (s *session) eachChange(ctx context.Context, k string, o keys.WatchOptions, do func(*keys.Response) (bool, error)) error {
	w := s.client.Watch(k, o)
	for {
		r, err := w.Next(ctx)
		if stopped(ctx, err) {
			return nil
		}
		if err != nil {
			return fromStore(err)
		}
		if more, err := do(r); err != nil || !more {
			return err
		}
	}
}

func execWatchCommand() command {
	var o keys.WatchOptions
	return command{
		name: "exec-watch", args: "KEY -- COMMAND [ARGS...]", summary: "run a command at every change of a key", foreign: 2,
		flags: func(fs *flag.FlagSet) { watchFlags(fs, &o) },
		run: func(ctx context.Context, s *session, args []string) error {
			if len(args) < 2 {
				return badUsage("key and command to exec required")
			}
			return s.eachChange(ctx, args[0], o, func(r *keys.Response) (bool, error) {
				if r.Node.Dir {
					fmt.Fprintf(s.env.Stderr, "Ignored dir %s change\n", r.Node.Key)
					return true, nil
				}
				return true, s.spawn(r, args[1:])
			})
		},
	}
}

// spawn starts the command for an event and does not wait for it: two changes in
// quick succession run it twice at the same time.
func (s *session) spawn(r *keys.Response, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = s.env.Stdout, s.env.Stderr
	cmd.Env = append(cmd.Environ(),
		"ETCD_WATCH_ACTION="+r.Action,
		"ETCD_WATCH_KEY="+r.Node.Key,
		"ETCD_WATCH_MODIFIED_INDEX="+strconv.FormatUint(r.Node.ModifiedIndex, 10),
		"ETCD_WATCH_VALUE="+value(r.Node),
	)
	if err := cmd.Start(); err != nil {
		return fault.Code(exitUsage, said{err})
	}
	go cmd.Wait() // its exit status is its own business
	return nil
}
