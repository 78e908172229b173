package faults

import (
	"fmt"
	"strings"

	"flotilla/api/keys"
)

// Event is one change as a watcher was told of it.
type Event struct {
	Index  uint64 `json:"index"`
	Action string `json:"action"`
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"` // "" for deletes
	// Prev is the index of what the change took the place of; 0 for nothing.
	Prev uint64 `json:"prev,omitempty"`
}

func eventOf(e keys.Event) Event {
	out := Event{Action: e.Action}
	if e.Node != nil {
		out.Index, out.Key = e.Node.ModifiedIndex, e.Node.Key
		if e.Node.Value != nil {
			out.Value = *e.Node.Value
		}
	}
	if e.PrevNode != nil {
		out.Prev = e.PrevNode.ModifiedIndex
	}
	return out
}

func (e Event) removes() bool { return e.Action == keys.Delete || e.Action == keys.CompareAndDelete }

// Watched is all that one watcher was told, from the first change on, over all its
// connections.
type Watched struct {
	Name   string
	Events []Event
}

// maxComplaints is how many complaints of one watcher are told: what goes wrong once
// goes wrong often.
const maxComplaints = 20

// CheckWatch returns what is wrong with what a watcher saw as far as it came: an order
// that is not the index's, a change seen twice or missed, one that nobody asked for.
// All files began as nothing. calls are all requests of the run for what was watched.
func CheckWatch(w Watched, calls []Call) []string {
	c := complaints{who: w.Name}
	c.order(w.Events)
	c.chain(w.Events)
	c.acknowledged(w.Events, calls)
	c.reasons(w.Events, calls)
	return c.out
}

type complaints struct {
	who string
	out []string
}

func (c *complaints) add(format string, args ...any) {
	if len(c.out) < maxComplaints {
		c.out = append(c.out, c.who+": "+fmt.Sprintf(format, args...))
	}
}

// order: indexes grow.
func (c *complaints) order(events []Event) {
	for i := 1; i < len(events); i++ {
		switch before, e := events[i-1], events[i]; {
		case e.Index == before.Index:
			c.add("[%d] %s %s came twice", e.Index, e.Action, e.Key)
		case e.Index < before.Index:
			c.add("[%d] %s %s came after [%d]", e.Index, e.Action, e.Key, before.Index)
		}
	}
}

// chain: what a change took the place of is the change before to the same file. So a
// gap shows also where the write had no answer.
func (c *complaints) chain(events []Event) {
	now := map[string]uint64{}
	for _, e := range events {
		if e.Prev != now[e.Key] {
			c.add("[%d] %s %s took the place of [%d], but [%d] was seen before: a gap", e.Index, e.Action, e.Key, e.Prev, now[e.Key])
		}
		now[e.Key] = e.Index
		if e.removes() {
			now[e.Key] = 0
		}
	}
}

// acknowledged: each write that a client was told of is there, once, as it was asked
// for.
func (c *complaints) acknowledged(events []Event, calls []Call) {
	count := map[uint64]int{}
	at := map[uint64]Event{}
	last := uint64(0)
	for _, e := range events {
		count[e.Index]++
		at[e.Index] = e
		last = max(last, e.Index)
	}
	for _, call := range calls {
		if !call.write() || !call.acked() {
			continue
		}
		index := call.Answer.Node.Modified
		e := at[index]
		switch {
		case index > last: // has not come as far
		case count[index] != 1:
			c.add("[%d] %s %s was acknowledged and seen %d times", index, call.Verb, call.Key, count[index])
		case e.Action != string(call.Verb) || e.Key != call.Key || e.Value != call.Value:
			c.add("[%d] was acknowledged as %s %s %s and seen as %s %s %s", index, call.Verb, call.Key, call.Value, e.Action, e.Key, e.Value)
		}
	}
}

// reasons: each change is one that a client asked for.
func (c *complaints) reasons(events []Event, calls []Call) {
	acked := map[uint64]bool{}
	open := map[string]int{} // writes without an answer
	for _, call := range calls {
		switch {
		case !call.write():
		case call.Answer.Unknown:
			open[reason(string(call.Verb), call.Key, call.Value)]++
		case call.acked():
			acked[call.Answer.Node.Modified] = true
		}
	}
	for _, e := range events {
		if acked[e.Index] {
			continue
		}
		why := reason(e.Action, e.Key, e.Value)
		if open[why] == 0 {
			c.add("[%d] %s was asked for by nobody", e.Index, why)
		}
		open[why]--
	}
}

func reason(action, key, value string) string {
	return strings.TrimSpace(action + " " + key + " " + value)
}

// CompareWatches returns where watchers differ from the first: as far as both came,
// they saw the same changes in the same order.
func CompareWatches(all []Watched) []string {
	var out []string
	for i := 1; i < len(all); i++ {
		if d := firstDifference(all[0].Events, all[i].Events); d != "" {
			out = append(out, fmt.Sprintf("%s and %s differ: %s", all[0].Name, all[i].Name, d))
		}
	}
	return out
}

func firstDifference(a, b []Event) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("change %d is %+v and %+v", i, a[i], b[i])
		}
	}
	return ""
}
