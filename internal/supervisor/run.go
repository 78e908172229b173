package supervisor

import (
	"context"
	"fmt"
	"slices"

	"flotilla/internal/fault"
	"flotilla/internal/supervisor/jobs"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// Run implements unit.Manager. Besides start, stop and restart it knows the kind
// "reload".
func (s *Supervisor) Run(ctx context.Context, list []unit.Job) <-chan unit.Outcome {
	out := make(chan unit.Outcome, len(list))
	answers := make(chan unit.Outcome, len(list)) // the loop's, which waits for nobody
	err := s.do(ctx, func() error {
		for _, j := range list {
			s.request(j, request{job: j, out: answers})
		}
		return nil
	})
	if err != nil {
		for _, j := range list {
			out <- unit.Outcome{Job: j, Err: err}
		}
		close(out)
		return out
	}
	go func() {
		defer close(out)
		for range list {
			select {
			case o := <-answers:
				out <- o
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// request queues one job with all that it takes along.
func (s *Supervisor) request(j unit.Job, r request) {
	list, err := s.plan(j)
	if err != nil {
		s.answer(r, unit.Outcome{Job: j, Err: err})
		return
	}
	s.nextID++
	s.waiting[s.nextID] = r
	s.ended(s.queue.Add(list, j.Unit, s.nextID))
}

func (s *Supervisor) plan(j unit.Job) ([]unit.Job, error) {
	if s.stopping {
		return nil, fmt.Errorf("%s %s: the supervisor shuts down", j.Kind, j.Unit)
	}
	list, err := jobs.Plan(graph{s}, j.Kind, j.Unit)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", j.Kind, j.Unit, err)
	}
	switch u := s.units[j.Unit]; {
	case j.Kind == unit.Start, j.Kind == unit.Stop, j.Kind == unit.Restart:
	case j.Kind != jobs.Reload:
		return nil, fmt.Errorf("%s %s: there is no such kind of job", j.Kind, j.Unit)
	case u == nil || !u.m.CanReload():
		return nil, fault.Hint(fmt.Errorf("reload %s: the unit has no ExecReload=", j.Unit), "restart it instead")
	}
	return list, nil
}

func (s *Supervisor) answer(r request, o unit.Outcome) {
	r.out <- o // it has room for every outcome
}

// enqueue queues a job that nobody asked for: a restart, a bound unit, OnFailure.
func (s *Supervisor) enqueue(kind unit.Kind, name string) {
	if s.stopping && kind != unit.Stop {
		return
	}
	list, err := jobs.Plan(graph{s}, kind, name)
	if err != nil {
		s.logUnit(name, 4, fmt.Sprintf("%s: Failed to enqueue %s job: %v", name, kind, err))
		return
	}
	s.ended(s.queue.Add(list, "", 0))
}

// dispatch begins the jobs that wait for nothing, until none is left.
func (s *Supervisor) dispatch() {
	for progress := true; progress; {
		progress = false
		for _, j := range s.queue.Runnable(graph{s}) {
			if kind, running, ok := s.queue.Job(j.Unit); !ok || running || kind != j.Kind {
				continue // an earlier one of the list changed it
			}
			progress = s.begin(j) || progress
		}
	}
}

// begin begins a job; false if its unit is not ready for it.
func (s *Supervisor) begin(j unit.Job) bool {
	u := s.find(j.Unit)
	if u == nil {
		s.finish(j.Unit, unit.Done) // not ours, counted as active
		return true
	}
	switch j.Kind {
	case unit.Start:
		return s.beginStart(u)
	case unit.Stop, unit.Restart:
		return s.beginStop(u)
	case jobs.Reload:
		return s.beginReload(u)
	default:
		return s.verify(u)
	}
}

func (s *Supervisor) beginStart(u *svc) bool {
	st := u.m.State
	switch {
	case st.Up():
		s.finish(u.name, unit.Done)
		return true
	case st == service.AutoRestart, st.Active() == "deactivating":
		return false
	case !st.Inactive():
		s.queue.Begin(u.name)
		return true
	}
	if done, r := s.checkConditions(u); done {
		s.finish(u.name, r)
		return true
	}
	if missing := s.unbound(u); missing != "" {
		s.logUnit(u.name, 4, fmt.Sprintf("%s: Bound to unit %s, but unit isn't active.", u.name, missing))
		s.finish(u.name, unit.Dependency)
		return true
	}
	s.queue.Begin(u.name)
	u.apply(u.m.Start(s.now()))
	return true
}

// unbound names a unit that must be active for u to start, and is not.
func (s *Supervisor) unbound(u *svc) string {
	deps := u.m.Config().Deps
	for _, d := range deps.BindsTo {
		n := graph{s}.Node(d)
		if slices.Contains(deps.After, d) && !n.External && !n.State.Up() {
			return d
		}
	}
	return ""
}

// beginStop begins a stop job, and a restart job, which begins with a stop.
func (s *Supervisor) beginStop(u *svc) bool {
	st := u.m.State
	if st.Inactive() {
		s.stopped(u)
		return true
	}
	s.queue.Begin(u.name)
	if st != service.AutoRestart && st != service.Active {
		s.logUnit(u.name, 6, fmt.Sprintf("Stopping %s...", u.title()))
	}
	u.apply(u.m.Stop(s.now()))
	return true
}

// stopped ends a stop job, and makes a restart job the start that follows.
func (s *Supervisor) stopped(u *svc) {
	if u.Restarting() {
		s.queue.Stopped(u.name)
		return
	}
	s.finish(u.name, unit.Done)
}

func (s *Supervisor) beginReload(u *svc) bool {
	switch st := u.m.State; {
	case st == service.Reload, st.Active() == "activating":
		return false
	case !st.Up():
		s.finish(u.name, unit.Failed)
		return true
	}
	s.queue.Begin(u.name)
	s.logUnit(u.name, 6, fmt.Sprintf("Reloading %s...", u.title()))
	u.apply(u.m.Reload(s.now()))
	return true
}

func (s *Supervisor) verify(u *svc) bool {
	switch st := u.m.State; {
	case st.Up():
		s.finish(u.name, unit.Done)
	case st.Active() == "activating":
		return false
	default:
		s.finish(u.name, unit.Skipped)
	}
	return true
}

// finish ends the unit's job and tells those who waited.
func (s *Supervisor) finish(name string, r unit.Result) {
	s.ended(s.queue.Finish(graph{s}, name, r))
}

func (s *Supervisor) ended(list []jobs.Ended) {
	s.spent = s.spent || len(list) > 0
	for _, e := range list {
		if u := s.units[e.Unit]; u != nil && e.Result == unit.Dependency && e.Kind != jobs.Verify {
			s.explain(u, e.Kind, e.Result)
		}
		for _, id := range e.IDs {
			r := s.waiting[id]
			delete(s.waiting, id)
			s.answer(r, unit.Outcome{Job: r.job, Result: e.Result})
		}
	}
}

// jobStateChanged ends the unit's job if the new state is what it was for.
func (s *Supervisor) jobStateChanged(u *svc, e service.Changed) {
	kind, running, ok := s.queue.Job(u.name)
	if !ok || !running {
		return
	}
	switch kind {
	case unit.Start:
		s.startChanged(u, e)
	case unit.Stop, unit.Restart:
		if e.To.Inactive() {
			s.explain(u, unit.Stop, unit.Done)
			s.stopped(u)
		}
	case jobs.Reload:
		s.reloadChanged(u, e)
	}
}

func (s *Supervisor) startChanged(u *svc, e service.Changed) {
	cfg := u.m.Config()
	switch {
	case e.From.Inactive() && e.To.Active() == "activating":
		if e.To != service.Start || cfg.Type != service.Simple {
			s.logUnit(u.name, 6, fmt.Sprintf("Starting %s...", u.title()))
		}
	case e.To == service.Failed, e.From.Inactive() && e.To.Inactive():
		// From dead to dead is a start that the start limit refused.
		s.explain(u, unit.Start, unit.Failed)
		s.finish(u.name, unit.Failed)
	case u.m.Result == service.SkipCondition && e.To == service.Dead:
		s.logUnit(u.name, 6, fmt.Sprintf("Condition check resulted in %s being skipped.", u.title()))
		s.finish(u.name, unit.Done)
	case e.To.Up(), e.To == service.Dead:
		s.explain(u, unit.Start, unit.Done)
		s.finish(u.name, unit.Done)
	}
}

func (s *Supervisor) reloadChanged(u *svc, e service.Changed) {
	switch {
	case e.To.Inactive(), e.From == service.Reload && u.m.ReloadResult != service.Success:
		s.finish(u.name, unit.Failed)
	case e.From == service.Reload && e.To.Up():
		s.logUnit(u.name, 6, fmt.Sprintf("Reloaded %s.", u.title()))
		s.finish(u.name, unit.Done)
	}
}

// title is how messages name a unit.
func (u *svc) title() string {
	if d := u.m.Config().Description; d != "" {
		return u.name + " - " + d
	}
	return u.name
}

// explain writes the line that systemd has for a job's end.
func (s *Supervisor) explain(u *svc, kind unit.Kind, r unit.Result) {
	switch {
	case r == unit.Dependency:
		s.logUnit(u.name, 4, fmt.Sprintf("Dependency failed for %s.", u.title()))
	case r == unit.Assert:
		s.logUnit(u.name, 3, fmt.Sprintf("Assertion failed for %s.", u.title()))
	case r == unit.Failed:
		s.logUnit(u.name, 3, fmt.Sprintf("Failed to start %s.", u.title()))
	case kind == unit.Stop:
		s.logUnit(u.name, 6, fmt.Sprintf("Stopped %s.", u.title()))
	case u.m.Config().Target:
		s.logUnit(u.name, 6, fmt.Sprintf("Reached target %s.", u.title()))
	case u.m.Config().Type == service.Oneshot:
		s.logUnit(u.name, 6, fmt.Sprintf("Finished %s.", u.title()))
	default:
		s.logUnit(u.name, 6, fmt.Sprintf("Started %s.", u.title()))
	}
}

// afterEnd stops the units that are bound to one that ended, and starts those that
// are to follow it.
func (s *Supervisor) afterEnd(u *svc, e service.Changed) {
	if _, _, ok := s.queue.Job(u.name); !ok && e.To == service.Dead {
		s.refresh(u) // a dead unit without a job counts as not loaded
	}
	for _, name := range sortedKeys(s.units) {
		b := s.units[name]
		if b.bad != nil || !slices.Contains(b.m.Config().BindsTo, u.name) || b.m.State.Inactive() {
			continue
		}
		if kind, _, ok := s.queue.Job(name); ok && (kind == unit.Stop || kind == unit.Restart) {
			continue
		}
		s.logUnit(name, 5, fmt.Sprintf("%s: Unit is bound to inactive unit %s. Stopping, too.", name, u.name))
		s.enqueue(unit.Stop, name)
	}
	follow := u.m.Config().OnSuccess
	if e.To == service.Failed {
		follow = u.m.Config().OnFailure
	}
	if e.From.Inactive() && e.To != service.Failed || u.m.WillRestart() {
		return
	}
	for _, name := range follow {
		s.logUnit(u.name, 6, fmt.Sprintf("%s: Triggering OnFailure= or OnSuccess= dependency %s.", u.name, name))
		s.enqueue(unit.Start, name)
	}
}
