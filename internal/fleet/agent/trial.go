package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"flotilla/internal/fleet/health"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// trial is the judging of the copy that a watched placement asks for: one text in
// one generation. It belongs to the loop; what its goroutines find out comes in as
// news.
type trial struct {
	gen     int64
	hash    string
	policy  model.RollPolicy
	check   unitfile.HealthProbe
	user    string
	oneshot bool

	begun       time.Time
	seen        activation
	activeSince time.Time
	checked     *health.Answer

	verdict health.Verdict // as published
	log     string         // of a bad copy, each line with a newline
	closing bool           // it is bad, and its log is being read
	stop    func()         // ends the probing; nil: nobody asks
}

// activation tells one time that a unit was active from the next.
type activation struct {
	since    time.Time // by the wall clock, so it is compared for equality alone
	restarts int
}

// The log of a bad copy: so many lines, of so many bytes at most, read within so
// long.
const (
	logLines = 10
	logWidth = 512
	logLimit = 3 * time.Second
)

func newTrial(p model.Placement, now time.Time) *trial {
	t := &trial{gen: p.Gen, hash: p.Hash, begun: now, oneshot: model.IsOneshot(p.Text)}
	t.policy = model.NewUnit(p.Unit, p.Text, p.Desired, p.Gen).Req.Roll
	t.check, _ = unitfile.ParseHealthCheck(t.policy.HealthCheck) // "" or what the API has checked
	if b, err := unitfile.ParseBundle(p.Text); err == nil {
		user, _ := b.Effective().Get("Service", "User")
		t.user = unitfile.ExpandFleet(user, p.Unit)
	}
	return t
}

func (t *trial) end() {
	if t != nil && t.stop != nil {
		t.stop()
		t.stop = nil
	}
}

// judge brings the trials of watched units up to date.
func (a *Agent) judge(ctx context.Context) {
	now := time.Now()
	for name, p := range a.want.units {
		u := a.local(name)
		if !p.Watched || p.Leaving || p.Desired != model.Launched {
			u.trial.end()
			u.trial = nil
			continue
		}
		if t := u.trial; t == nil || t.gen != p.Gen || t.hash != p.Hash {
			t.end()
			u.trial = newTrial(p, now)
			if d := a.memory.Units[name]; d.Good && d.Gen >= p.Gen && d.Hash == p.Hash {
				u.trial.verdict = health.Verdict{Health: model.Good, Why: "judged before"}
			}
		}
		a.judgeOne(ctx, name, u, now)
	}
}

// judgeOne takes in how a unit's copy is doing and decides, unless that is done.
func (a *Agent) judgeOne(ctx context.Context, name string, u *local, now time.Time) {
	t := u.trial
	if t.closing || t.verdict.Decided() {
		return
	}
	f := a.facts(name, u, now)
	a.keepAsking(ctx, name, f)
	v := health.Judge(t.policy, f, now)
	if v.Health == model.Bad {
		// There is no way back from that, and the signal that was heard last may be of
		// what was before the restart.
		if a.ask(ctx, name) {
			v = health.Judge(t.policy, a.facts(name, u, now), now)
		} else {
			v = health.Verdict{Health: model.Waiting, Why: "the init system does not say how it is", Next: now.Add(firstRetry)}
		}
	}
	switch v.Health {
	case model.Good:
		d := a.memory.Units[name]
		d.Good = d.Hash == t.hash
		a.memory.set(name, d)
		a.log.Info("new copy is good", "unit", name, "why", v.Why)
	case model.Bad:
		a.log.Error("new copy is bad", "unit", name, "why", v.Why)
		t.end()
		a.lastWords(ctx, name, v)
		return
	}
	t.verdict = v
	if v.Decided() {
		t.end()
	}
}

// facts is what is known of the copy on trial.
func (a *Agent) facts(name string, u *local, now time.Time) health.Facts {
	t, d, s := u.trial, a.memory.Units[name], u.status
	carriedOut := d.Gen >= t.gen && u.job == nil && d.Sent == (sent{})
	f := health.Facts{
		Begun: t.begun, Oneshot: t.oneshot, Trouble: u.message,
		Started:   carriedOut && d.Hash == t.hash,
		Untouched: carriedOut && d.Hash != t.hash && u.hash == t.hash && quiet(s),
		Load:      s.Load, Active: s.Active, Result: s.Result, Restarts: s.Restarts,
	}
	switch {
	case d.Refused == t.hash:
		f.Refused = u.message
	case f.Started:
		f.Trouble = "" // how the job ended: the state says more
	}
	if f.Started && (s.Active == "active" || s.Active == "reloading") {
		if seen := (activation{s.Since, s.Restarts}); t.activeSince.IsZero() || seen != t.seen {
			t.seen, t.activeSince, t.checked = seen, now, nil
		}
	} else {
		t.activeSince = time.Time{}
	}
	f.ActiveSince, f.Checked = t.activeSince, t.checked
	return f
}

// keepAsking has the health check asked as long as there is something to ask.
func (a *Agent) keepAsking(ctx context.Context, name string, f health.Facts) {
	t := a.local(name).trial
	up := !f.ActiveSince.IsZero() || f.Oneshot && f.Started && f.Active == "inactive"
	switch {
	case t.policy.HealthCheck == "":
	case !up:
		t.end()
		t.checked = nil
	case t.stop == nil:
		ctx, stop := context.WithCancel(ctx)
		t.stop = stop
		a.inbox.jobs.Go(func() { a.keepProbing(ctx, t) })
	}
}

// keepProbing asks a health check until ctx is done.
func (a *Agent) keepProbing(ctx context.Context, t *trial) {
	for ctx.Err() == nil {
		answer := &health.Answer{}
		if err := a.probe(ctx, t.check, t.user); err != nil {
			answer.Why = model.OneLine(err.Error())
		}
		a.inbox.leave(func(n *news) {
			n.found = append(n.found, func() {
				if ctx.Err() == nil {
					t.checked = answer
				}
			})
		})
		select {
		case <-ctx.Done():
		case <-time.After(health.Interval):
		}
	}
}

// lastWords reads the end of a bad copy's log, then the verdict is told with it.
func (a *Agent) lastWords(ctx context.Context, name string, v health.Verdict) {
	t := a.local(name).trial
	t.closing = true
	// The beginning by the wall clock of now, whatever it was then.
	since := time.Now().Add(-time.Since(t.begun))
	a.inbox.jobs.Go(func() {
		lines := a.readEnd(ctx, name, since.Round(0))
		a.inbox.leave(func(n *news) {
			n.found = append(n.found, func() { t.closing, t.verdict, t.log = false, v, lines })
		})
	})
}

// readEnd is the last lines of a unit's log since a time. Without them the verdict
// stands all the same.
func (a *Agent) readEnd(ctx context.Context, name string, since time.Time) string {
	if a.cfg.Journal == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, logLimit)
	defer cancel()
	var lines strings.Builder
	err := a.cfg.Journal.ReadLog(ctx, unit.LogQuery{Units: []string{name}, Lines: logLines, Since: since}, func(e unit.LogEntry) error {
		lines.WriteString(logLine(e) + "\n")
		return nil
	})
	if err != nil {
		a.log.Warn("read the log of a unit that is bad", "unit", name, "err", err)
	}
	return lines.String()
}

// logLine is an entry as people know it, cut where it is very long.
func logLine(e unit.LogEntry) string {
	line := e.Message
	switch {
	case e.Ident != "" && e.PID != 0:
		line = fmt.Sprintf("%s[%d]: %s", e.Ident, e.PID, e.Message)
	case e.Ident != "":
		line = e.Ident + ": " + e.Message
	}
	if len(line) > logWidth {
		line = line[:logWidth]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(line, "\n", " "), "?")
}
