package fleetctl

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/cli"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// format is how a reading command writes: as the classic text, or as JSON.
type format struct {
	output string
	json   bool
}

func (f *format) flags(cmd *cobra.Command, kinds string) {
	first, _, _ := strings.Cut(kinds, "|")
	cmd.Flags().StringVarP(&f.output, "output", "o", first, kinds)
	cmd.Flags().BoolVar(&f.json, "json", false, "same as --output json")
}

// asJSON reports whether JSON is wanted; a format that is not among kinds is a
// usage error.
func (f *format) asJSON(kinds ...string) (bool, error) {
	if f.json || f.output == "json" {
		return true, nil
	}
	if !slices.Contains(kinds, f.output) {
		return false, fault.Usage("unknown output format %q: want %s or json", f.output, strings.Join(kinds, ", "))
	}
	return false, nil
}

// listing is the flags of a command that prints a table.
type listing struct {
	format
	full     bool
	noLegend bool
	fields   []string
}

func (l *listing) flags(cmd *cobra.Command, fields []string, all string) {
	f := cmd.Flags()
	f.BoolVarP(&l.full, "full", "l", false, "do not shorten ids and hashes")
	f.BoolVar(&l.full, "l", false, "same as --full")
	_ = f.MarkHidden("l") // it exists: defined above
	f.BoolVar(&l.noLegend, "no-legend", false, "leave out the header")
	f.StringSliceVar(&l.fields, "fields", fields, "columns, of "+all)
	l.format.flags(cmd, "table|json")
}

// column makes one cell of a row of T.
type column[T any] func(row T) string

// table writes rows with the columns that were asked for.
func table[T any](s *session, l *listing, columns map[string]column[T], rows []T) error {
	header, err := l.header(slices.Sorted(maps.Keys(columns)))
	if err != nil {
		return err
	}
	cells := make([][]string, 0, len(rows))
	for _, r := range rows {
		row := make([]string, len(l.fields))
		for i, name := range l.fields {
			row[i] = columns[name](r)
		}
		cells = append(cells, row)
	}
	return cli.WriteTable(s.env.Stdout, header, cells)
}

// header is the upper-case names of the chosen columns, nil without legend. It
// refuses columns that are not known.
func (l *listing) header(known []string) ([]string, error) {
	if len(l.fields) == 0 {
		return nil, fault.Hint(sentence("Must define output format"), "fields are %s", strings.Join(known, ","))
	}
	var header []string
	for _, name := range l.fields {
		if !slices.Contains(known, name) {
			return nil, fault.Hint(sentence("Invalid key in output format: %q", name), "fields are %s", strings.Join(known, ","))
		}
		header = append(header, strings.ToUpper(name))
	}
	if l.noLegend {
		return nil, nil
	}
	return header, nil
}

// orDash is s, "-" if that is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func shortID(id string, full bool) string {
	if short := model.ShortID(id); !full && short != id {
		return short + "..."
	}
	return id
}

// machineCell names a machine: its short id and, if it is known and has one, its
// address.
func machineCell(id string, machines map[string]api.Machine, full bool) string {
	if ip := machines[id].PrimaryIP; ip != "" {
		return shortID(id, full) + "/" + ip
	}
	return shortID(id, full)
}

func machinesByID(ctx context.Context, c *fleet.Client) (map[string]api.Machine, error) {
	machines, err := c.Machines(ctx)
	m := make(map[string]api.Machine, len(machines))
	for _, machine := range machines {
		m[machine.ID] = machine
	}
	return m, err
}

// metadataCell is "k=v,k2=v2" in order of the keys.
func metadataCell(metadata map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(metadata)) {
		pairs = append(pairs, k+"="+metadata[k])
	}
	return orDash(strings.Join(pairs, ","))
}

func (s *session) listMachines() *cobra.Command {
	l := &listing{}
	cmd := &cobra.Command{
		Use:   "list-machines",
		Short: "list the machines that are present",
		Args:  noArgs,
		RunE:  s.reporting(func(ctx context.Context, _ []string) error { return s.doListMachines(ctx, l) }),
	}
	l.flags(cmd, []string{"machine", "ip", "metadata"}, "machine,ip,metadata,hostname,state,cores,memory,used,version")
	return cmd
}

func (s *session) doListMachines(ctx context.Context, l *listing) error {
	return show(ctx, s, l, listed[api.Machine]{
		failed: "Error retrieving list of active machines from fleet API (%w)",
		rows: func(c *fleet.Client) ([]api.Machine, error) {
			if l.json || l.output == "json" || slices.Contains(l.fields, "used") {
				return c.MachinesUsed(ctx)
			}
			return c.Machines(ctx)
		},
		columns: func(*fleet.Client) (map[string]column[api.Machine], error) { return machineColumns(l.full), nil },
		notes:   func(machines []api.Machine) { s.cordons(l, machines) },
	})
}

func machineColumns(full bool) map[string]column[api.Machine] {
	return map[string]column[api.Machine]{
		"machine":  func(m api.Machine) string { return shortID(m.ID, full) },
		"ip":       func(m api.Machine) string { return orDash(m.PrimaryIP) },
		"metadata": func(m api.Machine) string { return metadataCell(m.Metadata) },
		"hostname": func(m api.Machine) string { return orDash(m.Hostname) },
		"state":    machineState,
		"cores":    func(m api.Machine) string { return coresCell(m.Cores) },
		"memory":   func(m api.Machine) string { return bytesCell(m.Memory) },
		"used":     func(m api.Machine) string { return usedCell(m.Used) },
		"version":  func(m api.Machine) string { return orDash(m.Version) },
	}
}

// machineState is present, cordoned or draining.
func machineState(m api.Machine) string {
	switch {
	case m.Cordon == nil:
		return "present"
	case m.Cordon.Drain:
		return "draining"
	}
	return "cordoned"
}

func coresCell(cores float64) string {
	if cores == 0 {
		return "-"
	}
	return strconv.FormatFloat(cores, 'g', 4, 64)
}

// bytesCell is a size as systemd writes it: 512M, 1.5G.
func bytesCell(n int64) string {
	if n == 0 {
		return "-"
	}
	units, v := "KMGT", float64(n)/1024
	for v >= 1024 && len(units) > 1 {
		units, v = units[1:], v/1024
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + units[:1]
}

// usedCell is what has been asked for on a machine: units, cores, memory.
func usedCell(u *api.Used) string {
	if u == nil {
		return "-"
	}
	return fmt.Sprintf("%d/%s/%s", u.Units, coresCell(u.Cores), bytesCell(u.Memory))
}

// cordons says on standard error which machines take no units. The classic columns
// have no room for it.
func (s *session) cordons(l *listing, machines []api.Machine) {
	if l.noLegend || slices.Contains(l.fields, "state") {
		return // read by a program, or shown already
	}
	for _, m := range machines {
		if c := m.Cordon; c != nil {
			text := "note: machine " + shortID(m.ID, l.full) + " is " + machineState(m)
			if c.By != "" {
				text += " by " + c.By
			}
			if c.Why != "" {
				text += ": " + model.OneLine(c.Why)
			}
			s.warn("%s", text)
		}
	}
}

// listed is what a listing shows.
type listed[T any] struct {
	failed  string // the sentence about an error, with its verb
	rows    func(*fleet.Client) ([]T, error)
	chosen  func([]T) ([]T, error) // those that the arguments choose; nil: all
	columns func(*fleet.Client) (map[string]column[T], error)
	notes   func([]T) // what is to be said beside a table; nil: nothing
}

// show prints a listing, as a table or as JSON.
func show[T any](ctx context.Context, s *session, l *listing, what listed[T]) error {
	asJSON, err := l.asJSON("table")
	if err != nil {
		return err
	}
	c, err := s.api()
	if err != nil {
		return err
	}
	rows, err := what.rows(c)
	if err != nil {
		return sentence(what.failed, err)
	}
	if what.chosen != nil {
		if rows, err = what.chosen(rows); err != nil {
			return err
		}
	}
	if asJSON {
		return cli.JSON(s.env.Stdout, list(rows))
	}
	columns, err := what.columns(c)
	if err != nil {
		return sentence(what.failed, err)
	}
	if err := table(s, l, columns, rows); err != nil {
		return err
	}
	if what.notes != nil {
		what.notes(rows)
	}
	return nil
}

// list is rows, as JSON [] if there are none.
func list[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}

// selected is the rows whose unit was chosen.
func selected[T any](rows []T, name func(T) string, args []string) ([]T, error) {
	match, err := matcher(args)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r T) bool { return !match(name(r)) }), nil
}

func (s *session) listUnits() *cobra.Command {
	l := &listing{}
	live := false
	cmd := &cobra.Command{
		Use:               "list-units [UNIT|PATTERN...]",
		Short:             "list what machines report of the units they hold",
		ValidArgsFunction: s.completeUnits,
		RunE: s.reporting(func(ctx context.Context, args []string) error {
			if live {
				return s.liveUnits(ctx, l, args)
			}
			return s.doListUnits(ctx, l, args)
		}),
	}
	cmd.Flags().BoolVarP(&live, "watch", "w", false, "go on with what changes, until interrupted")
	l.flags(cmd, []string{"unit", "machine", "active", "sub"}, "unit,load,active,sub,machine,hash,message")
	return cmd
}

const noUnits = "Error retrieving list of units from repository: %w"

func (s *session) doListUnits(ctx context.Context, l *listing, args []string) error {
	var machines map[string]api.Machine
	return show(ctx, s, l, listed[api.UnitState]{
		failed: noUnits,
		rows:   func(c *fleet.Client) ([]api.UnitState, error) { return c.States(ctx, fleet.StateFilter{}) },
		chosen: func(all []api.UnitState) ([]api.UnitState, error) {
			return selected(all, func(u api.UnitState) string { return u.Name }, args)
		},
		columns: func(c *fleet.Client) (_ map[string]column[api.UnitState], err error) {
			machines, err = machinesByID(ctx, c)
			return unitColumns(machines, l.full), err
		},
		notes: func(units []api.UnitState) { s.messages(l, machines, units) },
	})
}

func unitColumns(machines map[string]api.Machine, full bool) map[string]column[api.UnitState] {
	return map[string]column[api.UnitState]{
		"unit":    func(u api.UnitState) string { return u.Name },
		"load":    func(u api.UnitState) string { return orDash(u.SystemdLoadState) },
		"active":  func(u api.UnitState) string { return orDash(u.SystemdActiveState) },
		"sub":     func(u api.UnitState) string { return orDash(u.SystemdSubState) },
		"machine": func(u api.UnitState) string { return orDash(machineCell(u.MachineID, machines, full)) },
		"hash":    func(u api.UnitState) string { return hashCell(u.Hash, full) },
		"message": func(u api.UnitState) string { return orDash(model.OneLine(u.Message)) },
	}
}

// messages says on standard error what machines have to say of units in the table,
// such as why one was refused. The classic columns have no room for it.
func (s *session) messages(l *listing, machines map[string]api.Machine, units []api.UnitState) {
	if l.noLegend || slices.Contains(l.fields, "message") {
		return // read by a program, or shown already
	}
	for _, u := range units {
		if u.Message != "" {
			s.warn("note: %s on %s: %s", u.Name, machineCell(u.MachineID, machines, l.full), model.OneLine(u.Message))
		}
	}
}

func hashCell(hash string, full bool) string {
	if !full && len(hash) > 7 {
		hash = hash[:7]
	}
	return orDash(hash)
}

// unitEntry is a unit in the JSON of list-unit-files.
type unitEntry struct {
	Name         string `json:"name"`
	Hash         string `json:"hash"`
	DesiredState string `json:"desiredState"`
	CurrentState string `json:"currentState,omitempty"` // absent for global units
	MachineID    string `json:"machineID,omitempty"`
	Global       bool   `json:"global"`
	Description  string `json:"description,omitempty"`
	Reason       string `json:"reason,omitempty"` // why it is on no machine though it should be
}

func newEntry(u api.Unit) unitEntry {
	b := bundleOf(u)
	f := b.Effective()
	description := ""
	if all := f.All("Unit", "Description"); len(all) > 0 {
		description = all[0]
	}
	return unitEntry{
		Name: u.Name, Hash: b.Hash(), DesiredState: u.DesiredState, CurrentState: u.CurrentState,
		MachineID: u.MachineID, Global: isGlobal(f), Description: description, Reason: u.Reason,
	}
}

func fileOf(options []api.UnitOption) unitfile.File {
	var f unitfile.File
	for _, o := range options {
		f.Options = append(f.Options, unitfile.Option{Section: o.Section, Name: o.Name, Value: o.Value})
	}
	return f
}

func optionsOf(f unitfile.File) []api.UnitOption {
	options := make([]api.UnitOption, 0, len(f.Options))
	for _, o := range f.Options {
		options = append(options, api.UnitOption{Section: o.Section, Name: o.Name, Value: o.Value})
	}
	return options
}

// isGlobal reads Global of [X-Fleet]: the last value counts.
func isGlobal(f unitfile.File) bool {
	values := f.Fleet(unitfile.Global)
	return len(values) > 0 && unitfile.IsTrue(values[len(values)-1])
}

func (s *session) listUnitFiles() *cobra.Command {
	l := &listing{}
	cmd := &cobra.Command{
		Use:               "list-unit-files [UNIT|PATTERN...]",
		Short:             "list the units that the cluster knows, and where they are to be",
		ValidArgsFunction: s.completeUnits,
		RunE:              s.reporting(func(ctx context.Context, args []string) error { return s.doListUnitFiles(ctx, l, args) }),
	}
	l.flags(cmd, []string{"unit", "hash", "dstate", "state", "target"}, "unit,hash,dstate,state,target,global,desc,tmachine,reason")
	return cmd
}

func (s *session) doListUnitFiles(ctx context.Context, l *listing, args []string) error {
	return show(ctx, s, l, listed[unitEntry]{
		failed: noUnits,
		rows: func(c *fleet.Client) ([]unitEntry, error) {
			units, err := c.Units(ctx)
			entries := make([]unitEntry, 0, len(units))
			for _, u := range units {
				entries = append(entries, newEntry(u))
			}
			return entries, err
		},
		chosen: func(all []unitEntry) ([]unitEntry, error) {
			return selected(all, func(u unitEntry) string { return u.Name }, args)
		},
		columns: func(c *fleet.Client) (map[string]column[unitEntry], error) {
			if slices.Contains(l.fields, "tmachine") {
				s.warn("WARNING: The \"tmachine\" field is deprecated, use \"target\".")
			}
			machines, err := machinesByID(ctx, c)
			return unitFileColumns(machines, l.full), err
		},
	})
}

func unitFileColumns(machines map[string]api.Machine, full bool) map[string]column[unitEntry] {
	target := func(u unitEntry) string {
		if u.Global {
			return "global"
		}
		return orDash(machineCell(u.MachineID, machines, full))
	}
	return map[string]column[unitEntry]{
		"unit":     func(u unitEntry) string { return u.Name },
		"hash":     func(u unitEntry) string { return hashCell(u.Hash, full) },
		"dstate":   func(u unitEntry) string { return orDash(u.DesiredState) },
		"state":    func(u unitEntry) string { return orDash(stateOf(u)) },
		"target":   target,
		"tmachine": target,
		"global":   func(u unitEntry) string { return strconv.FormatBool(u.Global) },
		"desc":     func(u unitEntry) string { return orDash(u.Description) },
		"reason":   func(u unitEntry) string { return orDash(u.Reason) },
	}
}

// stateOf is the current state; global units have none.
func stateOf(u unitEntry) string {
	if u.Global {
		return ""
	}
	return u.CurrentState
}
