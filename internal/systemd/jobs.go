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
		for todo := jobs; len(todo) > 0; todo = m.settle(ctx, todo, begin, out) {
			b, err := m.connect(ctx)
			if err != nil {
				for _, j := range todo {
					out <- unit.Outcome{Job: j, Err: fmt.Errorf("%s %s: %w", j.Kind, j.Unit, err)}
				}
				return
			}
			todo = b.runAll(ctx, todo, out)
		}
	}()
	return out
}

// runAll sends all jobs before it waits for the first, in the order given: systemd
// orders a job behind those that are queued already, so as with "systemctl start"
// After= is sure to be kept if the unit that goes first is named first. It returns
// the jobs whose end it does not know because the connection was lost or the job
// vanished.
func (b *bus) runAll(ctx context.Context, jobs []unit.Job, out chan<- unit.Outcome) []unit.Job {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var lost []unit.Job
	for _, j := range jobs {
		if err := b.room.Acquire(ctx, 1); err != nil {
			out <- unit.Outcome{Job: j, Err: fmt.Errorf("%s %s: not sent: %w", j.Kind, j.Unit, err)}
			continue
		}
		b.jobs.sent()
		call := b.send(managerPath, methods[j.Kind], j.Unit, "replace")
		wg.Go(func() {
			o := b.finish(ctx, j, call)
			if errors.Is(o.Err, ErrLost) {
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, j)
				return
			}
			out <- o
		})
	}
	wg.Wait()
	return lost
}

// finish waits for the reply and for the end of the job.
func (b *bus) finish(ctx context.Context, j unit.Job, call *dbus.Call) unit.Outcome {
	var path dbus.ObjectPath
	err := b.reply(ctx, call, &path)
	b.room.Release(1)
	end := b.jobs.named(path)
	if err == nil {
		var result string
		if result, err = b.awaitJob(ctx, path, end); err == nil {
			return unit.Outcome{Job: j, Result: unit.Result(result)}
		}
		b.jobs.forget(path, end)
	}
	err = fmt.Errorf("%s %s: %w", j.Kind, j.Unit, err)
	if errorName(err) == badSetting {
		err = fault.Hint(err, "systemd's log names the line: journalctl -b -n 20 -u %s", j.Unit)
	}
	return unit.Outcome{Job: j, Err: err}
}

// awaitJob returns the job's result, or ErrLost when it cannot be known any more.
func (b *bus) awaitJob(ctx context.Context, job dbus.ObjectPath, end <-chan string) (string, error) {
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

// settle finds out what became of jobs whose end was missed. What it cannot tell,
// or what is still under way, it returns: to send such a job again joins the one
// that is queued.
func (m *Manager) settle(ctx context.Context, lost []unit.Job, begin time.Duration, out chan<- unit.Outcome) []unit.Job {
	var again []unit.Job
	for _, j := range lost {
		var props map[string]dbus.Variant
		err := m.do(ctx, func(ctx context.Context, b *bus) (err error) {
			props, err = b.properties(ctx, j.Unit)
			return err
		})
		if err != nil {
			out <- unit.Outcome{Job: j, Err: fmt.Errorf("%s %s: %w", j.Kind, j.Unit, err)}
			continue
		}
		if result, ok := fate(j.Kind, statusOf(j.Unit, props), changedAt(props) >= begin); ok {
			out <- unit.Outcome{Job: j, Result: result}
			continue
		}
		again = append(again, j)
	}
	return again
}

// fate says how a job ended, judging by the state that the unit is in; fresh says
// that it came into that state after the job was sent. False if the state does not
// tell.
func fate(kind unit.Kind, st unit.Status, fresh bool) (unit.Result, bool) {
	down := st.Active == "inactive" || st.Active == "failed"
	switch {
	case kind == unit.Stop && down:
		return unit.Done, true
	case kind == unit.Stop, st.Job:
		return "", false // a restart is down between its halves, or has failed to stop
	case st.Active == "active" && (kind == unit.Start || fresh):
		return unit.Done, true
	case st.Active == "failed" && fresh:
		return unit.Failed, true
	case st.Active == "inactive" && fresh && st.Result == "success":
		return unit.Done, true // a oneshot that is through
	}
	return "", false
}
