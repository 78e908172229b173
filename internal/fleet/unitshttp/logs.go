package unitshttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// ExitCodeHeader of GET units/NAME/status is the exit code of "systemctl status":
// of several machines the last that is not 0.
const ExitCodeHeader = "X-Exit-Code"

// where finds the machines to ask about a unit: those that hold it, or the one
// that "machine" in the request names, which may have held it before.
func (s *Server) where(r *http.Request, name string) ([]model.Machine, error) {
	present, err := s.Store.ReadMachines(r.Context())
	if err != nil {
		return nil, err
	}
	if id := r.URL.Query().Get("machine"); id != "" {
		found, err := oneMachine(present.Machines(), id)
		if err != nil {
			return nil, s.heldHint(r.Context(), model.Machine{ID: id}, err)
		}
		return found, nil
	}
	v, err := s.Store.ReadUnit(r.Context(), name)
	if err != nil {
		return nil, err
	}
	u, ok := v.Unit(name)
	if !ok {
		return nil, registry.ErrNoUnit
	}
	entries := v.PlacementsOf(name)
	if p, ok := place(entries); ok && !u.Req.Global {
		entries = []model.Placement{p}
	}
	if len(entries) == 0 {
		return nil, nowhere(name, brief(v, u).Reason)
	}
	var out []model.Machine
	for _, p := range entries {
		m, ok := present.Machine(p.Machine)
		if !ok {
			m = model.Machine{ID: p.Machine} // away: said when it is asked
		}
		out = append(out, m)
	}
	return out, nil
}

// oneMachine finds the machine that is present under an id or the beginning of one.
func oneMachine(present []model.Machine, id string) ([]model.Machine, error) {
	var found []model.Machine
	for _, m := range present {
		if strings.HasPrefix(m.ID, id) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return nil, refuse(http.StatusNotFound, "no machine %s is present", id)
	case 1:
		return found, nil
	}
	return nil, refuse(http.StatusBadRequest, "%d machines have an id that begins with %s", len(found), id)
}

// heldHint adds to the error of a machine that is away that its units stay there, if
// moves are held.
func (s *Server) heldHint(ctx context.Context, m model.Machine, err error) error {
	if m.PeerAddr != "" {
		return err
	}
	v, e := s.Store.Read(ctx, registry.EngineNotes)
	if e != nil || v.Hold() == "" {
		return err
	}
	return fault.Hint(err, "moves are held, so that units stay on machines that are away: %s; 'fleetctl doctor' says what can be done", v.Hold())
}

func nowhere(name, why string) error {
	if why == "" {
		return refuse(http.StatusNotFound, "unit %s is on no machine", name)
	}
	return refuse(http.StatusNotFound, "unit %s is on no machine: %s", name, why)
}

func (s *Server) readLog(ctx context.Context, m model.Machine, q peer.Query, emit func(unit.LogEntry) error) error {
	if m.ID == s.cfg.Machine {
		return peer.Read(ctx, s.Local, q, func(e unit.LogEntry) error {
			if e.Machine == "" {
				e.Machine = s.cfg.Hostname
			}
			return emit(e)
		})
	}
	if err := s.reachable(m); err != nil {
		return err
	}
	return s.Peers.ReadLog(ctx, m, q, emit)
}

func (s *Server) show(ctx context.Context, m model.Machine, w *bytes.Buffer, name string) (int, error) {
	if m.ID == s.cfg.Machine {
		return s.Local.Show(ctx, w, name)
	}
	if err := s.reachable(m); err != nil {
		return 0, err
	}
	return s.Peers.Show(ctx, m, w, name)
}

// reachable says why another machine cannot be asked; nil if it can.
func (s *Server) reachable(m model.Machine) error {
	switch {
	case s.Peers == nil:
		return refuse(http.StatusBadGateway, "machine %s cannot be asked: this fleetd does not speak to others (peer_listen is off)", m.ID)
	case m.PeerAddr == "" && m.Boot == "":
		return refuse(http.StatusBadGateway, "machine %s is away", m.ID)
	case m.PeerAddr == "":
		return refuse(http.StatusBadGateway, "machine %s (%s) cannot be asked: it does not listen (peer_listen is off there)", m.ID, m.Hostname)
	}
	return nil
}

// status answers with what "systemctl status" says on each machine that holds the
// unit, an empty line between two.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	where, err := s.where(r, name)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	code := 0
	for i, m := range where {
		if i > 0 {
			text.WriteByte('\n')
		}
		if len(where) > 1 {
			fmt.Fprintf(&text, "Machine %s %s\n", m.ID, m.Hostname)
		}
		one, err := s.show(r.Context(), m, &text, name)
		switch {
		case err != nil && len(where) == 1:
			return s.heldHint(r.Context(), m, gateway(err))
		case err != nil:
			fmt.Fprintf(&text, "%v\n", err)
			one = fault.ExitFailed
		}
		if one != 0 {
			code = one
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(ExitCodeHeader, strconv.Itoa(code))
	w.Write(text.Bytes()) // an error is the client's going away
	return nil
}

// gateway is the error of a machine that was asked and did not answer.
func gateway(err error) error {
	var no *refusal
	if errors.As(err, &no) {
		return err
	}
	return refuse(http.StatusBadGateway, "%v", err)
}

// journal streams the entries of one unit's log, one JSON object a line. It ends
// when a machine that is asked fails: logs goes on.
func (s *Server) journal(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	q, err := chooseEntries(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}
	q.Units = []string{name}
	where, err := s.where(r, name)
	if err != nil {
		return err
	}
	out := newLines(w, q.Follow)
	emit := func(e unit.LogEntry) error { return out.write(e) }
	if len(where) == 1 || q.Follow {
		err = s.interleave(r.Context(), where, q, emit)
	} else {
		err = s.merge(r.Context(), where, q, emit)
	}
	if err != nil && r.Context().Err() == nil && !out.began {
		return gateway(err)
	}
	out.end(err)
	return nil
}

// interleave passes entries on as they come; the first machine to fail ends it.
func (s *Server) interleave(ctx context.Context, where []model.Machine, q peer.Query, emit func(unit.LogEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	errs := make([]error, len(where))
	var wg sync.WaitGroup
	for i, m := range where {
		wg.Go(func() {
			errs[i] = s.readLog(ctx, m, q, func(e unit.LogEntry) error {
				mu.Lock()
				defer mu.Unlock()
				return emit(e)
			})
			if errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// merge collects the entries of several machines and passes them on in order of
// time. A machine that cannot be asked does not keep the others' entries back.
func (s *Server) merge(ctx context.Context, where []model.Machine, q peer.Query, emit func(unit.LogEntry) error) error {
	var all []unit.LogEntry
	var errs []error
	for _, m := range where {
		errs = append(errs, s.readLog(ctx, m, q, func(e unit.LogEntry) error {
			all = append(all, e)
			return nil
		}))
	}
	slices.SortStableFunc(all, func(a, b unit.LogEntry) int { return a.Time.Compare(b.Time) })
	for _, e := range all {
		if err := emit(e); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// lines writes a stream of JSON objects, one a line.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	live    bool // each line is sent at once
	began   bool
}

func newLines(w http.ResponseWriter, live bool) *lines {
	return &lines{w: w, control: http.NewResponseController(w), live: live}
}

func (l *lines) begin() {
	if l.began {
		return
	}
	l.began = true
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
}

// write sends one line; it fails when the reader has gone away.
func (l *lines) write(v any) error {
	l.begin()
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_ = l.control.SetWriteDeadline(time.Now().Add(writeLimit)) // not every connection knows deadlines
	_, err = l.w.Write(append(b, '\n'))
	if err != nil || !l.live {
		return err
	}
	return l.flush()
}

func (l *lines) flush() error { return l.control.Flush() }

// end closes the stream. What broke it is a last line of its own: an error, as
// every other answer has it for its body.
func (l *lines) end(err error) {
	l.begin()
	if err == nil {
		return
	}
	b, err := json.Marshal(fleet.ErrorBody{Error: fleet.Error{Code: http.StatusBadGateway, Message: err.Error()}})
	if err == nil {
		l.w.Write(append(b, '\n')) // an error is the client's going away
	}
}
