package unitshttp

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// writeLimit is how long a reader of a stream may take for a line before it counts
// as gone.
const writeLimit = 30 * time.Second

// watch streams what there is and then what changes, so that nobody needs to poll.
// "unit" (may repeat) narrows it to the units named, their states and rolls, and to
// the machines.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	st := &stream{
		w: w, control: http.NewResponseController(w), view: s.Store.NewView(),
		only: r.URL.Query()["unit"], sent: map[string][]byte{}, cancel: cancel,
		began: make(chan struct{}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(ctx, st)
	}()
	defer func() { <-done }()
	defer cancel()
	select {
	case <-st.began:
	case <-time.After(s.cfg.Patience):
		// Nothing has been written: an error can still be told. The read says why.
		cancel()
		<-done
		if len(st.sent) == 0 && !st.synced {
			_, err := s.Store.ReadMachines(r.Context())
			if err == nil {
				err = refuse(http.StatusServiceUnavailable, "the store has answered too late, try again")
			}
			return err
		}
	case <-ctx.Done():
	}
	<-done
	return nil
}

// fewUnits is of how many units it costs less to read each than to read all.
const fewUnits = 10

// follow tells a stream what there is of what it wants, and what changes.
func (s *Server) follow(ctx context.Context, st *stream) {
	if n := len(st.only); n > 0 && n <= fewUnits {
		s.Store.FollowUnits(ctx, st.only, st.view, st.changed)
		return
	}
	s.Store.FollowKept(ctx, s.all, st.view, st.changed)
}

// stream is one reader of the watch. Its methods are called by one goroutine.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	view    *registry.View
	only    []string
	cancel  context.CancelFunc

	began  chan struct{} // closed at the first line
	synced bool
	sent   map[string][]byte // by item, the last line about it
	out    bytes.Buffer
}

// changed writes lines for the items that are not as they were last told.
func (st *stream) changed(changes []registry.Change, loaded bool) {
	if loaded {
		st.all()
	}
	for _, c := range changes {
		if loaded {
			break
		}
		st.item(c)
	}
	if loaded && !st.synced {
		st.line(fleet.Change{Synced: true})
		st.synced = true
	}
	st.flush()
}

// all looks at every item there is, and at those that were there.
func (st *stream) all() {
	gone := make(map[string]bool, len(st.sent))
	for id := range st.sent {
		gone[id] = true
	}
	for _, m := range st.view.Machines() {
		delete(gone, machineItem(m.ID))
		st.machine(m.ID)
	}
	for _, u := range st.view.Units() {
		delete(gone, unitItem(u.Name))
		st.unit(u.Name)
	}
	for _, s := range st.view.States() {
		delete(gone, stateItem(s.Unit, s.Machine))
		st.state(s.Unit, s.Machine)
	}
	for _, r := range st.view.Rolls() {
		delete(gone, rollItem(r.Group))
		st.roll(r.Group)
	}
	for id := range gone {
		var c fleet.Change
		if json.Unmarshal(st.sent[id], &c) == nil {
			st.forget(id, c)
		}
	}
}

// item looks at what a change was about.
func (st *stream) item(c registry.Change) {
	switch c.Kind {
	case registry.KindMachine, registry.KindMetadata, registry.KindCordon:
		st.machine(c.Machine)
	case registry.KindRoll:
		st.roll(c.Group)
	case registry.KindState:
		st.state(c.Unit, c.Machine)
		st.unit(c.Unit) // its current state follows from it
	case registry.KindPlacement:
		st.unit(c.Unit)
		st.roll(model.GroupOf(c.Unit)) // it has come further
	case registry.KindObject, registry.KindDesired, registry.KindUnplaced:
		st.unit(c.Unit)
	}
}

func machineItem(id string) string          { return "machine/" + id }
func unitItem(name string) string           { return "unit/" + name }
func rollItem(group string) string          { return "roll/" + group }
func stateItem(unit, machine string) string { return "state/" + unit + "/" + machine }

func (st *stream) machine(id string) {
	m, ok := st.view.Machine(id)
	out := machineOf(m)
	if !ok {
		out = fleet.Machine{ID: id}
	}
	st.tell(machineItem(id), ok, fleet.Change{Machine: &out})
}

func (st *stream) unit(name string) {
	if !st.wants(name) {
		return
	}
	u, ok := st.view.Unit(name)
	out := fleet.Unit{Name: name}
	if ok {
		out = brief(st.view, u)
	}
	st.tell(unitItem(name), ok, fleet.Change{Unit: &out})
}

// roll tells of a roll with how far it has come, to whoever wants one of its units.
func (st *stream) roll(group string) {
	r, ok := st.view.Roll(group)
	if ok && len(st.only) > 0 && !slices.ContainsFunc(st.only, func(u string) bool { return u == group || r.To[u] != "" }) {
		return
	}
	out := fleet.Roll{Group: group}
	if ok {
		out = rollOf(st.view, r)
	}
	st.tell(rollItem(group), ok, fleet.Change{Roll: &out})
}

func (st *stream) state(name, machine string) {
	if !st.wants(name) {
		return
	}
	s := st.view.State(name, machine)
	ok := s.Unit != ""
	out := stateOf(s)
	if !ok {
		out = fleet.UnitState{Name: name, MachineID: machine}
	}
	st.tell(stateItem(name, machine), ok, fleet.Change{State: &out})
}

func (st *stream) wants(unit string) bool { return len(st.only) == 0 || slices.Contains(st.only, unit) }

// tell writes a line about an item unless that is what was said of it last.
func (st *stream) tell(id string, there bool, c fleet.Change) {
	if !there {
		st.forget(id, c)
		return
	}
	b, err := json.Marshal(c)
	if err != nil || bytes.Equal(st.sent[id], b) {
		return
	}
	st.sent[id] = b
	st.out.Write(append(bytes.Clone(b), '\n'))
}

// forget says that an item is gone, if it was ever told.
func (st *stream) forget(id string, c fleet.Change) {
	if _, told := st.sent[id]; !told {
		return
	}
	delete(st.sent, id)
	c.Deleted = true
	st.line(c)
}

func (st *stream) line(c fleet.Change) {
	b, err := json.Marshal(c)
	if err == nil {
		st.out.Write(append(b, '\n'))
	}
}

// flush sends what has been written; a reader that does not take it is let go.
func (st *stream) flush() {
	select {
	case <-st.began:
	default:
		st.w.Header().Set("Content-Type", "application/x-ndjson")
		st.w.WriteHeader(http.StatusOK)
		close(st.began)
	}
	// Not every connection knows deadlines (a test's does not).
	_ = st.control.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err := st.w.Write(st.out.Bytes())
	st.out.Reset()
	if err == nil {
		err = st.control.Flush()
	}
	if err != nil {
		st.cancel()
	}
}
