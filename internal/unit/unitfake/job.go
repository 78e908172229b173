package unitfake

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"flotilla/internal/unit"
)

// upState is the sub-state of a unit that is up, by the unit's type.
var upState = map[string]string{
	".service": "running", ".socket": "listening", ".timer": "waiting", ".path": "waiting",
	".mount": "mounted", ".automount": "waiting", ".target": "active", ".slice": "active",
	".device": "plugged", ".swap": "active", ".scope": "running",
}

// job is one job under way; its result is delivered once.
type job struct {
	timer *time.Timer
	once  sync.Once
	done  chan unit.Outcome // has room for the outcome
	job   unit.Job
}

func (j *job) end(r unit.Result, err error) {
	j.once.Do(func() { j.done <- unit.Outcome{Job: j.job, Result: r, Err: err} })
}

// replaceJob makes j the unit's job and cancels the one before.
func (u *fakeUnit) replaceJob(j *job) {
	if old := u.job; old != nil {
		if old.timer != nil {
			old.timer.Stop()
		}
		old.end(unit.Canceled, nil)
	}
	u.job = j
}

// Run implements unit.Manager.
func (m *Manager) Run(ctx context.Context, jobs []unit.Job) <-chan unit.Outcome {
	out := make(chan unit.Outcome, len(jobs))
	var wg sync.WaitGroup
	for _, j := range jobs {
		begun := m.begin(ctx, j)
		wg.Go(func() {
			select {
			case o := <-begun.done:
				out <- o
			case <-ctx.Done():
				out <- unit.Outcome{Job: j, Err: fmt.Errorf("wait for %s of %s: %w", j.Kind, j.Unit, ctx.Err())}
			}
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}

// begin queues a job. A unit that is up and is to be started is left alone.
func (m *Manager) begin(ctx context.Context, j unit.Job) *job {
	b := &job{job: j, done: make(chan unit.Outcome, 1)}
	if err := m.lock(ctx); err != nil {
		b.end("", fmt.Errorf("%s %s: %w", j.Kind, j.Unit, err))
		return b
	}
	defer m.mu.Unlock()
	u := m.units[j.Unit]
	s := m.scripts[j.Unit]
	switch {
	case u == nil || (!u.installed && !u.loaded()):
		b.end("", fmt.Errorf("%s %s: unit not found", j.Kind, j.Unit))
	case j.Kind != unit.Stop && s.StartErr != nil:
		b.end("", fmt.Errorf("%s %s: %w", j.Kind, j.Unit, s.StartErr))
	case j.Kind == unit.Start && u.st.Active == "active" && u.job == nil:
		b.end(unit.Done, nil)
	default:
		m.work(u, b, s)
	}
	return b
}

// work carries the job out, now or after the times that the script says.
func (m *Manager) work(u *fakeUnit, b *job, s Script) {
	u.replaceJob(b)
	up := u.loaded() && u.st.Active != "failed"
	finish := func() { m.finish(u, b, s) }
	start := func() {
		u.load()
		m.set(u, "activating", cmp.Or(s.StartSub, "start"), "success")
		m.later(u, b, s.StartTakes, finish)
	}
	if up && b.job.Kind != unit.Start {
		m.set(u, "deactivating", "stop-sigterm", u.st.Result)
	}
	switch {
	case b.job.Kind == unit.Stop:
		m.later(u, b, s.StopTakes, finish)
	case b.job.Kind == unit.Restart && up:
		m.later(u, b, s.StopTakes, func() {
			m.set(u, "inactive", "dead", "success")
			m.later(u, b, s.RestTakes, start)
		})
	default:
		start()
	}
}

// later goes on with a job after a time, unless it has been replaced.
func (m *Manager) later(u *fakeUnit, b *job, takes time.Duration, next func()) {
	if takes <= 0 {
		next()
		return
	}
	b.timer = time.AfterFunc(takes, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if u.job == b {
			next()
		}
	})
}

// load reads the file of a unit that is not loaded.
func (u *fakeUnit) load() {
	if !u.loaded() && u.installed {
		u.text = u.file
	}
}

func (m *Manager) finish(u *fakeUnit, b *job, s Script) {
	u.job = nil
	result := unit.Done
	switch {
	case b.job.Kind == unit.Stop:
		m.down(u)
	case s.Start == "" || s.Start == unit.Done:
		m.up(u)
	default:
		result = s.Start
		u.st.ExitCode = 1
		m.set(u, "failed", "failed", "exit-code")
		m.say(u.st.Name, "Failed to start "+u.st.Name+".")
	}
	b.end(result, nil)
}

// up ends a start: a oneshot without RemainAfterExit= is through at once.
func (m *Manager) up(u *fakeUnit) {
	name := u.st.Name
	u.starts++
	u.st.ExitCode, u.st.Restarts = 0, 0
	sub := upState[filepath.Ext(name)]
	kind, _ := setting(u.text, "Type")
	stay, _ := setting(u.text, "RemainAfterExit")
	switch {
	case kind == "oneshot" && stay == "yes":
		sub = "exited"
	case kind == "oneshot":
		m.set(u, "inactive", "dead", "success")
		m.say(name, "Finished "+name+".")
		return
	case sub == "running":
		m.nextPID++
		u.st.MainPID = m.nextPID
	}
	m.set(u, "active", sub, "success")
	m.say(name, "Started "+name+".")
}

// down ends a stop. What failed stays failed, what is gone from the disk goes.
func (m *Manager) down(u *fakeUnit) {
	if u.loaded() && u.st.Active != "failed" {
		m.set(u, "inactive", "dead", "success")
		m.say(u.st.Name, "Stopped "+u.st.Name+".")
	}
	if !u.installed && !u.loaded() {
		delete(m.units, u.st.Name)
	}
}
