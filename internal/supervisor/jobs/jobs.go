// Package jobs decides which units a job takes with it, in which order jobs run,
// and what the end of one means for the others. It follows systemd.unit(5) and
// touches nothing.
package jobs

import (
	"fmt"
	"slices"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// The kinds of job besides those of package unit.
const (
	// Reload runs ExecReload= of a running service.
	Reload unit.Kind = "reload"
	// Verify succeeds if the unit is active: what Requisite= asks for.
	Verify unit.Kind = "verify-active"
)

// Node is what must be known of a unit to plan jobs.
type Node struct {
	service.Deps
	Err      error // the unit cannot be started: it does not exist, or its file is bad
	External bool  // not ours: a target that the machine has reached, counted as active
	State    service.State
	Through  bool // it may be unloaded once nobody names it
}

// active reports whether the unit is up or on its way.
func (n Node) active() bool { return n.External || !n.State.Inactive() }

// named are all units that the unit has a relation to.
func (n Node) named() []string {
	return slices.Concat(n.Requires, n.Requisite, n.Wants, n.BindsTo, n.PartOf, n.Conflicts,
		n.After, n.Before, n.OnFailure, n.OnSuccess)
}

// Graph tells of units.
type Graph interface {
	// Node returns what is known of the unit; Err is set if it does not exist.
	Node(name string) Node
	// Names returns all units whose relations count for others.
	Names() []string
}

// plan collects the jobs that one request needs.
type plan struct {
	g    Graph
	jobs map[string]unit.Kind
	list []string // in the order found
}

// Plan returns the jobs that a request stands for: the one asked for, those of the
// units it pulls in, and those that it stops. An error means that nothing is done:
// a required unit does not exist, or the same unit would have to start and stop.
func Plan(g Graph, kind unit.Kind, name string) ([]unit.Job, error) {
	if n := g.Node(name); n.Err != nil && (kind != unit.Stop || n.State.Inactive()) {
		return nil, n.Err
	}
	p := &plan{g: g, jobs: map[string]unit.Kind{}}
	if err := p.add(kind, name); err != nil {
		return nil, err
	}
	out := make([]unit.Job, 0, len(p.list))
	for _, n := range p.list {
		out = append(out, unit.Job{Kind: p.jobs[n], Unit: n})
	}
	return out, nil
}

func (p *plan) add(kind unit.Kind, name string) error {
	merged := kind
	if had, ok := p.jobs[name]; ok {
		if merged, ok = merge(had, kind); !ok {
			return fmt.Errorf("the jobs contradict each other: %s would have to %s and to %s", name, had, kind)
		}
		if merged == had {
			return nil
		}
	} else {
		p.list = append(p.list, name)
	}
	p.jobs[name] = merged
	switch kind {
	case unit.Start:
		return p.pullIn(name)
	case unit.Stop:
		return p.propagate(name, unit.Stop)
	case unit.Restart:
		if err := p.pullIn(name); err != nil {
			return err
		}
		return p.propagate(name, unit.Restart)
	}
	return nil
}

// merge returns the one job that stands for two on the same unit.
func merge(a, b unit.Kind) (unit.Kind, bool) {
	rank := map[unit.Kind]int{Verify: 0, Reload: 1, unit.Start: 2, unit.Restart: 3}
	switch {
	case a == b:
		return a, true
	case a == unit.Stop || b == unit.Stop:
		return "", false
	case rank[a] > rank[b]:
		return a, true
	}
	return b, true
}

// pullIn adds what a start needs.
func (p *plan) pullIn(name string) error {
	n := p.g.Node(name)
	for _, d := range slices.Concat(n.Requires, n.BindsTo) {
		if err := p.required(d, unit.Start); err != nil {
			return err
		}
	}
	for _, d := range n.Requisite {
		if err := p.required(d, Verify); err != nil {
			return err
		}
	}
	for _, d := range n.Wants {
		if w := p.g.Node(d); w.Err == nil && !w.External && !w.State.Up() {
			p.tentatively(d)
		}
	}
	for _, d := range p.conflicts(name, n) {
		if err := p.add(unit.Stop, d); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) required(name string, kind unit.Kind) error {
	n := p.g.Node(name)
	switch {
	case n.Err != nil:
		return n.Err
	case n.External:
		return nil
	}
	return p.add(kind, name)
}

// tentatively adds a wanted unit with all that it needs, or nothing of it.
func (p *plan) tentatively(name string) {
	saved := plan{g: p.g, jobs: map[string]unit.Kind{}, list: slices.Clone(p.list)}
	for k, v := range p.jobs {
		saved.jobs[k] = v
	}
	if p.add(unit.Start, name) != nil {
		*p = saved
	}
}

// conflicts are the active units that must stop for name to start: the relation
// counts in both directions.
func (p *plan) conflicts(name string, n Node) []string {
	var out []string
	for _, d := range n.Conflicts {
		if o := p.g.Node(d); !o.External && o.Err == nil && (o.active() || p.jobs[d] != "") {
			out = append(out, d)
		}
	}
	for _, d := range p.g.Names() {
		o := p.g.Node(d)
		if slices.Contains(o.Conflicts, name) && !slices.Contains(out, d) && (o.active() || p.jobs[d] != "") {
			out = append(out, d)
		}
	}
	return out
}

// propagate hands a stop or restart on to the units that depend on name and are
// active.
func (p *plan) propagate(name string, kind unit.Kind) error {
	for _, d := range p.g.Names() {
		n := p.g.Node(d)
		depends := slices.Contains(n.Requires, name) || slices.Contains(n.Requisite, name) ||
			slices.Contains(n.BindsTo, name) || slices.Contains(n.PartOf, name)
		if !depends || n.External || !n.active() || p.jobs[d] != "" {
			continue
		}
		if err := p.add(kind, d); err != nil {
			return err
		}
	}
	return nil
}
