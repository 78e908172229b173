package sema

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// rawField is a field's value as it was read, comparable in tests.
type rawField = string

// wire is the value as it is stored: the classic fields in the classic order, then
// ours, which are left out where they say nothing.
type wire struct {
	Semaphore int               `json:"semaphore"`
	Max       int               `json:"max"`
	Holders   []string          `json:"holders"`
	Details   map[string]Detail `json:"details,omitempty"`
	Bad       []Casualty        `json:"bad,omitempty"`
	Stopped   *Stop             `json:"stopped,omitempty"`
	StopAfter *int              `json:"stop_after,omitempty"`
}

var known = []string{"semaphore", "max", "holders", "details", "bad", "stopped", "stop_after"}

// MaxSize is how many bytes a value may have: some thousand holders. The store would take
// more, and every machine would read them with each sign of life.
const MaxSize = 1 << 20

// inWords says what is wrong with JSON without the names of our types.
func inWords(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	want := "an object"
	switch wrong.Type.Kind() {
	case reflect.Int:
		want = "a whole number"
	case reflect.String:
		want = "a text"
	case reflect.Slice:
		want = "a list"
	}
	if wrong.Field == "" {
		return fmt.Errorf("%s, want %s", wrong.Value, want)
	}
	return fmt.Errorf("%s: %s, want %s", wrong.Field, wrong.Value, want)
}

// Decode reads a value, whoever has written it. Max and the holders count; the
// field "semaphore" follows from them and is not believed.
func Decode(data []byte) (Semaphore, error) {
	if len(data) > MaxSize {
		return Semaphore{}, fmt.Errorf("reboot lock: %d bytes are more than %d", len(data), MaxSize)
	}
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return Semaphore{}, fmt.Errorf("reboot lock: %w", inWords(err))
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil || all == nil {
		return Semaphore{}, errors.New("reboot lock: not a JSON object")
	}
	if slices.Contains(w.Holders, "") {
		return Semaphore{}, errors.New("reboot lock: a holder without a name")
	}
	s := Semaphore{Max: w.Max, Holders: w.Holders, Bad: w.Bad, Stopped: w.Stopped, StopAfter: DefaultStopAfter}
	if w.StopAfter != nil {
		s.StopAfter = max(*w.StopAfter, 0)
	}
	slices.Sort(s.Holders)
	s.Holders = slices.Compact(s.Holders)
	for machine, d := range w.Details {
		if s.Holds(machine) {
			if s.Details == nil {
				s.Details = map[string]Detail{}
			}
			s.Details[machine] = d
		}
	}
	s.rest = restOf(all)
	return s, nil
}

// restOf is the fields that nobody here knows: a later release may.
func restOf(all map[string]json.RawMessage) map[string]rawField {
	var rest map[string]rawField
	for name, raw := range all {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			continue
		}
		if rest == nil {
			rest = map[string]rawField{}
		}
		rest[name] = string(raw)
	}
	return rest
}

// Encode writes the value. The same semaphore is the same bytes.
func (s Semaphore) Encode() []byte {
	w := wire{Semaphore: s.Free(), Max: s.Max, Holders: s.Holders, Details: s.Details, Bad: s.Bad, Stopped: s.Stopped}
	if s.StopAfter != DefaultStopAfter {
		w.StopAfter = &s.StopAfter
	}
	out := encode(w)
	if len(s.rest) == 0 {
		return out
	}
	rest := map[string]json.RawMessage{}
	for name, raw := range s.rest {
		rest[name] = json.RawMessage(raw)
	}
	return append(append(out[:len(out)-1], ','), encode(rest)[1:]...)
}

// encode marshals what always marshals: times that were read are in the range that
// can be written, and raw fields have been parsed once.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sema: encode: %v", err))
	}
	return b
}
