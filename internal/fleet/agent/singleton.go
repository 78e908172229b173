package agent

import (
	"strings"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// rule is what a unit's text says of how many may run. The zero value is that of a unit that says nothing.
type rule struct {
	hash      string // of the text that was read
	singleton bool
	req       model.Requirements
}

// read takes in a text, once.
func (r *rule) read(name, hash, text string) {
	if r.hash == hash {
		return
	}
	*r = rule{hash: hash}
	if !strings.Contains(text, unitfile.Singleton) && !strings.Contains(text, unitfile.MaxRunning) {
		return // most units: spare the parsing
	}
	r.req = model.NewUnit(name, text, model.Launched, 0).Req
	r.singleton = r.req.Singleton
}

// arm tells the fence which singletons are here. A unit that is not wanted any more
// is, until it is gone; one that another store has placed is stopped, since nothing
// can be proven to that store.
func (a *Agent) arm() {
	armed := map[string]deadline{}
	for name, p := range a.want.units {
		if u := a.local(name); p.Hash != "" { // else the installed text says it
			u.rule.read(name, p.Hash, p.Text)
		}
	}
	for name, u := range a.units {
		if !u.rule.singleton || !u.installed {
			continue
		}
		if d, fenced := a.deadline(name, u); fenced {
			armed[name] = d
		}
	}
	a.fence.arm(armed)
}

func (a *Agent) deadline(name string, u *local) (deadline, bool) {
	if p, ok := a.want.units[name]; ok {
		u.moveAfter = p.MoveAfter
	}
	stop, kill, fenced := model.Fence(a.fence.lease, u.moveAfter)
	if a.want.foreign[name] != "" {
		return deadline{}, true
	}
	return deadline{stop, kill}, fenced
}

// heard is the revision of a singleton's entry if that waits to be told that the
// machine goes by it: it does from now on, after a restart too. Else 0.
func (a *Agent) heard(name string) int64 {
	p := a.want.units[name]
	if p.WaitFor == 0 || a.source != store || a.saved != a.adopted {
		return 0
	}
	return p.Rev
}

// fell takes in that the fence has stopped a unit that ran: as far as the agent goes
// it has never been started, so that it will be if it is this machine's still.
func (a *Agent) fell(name string) {
	a.inbox.leave(func(n *news) {
		n.found = append(n.found, func() {
			u, ok := a.units[name]
			if !ok {
				return
			}
			u.fenced = true
			u.message = "stopped: no word from the store, and at most one may run"
			a.giveBack(name, u)
			a.unstart(name)
		})
	})
}

// unstart forgets that a unit was started.
func (a *Agent) unstart(name string) {
	d := a.memory.Units[name]
	d.Gen, d.State, d.Sent, d.Guarded = 0, model.Inactive, sent{}, false
	a.memory.set(name, d)
}

// guarded writes down, when the agent ends, which singletons the init system looks
// after from now on.
func (a *Agent) guarded() {
	for name, u := range a.units {
		if d, ok := a.memory.Units[name]; ok && u.rule.singleton && !quiet(u.status) {
			d.Guarded = true
			a.memory.set(name, d)
		}
	}
	a.rememberWork()
}

// settleGuarded finds out what became of them: one that is down after its time was
// over has been stopped, and is to be started again if it is this machine's still.
func (a *Agent) settleGuarded() {
	for name, d := range a.memory.Units {
		u := a.local(name)
		if !d.Guarded || !u.known {
			continue
		}
		d.Guarded = false
		a.memory.set(name, d)
		if at, fenced := a.deadline(name, u); fenced && quiet(u.status) && a.fence.lapsed(at) {
			a.unstart(name)
		}
	}
}
