package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"flotilla/client/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

const (
	// settle is how long a tentative verdict must hold: one of the original's
	// attempts. A unit that no machine can take may have a peer that is just being
	// placed.
	settle = 2 * time.Second
	// attempt is the unit of --block-attempts.
	attempt = 2 * time.Second
	// quiet is how long nothing may happen to a unit before waiting for it is given
	// up, without --block-attempts. While the init system is at work on the unit its
	// own limits count (TimeoutStartSec), not this one: an image may take long to
	// fetch.
	quiet = 60 * time.Second
	// awayLimit is how long the API may be away while a command waits: a daemon that
	// is restarted is back much sooner.
	awayLimit = 30 * time.Second
	// tick is how often the passing of time alone is looked at.
	tick = 100 * time.Millisecond
)

// watching is a picture that is kept up to date while a command acts and waits.
type watching struct {
	observer *observer
	pic      *picture // complete
	next     *picture // being told anew; nil: pic is what is being told
	lost     error    // the API is away
	lostAt   time.Time
	stop     context.CancelFunc
}

// fewUnits is of how many units a server can tell for less than of all.
const fewUnits = 10

// watchNamed is watch for whoever names units: if the cluster has them all, it tells of
// no others. The rest may be needed to say what was meant by a name that it has not.
func (s *session) watchNamed(ctx context.Context, args []string) (*watching, error) {
	names := plainNames(args)
	if len(names) == 0 || len(names) > fewUnits {
		return s.watch(ctx)
	}
	w, err := s.watch(ctx, names...)
	if err != nil || w.pic.has(names) {
		return w, err
	}
	w.stop()
	return s.watch(ctx)
}

// plainNames is the units that arguments name; none if one is a pattern.
func plainNames(args []string) (names []string) {
	args, err := expandBraces(args)
	if err != nil || slices.ContainsFunc(args, isGlob) {
		return nil // whoever looks at the arguments says what is wrong
	}
	for _, a := range args {
		names = append(names, unitfile.Complete(a))
	}
	return names
}

// watch begins to observe the units named, or all, and returns when what is there of
// them has been told.
func (s *session) watch(ctx context.Context, only ...string) (*watching, error) {
	c, err := s.api()
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	w := &watching{observer: newObserver(c, only...), stop: stop}
	go w.observer.run(running)
	limit := time.Duration(s.global.timeout)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for w.pic == nil && err == nil {
		select {
		case u := <-w.observer.out:
			w.take(u, time.Now())
			err = w.lost
		case <-timeout.C:
			err = &fleet.Error{Endpoint: c.Endpoint(), Request: "GET watch", Waited: limit, Err: errors.New("it does not say what is there")}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		stop()
		return nil, err
	}
	return w, nil
}

// take takes over one update. A picture that is being told anew counts when it is
// complete.
func (w *watching) take(u update, now time.Time) {
	switch {
	case u.lost != nil:
		if w.lost == nil {
			w.lostAt = now
		}
		w.lost = u.lost
	case u.reset:
		w.next = newPicture()
	case u.change.Synced && w.next != nil:
		w.pic, w.next, w.lost = w.next, nil, nil
	case w.next != nil:
		w.next.apply(u.change)
	default:
		w.pic.apply(u.change)
	}
}

// takeAll takes over first and whatever else is there already. It reports false
// when the observer has ended.
func (w *watching) takeAll(first update, open bool) bool {
	for now := time.Now(); open; {
		w.take(first, now)
		select {
		case first, open = <-w.observer.out:
		default:
			return true
		}
	}
	return false
}

// takeWaiting takes over the updates that are there already.
func (w *watching) takeWaiting() {
	select {
	case u, open := <-w.observer.out:
		w.takeAll(u, open)
	default:
	}
}

// limits bounds a wait. Zero fields mean the defaults above.
type limits struct {
	attempts int // of 2 s each, for everything; 0: until nothing happens for quiet
}

// pending is a unit that is waited for.
type pending struct {
	want
	verdict verdict
	since   time.Time // the verdict has been the same since then
}

// outcome is how the wait for a unit ended.
type outcome struct {
	want
	verdict
	timedOut time.Duration // given up after so long; 0: not
}

// wait waits until every unit is where it was asked to be, or will not be. It calls
// each with every outcome as it comes; for a unit that has come up and fails while
// others are waited for, a second time. (Systemd calls a simple service active as
// soon as there is a process.)
func (s *session) wait(ctx context.Context, w *watching, wants []want, l limits, each func(outcome)) error {
	start := time.Now()
	var units []*pending
	var names []string
	for _, want := range wants {
		units = append(units, &pending{want: want, since: start})
		names = append(names, want.unit)
	}
	w.observer.attend(names)
	show := newProgress(s.env.Stderr, start)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var up risen
	for {
		now := time.Now()
		up.fallen(w.pic, each)
		units = slices.DeleteFunc(units, func(p *pending) bool {
			o, over := p.look(w, now, start, l)
			if over {
				show.clear()
				each(o)
				up.note(o)
			}
			return over
		})
		if len(units) == 0 {
			w.takeWaiting()
			up.fallen(w.pic, each)
			return nil
		}
		if w.lost != nil && now.Sub(w.lostAt) > awayLimit {
			show.clear()
			return fmt.Errorf("gave up waiting for %s: %w", summary(units, nil), w.lost)
		}
		show.update(now, summary(units, w.lost))
		select {
		case u, open := <-w.observer.out:
			w.takeAll(u, open)
		case <-ticker.C:
		case <-ctx.Done():
			show.clear()
			return fmt.Errorf("interrupted while waiting for %s", summary(units, nil))
		}
	}
}

// risen is the units that have been told as launched.
type risen []want

func (r *risen) note(o outcome) {
	if o.goal == launched && o.kind == done {
		*r = append(*r, o.want)
	}
}

// fallen calls each for those that have failed since.
func (r *risen) fallen(pic *picture, each func(outcome)) {
	*r = slices.DeleteFunc(*r, func(w want) bool {
		v := judge(w, pic)
		down := v.kind == failed && !v.tentative
		if down {
			each(outcome{want: w, verdict: v})
		}
		return down
	})
}

// look judges the unit anew and says whether its wait is over. While the API is
// away only what is certain counts.
func (p *pending) look(w *watching, now, start time.Time, l limits) (outcome, bool) {
	p.there = p.there || w.pic.has([]string{p.unit})
	v := judge(p.want, w.pic)
	if v != p.verdict || w.lost != nil {
		p.verdict, p.since = v, now
	}
	held := now.Sub(p.since)
	switch {
	case v.kind != waiting && (!v.tentative || held >= settle):
		return outcome{want: p.want, verdict: v}, true
	case l.attempts > 0 && now.Sub(start) >= time.Duration(l.attempts)*attempt:
		return outcome{want: p.want, verdict: v, timedOut: now.Sub(start)}, true
	case l.attempts == 0 && v.kind == waiting && !v.busy && held >= quiet:
		return outcome{want: p.want, verdict: v, timedOut: now.Sub(start)}, true
	}
	return outcome{}, false
}

// summary is what is waited for, in one line.
func summary(units []*pending, lost error) string {
	first := units[0]
	text := first.unit + ": " + first.verdict.text
	if lost != nil {
		text = first.unit + ": the fleet API to come back: " + lost.Error()
	}
	text = model.OneLine(text)
	if n := len(units); n > 1 {
		return fmt.Sprintf("%d units, %s", n, text)
	}
	return text
}
