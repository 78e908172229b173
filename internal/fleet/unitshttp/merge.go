package unitshttp

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// selection is whose logs are wanted.
type selection struct {
	globs   []string
	machine string // id; "" all
}

// maxGlobs bounds what one request may ask for.
const maxGlobs = 1000

// wants reports whether a unit's log on a machine is wanted.
func (sel selection) wants(name, machine string) bool {
	return (sel.machine == "" || sel.machine == machine) &&
		slices.ContainsFunc(sel.globs, func(g string) bool { return model.MatchGlob(g, name) })
}

// places are the wanted units by the machines that they are placed on.
func (sel selection) places(v *registry.View) map[string][]string {
	out := map[string][]string{}
	for _, p := range v.Placements() {
		if sel.wants(p.Unit, p.Machine) {
			out[p.Machine] = append(out[p.Machine], p.Unit)
		}
	}
	return out
}

// nowhere says of wanted units that are on no machine why.
func (sel selection) nowhere(v *registry.View) (notices []string, known bool) {
	for _, u := range v.Units() {
		if !slices.ContainsFunc(sel.globs, func(g string) bool { return model.MatchGlob(g, u.Name) }) {
			continue
		}
		known = true
		if len(v.PlacementsOf(u.Name)) == 0 && u.Desired != model.Inactive {
			notices = append(notices, nowhere(u.Name, brief(v, u).Reason).Error())
		}
	}
	return notices, known
}

// defaultLines is how many entries are told when neither a number nor a time says
// where to begin.
const defaultLines = 10

func (s *Server) logQuery(r *http.Request) (selection, peer.Query, error) {
	values := r.URL.Query()
	sel := selection{globs: values["unit"]}
	if len(sel.globs) == 0 || len(sel.globs) > maxGlobs {
		return sel, peer.Query{}, refuse(http.StatusBadRequest, "unit: name the units, 1 to %d names or globs such as web@*", maxGlobs)
	}
	q, err := chooseEntries(values, time.Now())
	if err != nil {
		return sel, q, err
	}
	if id := values.Get("machine"); id != "" {
		sel.machine, err = s.machineID(r.Context(), id)
	}
	return sel, q, err
}

// chooseEntries reads which entries are wanted: lines, since, follow, priority, grep.
func chooseEntries(values url.Values, now time.Time) (q peer.Query, err error) {
	if q.Since, err = instant(values, "since", now); err != nil {
		return q, err
	}
	otherwise := defaultLines
	if !q.Since.IsZero() {
		otherwise = -1
	}
	if q.Lines, err = number(values, "lines", otherwise, -1, maxLines); err != nil {
		return q, err
	}
	if q.Follow, err = truth(values, "follow"); err != nil {
		return q, err
	}
	if q.Priority, err = number(values, "priority", peer.LeastUrgent, 0, peer.LeastUrgent); err != nil {
		return q, err
	}
	if grep := values.Get("grep"); grep != "" {
		if q.Grep, err = regexp.Compile(grep); err != nil {
			return q, refuse(http.StatusBadRequest, "grep: %w", err)
		}
	}
	return q, nil
}

// logs streams the entries of units on all machines, in order of time.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	sel, q, err := s.logQuery(r)
	if err != nil {
		return err
	}
	v, err := s.all.Read(r.Context())
	if err != nil {
		return err
	}
	notices, known := sel.nowhere(v)
	places := sel.places(v)
	if !known && len(places) == 0 {
		return refuse(http.StatusNotFound, "no unit is called %s", strings.Join(sel.globs, " or "))
	}
	out := newLines(w, q.Follow)
	for _, n := range notices {
		if err := out.write(fleet.LogLine{Notice: n}); err != nil {
			return nil // the client has gone away
		}
	}
	if q.Follow {
		newFollowing(s, sel, q, out).run(r.Context(), v)
		return nil
	}
	err = s.mergeLogs(r.Context(), v, places, q, out)
	if err != nil && r.Context().Err() == nil && !out.began {
		return gateway(err)
	}
	out.end(err)
	return nil
}

func logLine(m model.Machine, e unit.LogEntry) fleet.LogLine {
	line := fleet.LogLine{
		Time: e.Time, Machine: e.Machine, Unit: e.Unit, Ident: e.Ident, PID: e.PID,
		Priority: e.Priority, Message: e.Message, Cursor: e.Cursor,
	}
	if m.Hostname != "" {
		line.Machine = m.Hostname
	}
	return line
}

// known is the machine of that id, or one that is away.
func known(v *registry.View, id string) model.Machine {
	if m, ok := v.Machine(id); ok {
		return m
	}
	return model.Machine{ID: id}
}

// source is one machine's log on its way, in order of time.
type source struct {
	machine model.Machine
	entries chan unit.LogEntry // closed at the end; then err counts
	err     error
	next    unit.LogEntry // the first that has not been told
}

// sourceRoom is how many entries of a machine wait to be told: more only wait over
// there.
const sourceRoom = 64

// open begins to read a machine's log.
func (s *Server) open(ctx context.Context, wg *sync.WaitGroup, m model.Machine, q peer.Query) *source {
	src := &source{machine: m, entries: make(chan unit.LogEntry, sourceRoom)}
	wg.Go(func() {
		defer close(src.entries)
		src.err = s.readLog(ctx, m, q, func(e unit.LogEntry) error {
			select {
			case src.entries <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return src
}

// mergeLogs tells the newest of what there is in the machines' logs. A machine that
// does not answer is told of, and keeps nobody else's entries back; when none does,
// that is the error.
func (s *Server) mergeLogs(ctx context.Context, v *registry.View, places map[string][]string, q peer.Query, out *lines) error {
	last := peer.NewTail[fleet.LogLine](q.Lines)
	var broken []error
	err := s.collect(ctx, v, places, q, func(src *source) error {
		line := logLine(src.machine, src.next)
		if q.Lines < 0 {
			return out.write(line)
		}
		last.Add(line)
		return nil
	}, func(src *source) error {
		broken = append(broken, src.err)
		if len(broken) == len(places) {
			return errors.Join(broken...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, why := range broken {
		if err := out.write(fleet.LogLine{Notice: "a log is missing: " + why.Error()}); err != nil {
			return err
		}
	}
	for _, line := range last.Entries() {
		if err := out.write(line); err != nil {
			return err
		}
	}
	return nil
}

// collect passes the entries of all machines on in order of time, each as the next
// of its source, and says which machines have broken off. It ends with the first
// error of either.
func (s *Server) collect(ctx context.Context, v *registry.View, places map[string][]string, q peer.Query, tell, broke func(*source) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var live []*source
	for _, id := range slices.Sorted(maps.Keys(places)) {
		one := q
		one.Units = places[id]
		live = append(live, s.open(ctx, &wg, known(v, id), one))
	}
	// From here on each live source has a next entry.
	for _, src := range slices.Clone(live) {
		if err := advance(&live, src, broke); err != nil {
			return err
		}
	}
	for len(live) > 0 {
		first := slices.MinFunc(live, func(a, b *source) int { return a.next.Time.Compare(b.next.Time) })
		if err := tell(first); err != nil {
			return err
		}
		if err := advance(&live, first, broke); err != nil {
			return err
		}
	}
	return nil
}

// advance waits for the next entry of a source, which is taken off the list at its
// end.
func advance(live *[]*source, src *source, broke func(*source) error) error {
	var ok bool
	if src.next, ok = <-src.entries; ok {
		return nil
	}
	*live = slices.DeleteFunc(*live, func(other *source) bool { return other == src })
	if src.err != nil {
		return broke(src)
	}
	return nil
}

func title(m model.Machine) string {
	if m.Hostname != "" {
		return m.Hostname
	}
	return "machine " + model.ShortID(m.ID)
}
