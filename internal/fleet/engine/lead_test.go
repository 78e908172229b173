package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fleet/registry"
)

// moody is a store that says what a test wants to whoever would lead.
type moody struct {
	*fake
	vacancy  func(ctx context.Context) error
	campaign func(ctx context.Context) error
	term     func(ctx context.Context) // how long the lease of a leader lasts
	looks    int
	asked    int
	fresh    []bool // what each look was told
}

func (m *moody) AwaitVacancy(ctx context.Context, _ registry.Candidate, fresh bool) error {
	m.looks++
	m.fresh = append(m.fresh, fresh)
	if m.vacancy != nil {
		return m.vacancy(ctx)
	}
	return ctx.Err()
}

// Hold asks for another lease as often as one is lost, as the registry does.
func (m *moody) Hold(ctx context.Context, _ time.Duration, _ bool, run func(context.Context, registry.Lease)) {
	for ctx.Err() == nil {
		held, lost := context.WithCancel(ctx)
		if m.term != nil {
			go func() {
				defer lost()
				m.term(held)
			}()
		}
		run(held, registry.Lease{})
		lost()
	}
}

func (m *moody) Campaign(ctx context.Context, _ registry.Lease, _ registry.Candidate) (registry.Leadership, error) {
	m.asked++
	if m.campaign != nil {
		return registry.Leadership{}, m.campaign(ctx)
	}
	return registry.Leadership{}, ctx.Err()
}

// during runs an engine for a time, and returns what it has logged.
func during(t *testing.T, m *moody, d time.Duration) string {
	m.fake = newFake()
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	e := New(Config{Candidate: registry.Candidate{Machine: "e"}}, m, slog.New(slog.NewTextHandler(&log, nil)))
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	time.Sleep(d)
	cancel()
	<-done // and in a bubble nobody who it has started may be left
	return log.String()
}

// An engine that cannot get the lead does not besiege the store, and says once why.
func TestCampaignsInVain(t *testing.T) {
	for _, c := range []struct {
		name string
		why  error
		said int
	}{
		{"another is always first", registry.ErrLed, 0},
		{"its leases are always lost", registry.ErrLeaseLost, 0},
		{"it may not", registry.ErrDenied, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &moody{campaign: func(context.Context) error { return c.why }}
				log := during(t, m, time.Minute)
				if m.asked < 30 || m.asked > 70 {
					t.Errorf("asked %d times in a minute", m.asked)
				}
				if n := strings.Count(log, "level=WARN"); n != c.said {
					t.Errorf("said %d times: %s", n, log)
				}
			})
		})
	}
}

// An engine whose lease is lost, while it leads or before, is a candidate again at once;
// the lead of an earlier run is ended by one that has not led alone.
func TestLeaseLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &moody{term: func(ctx context.Context) {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
		}}
		log := during(t, m, 35*time.Second)
		if m.asked != 4 || strings.Count(log, "leadership lost") != 3 {
			t.Errorf("campaigned %d times: %s", m.asked, log)
		}
		if !m.fresh[0] || m.fresh[1] || m.fresh[3] {
			t.Errorf("fresh: %v", m.fresh)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := &moody{
			term: func(ctx context.Context) { <-ctx.Done() },
			campaign: func(ctx context.Context) error {
				if n++; n == 1 {
					return registry.ErrLeaseLost
				}
				return nil
			},
		}
		log := during(t, m, time.Second)
		if m.asked != 2 || !strings.Contains(log, "leadership acquired") || !m.fresh[1] {
			t.Errorf("campaigned %d times, fresh %v: %s", m.asked, m.fresh, log)
		}
	})
}

// Wherever an engine is when it is to end, it ends, and so does all that it has begun.
func TestEndsAnywhere(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, c := range []struct {
		name string
		m    *moody
	}{
		{"waiting for a vacancy", &moody{vacancy: wait}},
		{"campaigning while the store is away", &moody{campaign: wait}},
		{"leading", &moody{}},
		{"between two tries", &moody{campaign: func(context.Context) error { return errors.New("no") }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { during(t, c.m, 10*time.Second) })
		})
	}
}

// An engine that leads no more has no word in the store after it, not by way of events
// either that were still to be written.
func TestEndOfTermEndsItsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.machines("a", "b")
		s.engine()
		s.unit("web.service", "v1")
		s.report("")
		s.quit()
		rev, events := s.counts()
		s.lose("a")
		s.put("ask/dance-1", `{"kind":"dance"}`)
		time.Sleep(time.Hour)
		if r, e := s.counts(); r != rev+2 || e != events {
			t.Errorf("%d writes and %d events after its end: %v", r-rev-2, e-events, s.events[events:])
		}
		s.is("a/web.service v1")
	})
}
