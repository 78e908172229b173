package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/nodeplan"
	"flotilla/internal/unit"
)

// maxRounds bounds how often one turn of the loop plans anew after its own steps.
// A plan is empty after two or three; more is a fault that must not spin.
const maxRounds = 8

// Files are written so many at a time.
const installers = 8

// work brings the units as near to what is wanted as can be without waiting for a
// job: the rest follows when the jobs have ended.
func (a *Agent) work(ctx context.Context) {
	a.ask(ctx, a.unknown()...)
	a.settle(ctx)
	for range maxRounds {
		steps := a.gathered(a.plan())
		if len(steps) == 0 || ctx.Err() != nil {
			return
		}
		a.execute(ctx, steps)
	}
	a.log.Error("the plan does not come to an end, waiting for the next event")
}

// plan is what to do. The schedule on disk may be older than what the agent has
// done since, or gone: by it units are started, and nothing else.
func (a *Agent) plan() []nodeplan.Step {
	if a.source == disk {
		return nodeplan.Revive(a.want.units, a.have())
	}
	return nodeplan.Plan(a.want.units, a.have())
}

// gather is how long the agent waits for more new units after it has written the files of
// some. For the first unit that it loads after any file has changed systemd reads all its
// directories anew (some 5 ms): of a hundred units that arrive one after the other the
// first is not to wait, and the others not to have it do so each.
const gather = 50 * time.Millisecond

// gathered leaves out the steps of new units while others are waited for; more is when
// that ends.
func (a *Agent) gathered(steps []nodeplan.Step) []nodeplan.Step {
	a.more = time.Time{}
	if time.Since(a.wrote) >= gather {
		return steps
	}
	later := map[string]bool{}
	for _, s := range steps {
		if s.Op == nodeplan.Install && !a.local(s.Unit).installed && a.startsNext(s.Unit) {
			later[s.Unit] = true
			a.more = a.wrote.Add(gather)
		}
	}
	return slices.DeleteFunc(steps, func(s nodeplan.Step) bool { return later[s.Unit] })
}

// unknown is the units whose status nobody has told yet. The end of a job tells.
func (a *Agent) unknown() []string {
	var out []string
	for _, name := range a.names() {
		if u := a.local(name); !u.known && u.job == nil {
			out = append(out, name)
		}
	}
	return out
}

func (a *Agent) have() map[string]nodeplan.Have {
	now := time.Now()
	out := make(map[string]nodeplan.Have, len(a.units))
	for _, name := range a.names() {
		h := a.local(name).have(now, a.memory.Units[name])
		if own, ok := a.memory.Own[name]; ok {
			h.Own = own == a.want.units[name].Hash
		}
		out[name] = h
	}
	return out
}

// execute carries steps out in the order of their phases. A unit whose step has to
// be waited for, or has failed, takes no further step; the others go on.
func (a *Agent) execute(ctx context.Context, steps []nodeplan.Step) {
	clear(a.refused)
	byOp := map[nodeplan.Op][]nodeplan.Step{}
	for _, s := range steps {
		byOp[s.Op] = append(byOp[s.Op], s)
	}
	a.start(ctx, unit.Stop, byOp[nodeplan.Stop])
	a.files(ctx, byOp[nodeplan.Remove], a.removeFile)
	a.files(ctx, byOp[nodeplan.Adopt], a.takeOver)
	a.files(ctx, byOp[nodeplan.Install], a.installFile)
	if reload := byOp[nodeplan.Reload]; len(reload) > 0 {
		a.reload(ctx, reload[0], byOp[nodeplan.Install])
	}
	for _, s := range a.free(byOp[nodeplan.Claim]) {
		a.say(s)
		a.askLeave(s.Unit)
	}
	a.arm() // what is installed by now, before it is started
	a.start(ctx, unit.Start, byOp[nodeplan.Start])
	a.start(ctx, unit.Restart, byOp[nodeplan.Restart])
	for _, s := range a.free(byOp[nodeplan.Record]) {
		a.say(s)
		a.memory.set(s.Unit, a.intent(s.Unit))
		a.local(s.Unit).forgive()
	}
}

// free leaves out the steps of units that are waiting, or whose text was refused. A
// start that is under way is not waited for: the plan knows of it.
func (a *Agent) free(steps []nodeplan.Step) []nodeplan.Step {
	var out []nodeplan.Step
	for _, s := range steps {
		u := a.local(s.Unit)
		stopping := u.job != nil && u.job.kind == unit.Stop
		if !stopping && u.retryAt.IsZero() && !a.refused[s.Unit] {
			out = append(out, s)
		}
	}
	return out
}

func (a *Agent) say(s nodeplan.Step) { a.log.Info(string(s.Op), "unit", s.Unit, "why", s.Why) }

// start sends jobs, all at once. The init system has one job for a unit: a stop or a
// restart takes the place of a start that is under way.
func (a *Agent) start(ctx context.Context, kind unit.Kind, steps []nodeplan.Step) {
	var jobs []unit.Job
	for _, s := range a.free(steps) {
		a.say(s)
		u := a.local(s.Unit)
		u.job = &job{kind: kind, done: a.intent(s.Unit), rested: kind == unit.Start && quiet(u.status)}
		jobs = append(jobs, unit.Job{Kind: kind, Unit: s.Unit})
		if kind != unit.Stop { // to stop twice is to stop once
			d := a.memory.Units[s.Unit]
			d.Sent = sent{Gen: u.job.done.Gen, State: u.job.done.State, Hash: u.job.done.Hash, Since: stamp(u.status.Since)}
			a.memory.set(s.Unit, d)
		}
	}
	a.rememberWork()
	a.send(ctx, jobs)
}

// settle finds out what became of jobs that an earlier run of the agent sent and did
// not see the end of. As long as there is a job for a unit, its state says nothing: it
// may be that of the copy before, or the unit is down between stop and start.
func (a *Agent) settle(ctx context.Context) {
	a.settleGuarded()
	a.ask(ctx, a.unsettled()...)
	for name, d := range a.memory.Units {
		u := a.local(name)
		if d.Sent == (sent{}) || u.job != nil || !u.known || u.status.Job {
			continue
		}
		if stamp(u.status.Since) != d.Sent.Since {
			d.Gen, d.State, d.Hash, d.Good = d.Sent.Gen, d.Sent.State, d.Sent.Hash, false
			a.log.Info("job of an earlier run has been carried out", "unit", name, "state", u.status.Active)
		}
		d.Sent = sent{}
		a.memory.set(name, d)
	}
}

// unsettled is the units that had a job when they were last heard of, which an earlier
// run of the agent may have sent.
func (a *Agent) unsettled() []string {
	var out []string
	for name, d := range a.memory.Units {
		if u := a.local(name); d.Sent != (sent{}) && u.job == nil && u.status.Job {
			out = append(out, name)
		}
	}
	return out
}

// intent is what will have been carried out for a unit once its job has ended.
func (a *Agent) intent(name string) done {
	p := a.want.units[name]
	d := a.memory.Units[name]
	d.Gen, d.State, d.Sent, d.Good = p.Gen, p.Desired, sent{}, false
	if p.Desired == model.Launched {
		d.Hash = p.Hash
	}
	return d
}

// files runs a step on files for several units at a time, then asks for the units'
// statuses: the init system has another view of them now.
func (a *Agent) files(ctx context.Context, steps []nodeplan.Step, do func(context.Context, string) error) {
	steps = a.free(steps)
	if len(steps) == 0 {
		return
	}
	errs := make([]error, len(steps))
	gate := make(chan struct{}, installers)
	var wg sync.WaitGroup
	for i, s := range steps {
		a.say(s)
		gate <- struct{}{}
		wg.Go(func() {
			errs[i] = do(ctx, s.Unit)
			<-gate
		})
	}
	wg.Wait()
	var changed []string
	for i, s := range steps {
		fresh := s.Op == nodeplan.Install && !a.local(s.Unit).installed
		a.filed(s, errs[i])
		if fresh && errs[i] == nil && a.startsNext(s.Unit) {
			a.local(s.Unit).known = false // what has been heard is that there is none
			a.wrote = time.Now()
			continue
		}
		changed = append(changed, s.Unit)
	}
	a.ask(ctx, changed...)
}

// startsNext reports whether a new unit is about to be started, so that the end of
// that job tells how it is: to ask before would have the init system load it twice.
// A unit that is enabled as well may need a reload first.
func (a *Agent) startsNext(name string) bool {
	p := a.want.units[name]
	return p.Desired == model.Launched && !p.Leaving && !strings.Contains(p.Text, "[Install]")
}

func (a *Agent) installFile(ctx context.Context, name string) error {
	text := a.want.units[name].Text
	if a.units[name].slotted(name) {
		text = withSlot(text, a.slotsDir(), name)
	}
	return a.manager.Install(ctx, name, text)
}

func (a *Agent) removeFile(ctx context.Context, name string) error {
	return a.manager.Remove(ctx, name)
}

// filed takes in how a step on a unit's file ended.
func (a *Agent) filed(s nodeplan.Step, err error) {
	u := a.local(s.Unit)
	switch {
	case errors.Is(err, unit.ErrRefused):
		d := a.memory.Units[s.Unit]
		d.Refused = a.want.units[s.Unit].Hash
		a.memory.set(s.Unit, d)
		a.refused[s.Unit] = true
		u.message, u.passing = err.Error(), false
		a.log.Error("unit refused by the init system", "unit", s.Unit, "err", model.OneLine(err.Error()))
	case err != nil:
		a.failed(s.Unit, fmt.Sprintf("%s: %v", s.Op, err))
	case s.Op == nodeplan.Install, s.Op == nodeplan.Adopt:
		a.consent(s.Unit, "")
		u.installed, u.hash = true, a.want.units[s.Unit].Hash
		u.forgive()
	case s.Op == nodeplan.Remove:
		u.installed, u.hash = false, ""
		u.forgive()
		a.memory.drop(s.Unit)
	}
}

func (a *Agent) failed(name, message string) {
	u := a.local(name)
	if u.fail(time.Now(), message) {
		a.log.Warn("step failed, trying again", "unit", name, "err", message, "next_try", time.Until(u.retryAt))
	}
}

// reload has changed files read again. If that fails the units with changed files
// wait; the others go on.
func (a *Agent) reload(ctx context.Context, s nodeplan.Step, installed []nodeplan.Step) {
	a.say(s)
	err := a.manager.Reload(ctx)
	if err == nil {
		a.ask(ctx, a.names()...)
		return
	}
	waiting := map[string]bool{}
	for _, step := range installed {
		waiting[step.Unit] = true
	}
	for name, u := range a.units {
		if waiting[name] || u.status.NeedReload {
			a.failed(name, fmt.Sprintf("reload: %v", err))
		}
	}
}

// finish takes in how jobs ended. Their units are asked for first: the signals of
// a change may come after that of the job's end. A unit that was at rest and has
// been told as active since is what its start was to make of it. The end of a job
// whose place another one has taken says nothing.
func (a *Agent) finish(ctx context.Context, ends []jobEnd) {
	ends = slices.DeleteFunc(ends, func(e jobEnd) bool { return a.local(e.Job.Unit).job != e.of })
	var names []string
	for _, e := range ends {
		u := a.local(e.Job.Unit)
		if !e.of.rested || e.Result != unit.Done || !u.known || u.status.Active != "active" {
			names = append(names, e.Job.Unit)
		}
	}
	a.ask(ctx, names...)
	for _, e := range ends {
		u := a.local(e.Job.Unit)
		u.job = nil
		a.giveBack(e.Job.Unit, u)
		a.ended(e.Outcome, u, e.of)
	}
}

// ended judges the end of a job. A start that was queued has been carried out
// however it ended: what happens to a unit that fails is its Restart=. A stop has
// been carried out when nothing runs any more.
func (a *Agent) ended(o unit.Outcome, u *local, j *job) {
	name, stopped := o.Job.Unit, quiet(u.status)
	if d, ok := a.memory.Units[name]; ok {
		d.Sent = sent{}
		a.memory.set(name, d)
	}
	switch {
	case j.kind == unit.Stop && !stopped && o.Err == nil:
		a.failed(name, fmt.Sprintf("stop: the job has ended (%s) and the unit is %s", o.Result, u.status.Active))
	case o.Err != nil && (j.kind != unit.Stop || !stopped):
		a.failed(name, fmt.Sprintf("%s: %v", j.kind, o.Err))
	default:
		if u.fenced {
			return // what became of the job is what the fence made of it
		}
		u.forgive()
		j.done.Refused = a.memory.Units[name].Refused // it may have been meanwhile
		if _, wanted := a.want.units[name]; wanted && (j.kind != unit.Stop || j.done.State == model.Loaded) {
			a.memory.set(name, j.done)
		}
		if j.kind != unit.Stop && o.Result != unit.Done && o.Result != unit.Skipped {
			u.message, u.passing = fmt.Sprintf("%s job ended with result %q", j.kind, o.Result), true
			a.log.Warn("job did not succeed", "unit", name, "job", j.kind, "result", o.Result)
		}
	}
}

// quiet reports whether nothing of the unit runs.
func quiet(s unit.Status) bool {
	return s.Active == "" || s.Active == "inactive" || s.Active == "failed"
}
