package sched

import (
	"strings"
	"time"

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
	if e.heard() {
		to.WaitFor = 0
	}
	if e.old.Desired == model.Loaded && !e.old.Leaving && !again {
		return to, to.WaitFor != e.old.WaitFor
	}
	to.Desired, to.Leaving, to.Restart = model.Loaded, false, false
	to.Gen = max(e.old.Gen, e.old.Rev, r.gen) + 1
	return to, true
}

// fencing is by which move time the machine of e is to stop the unit, if e has the
// text of that hash, and how long the cluster has to wait as long as the machine may
// go by an entry before. What a machine that is away goes by stays to be known.
func (p *pass) fencing(e *entry, hash string) (after, wait time.Duration) {
	had := e.old
	if e.stored && !e.on.present {
		return had.MoveAfter, had.WaitFor
	}
	after = p.wordsOf(e.job, hash).FencedBy(p.Policy.MoveAfter)
	switch {
	case after <= 0:
		return after, 0
	case !e.stored && !e.found && !e.job.says(e.on).up():
		return after, 0 // it does not run there, and has to be claimed before it does
	case !e.stored || had.MoveAfter == 0:
		wait = model.Forever // it may run there by no entry of a singleton
	case e.heard():
		wait = had.MoveAfter
	default:
		wait = model.Longer(had.MoveAfter, had.WaitFor)
	}
	if wait >= 0 && wait <= after {
		wait = 0
	}
	return after, wait
}

// wordsOf is what the text of j says that has a hash: its own or one that it has to
// keep.
func (p *pass) wordsOf(j *job, hash string) model.Requirements {
	if last := j.newest(); last != nil && last.old.Hash == hash && hash != j.Hash {
		return last.requirements()
	}
	if j.own != nil {
		return *j.own
	}
	return j.Req
}

// heard reports whether the machine of e has said that it goes by this very entry.
func (e *entry) heard() bool {
	return e.stored && e.on.present && e.old.Rev != 0 && e.job.says(e.on).heard == e.old.Rev
}

// span is a move time in words.
func span(after time.Duration) string {
	if after < 0 {
		return "never"
	}
	return after.String()
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
