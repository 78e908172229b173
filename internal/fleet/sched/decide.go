package sched

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/fleet/model"
)

// defaultHoldFraction is that of Policy.
const defaultHoldFraction = 0.5

// retire lets go what nobody wants any more, wherever it is.
func (p *pass) retire() {
	for _, j := range p.order {
		if j.wanted() {
			continue
		}
		why := "the unit was destroyed"
		if j.known {
			why = "its desired state is inactive"
		}
		for _, e := range j.entries {
			if p.single(e) {
				p.leave(e, why)
			} else {
				e.release(why)
			}
		}
	}
}

// settle judges the stored entries: each either stays where it is, or its job will
// need another place.
func (p *pass) settle() {
	for _, j := range p.order {
		p.settleJob(j)
	}
	for _, j := range p.replacers {
		if !j.enlisted {
			continue
		}
		for _, e := range slices.Clone(j.entries) {
			if e.fate == stays && e.on.present {
				p.evict(e.on, j)
			}
		}
	}
}

// settleJob settles j after the jobs it follows. In a circle of followers the
// entries that are not settled yet count as they are stored.
func (p *pass) settleJob(j *job) {
	if !j.enlisted || j.settled || !j.wanted() {
		return
	}
	j.settled = true
	for _, peer := range p.peers(j) {
		if t := p.jobs[peer]; t != nil {
			p.settleJob(t)
		}
	}
	if !j.Req.Global && j.Bad == "" {
		p.oneHome(j)
	}
	for _, e := range j.entries {
		switch {
		case e.fate == leaves:
			p.leave(e, cmp.Or(e.why, "at most one may run"))
		case j.Bad != "" || !e.on.present:
			e.stay()
		default:
			if r := p.worded(e.on, j, false); r.kind != fits {
				p.leave(e, r.String())
				j.cause = fmt.Sprintf("%s %s", model.ShortID(e.on.ID), r)
			} else {
				e.stay()
			}
		}
	}
}

// oneHome leaves an ordinary unit one entry that stays: one that is up, else one
// whose machine is present, else that of the smallest machine id. There are more
// when a global unit has become an ordinary one.
func (p *pass) oneHome(j *job) {
	rank := func(e *entry) int {
		switch {
		case e.stopping():
			return 3
		case p.up(e):
			return 0
		case e.on.present:
			return 1
		}
		return 2
	}
	var best *entry
	for _, e := range j.entries {
		if e.fate == stays && (best == nil || rank(e) < rank(best)) {
			best = e
		}
	}
	for _, e := range j.entries {
		if e.fate == stays && e != best {
			e.fate, e.why = leaves, "the unit runs on "+model.ShortID(best.on.ID)
		}
	}
}

// handOver lets leaving entries go whose unit is up at its new place, or that have
// nothing left to hand over.
func (p *pass) handOver() {
	for _, j := range p.order {
		home := j.home()
		if !j.wanted() || j.Bad != "" || j.Req.Global || home == nil {
			continue
		}
		up := p.up(home)
		for _, e := range j.entries {
			switch {
			case e.fate != leaves:
			case up:
				e.release("the unit is up on " + model.ShortID(home.on.ID))
			case e.ended():
				e.release("the unit has ended here, and is placed on " + model.ShortID(home.on.ID))
			}
		}
	}
}

// up reports whether the unit is where e says, as it is wanted: a launched unit
// that is active, or a oneshot that has ended well; a loaded unit that is loaded.
// What the machine said before it learned of the present generation is no answer.
func (p *pass) up(e *entry) bool {
	if !e.stored || !e.on.present {
		return false
	}
	st := e.job.says(e.on)
	if st.machine == "" || st.gen < e.job.Gen || st.hash != "" && st.hash != p.target(e).Hash {
		return false
	}
	if e.job.Desired == model.Loaded {
		return st.load == "loaded"
	}
	switch st.active {
	case "active", "reloading":
		return true
	case "inactive":
		return model.IsOneshot(e.job.Text)
	}
	return false
}

// ended reports whether a launched unit that is leaving a present machine no longer
// runs there.
func (e *entry) ended() bool {
	if !e.old.Leaving || !e.on.present || e.old.Desired != model.Launched {
		return false
	}
	return e.job.says(e.on).ended()
}

// decisions turns fates into decisions, in the order of operations, then by unit
// and machine.
func (p *pass) decisions() []Decision {
	var out []Decision
	for _, j := range p.order {
		for _, e := range j.entries {
			if d, ok := p.decision(e); ok {
				j.told = true
				out = append(out, d)
			}
		}
	}
	rank := map[Op]int{Release: 0, Leave: 1, Update: 2, Place: 3}
	slices.SortFunc(out, func(a, b Decision) int {
		return cmp.Or(cmp.Compare(rank[a.Op], rank[b.Op]),
			cmp.Compare(a.Entry.Unit, b.Entry.Unit), cmp.Compare(a.Entry.Machine, b.Entry.Machine))
	})
	return out
}

func (p *pass) decision(e *entry) (Decision, bool) {
	switch {
	case e.fate == goes:
		return Decision{Release, e.old, e.why}, true
	case e.fate == halts:
		to, change := e.halted()
		return Decision{Update, to, e.why}, change
	case e.fate == leaves:
		left := e.old
		left.Leaving = true
		return Decision{Leave, left, e.why}, !e.old.Leaving
	case !e.stored:
		return Decision{Place, p.target(e), e.why}, true
	case e.job.Bad != "":
		return Decision{}, false
	}
	to := p.target(e)
	diff := e.differences(to)
	return Decision{Update, to, strings.Join(diff, ", ")}, len(diff) > 0
}

// target is the entry as it is to be.
func (p *pass) target(e *entry) model.Placement {
	u := e.job.Unit
	to := model.Placement{
		Machine: e.on.ID, Unit: u.Name, Text: u.Text, Hash: u.Hash,
		Desired: u.Desired, Gen: u.Gen, Restart: u.Restart, Rev: e.old.Rev,
		Watched: p.Watch != nil && p.Watch(u.Name),
	}
	if had, kept := p.keeps(e); kept {
		to.Text, to.Hash, to.Watched = had.Text, had.Hash, had.Watched
	}
	to.MoveAfter, to.WaitFor = p.fencing(e, to.Hash)
	return to
}

// keeps returns the placement whose text e has to keep for now, if it may not take
// its unit's: its own, or for a new one that which was written last. A machine that
// is away goes by the text that it has when it stops a singleton: that stays to be
// known.
func (p *pass) keeps(e *entry) (had model.Placement, kept bool) {
	had = e.old
	if !e.stored {
		if last := e.job.newest(); last != nil {
			had = last.old
		}
	}
	switch {
	case had.Unit == "" || had.Hash == e.job.Hash:
		return had, false
	case e.stored && !e.on.present && p.single(e):
		return had, true
	}
	return had, !p.may(e.job, e.on.ID) && !p.may(e.job, had.Machine)
}

// may reports whether j may take its text on a machine. If it may where it is, it may
// where it goes.
func (p *pass) may(j *job, machine string) bool { return p.Allow == nil || p.Allow(j.Name, machine) }

// newest is the stored entry that was written last, one that is not leaving if there
// is one; nil if there is none.
func (j *job) newest() (last *entry) {
	for _, e := range j.entries {
		if !e.stored || last != nil && e.old.Leaving && !last.old.Leaving {
			continue
		}
		if last == nil || last.old.Leaving && !e.old.Leaving || e.old.Rev > last.old.Rev {
			last = e
		}
	}
	return last
}

// wear has a unit that may not take its text yet be judged by the one it has, for
// the time of the pass.
func (p *pass) wear(j *job) {
	last := j.newest()
	if last == nil || j.Bad != "" || j.Req.Global || !j.wanted() || last.old.Hash == j.Hash || p.may(j, last.on.ID) {
		return
	}
	if u := last.asStored(); u.Bad == "" && !u.Req.Global {
		own := j.Req
		j.own, j.Req = &own, u.Req
	}
}

// differences says in words how a stored entry that stays differs from what it is
// to be.
func (e *entry) differences(to model.Placement) []string {
	var diff []string
	p := e.old
	if p.Leaving {
		diff = append(diff, e.why)
	}
	if p.Hash != to.Hash {
		diff = append(diff, "the unit file changed")
	}
	switch {
	case p.Desired != to.Desired:
		diff = append(diff, "its desired state is "+to.Desired.String())
	case p.Gen != to.Gen && to.Restart:
		diff = append(diff, "a restart was asked for")
	case p.Gen != to.Gen && len(diff) == 0:
		diff = append(diff, to.Desired.String()+" was asked for again")
	case len(diff) > 0:
	case p.MoveAfter != to.MoveAfter:
		diff = append(diff, "its move time is "+span(to.MoveAfter))
	case p.WaitFor != to.WaitFor:
		diff = append(diff, "its machine goes by the move time "+span(to.MoveAfter))
	}
	return diff
}
