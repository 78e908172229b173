package sched

import (
	"strings"

	"flotilla/internal/fleet/model"
)

// A singleton is stopped before it may be started elsewhere, and the entry of a
// machine that may still run it is never deleted: as long as it is there nobody else
// gets the unit. Such an entry is rewritten to loaded with a new generation, and
// goes when the machine has said that it has carried that generation out and that
// the unit is at rest; or, when the machine is away, when it must have stopped the
// unit by itself.

// leave makes e leave its machine: by hand-over, or for a singleton by a stop.
func (p *pass) leave(e *entry, why string) {
	switch {
	case !p.single(e):
		e.leave(why)
	case p.stopped(e) && e.on.present:
		e.release(why + "; it has stopped")
	case p.stopped(e):
		e.release(why)
	default:
		e.leave(why)
		e.fate = halts
		e.job.told = true
	}
}

// single reports whether e is of a singleton; a unit that was destroyed is what its
// last text says.
func (p *pass) single(e *entry) bool {
	if !e.stored || e.job.known {
		return e.job.Req.Singleton
	}
	return e.requirements().Singleton
}

// requirements are those of the text that the machine of e has.
func (e *entry) requirements() model.Requirements {
	switch {
	case !e.stored || e.old.Hash == e.job.Hash:
		return e.job.Req
	case !strings.Contains(e.old.Text, "Singleton"):
		return model.Requirements{}
	}
	return e.asStored().Req
}

// asStored is the unit that the text of a stored entry makes.
func (e *entry) asStored() model.Unit {
	if e.parsed == nil {
		u := model.NewUnit(e.old.Unit, e.old.Text, e.old.Desired, e.old.Gen)
		e.parsed = &u
	}
	return *e.parsed
}

// stopped reports whether e's machine is known not to run the unit, now or later.
func (p *pass) stopped(e *entry) bool {
	if !e.on.present {
		return p.overdue(e)
	}
	r := e.job.says(e.on)
	return e.old.Desired == model.Loaded && r.gen >= e.old.Gen && r.ended()
}

// halted is e as it is to be for its machine to stop the unit; false if it is that
// already. The generation is one that nobody has asked for: what the machine says of
// it is said after it has learned that it must stop.
func (e *entry) halted() (model.Placement, bool) {
	to := e.old
	r := e.job.says(e.on)
	again := e.on.present && r.gen >= e.old.Gen && r.up() // it has been stopped, and runs all the same
	if e.old.Desired == model.Loaded && !e.old.Leaving && !again {
		return to, false
	}
	to.Desired, to.Leaving, to.Restart = model.Loaded, false, false
	to.Gen = max(e.old.Gen, e.old.Rev, r.gen) + 1
	return to, true
}

// stopping reports whether e has been halted, or is stored as if it had been.
func (e *entry) stopping() bool {
	return e.stored && e.job.Req.Singleton && e.old.Desired == model.Loaded && e.job.Desired == model.Launched
}

// mustWait returns the machine on which j, a singleton, has to stop before it may be
// placed; nil if there is none. One that runs it and fits gets it instead.
func (p *pass) mustWait(j *job) *machine {
	if !j.Req.Singleton {
		return nil
	}
	for _, e := range j.entries {
		if e.fate == halts {
			return e.on
		}
	}
	if p.runsAlready(j) != nil {
		return nil
	}
	for _, r := range j.reports {
		m := p.machines[r.machine]
		if m == nil || !m.present || j.on(m) != nil {
			continue
		}
		if r.up() || r.active == "deactivating" {
			return m
		}
	}
	return nil
}
