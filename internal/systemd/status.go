package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// Properties are asked for one by one, 0.04 ms each. All of a unit's at once has systemd
// look for links to it in every directory, for UnitFileState: 4 ms for each unit that it has
// loaded since it last did. All of a service's at once has it read a dozen files of the
// unit's cgroup.
var (
	unitProps    = []string{"FragmentPath", "NeedDaemonReload"}
	serviceProps = []string{"Result", "MainPID", "ExecMainStatus", "NRestarts"}
)

// Status implements unit.Manager.
func (m *Manager) Status(ctx context.Context, names ...string) ([]unit.Status, error) {
	var out []unit.Status
	err := m.do(ctx, func(ctx context.Context, b *bus) (err error) {
		out, err = m.ask(ctx, b, names)
		return err
	})
	for i, st := range out {
		out[i].NeedReload = st.NeedReload || m.files.unread.has(st.Name)
	}
	if err != nil {
		return out, fmt.Errorf("ask systemd for the state of %s: %w", few(names), err)
	}
	return out, nil
}

// few names the units of an error message.
func few(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], " "), len(names)-3)
	}
	return strings.Join(names, " ")
}

// ask asks for many units at once. Units that systemd has no answer for are left out,
// and the error names them.
func (m *Manager) ask(ctx context.Context, b *bus, names []string) ([]unit.Status, error) {
	dirs, err := m.unitDirs(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := b.list(ctx, slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return !m.files.has(n) || unitfile.IsTemplate(n) // a template has no state
	}))
	if errors.Is(err, ErrLost) || ctx.Err() != nil {
		return nil, err
	}
	return askAll(names, func(name string) (unit.Status, error) {
		if row, ok := rows[name]; ok {
			props, err := b.known(ctx, name, row)
			return statusOf(name, props), err
		}
		if isService(name) && !hasFile(dirs, name) {
			if loaded, err := b.loaded(ctx, name); !loaded || err != nil {
				return statusOf(name, nil), err
			}
		}
		props, err := b.properties(ctx, name)
		return statusOf(name, props), err
	})
}

// row is what systemd lists of a unit, in the order of its fields there.
type row struct {
	ID, Description, Load, Active, Sub, Following string
	Path                                          dbus.ObjectPath
	Job                                           uint32
	JobType                                       string
	JobPath                                       dbus.ObjectPath
}

// list asks for units that have files, all in one call. If systemd stumbles over one of
// them it says nothing of the others: then each has to be asked for by itself.
func (b *bus) list(ctx context.Context, names []string) (map[string]row, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if err := b.room.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer b.room.Release(1)
	var rows []row
	if err := b.reply(ctx, b.send(managerPath, managerIface+".ListUnitsByNames", names), &rows); err != nil {
		return nil, err
	}
	out := map[string]row{}
	for i, name := range names[:min(len(names), len(rows))] {
		out[name] = rows[i] // in the order asked; ID is another for an alias
	}
	return out, nil
}

// hasFile reports whether systemd would find a file for a unit: its own, or its
// template's.
func hasFile(dirs []string, name string) bool {
	names := []string{name}
	if template, ok := unitfile.TemplateOf(name); ok {
		names = append(names, template)
	}
	for _, dir := range dirs {
		for _, n := range names {
			if _, err := os.Lstat(filepath.Join(dir, n)); err == nil {
				return true
			}
		}
	}
	return false
}

// loaded reports whether systemd has the unit in memory. Unlike a question about the
// unit itself this one does not make it look for files, for which it reads all its
// directories anew whenever one of them has changed.
func (b *bus) loaded(ctx context.Context, name string) (bool, error) {
	if unitfile.CheckName(name) != nil || unitfile.IsTemplate(name) {
		return false, nil
	}
	if err := b.room.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer b.room.Release(1)
	err := b.call(ctx, managerPath, managerIface+".GetUnit", name)
	switch errorName(err) {
	case noSuchUnit, invalidArgs:
		return false, nil
	}
	return err == nil, err
}

// askAll asks for many units at once and puts the answers in order. One that fails
// keeps no other one from being told.
func askAll(names []string, ask func(string) (unit.Status, error)) ([]unit.Status, error) {
	all, errs := make([]unit.Status, len(names)), make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(64)
	for i, name := range names {
		g.Go(func() error {
			all[i], errs[i] = ask(name)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	out, failures := all[:0], []error(nil)
	for i, err := range errs {
		switch {
		case err == nil:
			out = append(out, all[i])
		case errors.Is(err, ErrLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return nil, err // about the connection or the caller: the same for all
		default:
			failures = append(failures, fmt.Errorf("%s: %w", names[i], err))
		}
	}
	return out, errors.Join(failures...)
}

// known returns what statusOf needs of a unit that is listed.
func (b *bus) known(ctx context.Context, name string, r row) (map[string]dbus.Variant, error) {
	props := map[string]dbus.Variant{"Job": dbus.MakeVariant([]any{r.Job, r.JobPath})}
	for property, value := range map[string]string{
		"Description": r.Description, "LoadState": r.Load, "ActiveState": r.Active, "SubState": r.Sub,
	} {
		props[property] = dbus.MakeVariant(value)
	}
	of := unitProps
	if since, ok := entered[r.Active]; ok {
		of = append(slices.Clip(of), since)
	}
	calls := int64(len(of) + len(serviceProps))
	if err := b.room.Acquire(ctx, calls); err != nil {
		return nil, err
	}
	defer b.room.Release(calls)
	asked := b.askEach(unitPath(name), unitIface, of)
	if isService(name) {
		asked = append(asked, b.askEach(unitPath(name), serviceIface, serviceProps)...)
	}
	return props, b.collect(ctx, asked, props)
}

// properties returns all that a unit has, and of a service what statusOf needs beside;
// nothing if there can be no such unit. Every question about a unit without a file would
// make systemd look for one anew: whether there is one is found out before the rest is asked.
func (b *bus) properties(ctx context.Context, name string) (map[string]dbus.Variant, error) {
	if unitfile.CheckName(name) != nil || unitfile.IsTemplate(name) {
		return nil, nil
	}
	calls := int64(1 + len(serviceProps))
	if err := b.room.Acquire(ctx, calls); err != nil {
		return nil, err
	}
	defer b.room.Release(calls)
	props := map[string]dbus.Variant{}
	err := b.reply(ctx, b.send(unitPath(name), propsIface+".GetAll", unitIface), &props)
	switch errorName(err) {
	case noSuchUnit, invalidArgs, unknownObject:
		return nil, nil // systemd knows no units of such a name
	}
	if err != nil || get[string](props, "LoadState") == "not-found" || !isService(name) {
		return props, err
	}
	return props, b.collect(ctx, b.askEach(unitPath(name), serviceIface, serviceProps), props)
}

func isService(name string) bool { return strings.HasSuffix(name, ".service") }

// question is a property that has been asked for.
type question struct {
	property string
	call     *dbus.Call
}

// askEach asks for properties of one interface, without waiting for the answers.
func (b *bus) askEach(path dbus.ObjectPath, iface string, properties []string) []question {
	var out []question
	for _, p := range properties {
		out = append(out, question{p, b.send(path, propsIface+".Get", iface, p)})
	}
	return out
}

// collect waits for answers and puts them among the properties.
func (b *bus) collect(ctx context.Context, asked []question, props map[string]dbus.Variant) error {
	for _, q := range asked {
		var v dbus.Variant
		if err := b.reply(ctx, q.call, &v); err != nil {
			return err
		}
		props[q.property] = v
	}
	return nil
}

// statusOf reads the properties; what is missing counts as a unit nobody knows.
func statusOf(name string, props map[string]dbus.Variant) unit.Status {
	st := unit.Status{
		Name:        name,
		Description: get[string](props, "Description"),
		Load:        get[string](props, "LoadState"),
		Active:      get[string](props, "ActiveState"),
		Sub:         get[string](props, "SubState"),
		Result:      get[string](props, "Result"),
		MainPID:     int(get[uint32](props, "MainPID")),
		ExitCode:    int(get[int32](props, "ExecMainStatus")),
		Fragment:    get[string](props, "FragmentPath"),
		NeedReload:  get[bool](props, "NeedDaemonReload"),
		Restarts:    int(get[uint32](props, "NRestarts")),
	}
	if st.Load == "" {
		st.Load, st.Active, st.Sub = "not-found", "inactive", "dead"
	}
	st.Job = hasJob(props)
	if us := get[uint64](props, entered[st.Active]); us != 0 {
		st.Since = time.UnixMicro(int64(us))
	}
	return st
}

// hasJob reads the property that is the unit's job: its number, 0 for none, and its path.
func hasJob(props map[string]dbus.Variant) bool {
	job := get[[]any](props, "Job")
	return len(job) > 0 && job[0] != uint32(0)
}

// jobOf is the path of the unit's job, which counts where hasJob says that there is one.
func jobOf(props map[string]dbus.Variant) dbus.ObjectPath {
	if job := get[[]any](props, "Job"); len(job) > 1 {
		path, _ := job[1].(dbus.ObjectPath)
		return path
	}
	return ""
}

// changedAt is when the unit's active state last changed, on the clock of monotonic;
// 0: never.
func changedAt(props map[string]dbus.Variant) time.Duration {
	us := get[uint64](props, entered[get[string](props, "ActiveState")]+"Monotonic")
	return time.Duration(us) * time.Microsecond
}

// startedAt is when the unit was last started, on the clock of monotonic; 0: never.
func startedAt(props map[string]dbus.Variant) time.Duration {
	return time.Duration(get[uint64](props, "InactiveExitTimestampMonotonic")) * time.Microsecond
}

// monotonic is now on the clock of systemd's monotonic timestamps: unlike the time
// of day nobody sets it.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(ts.Nano())
}

// entered is the timestamp that says since when a unit is in a state.
var entered = map[string]string{
	"active":       "ActiveEnterTimestamp",
	"reloading":    "ActiveEnterTimestamp",
	"inactive":     "InactiveEnterTimestamp",
	"failed":       "InactiveEnterTimestamp",
	"activating":   "InactiveExitTimestamp",
	"deactivating": "ActiveExitTimestamp",
}

func get[T any](props map[string]dbus.Variant, name string) T {
	v, _ := props[name].Value().(T)
	return v
}
