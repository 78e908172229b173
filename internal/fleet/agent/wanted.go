package agent

import (
	"fmt"
	"maps"
	"slices"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// wanted is what this machine is to run, and who says so.
type wanted struct {
	units map[string]model.Placement
	// store and rev are those that were read last; "" is none yet.
	store string
	rev   int64
	// foreign is the units that this store does not mention, by name the store
	// that placed them. They stay as they are: a store that has never heard of a
	// unit does not say that it is to be stopped.
	foreign map[string]string
}

// elsewhere reports whether a schedule comes from another store than the last
// known one, or from that one set back to an earlier time.
func (w wanted) elsewhere(s registry.Schedule) bool {
	return w.store != "" && s.Store != "" && (s.Store != w.store || s.Rev < w.rev)
}

// succeed is what is wanted once a schedule has been read. Its entries count. A
// unit that it does not hold is over if the same store placed it, and otherwise
// foreign, unless foreign units are to be forgotten. An entry that cannot be read
// (it has no hash) leaves the last known one in force; where there is none the unit
// is held.
func (w wanted) succeed(s registry.Schedule, forget bool) wanted {
	next := wanted{
		units: make(map[string]model.Placement, len(s.Entries)), foreign: map[string]string{},
		store: s.Store, rev: s.Rev,
	}
	for _, p := range s.Entries {
		known, ok := w.units[p.Unit]
		switch {
		case p.Hash != "":
			next.units[p.Unit] = p
		case ok:
			next.units[p.Unit] = known
		default:
			next.units[p.Unit] = held(p.Machine, p.Unit)
		}
	}
	if forget {
		return next
	}
	for name, p := range w.units {
		owner := w.owner(name, s)
		if _, mentioned := next.units[name]; !mentioned && owner != "" && owner != s.Store {
			next.units[name], next.foreign[name] = p, owner
		}
	}
	return next
}

// held is in place of an entry of which no more is known than that there is one: the
// unit goes on as it is, and is not started anew. It has no hash.
func held(machine, unit string) model.Placement {
	return model.Placement{Machine: machine, Unit: unit, Leaving: true}
}

// owner is the store that placed a unit; "" if that is not known. One that was set
// back does not know what it placed later: that is another's from now on.
func (w wanted) owner(name string, s registry.Schedule) string {
	if other, ok := w.foreign[name]; ok {
		return other
	}
	if w.elsewhere(s) && s.Store == w.store {
		return fmt.Sprintf("%s until %d", w.store, w.rev)
	}
	return w.store
}

// forgotten is the units of w that next does not have any more though no store has
// said so.
func (w wanted) forgotten(next wanted, s registry.Schedule) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(w.units)) {
		if _, ok := next.units[name]; !ok && w.owner(name, s) != s.Store {
			out = append(out, name)
		}
	}
	return out
}

// adopt makes what was read what is wanted.
func (a *Agent) adopt(s registry.Schedule) {
	old, first := a.want, a.source != store
	elsewhere := old.elsewhere(s)
	a.want = old.succeed(s, first && a.cfg.ForgetForeign)
	for name, p := range a.want.units {
		known, ok := old.units[name]
		if !ok || known.Hash == p.Hash && known.Gen == p.Gen {
			continue
		}
		a.forget(name, elsewhere || old.foreign[name] != "")
	}
	switch lost := old.forgotten(a.want, s); {
	case len(lost) > 0 && old.store != "":
		a.log.Warn("units of another store are forgotten, as the configuration says", "units", len(lost), "names", lost)
	case len(a.want.foreign) > 0 && (first || elsewhere):
		a.log.Warn("this is another store than the one that placed units here: those that it does not mention run on as they are",
			"units", len(a.want.foreign), "names", slices.Sorted(maps.Keys(a.want.foreign)),
			"hint", "submit them to this store, or bring the old store back; to have them stopped, restart this fleetd once with --forget_foreign")
	}
}

// forget takes back what stands in the way of a unit's new entry: the wait after
// failures, and the word on a text that was refused, which is tried again for
// every request. Generations of another store say nothing about this one's.
func (a *Agent) forget(name string, otherStore bool) {
	a.local(name).forgive()
	d, ok := a.memory.Units[name]
	if !ok {
		return
	}
	d.Refused = ""
	if otherStore {
		d.Gen = 0
	}
	a.memory.set(name, d)
}
