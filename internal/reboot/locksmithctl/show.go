package locksmithctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"flotilla/internal/cli"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

func (s *session) status() *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "show who holds the lock, and why nobody gets it",
	}
	c.Flags().BoolVar(&asJSON, "json", false, "for programs; with --watch an object a line")
	c.Flags().BoolVar(&watch, "watch", false, "show it again after each change, until interrupted")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "status takes no arguments")
		}
		return s.with(func(l *lock.Lock) error {
			if watch {
				return s.follow(c.Context(), l, asJSON)
			}
			now, err := l.Read(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(s.env.Stdout, statusOf(l, now))
			}
			return writeStatus(s.env.Stdout, l, now.Semaphore)
		})
	}
	return c
}

// follow shows the lock after each change. A store that is away for a while is told
// on stderr and waited for.
func (s *session) follow(ctx context.Context, l *lock.Lock, asJSON bool) error {
	enc := json.NewEncoder(s.env.Stdout)
	first := true
	for u := range l.Watch(ctx) {
		var err error
		switch {
		case u.Err != nil:
			fmt.Fprintf(s.env.Stderr, "locksmithctl: %v\n", u.Err)
		case asJSON:
			err = enc.Encode(statusOf(l, u.State))
		default:
			if !first {
				fmt.Fprintln(s.env.Stdout)
			}
			fmt.Fprintf(s.env.Stdout, "Index: %d\n", u.Index)
			err = writeStatus(s.env.Stdout, l, u.Semaphore)
		}
		if err != nil {
			return err
		}
		first = first && u.Err != nil
	}
	return nil
}

// writeStatus writes the lock in the classic words, and below them ours.
func writeStatus(w io.Writer, l *lock.Lock, s sema.Semaphore) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Available: %d\nMax: %d\n", s.Free(), s.Max)
	if len(s.Holders) > 0 {
		fmt.Fprintf(&b, "\nMACHINE ID\n%s\n", strings.Join(s.Holders, "\n"))
	}
	if len(s.Details) > 0 {
		var rows [][]string
		for _, m := range s.Holders {
			d := s.Details[m]
			rows = append(rows, []string{m, dash(d.Hostname), dash(string(d.Phase)), when(d.Since), dash(d.Why)})
		}
		b.WriteByte('\n')
		if err := cli.WriteTable(&b, []string{"HOLDER", "HOSTNAME", "PHASE", "SINCE", "WHY"}, rows); err != nil {
			return err
		}
	}
	switch {
	case s.Stopped != nil:
		fmt.Fprintf(&b, "\nStopped: %s\nGo on with 'locksmithctl%s resume' when you have looked after it.\n", s.Stopped.Why, groupFlag(l))
	case len(s.Bad) > 0:
		b.WriteByte('\n')
		for _, c := range s.Bad {
			fmt.Fprintf(&b, "Bad: %s: %s: %s\n", sema.Name(c.Machine, c.Hostname), c.Result, c.Why)
		}
	}
	_, err := io.WriteString(w, plain(b.String()))
	return err
}

// plain leaves out what would move a terminal's cursor or colour it: names and
// reasons are written by other machines.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// status is the lock for programs. Fields are only ever added.
type status struct {
	Group     string          `json:"group"`
	Key       string          `json:"key"`
	Index     uint64          `json:"index"` // of the last change; 0: nobody has written the lock
	Available int             `json:"available"`
	Max       int             `json:"max"`
	StopAfter int             `json:"stop_after"`
	Holders   []holder        `json:"holders"`
	Bad       []sema.Casualty `json:"bad"`
	Stopped   *sema.Stop      `json:"stopped,omitempty"`
}

type holder struct {
	Machine string `json:"machine"`
	sema.Detail
}

func statusOf(l *lock.Lock, now lock.State) status {
	out := status{
		Group: l.Group(), Key: lock.Key(l.Group()), Index: now.Index,
		Available: now.Free(), Max: now.Max, StopAfter: now.StopAfter,
		Holders: []holder{}, Bad: append([]sema.Casualty{}, now.Bad...), Stopped: now.Stopped,
	}
	for _, m := range now.Holders {
		out.Holders = append(out.Holders, holder{m, now.Details[m]})
	}
	return out
}

func (s *session) history() *cobra.Command {
	var asJSON bool
	var most int
	c := &cobra.Command{
		Use:   "history",
		Short: "show who held the lock and how it ended, the newest first",
	}
	c.Flags().BoolVar(&asJSON, "json", false, "for programs")
	c.Flags().IntVarP(&most, "lines", "n", 20, "how many; 0: all that are kept")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "history takes no arguments")
		}
		return s.with(func(l *lock.Lock) error {
			all, err := l.History(c.Context())
			if err != nil {
				return err
			}
			if most > 0 && len(all) > most {
				all = all[:most]
			}
			if asJSON {
				return cli.JSON(s.env.Stdout, append([]sema.Record{}, all...))
			}
			var rows [][]string
			for _, r := range all {
				rows = append(rows, []string{when(r.Taken), when(r.Released), r.Machine, dash(r.Hostname), r.Result, dash(r.Why)})
			}
			var b strings.Builder
			if err := cli.WriteTable(&b, []string{"TAKEN", "RELEASED", "MACHINE ID", "HOSTNAME", "RESULT", "WHY"}, rows); err != nil {
				return err
			}
			_, err = io.WriteString(s.env.Stdout, plain(b.String()))
			return err
		})
	}
	return c
}

func (s *session) groups() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "groups",
		Short: "list the groups of machines that have a lock of their own",
	}
	c.Flags().BoolVar(&asJSON, "json", false, "for programs: a list of names")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "groups takes no arguments")
		}
		names, err := s.groupNames(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return cli.JSON(s.env.Stdout, append([]string{}, names...))
		}
		for _, name := range names {
			fmt.Fprintln(s.env.Stdout, plain(name))
		}
		return nil
	}
	return c
}

// groupNames is the groups that have a lock.
func (s *session) groupNames(ctx context.Context) ([]string, error) {
	client, err := s.store()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	names, err := lock.Groups(ctx, client)
	return names, hinted(err)
}

// completeGroup offers what may stand behind -group.
func (s *session) completeGroup(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := s.fromEnvironment(c); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := s.groupNames(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
