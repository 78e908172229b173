package fleet

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	api "flotilla/api/fleet"
)

// slowLimit is how long an answer may take for which a machine has to do something
// first, unless Config.RequestTimeout is longer.
const slowLimit = time.Minute

// Apply makes units be as they are given, all of them or none. The *Error of a
// request that was refused has all Problems.
func (c *Client) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyReport, error) {
	var out api.ApplyReport
	_, err := c.patient().send(ctx, http.MethodPost, "/apply", r, &out)
	return out, err
}

// patient is a client that waits longer for an answer.
func (c *Client) patient() *Client {
	p := *c
	p.timeout = max(p.timeout, slowLimit)
	return &p
}

// MachinesUsed is Machines with what is placed on each, which costs the server more.
func (c *Client) MachinesUsed(ctx context.Context) ([]api.Machine, error) {
	return pages(func(token string) ([]api.Machine, string, error) {
		var p api.MachinePage
		err := c.get(ctx, "/machines", query("nextPageToken", token, "used", "true"), &p)
		return p.Machines, p.NextPageToken, err
	})
}

// Rolls returns the rolls that are under way or that ended a while ago, in order of
// group.
func (c *Client) Rolls(ctx context.Context) ([]api.Roll, error) {
	var out api.RollList
	err := c.get(ctx, "/rolls", nil, &out)
	return out.Rolls, err
}

// Roll returns the last roll of a group (a template, or a unit); ErrNotExist if
// there was none.
func (c *Client) Roll(ctx context.Context, group string) (api.Roll, error) {
	var out api.Roll
	err := c.get(ctx, rollPath(group), nil, &out)
	return out, err
}

// AskRoll asks for a roll to pause, resume or revert; the engine does it soon.
// ErrNotExist if there is no such roll.
func (c *Client) AskRoll(ctx context.Context, group, action string) error {
	_, err := c.send(ctx, http.MethodPost, rollPath(group), api.RollAction{Action: action}, nil)
	return err
}

func rollPath(group string) string { return "/rolls/" + url.PathEscape(group) }

// History returns the texts that a unit has had, newest first; of a unit that was
// destroyed not long ago, too. ErrNotExist if nothing is known of it.
func (c *Client) History(ctx context.Context, unit string) ([]api.Version, error) {
	var out api.VersionList
	err := c.get(ctx, unitPath(unit)+"/history", nil, &out)
	return out.Versions, err
}

// Rollback gives a unit a text that it has had, as a new version: that of seq, or
// with 0 the one before the present.
func (c *Client) Rollback(ctx context.Context, unit string, r api.RollbackRequest) (api.ApplyReport, error) {
	var out api.ApplyReport
	_, err := c.send(ctx, http.MethodPost, unitPath(unit)+"/rollback", r, &out)
	return out, err
}

// Cordon keeps new units from a machine, and with drain has those that are there
// leave. machine is an id, or the beginning of one that is present.
func (c *Client) Cordon(ctx context.Context, machine string, drain bool, why string) error {
	_, err := c.send(ctx, http.MethodPut, cordonPath(machine), api.Cordon{Drain: drain, Why: why}, nil)
	return err
}

// Forget has the cluster forget a machine that is away and will not return, and returns
// which units were there: they are placed elsewhere. machine is an id, or the beginning
// of one that is away and has units. A machine that is present is refused.
func (c *Client) Forget(ctx context.Context, machine string) ([]string, error) {
	var out api.Forgotten
	_, err := c.do(ctx, http.MethodDelete, "/machines/"+url.PathEscape(machine), nil, nil, &out)
	return out.Units, err
}

// Uncordon lets units be placed on the machine again.
func (c *Client) Uncordon(ctx context.Context, machine string) error {
	_, err := c.do(ctx, http.MethodDelete, cordonPath(machine), nil, nil, nil)
	return err
}

func cordonPath(machine string) string { return "/machines/" + url.PathEscape(machine) + "/cordon" }

// Why returns how each machine is judged for a unit, rule by rule.
func (c *Client) Why(ctx context.Context, unit string) (api.Why, error) {
	var out api.Why
	err := c.get(ctx, unitPath(unit)+"/why", nil, &out)
	return out, err
}

// WhatIf says what would move if the machines in drain were drained and those in
// lose were lost. Both hold ids or the beginnings of such.
func (c *Client) WhatIf(ctx context.Context, drain, lose []string) (api.WhatIf, error) {
	var out api.WhatIf
	err := c.get(ctx, "/what-if", url.Values{"drain": drain, "lose": lose}, &out)
	return out, err
}

// Rebalance asks the engine to move units from full machines to emptier ones, and
// returns the moves as they are planned.
func (c *Client) Rebalance(ctx context.Context, r api.RebalanceRequest) (api.WhatIf, error) {
	var out api.WhatIf
	_, err := c.send(ctx, http.MethodPost, "/rebalance", r, &out)
	return out, err
}

// Engine returns which machine's engine decides, and why it holds moves if it does.
func (c *Client) Engine(ctx context.Context) (api.Engine, error) {
	var out api.Engine
	err := c.get(ctx, "/engine", nil, &out)
	return out, err
}

// Store returns how the members of the store are, as the server sees them. It takes a
// few seconds when one of them does not answer.
func (c *Client) Store(ctx context.Context) (api.Store, error) {
	var out api.Store
	err := c.get(ctx, "/store", nil, &out)
	return out, err
}

// EventQuery chooses events; empty fields choose all.
type EventQuery struct {
	Unit    string    // full unit name
	Machine string    // id, or the beginning of one
	Since   time.Time // zero: as far back as there are any
	Follow  bool      // go on with new events until the context is done
}

// Events yields what happened, oldest first. It ends after the last one, with
// Follow when ctx is done; the last pair of a broken stream has the error.
func (c *Client) Events(ctx context.Context, e EventQuery) iter.Seq2[api.Event, error] {
	q := query("unit", e.Unit, "machine", e.Machine, "since", instant(e.Since), "follow", yes(e.Follow))
	return sequence[api.Event](ctx, c, "/events", q)
}

// LogQuery chooses log entries of units on all machines.
type LogQuery struct {
	Units   []string  // full names or globs; one at least
	Machine string    // id, or the beginning of one; empty: all
	Lines   *int      // the newest so many of all, -1: all that there are; nil: 10, or all with Since
	Since   time.Time // zero: no bound
	// Priority is the least urgent that is wanted, 0 to 7 of syslog(3); nil: any.
	Priority *int
	Grep     string // regular expression (RE2) that the message has to match; empty: any
	Follow   bool   // go on with new entries until the context is done
}

// Logs yields entries of units' logs from all machines in order of time. With
// Follow it goes on when a machine that was away has returned. A LogEntry with
// Notice is a remark on the stream.
func (c *Client) Logs(ctx context.Context, l LogQuery) iter.Seq2[LogEntry, error] {
	q := query("machine", l.Machine, "since", instant(l.Since), "grep", l.Grep, "follow", yes(l.Follow))
	q["unit"] = l.Units
	for name, n := range map[string]*int{"lines": l.Lines, "priority": l.Priority} {
		if n != nil {
			q.Set(name, strconv.Itoa(*n))
		}
	}
	return sequence[LogEntry](ctx, c, "/logs", q)
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// Adopt has the cluster take over a unit that runs on a machine, as it runs.
func (c *Client) Adopt(ctx context.Context, unit, machine string) error {
	_, err := c.patient().send(ctx, http.MethodPost, "/adopt", api.AdoptRequest{Unit: unit, Machine: machine}, nil)
	return err
}

// Eject leaves a unit to its machine as an ordinary unit, running, and has the
// cluster forget it.
func (c *Client) Eject(ctx context.Context, unit string) error {
	_, err := c.patient().send(ctx, http.MethodPost, "/eject", api.EjectRequest{Unit: unit}, nil)
	return err
}

// WhoAmI returns whom the server takes this client for.
func (c *Client) WhoAmI(ctx context.Context) (api.WhoAmI, error) {
	var out api.WhoAmI
	err := c.get(ctx, "/whoami", nil, &out)
	return out, err
}

// SetMetadata sets a value of a machine's metadata over what it is configured with;
// the empty value masks the configured one. The machine need not be present.
func (c *Client) SetMetadata(ctx context.Context, machine, key, value string) error {
	op := api.MetadataOp{Op: "remove", Path: "/" + machine + "/metadata/" + key}
	if value != "" {
		op.Op, op.Value = "replace", &api.MetadataValue{Value: value}
	}
	_, err := c.send(ctx, http.MethodPatch, "/machines", []api.MetadataOp{op}, nil)
	return err
}
