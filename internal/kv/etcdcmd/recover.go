package etcdcmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
	"flotilla/internal/logx"
)

// recoverUsage takes what etcd was called as.
const recoverUsage = `usage: %s recover --data-dir DIR [FLAGS]

For a cluster that has lost more than half of its members for good. Makes a cluster
of one out of a member that is left, which has to be stopped; shows what it holds and
asks first. The data of before is kept beside the data directory. Afterwards start
the member as always, and add new ones. Members that come back with their old data
join again by themselves.

  --data-dir DIR   of the member that is left
  --wal-dir DIR    where its log is, if not in the data directory
  --dry-run        show what it holds, change nothing
  --yes            do not ask
  -o, --output json
                   write what it holds as JSON
`

// recovery is a command line of "etcd recover".
type recovery struct {
	dir, wal, output string
	yes, dry         bool
}

func parseRecovery(env applet.Env) (recovery, error) {
	var r recovery
	fs := flag.NewFlagSet("etcd recover", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&r.dir, "data-dir", env.Getenv("ETCD_DATA_DIR"), "")
	fs.StringVar(&r.wal, "wal-dir", env.Getenv("ETCD_WAL_DIR"), "")
	fs.StringVar(&r.output, "o", "", "")
	fs.StringVar(&r.output, "output", "", "")
	fs.BoolVar(&r.yes, "yes", false, "")
	fs.BoolVar(&r.dry, "dry-run", false, "")
	if err := fs.Parse(env.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return r, err
		}
		return r, fault.Code(fault.ExitUsage, fault.Hint(err, "see '%s recover --help'", env.CalledOr("etcd")))
	}
	switch {
	case fs.NArg() > 0:
		return r, fault.Usage("etcd recover takes no %q", fs.Arg(0))
	case r.dir == "":
		return r, fault.Usage("say with --data-dir which data directory is left")
	case r.output != "" && r.output != "json":
		return r, fault.Usage("no output format %q: there is json", r.output)
	}
	return r, nil
}

// runRecover is "etcd recover".
func runRecover(ctx context.Context, env applet.Env) error {
	r, err := parseRecovery(env)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(env.Stdout, recoverUsage, env.CalledOr("etcd"))
		return nil
	}
	if err != nil {
		return err
	}
	h, err := member.Hold(ctx, r.dir, r.wal)
	if err != nil {
		return err
	}
	if err := show(env.Stdout, r.output, h); err != nil || r.dry {
		return err
	}
	if h.Quorum() {
		return fault.Hint(errors.New("the cluster is not lost: a majority of its members answers"),
			"start this member as always; if those that answer are not members any more, stop them first")
	}
	if !r.yes && !agreed(env, h) {
		return fault.Hint(errors.New("nothing was changed"), "answer yes, or give --yes")
	}
	aside, err := member.Recover(ctx, h, r.wal, logx.New(env.Stderr, slog.LevelWarn))
	if err != nil {
		return fault.Hint(fmt.Errorf("recover %s: %w", r.dir, err), "the data of before is at %s, if that exists", aside)
	}
	fmt.Fprintf(env.Stderr, "%s is a cluster of one now. The data of before is at %s.\nStart it as always, then add members: etcdctl member add NAME URL\n", h.Name, aside)
	return nil
}

// show says what a data directory holds, and what may be lost by going on from it.
func show(w io.Writer, output string, h member.Holding) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(h)
	}
	fmt.Fprintf(w, "%s holds member %s (%s of cluster %s):\n", h.Dir, h.Name, h.ID, h.Cluster)
	fmt.Fprintf(w, "  %d keys at revision %d, %d KiB; log up to entry %d of term %d\n", h.Keys, h.Revision, h.Size>>10, h.Last, h.Term)
	if n := h.Last - h.Committed; n > 0 {
		fmt.Fprintf(w, "  %d entries at the end of its log may not have been acknowledged to anybody: they are kept\n", n)
	}
	fmt.Fprintf(w, "members of the cluster, as it knows them:\n")
	for _, m := range h.Members {
		fmt.Fprintf(w, "  %-12s %-16s %-40s %s\n", m.Name, m.ID, strings.Join(m.PeerURLs, ","), fate(h, m))
	}
	_, err := fmt.Fprintf(w, "lost is what the others have acknowledged after entry %d and this one never received\n", h.Last)
	return err
}

func fate(h member.Holding, m member.Other) string {
	switch {
	case m.ID == h.ID:
		return "this one"
	case m.Answers:
		return "somebody answers there"
	}
	return "gone"
}

// agreed asks on stderr and reads the answer from stdin.
func agreed(env applet.Env, h member.Holding) bool {
	fmt.Fprintf(env.Stderr, "Give up all other members and go on with %s alone? [yes/no] ", h.Name)
	line, _ := bufio.NewReader(env.Stdin).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(line), "yes")
}
