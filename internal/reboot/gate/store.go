package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
	"flotilla/internal/unitfile"
)

// FleetPrefix is where fleet keeps its keys unless it is told otherwise.
const FleetPrefix = "/_coreos.com/fleet/"

// by is who is named in a cordon of ours.
const by = "locksmithd"

// Store reads and writes fleet's keys for one machine.
type Store struct {
	c       *keys.Client
	prefix  string
	machine string
}

// NewStore makes the edge for a machine; it asks the store nothing.
func NewStore(c *keys.Client, prefix, machine string) *Store {
	return &Store{c: c, prefix: path.Join("/", prefix), machine: machine}
}

// Read reads what there is to know of the machine, as a majority of the store has it.
func (s *Store) Read(ctx context.Context) (Fleet, error) {
	var f Fleet
	f.States = map[string]State{}
	machines, err := s.get(ctx, "machines")
	if err != nil {
		return f, err
	}
	for _, m := range children(machines) {
		s.addMachine(&f, m)
	}
	schedule, err := s.get(ctx, path.Join("schedule", s.machine))
	if err != nil {
		return f, err
	}
	for _, n := range children(schedule) {
		f.Entries = append(f.Entries, decodeEntry(path.Base(n.Key), value(n)))
	}
	slices.SortFunc(f.Entries, func(a, b Entry) int { return strings.Compare(a.Unit, b.Unit) })
	if len(f.Entries) == 0 && !f.Present {
		return f, nil
	}
	states, err := s.get(ctx, path.Join("states", s.machine))
	if err != nil {
		return f, err
	}
	for _, n := range children(states) {
		f.States[path.Base(n.Key)] = decodeState(value(n))
	}
	leader, err := s.get(ctx, "lease/engine-leader")
	if err != nil {
		return f, err
	}
	hold, err := s.get(ctx, "engine/hold")
	f.Led, f.Held = leader != nil, value(hold)
	return f, err
}

// addMachine notes one directory below machines/.
func (s *Store) addMachine(f *Fleet, m *keys.Node) {
	id := path.Base(m.Key)
	for _, n := range m.Nodes {
		switch path.Base(n.Key) {
		case "object":
			if id == s.machine {
				f.Present = true
			} else {
				f.Others = append(f.Others, id)
			}
		case "cordon":
			if id == s.machine {
				f.Cordon = decodeCordon(value(n))
			}
		}
	}
}

// get reads a key or all below a directory; nil if it is not there.
func (s *Store) get(ctx context.Context, key string) (*keys.Node, error) {
	r, err := s.c.Get(ctx, path.Join(s.prefix, key), keys.GetOptions{Recursive: true, Quorum: true})
	switch {
	case is(err, wire.CodeKeyNotFound), is(err, wire.CodeNotDir):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read fleet's keys: %w", err)
	}
	return r.Node, nil
}

func is(err error, code int) bool {
	var e *keys.Error
	return errors.As(err, &e) && e.ErrorCode == code
}

func children(n *keys.Node) []*keys.Node {
	if n == nil {
		return nil
	}
	return n.Nodes
}

func value(n *keys.Node) string {
	if n == nil || n.Value == nil {
		return ""
	}
	return *n.Value
}

// decodeEntry reads an entry of the schedule. One that cannot be read is nothing that
// fleet would move.
func decodeEntry(unit, text string) Entry {
	var rec struct {
		Text    string `json:"text"`
		Desired string `json:"desired"`
		Gen     int64  `json:"gen"`
		Leaving bool   `json:"leaving"`
	}
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return Entry{Unit: unit, Stays: "its record cannot be read"}
	}
	return Entry{Unit: unit, Desired: rec.Desired, Gen: rec.Gen, Leaving: rec.Leaving, Stays: stays(rec.Text)}
}

// stays is why fleet would not move a unit of this text.
func stays(text string) string {
	b, err := unitfile.ParseBundle(text)
	if err != nil {
		return "its text cannot be read"
	}
	f := b.Effective()
	if v := f.Fleet(unitfile.Global); len(v) > 0 && unitfile.IsTrue(v[len(v)-1]) {
		return "a global unit"
	}
	if len(f.Fleet(unitfile.MachineID)) > 0 {
		return "bound to this machine by MachineID"
	}
	return ""
}

func decodeState(text string) State {
	var rec struct {
		ActiveState string `json:"activeState"`
		SubState    string `json:"subState"`
		Gen         int64  `json:"gen"`
		Message     string `json:"message"`
	}
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return State{Active: "unknown", Message: "its state's record cannot be read"}
	}
	return State{Active: rec.ActiveState, Sub: rec.SubState, Gen: rec.Gen, Message: rec.Message}
}

// cordonRecord is a cordon as fleet writes it, and what we add to one of ours.
type cordonRecord struct {
	Drain bool      `json:"drain,omitempty"`
	Why   string    `json:"why,omitempty"`
	By    string    `json:"by,omitempty"`
	At    time.Time `json:"at,omitzero"`
	// Before is the cordon that somebody else had put there, to be put back.
	Before json.RawMessage `json:"before,omitempty"`
}

// decodeCordon takes a record that cannot be read for a cordon of somebody else's.
func decodeCordon(text string) *Cordon {
	var rec cordonRecord
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return &Cordon{Why: "its record cannot be read"}
	}
	return &Cordon{Drain: rec.Drain, Why: rec.Why, By: rec.By, Ours: rec.By == by}
}

// Drain cordons the machine and has what is there leave. A cordon that somebody else
// has put there is kept for Uncordon to put back. Done twice it is done once.
func (s *Store) Drain(ctx context.Context, why string, at time.Time) error {
	return s.change(ctx, "cordon", func(old *string) (*string, error) {
		rec := cordonRecord{Drain: true, Why: why, By: by, At: at.UTC().Truncate(time.Second)}
		switch {
		case old == nil:
		case decodeCordon(*old).Ours:
			return old, nil
		case json.Valid([]byte(*old)):
			rec.Before = json.RawMessage(*old)
		}
		text, err := json.Marshal(rec)
		out := string(text)
		return &out, err
	})
}

// Uncordon takes away the cordon that Drain has written, and nobody else's.
func (s *Store) Uncordon(ctx context.Context) error {
	return s.change(ctx, "uncordon", func(old *string) (*string, error) {
		if old == nil || !decodeCordon(*old).Ours {
			return old, nil
		}
		var rec cordonRecord
		if err := json.Unmarshal([]byte(*old), &rec); err != nil || rec.Before == nil {
			return nil, nil
		}
		before := string(rec.Before)
		return &before, nil
	})
}

// cordonTries bounds how often a cordon is written that somebody else writes, too.
const cordonTries = 5

// change makes f's value of the cordon's; nil is no cordon.
func (s *Store) change(ctx context.Context, doing string, f func(old *string) (*string, error)) error {
	fail := func(err error) error { return fmt.Errorf("%s machine %s: %w", doing, s.machine, err) }
	key := path.Join(s.prefix, "machines", s.machine, "cordon")
	var err error
	for range cordonTries {
		var old *string
		var index uint64
		r, getErr := s.c.Get(ctx, key, keys.GetOptions{Quorum: true})
		switch {
		case getErr == nil:
			old, index = r.Node.Value, r.Node.ModifiedIndex
		case !is(getErr, wire.CodeKeyNotFound):
			return fail(getErr)
		}
		next, fErr := f(old)
		if fErr != nil || next == old {
			return fErr
		}
		if err = s.write(ctx, key, next, index); err == nil {
			return nil
		}
		if !is(err, wire.CodeTestFailed) && !is(err, wire.CodeNodeExist) && !is(err, wire.CodeKeyNotFound) {
			return fail(err)
		}
	}
	return fail(err)
}

// write makes next the value of a key that was last changed at index; 0: there was none.
func (s *Store) write(ctx context.Context, key string, next *string, index uint64) error {
	var err error
	switch {
	case next == nil:
		_, err = s.c.Delete(ctx, key, keys.DeleteOptions{PrevIndex: index})
	case index == 0:
		_, err = s.c.Create(ctx, key, *next, 0)
	default:
		_, err = s.c.Set(ctx, key, *next, keys.SetOptions{PrevIndex: index})
	}
	return err
}
