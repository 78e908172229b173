package agent

import (
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/nodeplan"
	"flotilla/internal/unit"
)

// local is what the agent knows of a unit on this machine, beside what it has
// carried out, which is in its memory.
type local struct {
	installed bool
	hash      string // of the installed text
	status    unit.Status
	known     bool   // status has been heard
	job       *job   // under way
	trial     *trial // of a watched placement; nil: it is not judged

	rule rule // for singletons
	// moveAfter is by which the unit is fenced if it is a singleton: that of the last
	// entry there was.
	moveAfter time.Duration
	leave     leave // to be started, of a singleton
	// ejected: its files are the machine's own now, or are being made so. The agent
	// does nothing about it until the schedule does not hold it any more.
	ejected bool
	fenced  bool // it was stopped by the fence, and that has not been seen yet

	tries    int       // failures in a row
	retryAt  time.Time // no step before; zero: none is held back
	message  string    // what is published of the last failure
	passing  bool      // message is about how a job ended: no more than history once the unit is up
	reported model.UnitState
}

// job is a job under way, and what will have been carried out with it.
type job struct {
	kind   unit.Kind
	done   done
	rested bool // a start, of a unit that did not run
}

func (u *local) learn(s unit.Status) {
	u.status, u.known = s, true
	if u.passing && s.Active == "active" {
		u.message, u.passing = "", false // the init system has tried again, with success
	}
}

// Waits between tries of a step that failed, doubling.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// fail notes a failure and reports whether it is news: the first of its kind.
func (u *local) fail(now time.Time, message string) bool {
	fresh := u.tries == 0 || u.message != message
	wait := min(firstRetry<<min(u.tries, 20), lastRetry)
	u.tries++
	u.message, u.passing = message, false
	u.retryAt = now.Add(wait)
	return fresh
}

// forgive ends the wait after failures: something has changed or has succeeded.
func (u *local) forgive() { u.tries, u.retryAt, u.message, u.passing = 0, time.Time{}, "", false }

// have is the unit as the plan sees it.
func (u *local) have(now time.Time, d done) nodeplan.Have {
	if !u.retryAt.IsZero() && !now.Before(u.retryAt) {
		u.retryAt = time.Time{}
	}
	if u.job == nil && quiet(u.status) {
		u.fenced = false
	}
	starting := u.starting(d)
	if starting {
		d = u.coming(d)
	}
	return nodeplan.Have{
		Installed:  u.installed,
		Hash:       u.hash,
		Active:     u.status.Active,
		NeedReload: u.status.NeedReload,
		DoneGen:    d.Gen,
		DoneState:  d.State,
		DoneHash:   d.Hash,
		Busy:       !starting && u.unsure(d) || !u.retryAt.IsZero() || u.fenced || u.ejected,
		Starting:   starting,
		Singleton:  u.rule.singleton,
		Claim:      u.leave.state,
		Refused:    d.Refused,
	}
}

// starting reports whether a start or restart job is under way, of this run of the
// agent or of an earlier one.
func (u *local) starting(d done) bool {
	if u.job != nil {
		return u.job.kind != unit.Stop
	}
	return d.Sent != (sent{}) && u.known && u.status.Job
}

// coming is what will have been carried out with the start that is under way.
func (u *local) coming(d done) done {
	if u.job != nil {
		d.Gen, d.State, d.Hash = u.job.done.Gen, u.job.done.State, u.job.done.Hash
		return d
	}
	d.Gen, d.State, d.Hash = d.Sent.Gen, d.Sent.State, d.Sent.Hash
	return d
}

// unsure reports whether nothing can be done about a unit yet: it is being stopped,
// what became of a job of an earlier run is to be found out, or its status is not
// known, so that it may be running.
func (u *local) unsure(d done) bool { return u.job != nil || d.Sent != (sent{}) || !u.known }

// state is the unit as it is published; false: nothing is known of it yet.
func (u *local) state(name, machine, message string, heard int64, d done, now time.Time) (model.UnitState, bool) {
	if !u.known {
		return model.UnitState{}, false
	}
	s := model.UnitState{
		Unit: name, Machine: machine, Hash: u.hash,
		Load: u.status.Load, Active: u.status.Active, Sub: u.status.Sub,
		Message: message, Gen: d.Gen, Heard: heard, At: u.reported.At,
	}
	if t := u.trial; t != nil {
		s.Health, s.HealthWhy, s.Log = t.verdict.Health, t.verdict.Why, t.log
	}
	if s != u.reported {
		s.At = now
		u.reported = s
	}
	return s, true
}

// states is all that is published of this machine's units.
func (a *Agent) states() map[string]model.UnitState {
	now := time.Now()
	out := map[string]model.UnitState{}
	for _, name := range a.names() {
		u := a.local(name)
		message := u.message
		if message == "" {
			message = a.aside(name)
		}
		if s, ok := u.state(name, a.cfg.Presence.ID, message, a.heard(name), a.memory.Units[name], now); ok {
			out[name] = s
		}
	}
	return out
}

// aside is why a unit is left as it is; "" if it is not.
func (a *Agent) aside(name string) string {
	if a.want.foreign[name] != "" {
		return "placed by another store: it runs on as it is"
	}
	if p, wanted := a.want.units[name]; wanted && p.Hash == "" {
		return "its entry in the schedule cannot be read: it runs on as it is"
	}
	return ""
}
