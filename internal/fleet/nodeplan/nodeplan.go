// Package nodeplan decides what one machine does to make its units what the
// schedule says: a function from two snapshots to steps with reasons.
//
// The schedule says what a machine starts, not what must be running at every
// moment: once the generation of a unit has been carried out the unit is its init
// system's business. One that ended, failed or was stopped by hand is left alone
// until somebody asks again; Restart= in the unit file is its supervision.
//
// # Carrying out a plan
//
// Phases run in order: all steps of one Op may run together, and the next Op waits
// for them. Units do not depend on each other: when a step fails, the later steps
// of that unit are left out, those of other units are not. The next pass plans
// afresh. What is remembered after a step:
//
//	stop               of a unit that is wanted: its generation, and Loaded. A stop
//	                   that fails is not remembered, so it is tried again, and the
//	                   unit's file stays.
//	remove             nothing about the unit any more
//	install            Installed and Hash; if the init system refuses the text,
//	                   Refused, so that it is not tried again
//	adopt              as install
//	reload             nothing. If it fails, starts of units whose text has not
//	                   changed go on, the others wait.
//	claim              that it was asked for, and once the answer is there Claimed; if
//	                   it is no, the schedule is about to change
//	start, restart     generation, Launched and the text's hash, however the job
//	                   ended: a unit that fails is in state failed and not started
//	                   again until somebody asks. A start or restart whose place a
//	                   later stop or restart has taken while it was under way: nothing
//	record             generation, desired state and, if launched, the text's hash
package nodeplan

import (
	"cmp"
	"maps"
	"slices"

	"flotilla/internal/fleet/model"
)

// Want is a unit that this machine's schedule holds, by unit name.
type Want = model.Placement

// Have is what this machine knows of a unit: what is installed, what the init
// system says, and what the agent remembers of its own doing since the machine
// started (kept under /run: a reboot forgets it).
type Have struct {
	Installed bool   // the agent installed a file for it
	Hash      string // of the installed text
	Active    string // systemd's ActiveState; "" unknown
	// NeedReload is set when the init system runs another text than the file's.
	NeedReload bool
	// DoneGen and DoneState are the generation and desired state that the agent
	// has carried out for it; 0 and Inactive: none yet.
	DoneGen   int64
	DoneState model.State
	// DoneHash is the hash of the text that was last started.
	DoneHash string
	// Busy is set while nothing may be done about the unit: a job that is to run
	// through is under way, or a failed step is not to be tried again yet.
	Busy bool
	// Starting is set while a start or restart job of the agent is under way. What is
	// said to be done is then what will have been with that job. A start that is still
	// wanted is left alone; a stop or a restart takes its place and does not wait for
	// it, for it may never end: a oneshot has no time limit.
	Starting bool
	// Own is set for a unit that the machine has a file of its own for, with the
	// text that is wanted, and that may be taken over as it runs.
	Own bool
	// Singleton is set for a unit of which at most one may run in the cluster.
	Singleton bool
	// Claim is how far the leave to start a singleton has come.
	Claim Claiming
	// Refused is the hash of a text that the init system refused to install;
	// it is not tried again.
	Refused string
}

// Claiming is how far a machine has come with asking the store whether a unit is its
// own still: it starts no singleton without that word.
type Claiming int

// The states of a claim.
const (
	Unclaimed Claiming = iota
	Asked
	Claimed
)

// Op is what a step does.
type Op string

// The operations, in the order of the phases; Start and Restart are one phase.
const (
	Stop    Op = "stop"    // a stop job, waited for
	Remove  Op = "remove"  // delete the unit's file; after Stop
	Adopt   Op = "adopt"   // take over what runs from the machine's own file
	Install Op = "install" // write the unit's file
	Reload  Op = "reload"  // read changed files again, once for all
	Claim   Op = "claim"   // ask the store for leave to start a singleton
	Start   Op = "start"   // a start job
	Restart Op = "restart" // a restart job, for a changed text of a running unit
	Record  Op = "record"  // remember the generation as carried out; nothing else to do
)

var phases = map[Op]int{Stop: 0, Remove: 1, Adopt: 2, Install: 2, Reload: 3, Claim: 4, Start: 4, Restart: 4, Record: 5}

// Step is one thing to do, and why.
type Step struct {
	Op   Op
	Unit string // empty for Reload
	Why  string // log line, API field and test output
}

// Plan returns the steps that make this machine's units what the schedule wants,
// in the order to run them. It depends on nothing but its arguments; for the state
// that its own steps lead to, it returns none.
func Plan(want map[string]Want, have map[string]Have) []Step {
	var steps []Step
	for name, w := range want {
		steps = append(steps, planWanted(name, w, have[name])...)
	}
	for name, h := range have {
		if _, wanted := want[name]; !wanted {
			steps = append(steps, planUnwanted(name, h)...)
		}
	}
	order := startOrder(steps, want)
	slices.SortFunc(steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(phases[a.Op], phases[b.Op]), cmp.Compare(order[a], order[b]),
			cmp.Compare(urgency(a, have), urgency(b, have)), cmp.Compare(a.Unit, b.Unit))
	})
	return slices.CompactFunc(steps, func(a, b Step) bool { return a.Op == Reload && b.Op == Reload })
}

// Revive is Plan for a schedule that nobody can vouch for: the last one known to a
// machine that has booted while the store is away. It brings up what the schedule
// holds and the agent has not touched since the machine started, but no singleton:
// that may run elsewhere by now. It stops, changes and removes nothing, since a
// schedule that is old or incomplete says nothing of what has come after it.
func Revive(want map[string]Want, have map[string]Have) []Step {
	untouched := map[string]Want{}
	at := map[string]Have{}
	for name, w := range want {
		h := have[name]
		if h.DoneGen != 0 || h.DoneState != model.Inactive || running(h) || h.Singleton {
			continue
		}
		untouched[name], at[name] = w, h
	}
	return Plan(untouched, at)
}

// urgency has singletons stopped before all others: another machine waits for that.
func urgency(s Step, have map[string]Have) int {
	if s.Op == Stop && have[s.Unit].Singleton {
		return 0
	}
	return 1
}

// startOrder is the place in line of each step that starts or restarts a unit.
func startOrder(steps []Step, want map[string]Want) map[Step]int {
	byUnit := map[string]Step{}
	for _, s := range steps {
		if phases[s.Op] == phases[Start] {
			byUnit[s.Unit] = s
		}
	}
	order := map[Step]int{}
	for i, name := range inStartOrder(slices.Collect(maps.Keys(byUnit)), want) {
		order[byUnit[name]] = i
	}
	return order
}

// planUnwanted ends a unit that the schedule does not hold any more. Units that
// the agent did not install are not its own.
func planUnwanted(name string, h Have) []Step {
	const why = "no longer placed here"
	switch {
	case h.Busy || !h.Installed:
		return nil
	case !h.Starting && (h.Active == "inactive" || h.Active == "failed"):
		return []Step{{Remove, name, why}}
	}
	return []Step{{Stop, name, why}, {Remove, name, why}}
}

// planWanted brings one unit to what the schedule says of it.
func planWanted(name string, w Want, h Have) []Step {
	switch {
	case h.Busy:
		return nil
	case w.Leaving:
		return nil // it goes on as it is, and is not started anew
	case w.Desired == model.Launched:
		return planLaunched(name, w, h)
	}
	return planLoaded(name, w, h)
}

// planLaunched starts a unit for each generation once, and restarts it when it
// runs with another text than the schedule's.
//
// A unit that is started with a changed text needs a reload first, for it may still
// be loaded with the old one. A unit that is new needs none: its first start loads
// it.
func planLaunched(name string, w Want, h Have) []Step {
	var steps []Step
	same := h.Installed && h.Hash == w.Hash
	if !same {
		if h.Refused == w.Hash {
			return nil
		}
		if h.Own && running(h) && !h.Installed {
			return []Step{{Adopt, name, "it runs here already"}, reload, {Record, name, "already active"}}
		}
		steps = append(steps, Step{Install, name, installWhy(h)})
	}
	carriedOut := h.DoneState == model.Launched && h.DoneGen >= w.Gen
	changed := startedWithOther(w, h, same)
	var act *Step
	switch {
	case running(h) && changed:
		act = &Step{Restart, name, "unit file changed"}
	case carriedOut:
	case running(h) && w.Restart && h.DoneState == model.Launched:
		// Without memory of a start this may be the very one that was asked for.
		act = &Step{Restart, name, "a restart was asked for"}
	case h.Starting:
		// If it comes up it does for the later generation too: that is seen then.
	case h.Active == "active" || h.Active == "reloading":
		act = &Step{Record, name, "already active"}
	default:
		act = &Step{Start, name, startWhy(h)}
	}
	switch {
	case act == nil && !same:
		// At rest: whether the new file needs a reload is seen when it is written.
	case h.NeedReload, !same && (h.Installed || running(h)):
		steps = append(steps, reload)
	}
	if act != nil {
		steps = append(steps, allowed(*act, h)...)
	}
	return steps
}

// allowed is the step, or what has to come before it: a singleton that is to be
// started is claimed first. One that runs here is this machine's; one whose start is
// queued does not run yet, and its leave was for that start: the restart waits for it.
func allowed(act Step, h Have) []Step {
	switch {
	case act.Op == Restart && h.Singleton && !up(h.Active):
		return nil
	case act.Op != Start || !h.Singleton || h.Claim == Claimed:
		return []Step{act}
	case h.Claim == Asked:
		return nil
	}
	return []Step{{Claim, act.Unit, "at most one may run"}}
}

var reload = Step{Op: Reload, Why: "unit files changed on disk"}

// startedWithOther reports whether the unit, if it runs, runs another text than
// the schedule's. Without memory of a start, the file that is installed is what
// runs, unless the init system says otherwise.
func startedWithOther(w Want, h Have, same bool) bool {
	if h.DoneHash != "" {
		return h.DoneHash != w.Hash
	}
	return !same || h.NeedReload
}

// planLoaded installs a unit without starting it, and stops it once for each
// generation.
func planLoaded(name string, w Want, h Have) []Step {
	var steps []Step
	todo := h.DoneState != model.Loaded || h.DoneGen < w.Gen
	stop := todo && running(h)
	if stop {
		steps = append(steps, Step{Stop, name, "its desired state is loaded"})
	}
	switch same := h.Installed && h.Hash == w.Hash; {
	case !same && h.Refused == w.Hash:
		return steps
	case !same:
		steps = append(steps, Step{Install, name, installWhy(h)})
	case h.NeedReload:
		steps = append(steps, reload)
	}
	if todo && !stop {
		steps = append(steps, Step{Record, name, "loaded, and not running"})
	}
	return steps
}

// running reports whether the unit is anything but at rest, or about to be.
func running(h Have) bool { return h.Starting || up(h.Active) }

// up reports whether an ActiveState is that of a unit which is not at rest.
func up(active string) bool {
	switch active {
	case "active", "reloading", "activating", "deactivating":
		return true
	}
	return false
}

func installWhy(h Have) string {
	if h.Installed {
		return "unit file changed"
	}
	return "placed here"
}

func startWhy(h Have) string {
	if h.DoneState == model.Launched {
		return "asked to start again"
	}
	return "its desired state is launched"
}
