package sched

import (
	"slices"

	"flotilla/internal/fleet/model"
)

// peers is the units that j has to be with: those of MachineOf, and the one that it
// triggers.
func (c *Cluster) peers(j *job) []string {
	t := c.triggered(j)
	if t == nil {
		return j.Req.MachineOf
	}
	return append(slices.Clip(j.Req.MachineOf), t.Name)
}

// triggered is the unit that j has to be with because it starts it, and says so nowhere;
// nil if there is none. One that the cluster does not have may be on the machines by
// other means, and a global one is its own machines' business. One that is bound to j in
// turn, say by MachineOf, brings them together without this.
func (c *Cluster) triggered(j *job) *job {
	if j.Req.Triggers == "" || slices.Contains(j.Req.MachineOf, j.Req.Triggers) {
		return nil
	}
	t := c.jobs[j.Req.Triggers]
	if t == nil || !t.known || t.Req.Global {
		return nil
	}
	if len(mayFollow(t.Req)) > 0 && reaches(t, j, func(x *job) []*job { return c.named(mayFollow(x.Req)) }) {
		return nil
	}
	return t
}

// mayFollow is the units that one with these requirements is bound to, whatever they are.
func mayFollow(req model.Requirements) []string {
	if req.Triggers == "" {
		return req.MachineOf
	}
	return append(slices.Clip(req.MachineOf), req.Triggers)
}

// named is the jobs of those names, as far as there are any.
func (c *Cluster) named(names []string) []*job {
	jobs := make([]*job, 0, len(names))
	for _, name := range names {
		if j := c.jobs[name]; j != nil {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// triggers reports whether j has to be with the unit of that name because it starts it.
func (c *Cluster) triggers(j *job, name string) bool {
	t := c.triggered(j)
	return t != nil && t.Name == name
}
