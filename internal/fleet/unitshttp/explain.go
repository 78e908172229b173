package unitshttp

import (
	"context"
	"net/http"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// snapshot reads what an engine would decide on now. How long a machine has been away
// is known from the events, since the store keeps nothing of a machine that is gone;
// one that nobody has missed yet counts as away since now.
func (s *Server) snapshot(ctx context.Context) (*registry.View, sched.Snapshot, error) {
	v, err := s.all.Read(ctx)
	if err != nil {
		return nil, sched.Snapshot{}, err
	}
	now := time.Now()
	snap := sched.Snapshot{
		Now: now, LeaderSince: now, Policy: s.cfg.Policy,
		Machines: v.Machines(), Units: v.Units(), Placements: v.Placements(), States: v.States(),
		Lost: map[string]time.Time{},
	}
	for _, p := range snap.Placements {
		if _, present := v.Machine(p.Machine); !present {
			snap.Lost[p.Machine] = now
		}
	}
	if len(snap.Lost) == 0 {
		return v, snap, nil
	}
	events, err := s.Store.ReadEvents(ctx, registry.EventFilter{})
	if err != nil {
		return nil, snap, err
	}
	for _, e := range events {
		if _, away := snap.Lost[e.Machine]; away && e.Kind == model.Presence && e.At.Before(now) {
			snap.Lost[e.Machine] = e.At
		}
	}
	return v, snap, nil
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) error {
	v, snap, err := s.snapshot(r.Context())
	if err != nil {
		return err
	}
	u, ok := v.Unit(r.PathValue("name"))
	if !ok {
		return registry.ErrNoUnit
	}
	out := fleet.Why{Unit: u.Name, Desired: u.Desired.String(), Global: u.Req.Global, Reason: brief(v, u).Reason}
	for _, p := range v.PlacementsOf(u.Name) {
		if !p.Leaving {
			out.Placed = append(out.Placed, p.Machine)
		}
	}
	out.Held = held(v, out.Placed)
	for _, m := range sched.Explain(snap, u.Name) {
		out.Verdicts = append(out.Verdicts, verdictOf(v, m))
	}
	reply(w, http.StatusOK, out)
	return nil
}

// held is why a unit stays on a machine that is away although others might take it; ""
// if it is on one that is present, or moves are not held.
func held(v *registry.View, on []string) string {
	for _, id := range on {
		if _, present := v.Machine(id); !present {
			return v.Hold()
		}
	}
	return ""
}

func verdictOf(v *registry.View, m sched.MachineVerdict) fleet.Verdict {
	out := fleet.Verdict{Machine: m.Machine, Hostname: known(v, m.Machine).Hostname, Here: m.Here, OK: m.OK}
	for _, r := range m.Rules {
		out.Rules = append(out.Rules, fleet.Rule{Rule: r.Rule, OK: r.OK, Soft: r.Soft, Why: r.Why})
	}
	return out
}

func (s *Server) whatIf(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	drain, err := s.machineIDs(r.Context(), q["drain"])
	if err != nil {
		return err
	}
	lose, err := s.machineIDs(r.Context(), q["lose"])
	if err != nil {
		return err
	}
	if len(drain)+len(lose) == 0 {
		return refuse(http.StatusBadRequest, "name the machines: drain=ID or lose=ID")
	}
	_, snap, err := s.snapshot(r.Context())
	if err != nil {
		return err
	}
	f := sched.WhatIf(snap, drain, lose)
	out := fleet.WhatIf{Held: f.Held, Moves: movesOf(f.Moves)}
	for _, m := range f.Stuck {
		out.Stuck = append(out.Stuck, fleet.Stuck{Unit: m.Unit, From: m.From, Why: m.Why})
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (s *Server) machineIDs(ctx context.Context, given []string) ([]string, error) {
	var out []string
	for _, one := range given {
		id, err := s.machineID(ctx, one)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func movesOf(moves []sched.Move) (out []fleet.Move) {
	for _, m := range moves {
		out = append(out, fleet.Move{Unit: m.Unit, From: m.From, To: m.To, Why: m.Why})
	}
	return out
}

// maxMoves is how many units one request may have moved.
const maxMoves = 1000

// rebalance says which moves would even out the machines and, unless it is a dry run,
// asks the engine for them: it moves what is best then.
func (s *Server) rebalance(w http.ResponseWriter, r *http.Request) error {
	var body fleet.RebalanceRequest
	if err := decodeOptional(w, r, &body); err != nil {
		return err
	}
	if body.Max < 0 || body.Max > maxMoves {
		return refuse(http.StatusBadRequest, "max: %d is not a number from 0 to %d", body.Max, maxMoves)
	}
	var moves []fleet.Move
	plan := func(ctx context.Context) error {
		_, snap, err := s.snapshot(ctx)
		if err == nil {
			moves = movesOf(sched.Rebalance(snap, body.Max))
		}
		return err
	}
	if body.DryRun {
		if err := plan(r.Context()); err != nil {
			return err
		}
		reply(w, http.StatusOK, fleet.WhatIf{Moves: moves})
		return nil
	}
	req := access.Request{Kind: access.Cluster, Doing: "rebalance the cluster"}
	err := s.audited(r, req, act{what: "rebalance"}, func(ctx context.Context, by string) ([]act, error) {
		if err := plan(ctx); err != nil || len(moves) == 0 {
			return nil, err
		}
		_, err := s.Store.Ask(ctx, model.Ask{Kind: model.Rebalance, Max: max(1, body.Max), By: by})
		return []act{{what: "rebalancing was asked for"}}, err
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, fleet.WhatIf{Moves: moves})
	return nil
}
