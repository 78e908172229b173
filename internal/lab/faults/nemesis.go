package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"flotilla/internal/lab/machines"
)

// Injected is a step as it was carried out.
type Injected struct {
	Step Step
	// What says which machines it was for: "cut of m2"; Leader is the machine that
	// led when it began, "" if none did.
	What   []string
	Leader string
	// Began and Ended are times since the start of the run.
	Began, Ended time.Duration
	// Recovered is how long after its end every member had answered a quorum read;
	// negative: not before the next step.
	Recovered time.Duration
	// Err is what could not be done.
	Err error
}

// nemesis carries out a plan.
type nemesis struct {
	site  *site
	began time.Time
	say   func(format string, args ...any)
}

type hit struct {
	kind    Kind
	machine machines.Machine
}

func (h hit) String() string { return fmt.Sprintf("%s of %s", h.kind, h.machine.Name) }

// run carries out the steps and gives back what came of them. Whatever happens, no
// fault is left when it returns, or the error of the last one says so.
func (n *nemesis) run(ctx context.Context, steps []Step, end time.Duration) []Injected {
	var out []Injected
	for i, s := range steps {
		pause(ctx, s.At-time.Since(n.began))
		if ctx.Err() != nil {
			break
		}
		next := end
		if i+1 < len(steps) {
			next = steps[i+1].At
		}
		done := n.step(ctx, s, next)
		out = append(out, done)
		n.say("%s", done)
	}
	return out
}

func (in Injected) String() string {
	s := fmt.Sprintf("%5.1f s: %s for %.1f s, led by %q", in.Began.Seconds(), strings.Join(in.What, ", "), (in.Ended - in.Began).Seconds(), in.Leader)
	switch {
	case in.Err != nil:
		s += fmt.Sprintf("; FAILED: %v", in.Err)
	case in.Recovered < 0:
		s += "; not recovered before the next"
	default:
		s += fmt.Sprintf("; recovered after %.1f s", in.Recovered.Seconds())
	}
	return s
}

// step carries out one step; next is when the one after it begins.
func (n *nemesis) step(ctx context.Context, s Step, next time.Duration) Injected {
	out := Injected{Step: s}
	leader := n.site.leader(ctx)
	if leader >= 0 {
		out.Leader = n.site.machines[leader].Name
	}
	hits := n.aim(s, leader)
	out.Began = time.Since(n.began)
	for _, h := range hits {
		out.What = append(out.What, h.String())
	}
	out.Err = n.each(ctx, hits, func(ctx context.Context, h hit) error { return levers[h.kind].begin(ctx, n.site, h.machine) })
	pause(ctx, s.For)
	out.Err = errors.Join(out.Err, n.each(ctx, hits, n.end))
	out.Ended = time.Since(n.began)
	out.Recovered = n.recovery(ctx, out.Ended, max(next, out.Ended+time.Second))
	return out
}

func (n *nemesis) aim(s Step, leader int) []hit {
	var hits []hit
	for i, numbers := range targets(s, leader, len(n.site.machines)) {
		for _, m := range numbers {
			hits = append(hits, hit{s.Faults[i].Kind, n.site.machines[m]})
		}
	}
	return hits
}

// end ends a fault, also after the run was interrupted, and tries more than once: a
// machine that comes back is busy.
func (n *nemesis) end(ctx context.Context, h hit) (err error) {
	end := levers[h.kind].end
	if end == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for range 3 {
		if err = end(ctx, n.site, h.machine); err == nil {
			return nil
		}
		pause(ctx, time.Second)
	}
	return err
}

// each does the same for several machines, one after the other where the lab can do
// but one thing at a time.
func (n *nemesis) each(ctx context.Context, hits []hit, do func(context.Context, hit) error) error {
	errs := make([]error, len(hits))
	var wg sync.WaitGroup
	var lab sync.Mutex
	for i, h := range hits {
		wg.Go(func() {
			if h.kind == Power {
				lab.Lock()
				defer lab.Unlock()
			}
			limited, cancel := context.WithTimeout(ctx, commandLimit)
			defer cancel()
			if err := do(limited, h); err != nil {
				errs[i] = fmt.Errorf("%s: %w", h, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// recovery is how long after from every member has answered a quorum read; -1 if that
// is not before until.
func (n *nemesis) recovery(ctx context.Context, from, until time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, until-time.Since(n.began))
	defer cancel()
	took := make([]time.Duration, len(n.site.machines))
	var wg sync.WaitGroup
	for i, m := range n.site.machines {
		wg.Go(func() {
			if answers(ctx, n.site.here(m)) {
				took[i] = time.Since(n.began) - from
			} else {
				took[i] = -1
			}
		})
	}
	wg.Wait()
	longest := took[0]
	for _, t := range took {
		if t < 0 {
			return -1
		}
		longest = max(longest, t)
	}
	return longest
}

// answers asks until the member answers a quorum read or ctx is done.
func answers(ctx context.Context, m Member) bool {
	defer m.HTTP.CloseIdleConnections()
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		a, err := Ask(limited, m, Request{Verb: Get, Key: "/faults-probe"})
		cancel()
		if err == nil && !a.Unknown {
			return true
		}
		pause(ctx, 100*time.Millisecond)
	}
	return false
}
