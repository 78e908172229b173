package jobs

import (
	"slices"

	"flotilla/internal/unit"
)

// Ended is a job that left the queue.
type Ended struct {
	Unit   string
	Kind   unit.Kind
	Result unit.Result
	IDs    []int // of the requests that waited for it
	Silent bool  // the unit never saw the job: there is nothing to tell in its log
}

// entry is the one job that a unit has.
type entry struct {
	kind    unit.Kind
	running bool
	ids     []int
	order   int
}

// Queue holds at most one job for each unit. The zero value is empty.
type Queue struct {
	jobs map[string]*entry
	next int
}

// Job returns the unit's job and whether it has begun.
func (q *Queue) Job(name string) (kind unit.Kind, running, ok bool) {
	e, ok := q.jobs[name]
	if !ok {
		return "", false, false
	}
	return e.kind, e.running, true
}

// Len is how many jobs wait or run.
func (q *Queue) Len() int { return len(q.jobs) }

// Add puts the jobs of one request into the queue; id waits for the job of unit
// anchor. A job that contradicts one in the queue replaces it, one that asks for
// the same joins it.
func (q *Queue) Add(list []unit.Job, anchor string, id int) []Ended {
	if q.jobs == nil {
		q.jobs = map[string]*entry{}
	}
	var out []Ended
	for _, j := range list {
		var ids []int
		if j.Unit == anchor && id != 0 {
			ids = []int{id}
		}
		out = append(out, q.put(j, ids)...)
	}
	return out
}

func (q *Queue) put(j unit.Job, ids []int) []Ended {
	e, had := q.jobs[j.Unit]
	if had {
		if merged, ok := merge(e.kind, j.Kind); ok {
			if merged != e.kind {
				// A running start that becomes a restart begins again.
				e.kind, e.running = merged, false
			}
			e.ids = append(e.ids, ids...)
			return nil
		}
	}
	var out []Ended
	if had {
		out = append(out, q.end(j.Unit, unit.Canceled))
	}
	q.next++
	q.jobs[j.Unit] = &entry{kind: j.Kind, ids: ids, order: q.next}
	return out
}

func (q *Queue) end(name string, r unit.Result) Ended {
	e := q.jobs[name]
	delete(q.jobs, name)
	return Ended{Unit: name, Kind: e.kind, Result: r, IDs: e.ids, Silent: !e.running}
}

// Loaded returns the units that stay loaded: those that are not through or have a
// job, and all that a loaded one names.
func (q *Queue) Loaded(g Graph) map[string]bool {
	loaded := map[string]bool{}
	var load func(name string)
	load = func(name string) {
		if loaded[name] {
			return
		}
		loaded[name] = true
		for _, d := range g.Node(name).named() {
			load(d)
		}
	}
	for _, name := range g.Names() {
		if q.jobs[name] != nil || !g.Node(name).Through {
			load(name)
		}
	}
	return loaded
}

// Runnable returns the jobs that wait for nothing, in the order they came. Where
// all wait for each other, the ordering has a cycle: the oldest job breaks it.
func (q *Queue) Runnable(g Graph) []unit.Job {
	var names []string
	oldest, running := "", false
	for name, e := range q.jobs {
		running = running || e.running
		if oldest == "" || e.order < q.jobs[oldest].order {
			oldest = name
		}
		if !e.running && !q.waits(g, name, e) {
			names = append(names, name)
		}
	}
	if len(names) == 0 && !running && oldest != "" {
		names = append(names, oldest)
	}
	slices.SortFunc(names, func(a, b string) int { return q.jobs[a].order - q.jobs[b].order })
	out := make([]unit.Job, 0, len(names))
	for _, n := range names {
		out = append(out, unit.Job{Kind: q.jobs[n].kind, Unit: n})
	}
	return out
}

// waits reports whether another unit's job has to end first.
func (q *Queue) waits(g Graph, name string, e *entry) bool {
	n := g.Node(name)
	for other, o := range q.jobs {
		if other == name {
			continue
		}
		on := g.Node(other)
		otherFirst := slices.Contains(n.After, other) || slices.Contains(on.Before, name)
		selfFirst := slices.Contains(n.Before, other) || slices.Contains(on.After, name)
		switch {
		case otherFirst && selfFirst:
			// A cycle of two: neither waits for the other.
		case otherFirst && !stops(e.kind):
			return true
		case selfFirst && stops(o.kind):
			return true
		}
	}
	return false
}

// stops reports whether the job begins with the unit's end. Of two ordered units
// the later one stops first, whatever the earlier one is to do.
func stops(k unit.Kind) bool { return k == unit.Stop || k == unit.Restart }

// Begin marks a job as running.
func (q *Queue) Begin(name string) {
	if e := q.jobs[name]; e != nil {
		e.running = true
	}
}

// Wait puts a running job back: its unit is not ready for it.
func (q *Queue) Wait(name string) {
	if e := q.jobs[name]; e != nil {
		e.running = false
	}
}

// Stopped turns the unit's restart job into the start that follows.
func (q *Queue) Stopped(name string) {
	if e := q.jobs[name]; e != nil && e.kind == unit.Restart {
		e.kind, e.running = unit.Start, false
	}
}

// Finish ends the unit's job. A start that failed takes with it the starts of the
// units that require this one.
func (q *Queue) Finish(g Graph, name string, r unit.Result) []Ended {
	e, ok := q.jobs[name]
	if !ok {
		return nil
	}
	kind := e.kind
	out := []Ended{q.end(name, r)}
	if r == unit.Done || r == unit.Canceled || kind != unit.Start && kind != Verify && kind != unit.Restart {
		return out
	}
	for _, d := range q.dependents(g, name) {
		out = append(out, q.Finish(g, d, unit.Dependency)...)
	}
	return out
}

// dependents are the units with a start job that need name to start, by name.
func (q *Queue) dependents(g Graph, name string) []string {
	var out []string
	for other, o := range q.jobs {
		n := g.Node(other)
		needs := slices.Contains(n.Requires, name) || slices.Contains(n.BindsTo, name) || slices.Contains(n.Requisite, name)
		if needs && (o.kind == unit.Start || o.kind == Verify || o.kind == unit.Restart) {
			out = append(out, other)
		}
	}
	slices.Sort(out)
	return out
}
