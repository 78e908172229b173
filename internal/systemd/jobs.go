package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/fault"
	"flotilla/internal/unit"
)

// lookAfter is how long a job may be silent before systemd is asked whether it
// still exists: the signal of its end is lost when systemd executes itself anew.
const lookAfter = 10 * time.Second

var methods = map[unit.Kind]string{
	unit.Start:   managerIface + ".StartUnit",
	unit.Stop:    managerIface + ".StopUnit",
	unit.Restart: managerIface + ".RestartUnit",
}

// Run implements unit.Manager.
func (m *Manager) Run(ctx context.Context, jobs []unit.Job) <-chan unit.Outcome {
	out := make(chan unit.Outcome, len(jobs))
	go func() {
		defer close(out)
		begin := monotonic()
		todo := make([]errand, len(jobs))
		for i, j := range jobs {
			todo[i].Job = j
		}
		for ; len(todo) > 0; todo = m.settle(ctx, todo, begin, out) {
			b, err := m.connect(ctx)
			if err != nil {
				for _, e := range todo {
					out <- e.failed(err)
				}
				return
			}
			todo = b.runAll(ctx, todo, out)
		}
	}()
	return out
}

// errand is a job that is wanted, and how far it has come.
type errand struct {
	unit.Job
	queued dbus.ObjectPath // the job that systemd has for it already; "": it is to be sent
}

func (e errand) failed(err error) unit.Outcome {
	return unit.Outcome{Job: e.Job, Err: fmt.Errorf("%s %s: %w", e.Kind, e.Unit, err)}
}

// runAll sends all jobs before it waits for the first, in the order given: systemd
// orders a job behind those that are queued already, so as with "systemctl start"
// After= is sure to be kept if the unit that goes first is named first. It returns
// the jobs whose end it does not know because the connection was lost or the job
// vanished.
func (b *bus) runAll(ctx context.Context, todo []errand, out chan<- unit.Outcome) []errand {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var lost []errand
	end := func(e errand, result string, err error) {
		if errors.Is(err, ErrLost) {
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, errand{Job: e.Job})
			return
		}
		out <- e.outcome(result, err)
	}
	for _, e := range todo {
		if e.queued != "" {
			wg.Go(func() {
				result, err := b.join(ctx, e.queued)
				end(e, result, err)
			})
			continue
		}
		if err := b.room.Acquire(ctx, 1); err != nil {
			out <- e.failed(fmt.Errorf("not sent: %w", err))
			continue
		}
		b.jobs.sent()
		call := b.send(managerPath, methods[e.Kind], e.Unit, "replace")
		wg.Go(func() {
			result, err := b.finish(ctx, call)
			end(e, result, err)
		})
	}
	wg.Wait()
	return lost
}

// finish waits for the reply and for the end of the job.
func (b *bus) finish(ctx context.Context, call *dbus.Call) (result string, err error) {
	var path dbus.ObjectPath
	err = b.reply(ctx, call, &path)
	b.room.Release(1)
	end := b.jobs.named(path)
	if err != nil {
		return "", err
	}
	return b.awaitJob(ctx, path, end)
}

// join waits for the end of a job that was sent before this connection was made.
func (b *bus) join(ctx context.Context, job dbus.ObjectPath) (result string, err error) {
	b.jobs.sent()
	end := b.jobs.named(job)
	if b.jobGone(ctx, job) { // before its end could be heard of
		b.jobs.forget(job, end)
		return "", fmt.Errorf("%w: the job has just ended", ErrLost)
	}
	return b.awaitJob(ctx, job, end)
}

func (e errand) outcome(result string, err error) unit.Outcome {
	if err == nil {
		return unit.Outcome{Job: e.Job, Result: unit.Result(result)}
	}
	o := e.failed(err)
	if errorName(err) == badSetting {
		o.Err = fault.Hint(o.Err, "systemd's log names the line: journalctl -b -n 20 -u %s", e.Unit)
	}
	return o
}

// awaitJob returns the job's result, or ErrLost when it cannot be known any more.
func (b *bus) awaitJob(ctx context.Context, job dbus.ObjectPath, end chan string) (string, error) {
	defer b.jobs.forget(job, end)
	look := time.NewTicker(lookAfter)
	defer look.Stop()
	for missing := 0; missing < 2; {
		select {
		case result := <-end:
			return result, nil
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the job's end: %w", ctx.Err())
		case <-b.conn.Context().Done():
			return "", ErrLost
		case <-look.C:
			// The signal of a job that has just ended may be under way: ask twice.
			if b.jobGone(ctx, job) {
				missing++
			}
		}
	}
	return "", fmt.Errorf("%w: the job vanished without a result", ErrLost)
}

func (b *bus) jobGone(ctx context.Context, job dbus.ObjectPath) bool {
	_, err := b.property(ctx, job, busName+".Job", "State")
	name := errorName(err)
	return name == noSuchJob || name == unknownObject
}

// settle finds out what became of jobs whose end was missed. Those that systemd still has
// it returns to be waited for, and those of which nothing came to be sent again.
func (m *Manager) settle(ctx context.Context, lost []errand, begin time.Duration, out chan<- unit.Outcome) []errand {
	var again []errand
	for _, e := range lost {
		var s seen
		err := m.do(ctx, func(ctx context.Context, b *bus) (err error) {
			s, err = b.see(ctx, e.Unit, begin)
			return err
		})
		if err != nil {
			out <- e.failed(err)
			continue
		}
		switch result, next := fate(e.Kind, s); next {
		case settled:
			out <- unit.Outcome{Job: e.Job, Result: result}
		case underWay:
			again = append(again, errand{Job: e.Job, queued: s.path})
		default:
			again = append(again, e)
		}
	}
	return again
}

// seen is a unit, looked at after the end of a job of its was missed.
type seen struct {
	unit.Status
	job     string          // type of the job that it has now; "" none
	path    dbus.ObjectPath // of that job
	changed bool            // it came into the state it is in after the job was sent
	began   bool            // it was last started after the job was sent
}

// see looks at a unit and its job, once more if the job ends meanwhile: then the state is
// that of before its end.
func (b *bus) see(ctx context.Context, name string, begin time.Duration) (seen, error) {
	for {
		props, err := b.properties(ctx, name)
		if err != nil {
			return seen{}, err
		}
		s := seen{Status: statusOf(name, props), path: jobOf(props), changed: changedAt(props) >= begin, began: startedAt(props) >= begin}
		if !s.Status.Job {
			return s, nil
		}
		kind, err := b.property(ctx, s.path, busName+".Job", "JobType")
		if err == nil {
			s.job, _ = kind.Value().(string)
			return s, nil
		}
		if name := errorName(err); name != noSuchJob && name != unknownObject {
			return seen{}, err
		}
	}
}

// next is what is to be done about a job whose end was missed.
type next int

const (
	resend   next = iota // nothing came of it
	settled              // it has ended
	underWay             // systemd still has it
)

// fate says what became of a job, judging by the unit and the job that it has now. A restart
// is never sent again once the unit has begun to start anew: it would be restarted twice.
func fate(kind unit.Kind, s seen) (unit.Result, next) {
	down := s.Active == "inactive" || s.Active == "failed"
	switch {
	case kind == unit.Stop && down:
		return unit.Done, settled
	case s.job != "":
		if joins(kind, s) {
			return "", underWay
		}
		return "", resend
	case kind == unit.Stop:
		return "", resend
	case s.Active == "active" && (kind == unit.Start || s.changed):
		return unit.Done, settled
	case s.Active == "failed" && s.changed && s.began:
		return unit.Failed, settled
	case s.Active == "inactive" && s.changed && s.began && s.Result == "success":
		return unit.Done, settled // a oneshot that is through
	case kind == unit.Restart && s.began && !down:
		return unit.Done, settled // it has been up, and goes down, reloads or is on its way up again by itself
	}
	return "", resend
}

// joins tells whether the job that a unit has does what was asked for. Of a restart systemd
// makes a start when the unit has stopped.
func joins(kind unit.Kind, s seen) bool {
	switch kind {
	case unit.Stop:
		return s.job == "stop"
	case unit.Start:
		return s.job == "start" || s.job == "restart"
	}
	up := s.Active == "active" || s.Active == "reloading" || s.Active == "activating"
	return s.job == "restart" || s.job == "start" && (s.began || !up)
}
