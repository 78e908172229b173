package fleetctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// following is the flags of events.
type following struct {
	format
	follow        bool
	since         instant
	unit, machine string
}

func (s *session) events() *cobra.Command {
	o := &following{}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "tell what happened in the cluster, and why",
		Long: "Tell what happened in the cluster, and why: units placed, moved and failed, machines that\n" +
			"came and went, rolls, who changed what. The cluster keeps a week.\n\n" +
			"  fleetctl events --since 1h\n" +
			"  fleetctl events -f --unit web@1",
		Args: noArgs,
		RunE: s.reporting(func(ctx context.Context, _ []string) error { return s.doEvents(ctx, o) }),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what happens, until interrupted")
	f.Var(&o.since, "since", sinceHelp)
	f.StringVar(&o.unit, "unit", "", "only what is about this unit")
	f.StringVar(&o.machine, "machine", "", "only what is about this machine (id or its beginning, address, host name)")
	o.format.flags(cmd, "short|json")
	return cmd
}

func (s *session) doEvents(ctx context.Context, o *following) error {
	asJSON, err := o.asJSON("short")
	if err != nil {
		return err
	}
	q := fleet.EventQuery{Since: o.since.Time, Follow: o.follow}
	if o.unit != "" {
		if q.Unit, err = unitArg(o.unit); err != nil {
			return err
		}
	}
	if o.machine != "" {
		if q.Machine, err = s.anyMachineID(ctx, o.machine); err != nil {
			return err
		}
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	colour := s.colours()
	err = s.keepReading(ctx, o.follow, func(since time.Time) iter.Seq2[time.Time, error] {
		if since.After(q.Since) {
			q.Since = since
		}
		return mapped(c.Events(ctx, q), func(e api.Event) time.Time {
			if asJSON {
				s.sayJSON(e)
			} else {
				s.say("%s", eventLine(e, colour))
			}
			return e.At
		})
	})
	if err != nil {
		return sentence("Error retrieving events: %w", err)
	}
	return nil
}

// eventLine is an event in one line.
func eventLine(e api.Event, colour func(string, string) string) string {
	kind := fmt.Sprintf("%-8s", e.Kind)
	switch e.Kind {
	case "failure":
		kind = colour(red, kind)
	case "hold":
		kind = colour(yellow, kind)
	}
	words := []string{timeCell(e.At), kind}
	if e.Unit != "" {
		words = append(words, e.Unit)
	}
	if e.Machine != "" {
		words = append(words, "@"+shortID(e.Machine, false))
	}
	line := strings.Join(append(words, model.OneLine(e.What)), " ")
	if e.Why != "" {
		line += ": " + model.OneLine(e.Why)
	}
	if e.By != "" {
		line += " (by " + e.By + ")"
	}
	return line
}

// sayJSON prints a value as one line of JSON.
func (s *session) sayJSON(v any) {
	_ = json.NewEncoder(s.env.Stdout).Encode(v) // the output's reader may be gone: nobody to tell
}

// mapped is a sequence with something done for each item.
func mapped[T, U any](seq iter.Seq2[T, error], do func(T) U) iter.Seq2[U, error] {
	return func(yield func(U, error) bool) {
		for item, err := range seq {
			var u U
			if err == nil {
				u = do(item)
			}
			if !yield(u, err) {
				return
			}
		}
	}
}

// keepReading reads a stream of things that have a time. One that is followed and
// breaks off is read on from its last thing, as long as a wait would last; the person
// is told.
func (s *session) keepReading(ctx context.Context, follow bool, open func(since time.Time) iter.Seq2[time.Time, error]) error {
	var last, lostAt time.Time
	for {
		var broken error
		for at, err := range open(last) {
			if broken = err; err != nil {
				break
			}
			lostAt = time.Time{}
			if !at.IsZero() {
				last = at.Add(time.Microsecond) // that one has been told
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil // the person has seen enough
		case broken != nil && !(follow && errors.Is(broken, fleet.ErrUnavailable)), !follow:
			return broken
		case lostAt.IsZero():
			lostAt = time.Now()
			if last.IsZero() {
				last = lostAt // what was there has been told, or there was nothing
			}
			s.warn("note: the fleet API has broken off; trying again")
		case time.Since(lostAt) > awayLimit:
			if broken == nil {
				broken = fleet.ErrEnded
			}
			return broken
		}
		pause(ctx, retryEvery)
	}
}

// logging is the flags of logs.
type logging struct {
	format
	follow   bool
	since    instant
	priority string
	grep     string
	lines    int
	machine  string
}

func (s *session) logs() *cobra.Command {
	o := &logging{}
	cmd := &cobra.Command{
		Use:   "logs UNIT|PATTERN...",
		Short: "print the logs of units from all machines, in order of time",
		Long: "Print the logs of units from all machines, merged in order of time. Followed, they go on\n" +
			"when a machine that was away has returned.\n\n" +
			"  fleetctl logs -f 'web@*'\n" +
			"  fleetctl logs --since 1h --priority err '*'\n" +
			"  fleetctl logs -o json --grep 'status=5..' web@1 | jq .message",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doLogs(ctx, o, args) }),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines, until interrupted")
	f.Var(&o.since, "since", sinceHelp)
	f.StringVarP(&o.priority, "priority", "p", "", "only what is as urgent as that: emerg alert crit err warning notice info debug, or 0 to 7")
	f.StringVarP(&o.grep, "grep", "g", "", "only what a regular expression matches (RE2)")
	f.IntVarP(&o.lines, "lines", "n", 10, "how many of the newest lines of each unit and machine; with --since all")
	f.StringVar(&o.machine, "machine", "", "only from this machine (id or its beginning, address, host name)")
	o.format.flags(cmd, "short|cat|json")
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("lines") {
			o.lines = -1 // the server knows how many
		} else if o.lines < 0 {
			return fault.Usage("--lines %d: want 0 or more", o.lines)
		}
		return inner(cmd, args)
	}
	return cmd
}

// priorities are the words of syslog(3), most urgent first.
var priorities = []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

// parsePriority reads a word or a number; nil for none.
func parsePriority(v string) (*int, error) {
	if v == "" {
		return nil, nil
	}
	n := slices.Index(priorities, v)
	if i, err := strconv.Atoi(v); err == nil {
		n = i
	}
	if n < 0 || n > 7 {
		return nil, fault.Usage("--priority %q: want one of %s, or 0 to 7", v, strings.Join(priorities, " "))
	}
	return &n, nil
}

// query is what the flags and arguments ask for.
func (o *logging) query(args []string) (q fleet.LogQuery, err error) {
	if args, err = expandBraces(args); err != nil {
		return q, err
	}
	for _, a := range args {
		pattern := unitfile.Complete(a)
		if isGlob(a) {
			pattern = globName(a)
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return q, fault.Usage("pattern %q: %v", a, err)
		}
		q.Units = append(q.Units, pattern)
	}
	if len(q.Units) == 0 {
		return q, fault.Hint(fault.Usage("logs wants units"), "'*' is all of them")
	}
	if _, err := regexp.Compile(o.grep); err != nil {
		return q, fault.Usage("--grep: %v", err)
	}
	if q.Priority, err = parsePriority(o.priority); err != nil {
		return q, err
	}
	if o.lines >= 0 {
		q.Lines = &o.lines
	}
	q.Since, q.Grep, q.Follow = o.since.Time, o.grep, o.follow
	return q, nil
}

func (s *session) doLogs(ctx context.Context, o *logging, args []string) error {
	asJSON, err := o.asJSON("short", "cat")
	if err != nil {
		return err
	}
	if asJSON {
		o.output = "json"
	}
	q, err := o.query(args)
	if err != nil {
		return err
	}
	if q.Machine, err = s.machineID(ctx, o.machine); err != nil {
		return err
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	colour := s.colours()
	err = s.keepReading(ctx, o.follow, func(since time.Time) iter.Seq2[time.Time, error] {
		if since.After(q.Since) {
			q.Since, q.Lines = since, nil
		}
		return mapped(c.Logs(ctx, q), func(e fleet.LogEntry) time.Time {
			s.sayEntry(o.output, e, colour)
			return e.Time
		})
	})
	if err != nil {
		return sentence("Unable to read the logs: %w", err)
	}
	return nil
}

// sayEntry prints a log entry behind the machine and unit that it is from; a remark on
// the stream goes to standard error.
func (s *session) sayEntry(output string, e fleet.LogEntry, colour func(string, string) string) {
	if e.Notice != "" {
		s.warn("note: %s", e.Notice)
		return
	}
	if output != "short" {
		fmt.Fprintln(s.env.Stdout, formatEntry(output, e))
		return
	}
	who := orDash(e.Ident)
	if e.PID > 0 {
		who = fmt.Sprintf("%s[%d]", who, e.PID)
	}
	from := orDash(e.Machine) + " " + orDash(e.Unit)
	head := fmt.Sprintf("%s %s %s: ", e.Time.Local().Format(time.Stamp), from, who)
	message := strings.ReplaceAll(e.Message, "\n", "\n"+strings.Repeat(" ", len(head)))
	switch {
	case e.Priority <= 3:
		message = colour(red, message)
	case e.Priority == 4:
		message = colour(yellow, message)
	}
	s.say("%s %s %s: %s", e.Time.Local().Format(time.Stamp), colour(shade(from), from), who, message)
}

// shade is a colour for a source: the same one each time.
func shade(source string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(source)) // never fails
	return []string{"32", "33", "34", "35", "36"}[h.Sum32()%5]
}
