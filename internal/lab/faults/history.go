package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/anishathalye/porcupine"

	"flotilla/api/keys"
)

// Verb is what a client asks for.
type Verb string

// The verbs. Which of value and index a compare is by is in the request.
const (
	Get              Verb = "get" // always a quorum read
	Set              Verb = "set"
	Create           Verb = "create"
	CompareAndSwap   Verb = "compareAndSwap"
	Delete           Verb = "delete"
	CompareAndDelete Verb = "compareAndDelete"
)

// Request is one request for one file. Values of writes are unique in a run.
type Request struct {
	Verb      Verb   `json:"verb"`
	Key       string `json:"key"`
	Value     string `json:"value,omitempty"`
	PrevValue string `json:"prevValue,omitempty"` // "": not compared
	PrevIndex uint64 `json:"prevIndex,omitempty"` // 0: not compared
}

// Version is a file as an answer shows it.
type Version struct {
	Value    string `json:"value"`
	Modified uint64 `json:"modified"`
	Created  uint64 `json:"created"`
}

// Answer is what came back.
type Answer struct {
	// Unknown: no answer came, or one that does not say whether the request was
	// carried out. The rest is empty then.
	Unknown bool `json:"unknown,omitempty"`
	// Code is the error's; 0 is success.
	Code int `json:"code,omitempty"`
	// Index is the store's when it answered (X-Etcd-Index).
	Index uint64 `json:"index,omitempty"`
	// Node is the file, Prev the one that it took the place of; nil for none.
	Node *Version `json:"node,omitempty"`
	Prev *Version `json:"prev,omitempty"`
	// Why is why the answer is unknown.
	Why string `json:"why,omitempty"`
}

// Call is one request and its answer, with the times since the start of the run.
type Call struct {
	Client int           `json:"client"`
	Member string        `json:"member"`
	Begin  time.Duration `json:"begin"`
	End    time.Duration `json:"end"`
	Request
	Answer Answer `json:"answer"`
}

func (c Call) write() bool { return c.Verb != Get }

// acked: carried out, and the client was told so.
func (c Call) acked() bool { return !c.Answer.Unknown && c.Answer.Code == 0 }

// file is the state of the model.
type file struct {
	there    bool
	value    string
	modified uint64 // 0: written by a request whose answer is unknown
	created  uint64 // the same
	// floor: no write that comes later has an index as low as this.
	floor uint64
}

// model is one file: its requests, in some order, have to explain every answer.
var model = porcupine.Model{
	Init: func() any { return file{} },
	Step: func(state, in, out any) (bool, any) {
		ok, after := step(state.(file), in.(Request), out.(Answer))
		return ok, after
	},
	DescribeOperation: func(in, out any) string { return describe(in.(Request), out.(Answer)) },
	DescribeState: func(state any) string {
		s := state.(file)
		if !s.there {
			return fmt.Sprintf("nothing [>%d]", s.floor)
		}
		return fmt.Sprintf("%s [%d, created %d]", s.value, s.modified, s.created)
	},
}

func describe(r Request, a Answer) string {
	s := string(r.Verb)
	if r.Value != "" {
		s += " " + r.Value
	}
	if r.PrevValue != "" {
		s += " if " + r.PrevValue
	}
	if r.PrevIndex != 0 {
		s += fmt.Sprintf(" if [%d]", r.PrevIndex)
	}
	switch {
	case a.Unknown:
		return s + ": ?"
	case a.Code != 0:
		return fmt.Sprintf("%s: error %d", s, a.Code)
	}
	return fmt.Sprintf("%s: %s [%d]", s, a.Node.Value, a.Node.Modified)
}

// step tells whether the file in state s can answer a to request r, and what it is
// then.
func step(s file, r Request, a Answer) (bool, file) {
	switch {
	case a.Unknown:
		return true, s.perhaps(r)
	case a.Code != 0:
		return a.Index >= s.floor && s.refuses(r, a.Code), s
	case r.Verb == Get:
		return s.shows(a.Node) && a.Index >= a.Node.Modified, s.as(a.Node)
	}
	return s.takes(r, a)
}

// perhaps is the file after a request whose answer is unknown. That it was never
// carried out needs no case of its own: then it comes after everything else.
//
// A file that such a write has left has an index that nobody was told: a compare by
// index, which names one that was told, does not match it.
func (s file) perhaps(r Request) file {
	if s.refusal(r) != 0 {
		return s
	}
	switch r.Verb {
	case Delete, CompareAndDelete:
		return file{floor: s.floor}
	case CompareAndSwap:
		return file{there: true, value: r.Value, created: s.created, floor: s.floor}
	case Set, Create:
		return file{there: true, value: r.Value, floor: s.floor}
	}
	return s
}

func (s file) refuses(r Request, code int) bool { return code == s.refusal(r) }

// refusal is the error code with which the file refuses a request; 0 for none.
func (s file) refusal(r Request) int {
	switch {
	case r.Verb == Set:
		return 0
	case r.Verb == Create && s.there:
		return keys.CodeNodeExist
	case r.Verb == Create:
		return 0
	case !s.there:
		return keys.CodeKeyNotFound
	case r.PrevValue != "" && r.PrevValue != s.value, r.PrevIndex != 0 && r.PrevIndex != s.modified:
		return keys.CodeTestFailed
	}
	return 0
}

// shows tells whether v can be the file.
func (s file) shows(v *Version) bool {
	if v == nil || !s.there {
		return v == nil && !s.there
	}
	return v.Value == s.value &&
		(v.Modified == s.modified || s.modified == 0 && v.Modified > s.floor) &&
		(v.Created == s.created || s.created == 0 && v.Created > 0)
}

// as is the file once its indexes are known.
func (s file) as(v *Version) file {
	if v == nil {
		return s
	}
	return file{there: true, value: v.Value, modified: v.Modified, created: v.Created, floor: max(s.floor, v.Modified)}
}

// takes is a write that was carried out.
func (s file) takes(r Request, a Answer) (bool, file) {
	if !s.shows(a.Prev) || a.Node == nil {
		return false, s
	}
	s = s.as(a.Prev)
	if s.refusal(r) != 0 || a.Node.Modified <= s.floor || a.Index < a.Node.Modified {
		return false, s
	}
	after := s.as(a.Node)
	switch r.Verb {
	case Set, Create:
		return a.Node.Value == r.Value && a.Node.Created == a.Node.Modified, after
	case CompareAndSwap:
		return a.Node.Value == r.Value && a.Node.Created == s.created, after
	case Delete, CompareAndDelete:
		// A delete of nothing is refused, so created is known.
		return a.Node.Created == s.created, file{floor: a.Node.Modified}
	}
	return false, s
}

// Verdict is what the model says of a history.
type Verdict struct {
	Keys int // judged
	// Wrong are keys whose answers no order explains; Undecided those for which the
	// time limit came first.
	Wrong, Undecided []string
}

// Judge checks the history of each key against the model. told are the values of all
// changes that watchers were told of, nil if that is not known. limit is how long one
// key may take. illegal, unless nil, is told of each key that is wrong.
func Judge(calls []Call, told map[string]bool, limit time.Duration, illegal func(key string, info porcupine.LinearizationInfo)) Verdict {
	histories := perKey(calls)
	v := Verdict{Keys: len(histories)}
	for _, key := range sortedKeysOf(histories) {
		result, info := porcupine.CheckOperationsVerbose(model, operations(histories[key], told), limit)
		switch result {
		case porcupine.Illegal:
			v.Wrong = append(v.Wrong, key)
			if illegal != nil {
				illegal(key, info)
			}
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, key)
		}
	}
	return v
}

func perKey(calls []Call) map[string][]Call {
	out := map[string][]Call{}
	for _, c := range calls {
		out[c.Key] = append(out[c.Key], c)
	}
	return out
}

// operations is the history of one key as porcupine wants it. Reads without an answer
// say nothing and are left out. So are writes without one that were never carried out,
// if that is known: each of them doubles the orders to try. It is known where no
// watcher was told of their value; a watcher that should have been is found by the
// watch checks.
func operations(calls []Call, told map[string]bool) []porcupine.Operation {
	var end time.Duration
	for _, c := range calls {
		end = max(end, c.End)
	}
	var out []porcupine.Operation
	for _, c := range calls {
		op := porcupine.Operation{ClientId: c.Client, Input: c.Request, Output: c.Answer, Call: int64(c.Begin), Return: int64(c.End)}
		if c.Answer.Unknown {
			if c.Verb == Get || c.Value != "" && told != nil && !told[c.Value] {
				continue
			}
			op.Return = int64(end) + 1 // after everything else
		}
		out = append(out, op)
	}
	return out
}

// line is one line of a history file: a call, or what a watcher was told.
type line struct {
	Call    *Call  `json:"call,omitempty"`
	Watcher string `json:"watcher,omitempty"`
	Event   *Event `json:"event,omitempty"`
}

// WriteHistory writes all that a run saw, one JSON object a line.
func WriteHistory(w io.Writer, calls []Call, watched []Watched) error {
	enc := json.NewEncoder(w)
	var errs []error
	for i := range calls {
		errs = append(errs, enc.Encode(line{Call: &calls[i]}))
	}
	for _, seen := range watched {
		for i := range seen.Events {
			errs = append(errs, enc.Encode(line{Watcher: seen.Name, Event: &seen.Events[i]}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// ReadHistory reads what WriteHistory has written.
func ReadHistory(r io.Reader) (calls []Call, watched []Watched, err error) {
	for dec := json.NewDecoder(r); ; {
		var l line
		switch err := dec.Decode(&l); {
		case errors.Is(err, io.EOF):
			return calls, watched, nil
		case err != nil:
			return nil, nil, fmt.Errorf("read the history: line %d: %w", len(calls), err)
		}
		switch n := len(watched); {
		case l.Call != nil:
			calls = append(calls, *l.Call)
		case l.Event == nil:
		case n > 0 && watched[n-1].Name == l.Watcher:
			watched[n-1].Events = append(watched[n-1].Events, *l.Event)
		default:
			watched = append(watched, Watched{Name: l.Watcher, Events: []Event{*l.Event}})
		}
	}
}
