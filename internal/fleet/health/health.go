// Package health judges a unit that is being rolled: whether the copy that a machine
// has just started is good, bad, or has to be waited for.
//
// Judge decides and is a function of its arguments. Probe asks a HealthCheck= once.
// The agent keeps the facts and asks, each second, while nothing is decided.
package health

import (
	"fmt"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
)

// Facts is what is known of a copy of a unit at one moment. Times are only compared
// with the now of Judge, so that they may be on any clock that nobody sets.
type Facts struct {
	Begun time.Time // when the machine set about starting the copy
	// Refused is why the init system will not have the unit's text; "" it has.
	Refused string
	// Trouble is why the machine has not started the copy yet; it tries again.
	Trouble string
	// Untouched is set when there was nothing to start: the unit did not run before
	// its text changed, and nobody has asked for it since.
	Untouched bool
	// Started is set once the copy's start job has ended. Until then what the init
	// system says may be about the copy before.
	Started  bool
	Load     string // of the init system, as are the next three
	Active   string
	Result   string
	Restarts int // automatic ones, of this copy
	// ActiveSince is since when the copy has been active without a break; zero: it
	// is not.
	ActiveSince time.Time
	Oneshot     bool // the unit is meant to end
	// Checked is how the last probe of HealthCheck= ended; nil: none has.
	Checked *Answer
}

// Answer is how one probe ended: Why says what was wrong, "" that all is well.
type Answer struct{ Why string }

// Verdict is what Judge makes of the facts.
type Verdict struct {
	Health model.Health // Waiting, Good or Bad
	Why    string
	// Next is when time alone changes the verdict; zero: never.
	Next time.Time
}

// Decided reports whether the verdict is final.
func (v Verdict) Decided() bool { return v.Health == model.Good || v.Health == model.Bad }

// maxRestarts is after how many automatic restarts a copy counts as one that will
// not stay up. A first start may fail for want of a neighbour that comes later.
const maxRestarts = 3

// Judge decides on a copy.
func Judge(p model.RollPolicy, f Facts, now time.Time) Verdict {
	if f.Untouched {
		return Verdict{Health: model.Good, Why: "it did not run, and is not started"}
	}
	if why := broken(f); why != "" {
		return Verdict{Health: model.Bad, Why: why}
	}
	why := lacking(p, f, now)
	if why == "" {
		return Verdict{Health: model.Good, Why: goodWhy(p, f)}
	}
	end := f.Begun.Add(timeout(p))
	if !now.Before(end) {
		return Verdict{Health: model.Bad, Why: fmt.Sprintf("not good within %v: %s", timeout(p), why)}
	}
	next := end
	if ripe := f.ActiveSince.Add(p.HealthyAfter); !f.ActiveSince.IsZero() && ripe.After(now) && ripe.Before(end) {
		next = ripe
	}
	return Verdict{Health: model.Waiting, Why: why, Next: next}
}

// timeout is HealthyTimeout=; where a copy could never be good by then, it counts
// from the moment at which it could.
func timeout(p model.RollPolicy) time.Duration {
	if p.HealthyTimeout <= p.HealthyAfter {
		return p.HealthyAfter + p.HealthyTimeout
	}
	return p.HealthyTimeout
}

// broken says why the copy will not become good; "" if it may.
func broken(f Facts) string {
	switch {
	case f.Refused != "":
		return "the init system refuses it: " + model.OneLine(f.Refused)
	case slices.Contains([]string{"bad-setting", "error", "masked"}, f.Load):
		return "its unit file cannot be loaded (" + f.Load + ")"
	case !f.Started:
		return ""
	case f.Active == "failed":
		return "it failed (" + f.Result + ")"
	case f.Restarts >= maxRestarts:
		return fmt.Sprintf("it does not stay up: restarted %d times", f.Restarts)
	case f.Active == "inactive" && !f.Oneshot:
		return "it ended by itself, or was not allowed to start"
	}
	return ""
}

// lacking says what the copy needs in order to be good; "" nothing.
func lacking(p model.RollPolicy, f Facts, now time.Time) string {
	through := f.Oneshot && f.Active == "inactive"
	switch {
	case f.Trouble != "":
		return model.OneLine(f.Trouble)
	case !f.Started:
		return "it is being started"
	case !through && f.ActiveSince.IsZero():
		return "it is " + f.Active
	case !through && now.Before(f.ActiveSince.Add(p.HealthyAfter)):
		return fmt.Sprintf("it has not been active for %v yet", p.HealthyAfter)
	case p.HealthCheck == "":
		return ""
	case f.Checked == nil:
		return "its health check has not answered yet"
	case f.Checked.Why != "":
		return "health check: " + f.Checked.Why
	}
	return ""
}

func goodWhy(p model.RollPolicy, f Facts) string {
	why := fmt.Sprintf("active for %v", p.HealthyAfter)
	if f.Active == "inactive" {
		why = "it ran and ended well"
	}
	if p.HealthCheck != "" {
		why += ", and its health check passes"
	}
	return why
}
