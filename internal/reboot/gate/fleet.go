// Package gate decides when a machine may go down and when it is back: what has to
// leave before a reboot, and what has to be well after it.
//
// What fleet does on the machine is read in the store, in the keys that
// docs/formats/registry.md lists, and the cordon is written there: nothing of fleet's is
// called. What follows of it is decided by functions without effects (Fleet, Still,
// Local); Store, Local.Look and Hooks are the edges.
package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fleet is what the store says about one machine. The zero value is a store that knows
// nothing of fleet.
type Fleet struct {
	Present bool     // its fleetd is there
	Others  []string // other machines that are there, by id
	Cordon  *Cordon  // nil: none
	Entries []Entry  // what it is to run, by name of the unit
	States  map[string]State
	// Led is whether an engine decides now, Held why it moves nothing; "" it does.
	Led  bool
	Held string
}

// Entry is one unit that is scheduled on the machine.
type Entry struct {
	Unit    string
	Desired string // "loaded" or "launched"
	Gen     int64  // what is to be carried out
	Leaving bool   // it has been given to another machine and runs on until that one has it
	// Stays is why it cannot leave: it is on every machine, or bound to this one; "" it
	// can.
	Stays string
}

// State is what the machine's fleetd says of a unit.
type State struct {
	Active  string // systemd's word
	Sub     string
	Gen     int64 // what has been carried out
	Message string
}

// Cordon is a machine's cordon, as its record says.
type Cordon struct {
	Drain bool
	Why   string
	By    string
	// Ours says that this machine's locksmithd wrote it.
	Ours bool
}

// Used is whether there is anything of fleet's on the machine.
func (f Fleet) Used() bool {
	return f.Present || len(f.Entries) > 0 || f.Cordon != nil && f.Cordon.Ours
}

// ToMove is the units that are here and could be elsewhere.
func (f Fleet) ToMove() []string {
	var out []string
	for _, e := range f.Entries {
		if e.Stays == "" {
			out = append(out, e.Unit)
		}
	}
	return out
}

// moving is whether a unit is on its way: another machine is starting it, or it is
// being stopped because it must not run twice.
func (f Fleet) moving() bool {
	for _, e := range f.Entries {
		active := f.States[e.Unit].Active
		stopping := e.Desired != "launched" && (active == "active" || active == "deactivating")
		if e.Leaving || e.Stays == "" && stopping {
			return true
		}
	}
	return false
}

// Still is for how long nothing has left a machine that is drained. The zero value has
// seen nothing.
type Still struct {
	last string
	at   time.Duration
	seen bool
}

// Look notes what is there at this time of a clock that only runs forward, and returns
// how long it has been so. While a unit is on its way, or the engine is not there or
// moves nothing, the time does not count.
func (s *Still) Look(f Fleet, now time.Duration) time.Duration {
	is := fmt.Sprint(f.Entries)
	if !s.seen || is != s.last || f.moving() || !f.Led || f.Held != "" {
		s.seen, s.last, s.at = true, is, now
	}
	return now - s.at
}

// Limits of a drain.
type Limits struct {
	// Timeout is how long a drain may take in all; what is there then goes down with
	// the machine.
	Timeout time.Duration
	// Stuck is how long nothing may leave before what is left counts as having no other
	// place.
	Stuck time.Duration
}

// Drained decides whether the machine may go down, and says why, or what it waits for.
// Elapsed is for how long it has been drained, still what Still.Look said.
func (f Fleet) Drained(elapsed, still time.Duration, l Limits) (bool, string) {
	left := f.ToMove()
	switch {
	case !f.Used():
		return true, "fleet runs nothing here"
	case len(left) == 0:
		return true, "nothing is here that could run elsewhere"
	case len(f.Others) == 0:
		return true, "there is no other machine for " + list(left)
	case elapsed >= l.Timeout:
		return true, fmt.Sprintf("%s did not leave within %v", list(left), l.Timeout)
	case still >= l.Stuck:
		return true, fmt.Sprintf("no other machine has taken %s for %v", list(left), l.Stuck)
	case !f.Led:
		return false, "no engine leads that would move " + list(left)
	case f.Held != "":
		return false, fmt.Sprintf("%s to leave, but moves are held: %s", list(left), f.Held)
	}
	return false, list(left) + " to leave"
}

// named is how many units are named in a reason.
const named = 4

func list(units []string) string {
	if len(units) <= named {
		return strings.Join(units, ", ")
	}
	return fmt.Sprintf("%s and %d more units", strings.Join(units[:named], ", "), len(units)-named)
}

// Unwell is what is not as it should be with the machine's units after a reboot, by
// unit; empty if all is well.
func (f Fleet) Unwell() []string {
	if !f.Used() {
		return nil
	}
	if !f.Present {
		return []string{"fleetd of this machine has not joined the cluster"}
	}
	var out []string
	for _, e := range f.Entries {
		if why := f.unwell(e); why != "" {
			out = append(out, e.Unit+" "+why)
		}
	}
	slices.Sort(out)
	return out
}

// unwell is what is wrong with one unit; "" nothing.
func (f Fleet) unwell(e Entry) string {
	if e.Desired != "launched" || e.Leaving {
		return ""
	}
	s, known := f.States[e.Unit]
	done := s.Gen >= e.Gen
	switch {
	case known && done && s.Active == "active", known && done && s.Active == "reloading":
		return ""
	case known && done && s.Active == "inactive" && s.Message == "":
		return "" // it has been started, has done its work, and has ended well
	case !known:
		return "has not been started"
	case s.Message != "":
		return fmt.Sprintf("is %s: %s", s.Active, s.Message)
	case !done:
		return "is to be started"
	}
	return "is " + s.Active
}
