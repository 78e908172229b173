package fleetctl

import (
	"fmt"
	"time"

	api "flotilla/api/fleet"
)

// The states that a unit can be waited for: those of the API, and being gone.
const (
	inactive = "inactive"
	loaded   = "loaded"
	launched = "launched"
	gone     = "gone"
)

// want is what a unit was asked to be.
type want struct {
	unit string
	goal string
	// before is the generation that the unit had before it was asked; 0: none, or
	// not told. Only a higher one carries the request.
	before int64
	// there: the unit has been seen to be there, so that it is there no more if it is
	// not.
	there bool
	// failedBefore: the unit had failed when it was asked. Systemd calls a simple
	// service active as soon as there is a process, so that one which fails at once
	// may be told as active first.
	failedBefore bool
	hash         string // of the text that is to run; "" whichever the cluster has
	// rolledBefore is when the last roll of its group began, if it had ended when the
	// unit was asked; zero: none had.
	rolledBefore time.Time
	// global: the unit is to have the text wherever it is.
	global bool
}

// kind is what a verdict says.
type kind int

const (
	waiting kind = iota
	done
	failed
)

// verdict is what judge thinks of a unit.
type verdict struct {
	kind kind
	// tentative: what has been told so far may be older than the request. The
	// verdict counts once it has held for a while.
	tentative bool
	machine   string // id of the machine that the verdict is about; "" none
	text      string // what it waits for, or why it failed
	busy      bool   // waiting, and the init system is at work on it
	logs      bool   // failed, and the unit's log may say why
	refused   bool   // logs, and it is what the init system says of the file whenever it reads it
	roll      string // group of the roll that failed; "" none has
}

func waitFor(format string, args ...any) verdict {
	return verdict{text: fmt.Sprintf(format, args...)}
}

// judge says how a unit stands to what it was asked to be. It depends on nothing
// but its arguments.
//
// A server that tells generations tells apart what a machine reported before and
// after the request. From one that does not (fleet 1.0), an end that the unit may
// have come to before the request is tentative.
func judge(w want, p *picture) verdict {
	switch w.goal {
	case gone:
		return judgeGone(w, p)
	case inactive:
		return judgeInactive(w, p)
	}
	u, exists := p.units[w.unit]
	if v := judgeRequest(w, u, exists); v != nil {
		return *v
	}
	if r, ok := p.rollOf(w); ok {
		if v := judgeRoll(r); v.kind != done {
			return v
		}
	}
	if w.global {
		return judgeGlobal(w, p)
	}
	if u.MachineID == "" {
		if u.Reason != "" {
			return verdict{kind: failed, tentative: true, text: "no machine can take it: " + u.Reason}
		}
		return waitFor("a machine to be chosen")
	}
	st, reported := p.states[w.unit][u.MachineID]
	if !reported {
		return waitFor("%s to load it", p.machine(u.MachineID))
	}
	v := judgeState(w, u, st, p.machine(u.MachineID))
	v.machine = u.MachineID
	v.tentative = v.tentative || w.failedBefore && v.kind == done
	return v
}

// judgeRequest says whether the cluster has taken up the request; nil if it has.
func judgeRequest(w want, u api.Unit, exists bool) *verdict {
	var v verdict
	switch {
	case !exists && (w.before != 0 || w.there):
		v = verdict{kind: failed, tentative: true, text: "it has been destroyed meanwhile"}
	case !exists, u.Generation != 0 && u.Generation <= w.before:
		v = waitFor("the request to be taken up")
	case u.DesiredState != w.goal:
		v = verdict{kind: failed, tentative: true, text: "it was asked to be " + u.DesiredState + " meanwhile"}
	default:
		return nil
	}
	return &v
}

// judgeRoll says how the roll stands that brings a unit its new text.
func judgeRoll(r api.Roll) verdict {
	why := ""
	if r.Why != "" {
		why = ": " + r.Why
	}
	switch r.State {
	case "done":
		return verdict{kind: done}
	case "reverted":
		return verdict{kind: failed, roll: r.Group, text: "went back to the text before" + why}
	case "reverting":
		return verdict{busy: true, text: "the texts before to be back" + why}
	case "paused":
		return verdict{busy: true, text: fmt.Sprintf("somebody to resume the roll of %s, %d of %d changed ('fleetctl roll resume %s')", r.Group, r.Changed, r.Total, r.Group)}
	}
	if why == "" {
		why = fmt.Sprintf(": %d of %d changed", r.Changed, r.Total)
	}
	return verdict{busy: true, text: "the roll of " + r.Group + why}
}

// judgeGlobal says whether every machine that is present has a global unit's new text.
func judgeGlobal(w want, p *picture) verdict {
	for _, id := range p.holding(w.unit) {
		if st := p.states[w.unit][id]; st.Hash != "" && st.Hash != w.hash {
			return waitFor("%s to load the new text", p.machine(id))
		}
	}
	return verdict{kind: done}
}

// judgeState compares what the unit's machine reports with the goal, which is
// loaded or launched.
func judgeState(w want, u api.Unit, st api.UnitState, where string) verdict {
	told := u.Generation != 0
	switch {
	case told && st.Generation < u.Generation && st.Message != "" && !working(st):
		// The machine has tried; it may be trying again.
		v := failure(st, where, "could not be "+w.goal)
		v.tentative = true
		return v
	case w.hash != "" && st.Hash != "" && st.Hash != w.hash:
		return waitFor("%s to load the new text", where)
	case told && st.Generation < u.Generation:
		return verdict{text: activity(st) + " on " + where, busy: working(st)}
	}
	var v verdict
	if w.goal == launched {
		v = judgeLaunched(st, where)
	} else {
		v = judgeLoaded(st, where)
	}
	// Untold, a failure may be an old one, and a unit at rest may not have begun. A
	// unit that runs has begun since: it would not have been asked to start.
	v.tentative = !told && (v.kind == failed || v.kind == done && w.goal == launched && atRest(st))
	return v
}

func judgeLaunched(st api.UnitState, where string) verdict {
	switch st.SystemdActiveState {
	case "active", "reloading", "refreshing":
		return verdict{kind: done}
	case "activating":
		if st.SystemdSubState == "auto-restart" {
			return failure(st, where, "failed and will be tried again")
		}
		return verdict{text: activity(st) + " on " + where, busy: true}
	case "deactivating":
		return verdict{text: activity(st) + " on " + where, busy: true}
	case "failed":
		return failure(st, where, "failed")
	}
	if st.Message != "" || cannotLoad(st) {
		return failure(st, where, "could not be launched")
	}
	return verdict{kind: done} // it ran and finished
}

func judgeLoaded(st api.UnitState, where string) verdict {
	switch {
	case !atRest(st):
		return verdict{text: "it to stop (" + activity(st) + ") on " + where, busy: working(st)}
	case cannotLoad(st):
		return failure(st, where, "could not be loaded")
	}
	return verdict{kind: done}
}

// working reports whether the init system is at work on the unit, with limits of
// its own.
func working(st api.UnitState) bool {
	switch st.SystemdActiveState {
	case "activating", "deactivating", "reloading", "refreshing":
		return true
	}
	return false
}

// cannotLoad reports whether the init system refuses the unit file.
func cannotLoad(st api.UnitState) bool {
	switch st.SystemdLoadState {
	case "", "loaded", "stub", "merged":
		return false
	}
	return true
}

func failure(st api.UnitState, where, what string) verdict {
	state := activity(st)
	if cannotLoad(st) {
		state = st.SystemdLoadState
	}
	text := fmt.Sprintf("%s on %s (%s)", what, where, state)
	if st.Message != "" {
		text += ": " + st.Message
	}
	return verdict{kind: failed, text: text, logs: true, refused: cannotLoad(st)}
}

// activity is the unit's state in the init system's words.
func activity(st api.UnitState) string {
	if st.SystemdSubState == "" || st.SystemdSubState == st.SystemdActiveState {
		return orDash(st.SystemdActiveState)
	}
	return st.SystemdActiveState + "/" + st.SystemdSubState
}

func judgeInactive(w want, p *picture) verdict {
	u, exists := p.units[w.unit]
	if v := judgeRequest(w, u, exists); v != nil {
		return *v
	}
	if ids := p.running(w.unit); len(ids) > 0 {
		return stopping(w.unit, ids[0], p)
	}
	if u.CurrentState != inactive && u.CurrentState != "" {
		return waitFor("%s to unload it", orDash(p.machine(u.MachineID)))
	}
	return verdict{kind: done}
}

func judgeGone(w want, p *picture) verdict {
	u, exists := p.units[w.unit]
	if exists && u.Generation > w.before {
		return verdict{kind: done} // somebody has made a new one since
	}
	if exists {
		return waitFor("the request to be taken up")
	}
	if ids := p.running(w.unit); len(ids) > 0 {
		return stopping(w.unit, ids[0], p)
	}
	return verdict{kind: done}
}

func stopping(unit, machine string, p *picture) verdict {
	st := p.states[unit][machine]
	return verdict{machine: machine, busy: working(st),
		text: fmt.Sprintf("it to stop (%s) on %s", activity(st), p.machine(machine))}
}

// due reports whether a unit that is in the cluster has to be asked to reach goal:
// it was asked for something else, or what was asked for does not last (a unit that
// failed, finished or was stopped by hand).
func due(goal string, u api.Unit, states map[string]api.UnitState) bool {
	if u.DesiredState != goal {
		return true
	}
	for id, st := range states {
		if u.MachineID != "" && id != u.MachineID {
			continue
		}
		switch goal {
		case launched:
			if atRest(st) || st.SystemdSubState == "auto-restart" {
				return true
			}
		case loaded:
			if !atRest(st) {
				return true
			}
		}
	}
	return false
}
