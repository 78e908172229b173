package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/nodeplan"
	"flotilla/internal/fleet/registry"
)

// claims are the singletons that are to be started. Leave for that is asked of the
// store by whoever publishes the states, so that a claim and the states before and
// after it come to the store in their order. They belong to the herald and are
// guarded by its mutex.
type claims struct {
	asked map[string]claim
	// held is what was said with the claims that were granted. It is what the
	// machine says of these units until the start has been seen through: whoever
	// finds no such word may start the unit elsewhere.
	held map[string]model.UnitState
}

type claim struct {
	state model.UnitState
	rev   int64 // of the entry that it is for
	told  func(granted bool)
}

// claim asks for a unit, in place of an earlier claim for it.
func (h *herald) claim(c claim) {
	h.mu.Lock()
	delete(h.claims.held, c.state.Unit)
	h.claims.asked[c.state.Unit] = c
	h.mu.Unlock()
	h.poke()
}

// unclaim takes back what was asked for and said of a unit: it is started, or is not
// to be started any more.
func (h *herald) unclaim(name string) {
	h.mu.Lock()
	_, asked := h.claims.asked[name]
	_, held := h.claims.held[name]
	delete(h.claims.asked, name)
	delete(h.claims.held, name)
	h.mu.Unlock()
	if asked || held {
		h.poke()
	}
}

// overlaid is the states as they are to be published. h.mu is held.
func (h *herald) overlaid() map[string]model.UnitState {
	if len(h.claims.held) == 0 {
		return h.current
	}
	out := cloned(h.current)
	for name, s := range h.claims.held {
		if now := out[name].Active; now == "" || now == "inactive" || now == "failed" {
			out[name] = s
		}
	}
	return out
}

// cloned is a copy that can be written to, also of nil.
func cloned(states map[string]model.UnitState) map[string]model.UnitState {
	out := make(map[string]model.UnitState, len(states)+1)
	maps.Copy(out, states)
	return out
}

func (h *herald) open() []claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sortedValues(h.claims.asked)
}

// answer ends a claim, unless it has been taken back meanwhile.
func (h *herald) answer(c claim, granted bool) {
	h.mu.Lock()
	current, ok := h.claims.asked[c.state.Unit]
	ok = ok && current.rev == c.rev
	if ok {
		delete(h.claims.asked, c.state.Unit)
		if granted {
			h.claims.held[c.state.Unit] = c.state
		}
	}
	h.mu.Unlock()
	if ok {
		c.told(granted)
	}
}

// errUnsure is why nothing is claimed: the lease may end at any moment.
var errUnsure = errors.New("the lease has not been renewed for its time to live")

// askClaims asks the store for all that is to be claimed, and returns what is known
// to be in the store afterwards. An error is for trying again, or for the end of the
// lease.
func (a *Agent) askClaims(ctx context.Context, lease registry.Lease, written map[string]model.UnitState) (map[string]model.UnitState, error) {
	open := a.open()
	if len(open) > 0 {
		written = cloned(written)
	}
	for _, c := range open {
		if !a.fence.sure() {
			return written, errUnsure
		}
		granted, err := a.store.Claim(ctx, lease, c.state, c.rev)
		if err != nil {
			return written, err
		}
		if granted {
			written[c.state.Unit] = c.state
		}
		a.answer(c, granted)
	}
	return written, nil
}

// leave is a singleton's leave to be started, as the loop knows it.
type leave struct {
	rev   int64 // of the entry that it was asked for
	state nodeplan.Claiming
}

// askLeave has leave asked for a singleton. The answer is news.
func (a *Agent) askLeave(name string) {
	u, p := a.local(name), a.want.units[name]
	u.leave = leave{p.Rev, nodeplan.Asked}
	state, _ := u.state(name, a.cfg.Presence.ID, "", a.heard(name), a.memory.Units[name], time.Now())
	state.Unit, state.Machine = name, a.cfg.Presence.ID
	state.Active, state.Sub = "activating", "claimed"
	a.claim(claim{state: state, rev: p.Rev, told: func(granted bool) {
		a.inbox.leave(func(n *news) {
			n.found = append(n.found, func() {
				if u.leave != (leave{p.Rev, nodeplan.Asked}) {
					return
				}
				u.leave.state = nodeplan.Unclaimed
				if granted {
					u.leave.state = nodeplan.Claimed
				} else {
					u.fail(time.Now(), "its entry in the schedule has changed: not started")
				}
			})
		})
	}})
}

// dropLeaves takes back the leaves of entries that are not in force any more, and
// those that can not be relied on.
func (a *Agent) dropLeaves() {
	for name, u := range a.units {
		p, wanted := a.want.units[name]
		if u.leave.state == nodeplan.Unclaimed || wanted && p.Rev == u.leave.rev && (u.leave.state == nodeplan.Asked || a.fence.sure()) {
			continue
		}
		a.giveBack(name, u)
	}
}

// giveBack ends a leave: the unit has been started, or will not be.
func (a *Agent) giveBack(name string, u *local) {
	if u.leave.state != nodeplan.Unclaimed {
		u.leave = leave{}
		a.unclaim(name)
	}
}
