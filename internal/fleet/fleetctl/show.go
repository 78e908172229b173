package fleetctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

func (s *session) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArgs,
		RunE: s.reporting(func(context.Context, []string) error {
			fmt.Fprintf(s.env.Stdout, "fleetctl version %s\n", applet.Version)
			return nil
		}),
	}
}

func (s *session) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE...",
		Short: "say what is wrong with unit files, without a cluster",
		Args:  cobra.MinimumNArgs(1),
		RunE: s.reporting(func(_ context.Context, args []string) error {
			var errs []error
			for _, path := range args {
				file, err := readBundle(filepath.Base(path), path)
				if err == nil {
					s.notices(path, file)
				}
				errs = append(errs, err)
			}
			if err := errors.Join(errs...); err != nil {
				return s.each("", err)
			}
			return nil
		}),
	}
}

func (s *session) cat() *cobra.Command {
	f := &format{}
	cmd := &cobra.Command{
		Use:               "cat UNIT",
		Short:             "print a unit's text as the cluster has it",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doCat(ctx, f, args) }),
	}
	f.flags(cmd, "text|json")
	return cmd
}

func (s *session) doCat(ctx context.Context, f *format, args []string) error {
	asJSON, err := f.asJSON("text")
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return sentence("One unit file must be provided")
	}
	name := unitfile.Complete(args[0])
	u, err := s.unit(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrNotExist):
		return sentence("Unit %s not found", name)
	case err != nil:
		return sentence("Error retrieving unit %s: %w", name, err)
	case asJSON:
		return cli.JSON(s.env.Stdout, u)
	}
	_, err = io.WriteString(s.env.Stdout, catText(name, bundleOf(u)))
	return err
}

func (s *session) unit(ctx context.Context, name string) (api.Unit, error) {
	c, err := s.api()
	if err != nil {
		return api.Unit{}, err
	}
	return c.Unit(ctx, name)
}

// unitStatus is a unit in the JSON of status.
type unitStatus struct {
	unitEntry
	States []api.UnitState `json:"states"`
}

func (s *session) status() *cobra.Command {
	f := &format{}
	machine := ""
	cmd := &cobra.Command{
		Use:               "status UNIT|PATTERN...",
		Short:             "print what systemctl status says of units on their machines",
		ValidArgsFunction: s.completeUnits,
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			return s.doStatus(ctx, f, machine, args)
		}),
	}
	f.flags(cmd, "text|json")
	cmd.Flags().StringVar(&machine, "machine", "", "only on this machine (id or its beginning, address, host name)")
	s.bySSH.flags(cmd.Flags())
	return cmd
}

func (s *session) doStatus(ctx context.Context, f *format, machine string, args []string) error {
	asJSON, err := f.asJSON("text")
	if err == nil {
		err = checkPort(s.bySSH.port)
	}
	if err != nil || len(args) == 0 {
		return err
	}
	names, err := s.statusNames(ctx, args)
	if err != nil {
		return err
	}
	if machine, err = s.machineID(ctx, machine); err != nil {
		return err
	}
	if asJSON {
		return s.statusJSON(ctx, machine, names)
	}
	worst, separator := 0, ""
	for _, name := range names {
		text, code, err := s.oneStatus(ctx, name, machine)
		if err != nil {
			s.report(err)
			code = fault.ExitFailed
		} else {
			fmt.Fprint(s.env.Stdout, separator, text)
			separator = "\n"
		}
		worst = max(worst, code)
	}
	if worst > 0 {
		return fault.Code(worst, fault.ErrSilent)
	}
	return nil
}

// statusNames is the units that the arguments name; only a pattern costs a look at
// all that are known.
func (s *session) statusNames(ctx context.Context, args []string) ([]string, error) {
	args, err := expandBraces(args)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(args, isGlob) {
		names := make([]string, 0, len(args))
		for _, a := range args {
			names = append(names, unitfile.Complete(a))
		}
		return names, nil
	}
	known, err := s.unitNames(ctx)
	if err != nil {
		return nil, sentence("Error retrieving list of units from repository: %w", err)
	}
	sel, err := choose(args, known)
	if err == nil && len(sel.names)+len(sel.unknown) == 0 {
		err = fmt.Errorf("no unit in Registry matches %s", strings.Join(args, " "))
	}
	return append(sel.names, sel.unknown...), err
}

func (s *session) unitNames(ctx context.Context) ([]string, error) {
	c, err := s.api()
	if err != nil {
		return nil, err
	}
	units, err := c.Units(ctx)
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.Name)
	}
	slices.Sort(names)
	return names, err
}

// oneStatus returns the status of one unit on all its machines and the highest exit
// code of systemctl status.
func (s *session) oneStatus(ctx context.Context, name, machine string) (string, int, error) {
	u, err := s.unit(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrNotExist):
		return "", 0, s.unknown(ctx, name)
	case err != nil:
		return "", 0, sentence("Error retrieving unit %s: %w", name, err)
	}
	machines, err := s.unitMachines(ctx, u, machine)
	if err != nil {
		return "", 0, err
	}
	messages, err := s.messagesOf(ctx, name)
	if err != nil {
		return "", 0, sentence("Error retrieving unit %s: %w", name, err)
	}
	if len(machines) == 0 {
		err := sentence("Unit %s does not appear to be loaded.", name)
		if u.Reason != "" {
			err = fault.Hint(err, "no machine can take it: %s", u.Reason)
		}
		return "", 0, err
	}
	var all strings.Builder
	worst := 0
	for _, id := range machines {
		var text strings.Builder
		code, err := s.statusOf(ctx, &text, name, id)
		if err != nil {
			return "", 0, fmt.Errorf("status of %s on %s: %w", name, shortID(id, false), err)
		}
		worst = max(worst, code)
		if message := messages[id]; message != "" {
			fmt.Fprintf(&text, "      Fleet: %s\n", model.OneLine(message))
		}
		for line := range strings.Lines(text.String()) {
			fmt.Fprintf(&all, "%s%s\n", machinePrefix(id, machines), strings.TrimSuffix(line, "\n"))
		}
	}
	return all.String(), worst, nil
}

// messagesOf is what machines have to say of a unit beside its state, by machine.
func (s *session) messagesOf(ctx context.Context, name string) (map[string]string, error) {
	states, err := s.client.States(ctx, fleet.StateFilter{Unit: name})
	messages := map[string]string{}
	for _, st := range states {
		messages[st.MachineID] = st.Message
	}
	return messages, err
}

// unknown is the error for a unit that the cluster does not know. A machine may hold
// one all the same, from another store.
func (s *session) unknown(ctx context.Context, name string) error {
	err := sentence("Unit %s does not exist.", name)
	messages, _ := s.messagesOf(ctx, name) // they only add to what is certain
	for _, id := range slices.Sorted(maps.Keys(messages)) {
		err = fault.Hint(err, "machine %s has such a unit: %s", shortID(id, false), orDash(model.OneLine(messages[id])))
	}
	return err
}

// unitMachines is the machines whose word about the unit is wanted: the one that
// was chosen, the one that the unit is on, or all that hold a global unit.
func (s *session) unitMachines(ctx context.Context, u api.Unit, chosen string) ([]string, error) {
	switch {
	case chosen != "":
		return []string{chosen}, nil
	case !isGlobalUnit(u):
		if u.MachineID == "" {
			return nil, nil
		}
		return []string{u.MachineID}, nil
	}
	states, err := s.client.States(ctx, fleet.StateFilter{Unit: u.Name})
	var ids []string
	for _, st := range states {
		ids = append(ids, st.MachineID)
	}
	return ids, err
}

// machinePrefix begins each line where several machines speak.
func machinePrefix(id string, machines []string) string {
	if len(machines) < 2 {
		return ""
	}
	return model.ShortID(id) + " | "
}

func (s *session) statusJSON(ctx context.Context, machine string, names []string) error {
	out := []unitStatus{}
	var errs []error
	for _, name := range names {
		u, err := s.unit(ctx, name)
		if errors.Is(err, fleet.ErrNotExist) {
			errs = append(errs, sentence("Unit %s does not exist.", name))
			continue
		}
		if err != nil {
			return sentence("Error retrieving unit %s: %w", name, err)
		}
		states, err := s.client.States(ctx, fleet.StateFilter{Unit: name, Machine: machine})
		if err != nil {
			return sentence("Error retrieving unit %s: %w", name, err)
		}
		out = append(out, unitStatus{unitEntry: newEntry(u), States: list(states)})
	}
	return errors.Join(append(errs, cli.JSON(s.env.Stdout, out))...)
}

// machineID is the full id of the machine that is meant by an id, its beginning (as
// listings show it, with or without the dots), an address or a host name. "" stays "".
func (s *session) machineID(ctx context.Context, given string) (string, error) {
	if given == "" {
		return "", nil
	}
	c, err := s.api()
	if err != nil {
		return "", err
	}
	machines, err := c.Machines(ctx)
	if err != nil {
		return "", sentence("Error retrieving list of active machines from fleet API (%w)", err)
	}
	return pickMachine(given, machines)
}

func pickMachine(given string, machines []api.Machine) (string, error) {
	begin, _, _ := strings.Cut(given, "...")
	var fits, all []string
	for _, m := range machines {
		all = append(all, shortID(m.ID, false))
		switch {
		case m.ID == given:
			return m.ID, nil
		case m.PrimaryIP == given, m.Hostname == given, begin != "" && strings.HasPrefix(m.ID, begin):
			fits = append(fits, m.ID)
		}
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return "", fault.Hint(fmt.Errorf("no machine %s is present", given), "there are: %s", orDash(strings.Join(all, " ")))
	}
	return "", fault.Hint(fmt.Errorf("machine %s is ambiguous", given), "it may be %s", strings.Join(fits, ", "))
}

// journaling is the flags of journal.
type journaling struct {
	format
	lines   int
	follow  bool
	machine string
}

func (s *session) journal() *cobra.Command {
	j := &journaling{}
	cmd := &cobra.Command{
		Use:               "journal UNIT",
		Short:             "print a unit's log from its machine",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doJournal(ctx, j, args) }),
	}
	f := cmd.Flags()
	f.IntVarP(&j.lines, "lines", "n", 10, "how many lines of what is there")
	f.BoolVarP(&j.follow, "follow", "f", false, "go on with new lines until interrupted")
	f.BoolVar(&j.follow, "f", false, "same as --follow")
	_ = f.MarkHidden("f") // it exists: defined above
	f.StringVar(&j.machine, "machine", "", "the log of this machine (id or its beginning, address, host name)")
	s.bySSH.flags(f)
	f.BoolVar(&s.bySSH.sudo, "sudo", false, "ask the machine over SSH, and read its journal with sudo")
	j.format.flags(cmd, "short|cat|json")
	return cmd
}

func (s *session) doJournal(ctx context.Context, j *journaling, args []string) error {
	asJSON, err := j.asJSON("short", "cat")
	if err != nil {
		return err
	}
	if asJSON {
		j.output = "json"
	}
	if j.lines < 0 {
		return fault.Usage("--lines %d: want 0 or more", j.lines)
	}
	if err := checkPort(s.bySSH.port); err != nil {
		return err
	}
	if args, err = expandBraces(args); err != nil {
		return err
	}
	if len(args) != 1 {
		return sentence("One unit file must be provided.")
	}
	name := unitfile.Complete(args[0])
	u, err := s.unit(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrNotExist):
		return sentence("Unit %s does not exist.", name)
	case err != nil:
		return sentence("Error retrieving unit %s: %w", name, err)
	}
	chosen, err := s.machineID(ctx, j.machine)
	if err != nil {
		return err
	}
	machines, err := s.unitMachines(ctx, u, chosen)
	if err != nil {
		return sentence("Error retrieving unit %s: %w", name, err)
	}
	if len(machines) == 0 || chosen == "" && u.CurrentState == inactive {
		return fault.Hint(sentence("Unit %s does not appear to be running.", name),
			"the log of a machine that ran it: fleetctl journal --machine MACHINE %s", name)
	}
	if s.bySSH.wanted() {
		return s.journalOf(ctx, j, name, machines)
	}
	err = s.printJournals(ctx, j, name, machines)
	if isClassic(err) {
		return s.journalOf(ctx, j, name, machines)
	}
	return err
}

// printJournals prints the logs of the unit on the machines: following, as lines
// come; else in order of time.
func (s *session) printJournals(ctx context.Context, j *journaling, name string, machines []string) error {
	type line struct {
		at            time.Time
		machine, text string
	}
	var mu sync.Mutex // guards lines and standard output
	var lines []line
	g, ctx := errgroup.WithContext(ctx)
	for _, id := range machines {
		g.Go(func() error {
			for e, err := range s.entries(ctx, j, name, id) {
				if err != nil {
					return sentence("Unable to read the journal of unit %s on %s: %w", name, shortID(id, false), err)
				}
				text := machinePrefix(id, machines) + formatEntry(j.output, e)
				if j.output == "json" {
					text = formatEntry("json", e)
				}
				mu.Lock()
				if j.follow {
					fmt.Fprintln(s.env.Stdout, text)
				} else {
					lines = append(lines, line{e.Time, id, text})
				}
				mu.Unlock()
			}
			return nil
		})
	}
	err := g.Wait()
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.machine, b.machine))
	})
	for _, l := range lines {
		fmt.Fprintln(s.env.Stdout, l.text)
	}
	return err
}

// entries is the unit's log on one machine. No lines and no following is nothing.
func (s *session) entries(ctx context.Context, j *journaling, name, machine string) iter.Seq2[fleet.LogEntry, error] {
	if j.lines == 0 && !j.follow {
		return func(func(fleet.LogEntry, error) bool) {}
	}
	return s.client.Journal(ctx, name, fleet.JournalOptions{Lines: &j.lines, Follow: j.follow, Machine: machine})
}

// formatEntry writes an entry as journalctl does with the output modes short, cat
// and json (ours has the API's fields, not the journal's).
func formatEntry(output string, e fleet.LogEntry) string {
	switch output {
	case "json":
		b, err := json.Marshal(e)
		if err != nil { // a struct of strings, numbers and a time always can be
			return err.Error()
		}
		return string(b)
	case "cat":
		return e.Message
	}
	who := orDash(e.Ident)
	if e.PID > 0 {
		who = fmt.Sprintf("%s[%d]", who, e.PID)
	}
	head := fmt.Sprintf("%s %s %s: ", e.Time.Local().Format(time.Stamp), orDash(e.Machine), who)
	return head + strings.ReplaceAll(e.Message, "\n", "\n"+strings.Repeat(" ", len(head)))
}

// tailLimit is how long a failed unit's log may take to come.
const tailLimit = 3 * time.Second

// tail prints the end of a unit's log on standard error; with once, of lines that say
// the same only the last. It is an extra: a server that has no logs to give only has it
// left out.
func (s *session) tail(ctx context.Context, unit string, once bool) {
	ctx, cancel := context.WithTimeout(ctx, tailLimit)
	defer cancel()
	lines := 10
	var last []fleet.LogEntry
	for e, err := range s.client.Journal(ctx, unit, fleet.JournalOptions{Lines: &lines}) {
		if err != nil {
			break
		}
		if once {
			last = slices.DeleteFunc(last, func(l fleet.LogEntry) bool { return l.Message == e.Message })
		}
		last = append(last, e)
	}
	for _, e := range last {
		s.warn("  %s", formatEntry("short", e))
	}
}
