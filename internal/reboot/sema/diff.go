package sema

import (
	"fmt"
	"time"
)

// Record is one holding of a slot that is over: an entry of the history.
type Record struct {
	Machine  string    `json:"machine"`
	Hostname string    `json:"hostname,omitempty"`
	Taken    time.Time `json:"taken,omitzero"` // zero: not known
	Released time.Time `json:"released"`
	Why      string    `json:"why,omitempty"`
	Result   string    `json:"result"` // "good", "bad: WHY" or "lost: WHY"
}

// Ended is the holdings that a change has ended, by machine. The time is that of
// who made the change.
func Ended(before, after Semaphore, at time.Time) []Record {
	var out []Record
	for _, m := range before.Holders {
		if after.Holds(m) {
			continue
		}
		d := before.Details[m]
		out = append(out, Record{
			Machine: m, Hostname: d.Hostname, Taken: d.Since, Released: at, Why: d.Why,
			Result: result(before, after, m),
		})
	}
	return out
}

// result says how the holding ended: as the casualty list has it, before for those
// who kept their slot while all stood still.
func result(before, after Semaphore, machine string) string {
	list := after.Bad
	if before.Details[machine].Phase.over() {
		list = before.Bad
	}
	for _, c := range list {
		if c.Machine == machine {
			return fmt.Sprintf("%s: %s", c.Result, c.Why)
		}
	}
	return "good"
}

// Changes is what a change did, a line each: for the log.
func Changes(before, after Semaphore) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, m := range after.Holders {
		now, was := after.Details[m], before.Details[m]
		switch {
		case !before.Holds(m):
			say("%s took a slot", Name(m, now.Hostname))
		case now.Phase != was.Phase:
			say("%s is %s", Name(m, now.Hostname), orUnknown(now.Phase))
		}
	}
	for _, m := range before.Holders {
		if !after.Holds(m) {
			say("%s gave its slot back: %s", Name(m, before.Details[m].Hostname), result(before, after, m))
		}
	}
	if before.Max != after.Max {
		say("max is %d, was %d", after.Max, before.Max)
	}
	switch {
	case before.Stopped == nil && after.Stopped != nil:
		say("stopped: %s", after.Stopped.Why)
	case before.Stopped != nil && after.Stopped == nil:
		say("goes on")
	}
	return out
}

func orUnknown(p Phase) string {
	if p == "" {
		return "in a phase that is not known"
	}
	return string(p)
}
