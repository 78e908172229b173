// Package apply carries plans out: it looks at a machine, does the steps one by one,
// and keeps a record of what was done, so that a run which is cut at any point and run
// again ends as if it had not been cut.
package apply

import (
	"context"
	"fmt"
	"time"

	"flotilla/internal/cloudinit/plan"
)

// A Machine is what a plan is carried out on.
type Machine interface {
	Do(ctx context.Context, s plan.Step) error
	// Save makes the record last.
	Save(r plan.Record) error
}

// Status is what became of a step.
type Status string

// What may become of a step.
const (
	Done       Status = "done"
	Queued     Status = "queued" // systemd has the job; how it ends is not waited for
	Failed     Status = "failed"
	Skipped    Status = "skipped"     // something that it needs has failed
	NotReached Status = "not reached" // the run ended before
)

// An Outcome is what became of a step, as it is in the result of a run.
type Outcome struct {
	Kind    plan.Kind     `json:"kind"`
	Target  string        `json:"target"`
	Verb    string        `json:"verb,omitempty"`
	Why     string        `json:"why"`
	Status  Status        `json:"status"`
	Error   string        `json:"error,omitempty"`
	Elapsed time.Duration `json:"elapsed_ns,omitempty"`
}

// Options are how a plan is carried out.
type Options struct {
	Boot   string // boot id
	Queued bool   // commands are queued, not waited for
	// Begin and End are told of each step. nil tells nobody.
	Begin func(plan.Step)
	End   func(plan.Step, Outcome)
}

// Carry does the steps of a plan in order. A step that fails does not keep others from
// being done, but for those that need it: no command is carried out for a unit of which
// a file could not be written, and nothing else for a user that could not be made. It
// ends early when ctx does. The record is saved ahead of the first step and after each
// step that changes it; the error says that this failed, the first time.
func Carry(ctx context.Context, m Machine, p plan.Plan, o Options) ([]Outcome, error) {
	c := &carrier{m: m, o: o, record: p.Before, broken: map[string]string{}}
	if len(p.Steps) > 0 {
		c.save(p.Before)
	}
	outcomes := make([]Outcome, 0, len(p.Steps))
	for _, s := range p.Steps {
		outcomes = append(outcomes, c.step(ctx, s))
	}
	if len(p.Steps) == 0 {
		c.save(p.Before)
	}
	return outcomes, c.saveErr
}

type carrier struct {
	m       Machine
	o       Options
	record  plan.Record
	broken  map[string]string // unit or user: which step of it has failed
	saveErr error
}

func (c *carrier) save(r plan.Record) {
	if err := c.m.Save(r); err != nil && c.saveErr == nil {
		c.saveErr = fmt.Errorf("save the record of what was done: %w", err)
	}
	c.record = r
}

func (c *carrier) step(ctx context.Context, s plan.Step) Outcome {
	out := Outcome{Kind: s.Kind, Target: s.Target, Verb: s.Verb, Why: s.Why}
	if ctx.Err() != nil {
		out.Status = NotReached
		return out
	}
	if why := c.broken[needs(s)]; why != "" {
		out.Status, out.Error = Skipped, why
		c.tellEnd(s, out)
		return out
	}
	if c.o.Begin != nil {
		c.o.Begin(s)
	}
	start := time.Now()
	err := c.m.Do(ctx, s)
	out.Elapsed = time.Since(start).Round(time.Millisecond)
	switch {
	case err == nil:
		out.Status = Done
		if c.o.Queued && (s.Kind == plan.Command || s.Kind == plan.Run) {
			out.Status = Queued
		}
		if changesRecord(s.Kind) {
			c.save(c.record.After(s, c.o.Boot))
		}
	default:
		out.Status, out.Error = Failed, err.Error()
		c.fail(s)
	}
	c.tellEnd(s, out)
	return out
}

func (c *carrier) tellEnd(s plan.Step, out Outcome) {
	if c.o.End != nil {
		c.o.End(s, out)
	}
}

// changesRecord: what other kinds leave is in the record from the beginning.
func changesRecord(k plan.Kind) bool {
	switch k {
	case plan.Remove, plan.Keys, plan.Unmask, plan.Disable, plan.Reload, plan.Command, plan.Run:
		return true
	}
	return false
}

// needs is the unit or user without which a step cannot be done.
func needs(s plan.Step) string {
	switch s.Kind {
	case plan.Command:
		return "unit " + s.Target
	case plan.Password, plan.Keys:
		return "user " + s.Target
	case plan.Run:
		return "file " + s.Target
	}
	return ""
}

func (c *carrier) fail(s plan.Step) {
	why := fmt.Sprintf("%s %s has failed", s.Kind, s.Target)
	switch {
	case s.Kind == plan.AddUser:
		c.broken["user "+s.Target] = why
	case s.Unit != "" && s.Kind != plan.Command:
		c.broken["unit "+s.Unit] = why
	case s.Kind == plan.WriteTo:
		c.broken["file "+s.Target] = why
	}
}
