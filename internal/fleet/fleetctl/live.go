package fleetctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	api "flotilla/api/fleet"
	"flotilla/internal/cli"
)

// redrawEvery is the least time between two pictures on a terminal.
const redrawEvery = 100 * time.Millisecond

// liveUnits shows list-units as it changes, until interrupted: on a terminal the table
// over and over, elsewhere a line for each row that has changed; as JSON the changes
// themselves.
func (s *session) liveUnits(ctx context.Context, l *listing, args []string) error {
	asJSON, err := l.asJSON("table")
	if err != nil {
		return err
	}
	match, err := matcher(args)
	if err != nil {
		return err
	}
	if _, err := l.header(sortedKeys(unitColumns(nil, false))); err != nil {
		return err
	}
	w, err := s.watch(ctx)
	if err != nil {
		return sentence(noUnits, err)
	}
	defer w.stop()
	w.observer.attend(nil)
	v := &liveView{s: s, l: l, match: match, json: asJSON, terminal: isTerminal(s.env.Stdout) && !asJSON}
	return v.run(ctx, w)
}

// liveView is what has been shown of the units.
type liveView struct {
	s        *session
	l        *listing
	match    func(string) bool
	json     bool
	terminal bool
	shown    map[[2]string]string        // row by unit and machine
	states   map[[2]string]api.UnitState // behind it
	begun    bool
}

func (v *liveView) run(ctx context.Context, w *watching) error {
	var drawn time.Time
	lost := false
	for {
		if wait := redrawEvery - time.Since(drawn); !v.terminal || wait <= 0 {
			v.draw(w)
			drawn = time.Now()
		}
		switch {
		case w.lost != nil && !lost:
			v.s.warn("note: the fleet API is away: %v", w.lost)
		case w.lost != nil && time.Since(w.lostAt) > awayLimit:
			return sentence(noUnits, w.lost)
		}
		lost = w.lost != nil
		select {
		case u, open := <-w.observer.out:
			if !w.takeAll(u, open) {
				return nil
			}
			if wait := redrawEvery - time.Since(drawn); v.terminal && wait > 0 {
				pause(ctx, wait)
			}
		case <-time.After(time.Second): // the API may have been away too long
		case <-ctx.Done():
			return nil // the person has seen enough
		}
	}
}

// rows are the rows of the picture, in order of unit and machine.
func (v *liveView) rows(pic *picture) (keys [][2]string, states map[[2]string]api.UnitState) {
	states = map[[2]string]api.UnitState{}
	for name, on := range pic.states {
		for id, st := range on {
			if v.match(name) {
				keys = append(keys, [2]string{name, id})
				states[[2]string{name, id}] = st
			}
		}
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
	return keys, states
}

func (v *liveView) draw(w *watching) {
	keys, states := v.rows(w.pic)
	if v.terminal {
		v.redraw(w.pic, keys, states)
		return
	}
	if !v.begun && !v.json && !v.l.noLegend {
		header, _ := v.l.header(v.l.fields) // checked before
		v.s.say("%s", strings.Join(header, "\t"))
	}
	v.begun = true
	shown := map[[2]string]string{}
	for _, k := range keys {
		row := v.row(w.pic, states[k])
		shown[k] = row
		if v.shown[k] == row {
			continue
		}
		st := states[k]
		v.line(row, api.Change{State: &st})
	}
	for _, k := range sortedPairs(v.shown) {
		if _, there := shown[k]; !there {
			st := v.states[k]
			st.SystemdActiveState, st.SystemdSubState, st.SystemdLoadState = "gone", "gone", "gone"
			v.line(v.row(w.pic, st), api.Change{Deleted: true, State: &api.UnitState{Name: st.Name, MachineID: st.MachineID}})
		}
	}
	v.shown, v.states = shown, states
}

func sortedPairs[V any](m map[[2]string]V) [][2]string {
	keys := make([][2]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
	return keys
}

func (v *liveView) line(row string, c api.Change) {
	if v.json {
		v.s.sayJSON(c)
		return
	}
	v.s.say("%s", row)
}

func (v *liveView) row(pic *picture, st api.UnitState) string {
	columns := unitColumns(pic.machines, v.l.full)
	var cells []string
	for _, f := range v.l.fields {
		cells = append(cells, columns[f](st))
	}
	return strings.Join(cells, "\t")
}

// redraw writes the table over the one before, as much of it as the terminal holds.
func (v *liveView) redraw(pic *picture, keys [][2]string, states map[[2]string]api.UnitState) {
	height := terminalHeight(v.s.env.Stdout)
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, strings.Split(v.row(pic, states[k]), "\t"))
	}
	more := 0
	if room := max(1, height-3); len(rows) > room {
		rows, more = rows[:room], len(rows)-room
	}
	header, _ := v.l.header(v.l.fields) // checked before
	var table strings.Builder
	_ = cli.WriteTable(&table, header, rows) // into memory: cannot fail
	var out strings.Builder
	out.WriteString("\x1b[H")
	for line := range strings.Lines(table.String()) {
		out.WriteString(strings.TrimSuffix(line, "\n") + "\x1b[K\n")
	}
	if more > 0 {
		fmt.Fprintf(&out, "... and %d more\x1b[K\n", more)
	}
	fmt.Fprintf(&out, "%s, %s\x1b[K\n\x1b[J", time.Now().Format(time.TimeOnly), count(len(keys), "row"))
	_, _ = io.WriteString(v.s.env.Stdout, out.String()) // a terminal that is gone has nobody to tell
}

// terminalHeight is how many lines a terminal has.
func terminalHeight(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Row > 0 {
			return int(size.Row)
		}
	}
	return 24
}
