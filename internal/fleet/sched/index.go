package sched

import (
	"cmp"
	"slices"

	"flotilla/internal/fleet/model"
)

// fate is what becomes of an entry of the schedule.
type fate int

const (
	stays  fate = iota // the machine runs the unit and goes on
	leaves             // the machine runs the unit until it is up elsewhere
	halts              // the machine stops the unit, a singleton, and says so
	goes               // the machine stops the unit
)

// entry is a unit on a machine: one that is stored, or one to be written. Outside
// of a pass there are only stored ones, each in a list of its machine.
type entry struct {
	job    *job
	on     *machine
	old    model.Placement // zero if not stored
	stored bool
	fate   fate
	why    string // why fate is not what it was
	in     *[]*entry
	found  bool        // not stored, and its machine runs the unit
	parsed *model.Unit // see asStored
}

// machine is one that is present, or one that is away and has entries. Its lists
// are in order of jobs.
type machine struct {
	model.Machine
	present bool
	here    []*entry // those that stay
	leaving []*entry
	// prickly is how many of here and leaving are of units with Conflicts or
	// Replaces.
	prickly int
	used    amount // what all of them ask for
	// ladder is what m is on, at a rung and with a share in use; nil if m is away.
	ladder *ladder
	rung   int
	inUse  float64
}

func (m *machine) load() int { return len(m.here) + len(m.leaving) }

// each calls f with all that is on m.
func (m *machine) each(f func(*entry)) {
	for _, e := range m.here {
		f(e)
	}
	for _, e := range m.leaving {
		f(e)
	}
}

// report is what a machine says of a job.
type report struct {
	machine, hash, load, active string
	gen, heard                  int64
}

func reportOf(r report, machine string) int { return cmp.Compare(r.machine, machine) }

// running reports whether the unit runs there.
func (r report) running() bool { return r.active == "active" || r.active == "reloading" }

// up reports whether it runs there or is about to.
func (r report) up() bool { return r.running() || r.active == "activating" }

// ended reports whether it is at rest there.
func (r report) ended() bool { return r.active == "inactive" || r.active == "failed" }

// job is a unit with its entries and reports, each in order of machine ids.
type job struct {
	model.Unit
	known   bool   // the unit exists
	group   *group // nil if it is no instance
	entries []*entry
	reports []report
	// barred is why no machine can run the unit until it or a machine changes, as of
	// an epoch of the cluster; nil if something else may help.
	barred *Unplaced
	epoch  int
	// What follows belongs to one pass.
	enlisted bool // the pass looks at it
	settled  bool // its stored entries have been judged
	placed   bool // a place has been looked for if it needed one
	// unseated is set when an ordinary job has been evicted in this pass.
	unseated bool
	own      *model.Requirements // those of its text, while Req is those of the text it has to keep
	pending  bool                // a global job that may come to fit a machine by itself
	told     bool                // there is something to say of it
	cause    string              // why it needs another place, for Why
}

// older orders jobs: older requests first, then by name.
func older(a, b *job) int {
	return cmp.Or(cmp.Compare(a.Gen, b.Gen), cmp.Compare(a.Name, b.Name))
}

// wanted reports whether the unit should be on a machine.
func (j *job) wanted() bool { return j.known && j.Desired != model.Inactive }

// prickly reports whether the unit minds what it is with.
func (j *job) prickly() bool { return len(j.Req.Conflicts) > 0 || len(j.Req.Replaces) > 0 }

// home is the entry of an ordinary unit that stays; nil if there is none.
func (j *job) home() *entry {
	for _, e := range j.entries {
		if e.fate == stays {
			return e
		}
	}
	return nil
}

// on is the job's entry on m, whatever its fate; nil if there is none.
func (j *job) on(m *machine) *entry {
	if i, found := j.find(m); found {
		return j.entries[i]
	}
	return nil
}

func (j *job) find(m *machine) (int, bool) {
	return slices.BinarySearchFunc(j.entries, m, func(e *entry, m *machine) int { return byID(e.on, m) })
}

func (j *job) insert(e *entry) {
	i, _ := j.find(e.on)
	j.entries = slices.Insert(j.entries, i, e)
}

// says is what a machine reports of j; zero if it does not.
func (j *job) says(m *machine) report {
	if i, found := slices.BinarySearchFunc(j.reports, m.ID, reportOf); found {
		return j.reports[i]
	}
	return report{}
}

// The following keep an entry's fate and its machine's lists in step.

func (e *entry) stay() {
	e.exit()
	e.fate = stays
	e.enter(&e.on.here)
}

func (e *entry) leave(why string) {
	e.exit()
	e.fate, e.why = leaves, why
	e.enter(&e.on.leaving)
}

func (e *entry) release(why string) {
	e.exit()
	e.fate, e.why = goes, why
}

// lift takes a stored entry off its machine to be judged anew.
func (e *entry) lift() {
	e.exit()
	e.fate, e.why = stays, ""
	if e.old.Leaving {
		e.fate = leaves
	}
}

// rest puts a stored entry where it is by what is stored.
func (e *entry) rest() {
	e.lift()
	if e.fate == stays {
		e.enter(&e.on.here)
	} else {
		e.enter(&e.on.leaving)
	}
}

func (e *entry) enter(list *[]*entry) {
	i, _ := slices.BinarySearchFunc(*list, e.job, func(e *entry, j *job) int { return older(e.job, j) })
	e.in = list
	e.on.change(func() {
		*list = slices.Insert(*list, i, e)
		e.on.used = e.on.used.plus(e.job.asks())
	})
	if e.job.prickly() {
		e.on.prickly++
	}
	if g := e.job.group; g != nil && list == &e.on.here {
		g.on[e.on]++
	}
}

func (e *entry) exit() {
	if e.in == nil {
		return
	}
	if g := e.job.group; g != nil && e.in == &e.on.here {
		if g.on[e.on]--; g.on[e.on] == 0 {
			delete(g.on, e.on)
		}
	}
	if e.job.prickly() {
		e.on.prickly--
	}
	e.on.change(func() {
		*e.in = without(*e.in, e)
		e.on.used = e.on.used.minus(e.job.asks())
	})
	e.in = nil
}

func without(list []*entry, e *entry) []*entry {
	if i := slices.Index(list, e); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
