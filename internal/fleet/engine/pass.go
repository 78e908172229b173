package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/rollout"
	"flotilla/internal/fleet/sched"
)

// pass decides once and writes what was decided. It returns when to look again.
func (t *term) pass(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	moment, ok := t.look(began)
	if !ok {
		return t.cfg.Resync, nil // our own last write is still on its way to us
	}
	defer func() { t.stats.passed(time.Since(began)) }()
	rolls, err := t.roll(ctx, &moment)
	if err != nil {
		return 0, err
	}
	moment.Asks = t.view.Asks()
	result := t.decide(moment)
	if err := t.write(ctx, result, moment.Asks); err != nil {
		return 0, err
	}
	tidy := t.tidy(ctx, began)
	return t.next(result.Wake, rolls.Wake, tidy), nil
}

// look takes over what has changed and returns what else a decision depends on; false
// while the view is older than our own last write.
func (t *term) look(now time.Time) (sched.Moment, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.news.loaded || t.news.rev < t.settled {
		return sched.Moment{}, false
	}
	t.scribe.note(t.attendance.takeNews()...)
	if t.news.all {
		t.scribe.note(t.picture.redraw(t.view, now)...)
		t.greet(now)
	}
	for _, c := range t.news.changes {
		t.scribe.note(t.picture.draw(t.view, c, now)...)
	}
	t.news.all, t.news.changes = false, nil
	for _, a := range t.view.Asks() {
		if a.Kind == model.Forget {
			t.attendance.drop(a.Machine)
		}
	}
	lost, seen := t.attendance.report()
	return sched.Moment{Now: now, LeaderSince: t.since, Policy: t.cfg.Policy, Lost: lost, Seen: seen}, true
}

// greet tells once that this engine leads, and whom it has not seen: machines that
// are away count as away since the election.
func (t *term) greet(now time.Time) {
	if t.told.greeted {
		return
	}
	t.told.greeted = true
	away := map[string]bool{}
	for _, p := range t.view.Placements() {
		if !t.attendance.present[p.Machine] {
			away[p.Machine] = true
		}
	}
	e := model.Event{At: now, Kind: model.Presence, Machine: t.cfg.Candidate.Machine, What: "its engine leads now"}
	if len(away) > 0 {
		e.Kind = model.Held
		e.Why = fmt.Sprintf("%d of the machines that have units are away: they count as away since now, and their units wait as long again", len(away))
	}
	t.scribe.note(e)
}

// roll takes the rolls a step further, and lets the moment know which texts may
// change. A roll whose record cannot be written changes nothing, and keeps nothing
// else from being decided.
func (t *term) roll(ctx context.Context, m *sched.Moment) (rollout.Result, error) {
	s, revs := t.picture.rolls(t.view, m.Now, m.Now.Sub(t.tidied) >= tidyEvery)
	s.LeaderSince, s.Lost = m.LeaderSince, m.Lost
	s.Present = func(machine string) bool { _, ok := t.view.Machine(machine); return ok }
	plan := rollout.Plan(s)
	m.Allow, m.Watch = plan.Allow, plan.Watch
	for i := range plan.Put {
		t.sign(ctx, &plan.Put[i])
	}
	rev, unwritten, err := t.store.WriteRolls(ctx, t.lead, plan.Put, plan.Remove)
	t.settled = max(t.settled, rev)
	switch {
	case registry.Passing(ctx, err):
		return plan, err
	case err != nil:
		t.log.Error("records of rolls that are over are not removed", "err", err)
	}
	t.wait(m, &plan, unwritten)
	t.scribe.note(plan.Events...)
	t.logEvents(plan.Events)
	if err := t.putBack(ctx, plan.Reverts, revs); registry.Passing(ctx, err) {
		return plan, err
	} else if err != nil {
		t.log.Error("old texts cannot be put back, the roll waits", "err", err)
	}
	return plan, nil
}

// wait has the rolls wait whose records could not be written, and says so once of
// each: nothing of them has happened.
func (t *term) wait(m *sched.Moment, plan *rollout.Result, unwritten map[string]error) {
	for _, group := range slices.Sorted(maps.Keys(unwritten)) {
		why := unwritten[group].Error()
		if t.told.unwritten[group] == why {
			continue
		}
		t.log.Error("a roll cannot be written down and waits", "group", group, "err", why)
		t.scribe.note(model.Event{At: m.Now, Kind: model.RollEvent, Unit: group, What: "the roll cannot be written down and waits", Why: why})
	}
	waits := func(unit string) bool { return unwritten[model.GroupOf(unit)] != nil }
	t.told.unwritten = map[string]string{}
	for group, err := range unwritten {
		t.told.unwritten[group] = err.Error()
	}
	if len(unwritten) == 0 {
		return
	}
	allow := m.Allow
	m.Allow = func(unit, machine string) bool { return !waits(unit) && allow(unit, machine) }
	plan.Events = slices.DeleteFunc(plan.Events, func(e model.Event) bool { return waits(e.Unit) })
	plan.Reverts = slices.DeleteFunc(plan.Reverts, func(r rollout.Revert) bool { return waits(r.Unit) })
}

// sign notes who has begun a roll: who wrote the newest text.
func (t *term) sign(ctx context.Context, r *model.Roll) {
	if r.By != "" || r.State != model.Rolling || len(r.To) == 0 {
		return
	}
	if was, ok := t.view.Roll(r.Group); ok && was.Started.Equal(r.Started) {
		return // nobody knows
	}
	unit := slices.Min(slices.Collect(maps.Keys(r.To)))
	if versions, err := t.store.ReadHistory(ctx, unit); err == nil && len(versions) > 0 {
		r.By = versions[0].By
	}
}

// putBack writes old texts, all of one reason at once.
func (t *term) putBack(ctx context.Context, reverts []rollout.Revert, revs map[string]int64) error {
	for len(reverts) > 0 {
		why := reverts[0].Why
		var ws []registry.UnitWrite
		rest := reverts[:0:0]
		for _, r := range reverts {
			if r.Why != why {
				rest = append(rest, r)
				continue
			}
			w := registry.UnitWrite{Name: r.Unit, Text: registry.Text{Canonical: r.Text, Hash: r.Hash}, Rev: revs[r.Unit]}
			if u, ok := t.view.Unit(r.Unit); ok && u.Desired == model.Launched {
				// Asked for once more: what the bad text has ended starts with the good one.
				w.Want, w.SetState = u.Desired, true
			}
			ws = append(ws, w)
		}
		if err := t.store.Apply(ctx, ws, "", why); err != nil {
			return err
		}
		reverts = rest
	}
	return nil
}

// logEvents puts what happened to rolls into the log.
func (t *term) logEvents(es []model.Event) {
	for _, e := range es {
		t.log.Info(e.What, "unit", e.Unit, "machine", e.Machine, "why", e.Why, "by", e.By)
	}
}

// decide asks sched. A hold that ends starts the clocks of those still away anew:
// after a fault of the network machines come back one after another, and the last
// of them are not to be taken for lost because the first have come.
func (t *term) decide(m sched.Moment) sched.Result {
	result := t.picture.cluster.Decide(m)
	if t.told.held == "" || result.Held != "" {
		return result
	}
	t.mu.Lock()
	t.attendance.restart(m.Now)
	m.Lost, m.Seen = t.attendance.report()
	t.mu.Unlock()
	m.LeaderSince = m.Now // counts for machines that this engine has never seen
	t.since = m.Now
	return t.picture.cluster.Decide(m)
}

// write carries out what was decided.
func (t *term) write(ctx context.Context, result sched.Result, asks []model.Ask) error {
	rev, err := t.store.WriteSchedule(ctx, t.lead, result.Decisions, t.written)
	t.settled = max(t.settled, rev)
	if err != nil {
		return err
	}
	t.say(result.Held)
	t.scribe.note(t.told.drains(result.Drains, time.Now())...)
	rev, err = t.store.WriteNotes(ctx, t.lead, news(t.view, result))
	t.settled = max(t.settled, rev)
	if err != nil {
		return err
	}
	done := doneAsks(asks, result.DoneAsks)
	rev, err = t.store.DeleteAsks(ctx, t.lead, done)
	t.settled = max(t.settled, rev)
	if err != nil {
		return err
	}
	for _, a := range asks {
		if slices.Contains(done, a.ID) {
			t.scribe.note(answer(a, result.Answers[a.ID]))
		}
	}
	return nil
}

// doneAsks is what need not be asked any more: what sched has dealt with, and what
// nobody understands.
func doneAsks(asks []model.Ask, done []string) []string {
	for _, a := range asks {
		if !a.Kind.Known() && !slices.Contains(done, a.ID) {
			done = append(done, a.ID)
		}
	}
	return done
}

// answer is what is told of something that was asked for and is over.
func answer(a model.Ask, came string) model.Event {
	e := model.Event{At: time.Now(), Kind: model.Scheduled, Unit: a.Unit, Machine: a.Machine, Why: came, By: a.By}
	e.What = string(a.Kind) + " was asked for"
	if !a.Kind.Known() {
		e.What, e.Why = "something was asked of the engine that it does not know", string(a.Kind)
	}
	return e
}

// written tells decisions that are in force now, in the log in the words that people
// and tools know.
func (t *term) written(ds []sched.Decision) {
	now := time.Now()
	for _, d := range ds {
		t.stats.decided(d.Op)
		t.log.Info(sentence(d), "why", d.Why)
		t.scribe.note(model.Event{
			At: now, Kind: model.Scheduled, Unit: d.Entry.Unit, Machine: d.Entry.Machine, What: words[d.Op], Why: d.Why,
		})
	}
}

// words is what events call decisions.
var words = map[sched.Op]string{
	sched.Place: "placed", sched.Update: "updated", sched.Leave: "is to leave", sched.Release: "released",
}

func sentence(d sched.Decision) string {
	u, m := d.Entry.Unit, d.Entry.Machine
	switch d.Op {
	case sched.Place:
		return fmt.Sprintf("Scheduled Unit(%s) to Machine(%s)", u, m)
	case sched.Release:
		return fmt.Sprintf("Unscheduled Job(%s) from Machine(%s)", u, m)
	case sched.Leave:
		return fmt.Sprintf("Unit(%s) is to leave Machine(%s)", u, m)
	}
	return fmt.Sprintf("Updated Unit(%s) on Machine(%s)", u, m)
}

// say tells once that moves are held, and once that they are not any more.
func (t *term) say(held string) {
	if held == t.told.held {
		return
	}
	e := model.Event{At: time.Now(), Kind: model.Held, What: "moves are held", Why: held}
	switch {
	case held == "":
		e.What = "moves are not held any more"
		t.log.Info(e.What)
	default:
		t.log.Warn(e.What, "why", held)
	}
	if held == "" || t.told.held == "" {
		t.scribe.note(e) // not each time that the number of machines changes
	}
	t.told.held = held
}
