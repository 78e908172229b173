package unitshttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/unitfile"
)

// enginePatience is how long an engine may take to do what it is asked.
const enginePatience = 20 * time.Second

// adopt has the cluster take over a unit that runs on a machine, as it runs.
func (s *Server) adopt(w http.ResponseWriter, r *http.Request) error {
	var body fleet.AdoptRequest
	if err := decodeBody(w, r, &body); err != nil {
		return err
	}
	req := access.Request{Kind: access.Cluster, Doing: "adopt units"}
	what := act{unit: body.Unit, machine: body.Machine, what: "adopt"}
	return s.done(w, s.audited(r, req, what, func(ctx context.Context, by string) ([]act, error) {
		if err := unitfile.CheckName(body.Unit); err != nil {
			return nil, refuse(http.StatusBadRequest, "%w", err)
		}
		v, snap, err := s.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		found, err := oneMachine(v.Machines(), body.Machine)
		if err != nil {
			return nil, err
		}
		m := found[0]
		if err := s.adopted(ctx, m, snap, body.Unit, by); err != nil {
			return nil, err
		}
		return []act{{unit: body.Unit, machine: m.ID, what: "adopted"}}, nil
	}))
}

func (s *Server) adopted(ctx context.Context, m model.Machine, snap sched.Snapshot, name, by string) error {
	if slices.ContainsFunc(snap.Units, func(u model.Unit) bool { return u.Name == name }) {
		return refuse(http.StatusConflict, "the cluster has a unit %s already", name)
	}
	text, err := s.release(ctx, m, name)
	if err != nil {
		return gateway(err)
	}
	u := model.NewUnit(name, text, model.Launched, 0)
	if err := fitting(snap, u, m); err != nil {
		return err
	}
	id, err := s.Store.AdoptUnit(ctx, name, registry.Text{Canonical: u.Text, Hash: u.Hash}, m.ID, by)
	if errors.Is(err, registry.ErrUnitExists) || errors.Is(err, registry.ErrStale) {
		err = refuse(http.StatusConflict, "%w", err)
	}
	if err != nil {
		return err
	}
	return s.placedThere(ctx, id, name, m)
}

// release asks a machine for the text of a unit of its own, and for leave to take it
// over.
func (s *Server) release(ctx context.Context, m model.Machine, name string) (string, error) {
	if m.ID == s.cfg.Machine {
		return s.Local.Adopt(ctx, name)
	}
	if err := s.reachable(m); err != nil {
		return "", err
	}
	return s.Peers.Adopt(ctx, m, name)
}

// fitting says why a unit that is to be adopted may not be on its machine: then it
// would be started elsewhere.
func fitting(snap sched.Snapshot, u model.Unit, m model.Machine) error {
	if u.Req.Global {
		return refuse(http.StatusConflict, "a global unit runs on every machine: submit it as any other")
	}
	if u.Bad != "" {
		return refuse(http.StatusConflict, "the cluster cannot use its unit file: %s", u.Bad)
	}
	snap.Units = append(slices.Clone(snap.Units), u)
	for _, v := range sched.Explain(snap, u.Name) {
		if v.Machine != m.ID || v.OK {
			continue
		}
		var why []string
		for _, r := range v.Rules {
			if !r.OK && !r.Soft {
				why = append(why, r.Rule+": "+r.Why)
			}
		}
		return refuse(http.StatusConflict, "%s may not run it: %s", title(m), strings.Join(why, "; "))
	}
	return nil
}

// placedThere waits until the engine has placed an adopted unit.
func (s *Server) placedThere(ctx context.Context, ask, name string, m model.Machine) error {
	limited, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	if err := s.Store.AwaitAsk(limited, ask); err != nil {
		return fault.Hint(refuse(http.StatusServiceUnavailable, "%s is stored, and no engine has placed it yet: %w", name, err),
			"some machine must lead: see 'fleetctl events', and disable_engine of the machines")
	}
	v, err := s.Store.ReadUnit(ctx, name)
	if err != nil {
		return err
	}
	for _, p := range v.PlacementsOf(name) {
		if p.Machine == m.ID {
			return nil
		}
	}
	return refuse(http.StatusConflict, "%s is stored, and was not placed on %s", name, title(m))
}

// eject leaves a unit to its machine as it runs, and destroys it in the cluster.
func (s *Server) eject(w http.ResponseWriter, r *http.Request) error {
	var body fleet.EjectRequest
	if err := decodeBody(w, r, &body); err != nil {
		return err
	}
	req := access.Request{Kind: access.Cluster, Doing: "eject units"}
	return s.done(w, s.audited(r, req, act{unit: body.Unit, what: "eject"}, func(ctx context.Context, _ string) ([]act, error) {
		m, err := s.holder(ctx, body.Unit)
		if err != nil {
			return nil, err
		}
		if err := s.letGo(ctx, m, body.Unit); err != nil {
			return nil, gateway(err)
		}
		done := []act{{unit: body.Unit, machine: m.ID, what: "ejected"}}
		if err := s.Store.Destroy(ctx, body.Unit); err != nil {
			return nil, fault.Hint(fmt.Errorf("%s is the machine's own now, and could not be destroyed in the cluster: %w", body.Unit, err),
				"destroy it: 'fleetctl destroy %s'", body.Unit)
		}
		return done, nil
	}))
}

// holder is the machine that an ordinary unit is on.
func (s *Server) holder(ctx context.Context, name string) (model.Machine, error) {
	v, err := s.all.Read(ctx)
	if err != nil {
		return model.Machine{}, err
	}
	u, ok := v.Unit(name)
	if !ok {
		return model.Machine{}, registry.ErrNoUnit
	}
	entries := v.PlacementsOf(name)
	switch {
	case u.Req.Global:
		return model.Machine{}, refuse(http.StatusConflict, "a global unit is on many machines: it cannot be left to one")
	case len(entries) == 0:
		return model.Machine{}, refuse(http.StatusConflict, "%w", nowhere(name, brief(v, u).Reason))
	case len(entries) > 1:
		return model.Machine{}, refuse(http.StatusConflict, "unit %s is on its way from one machine to another: try again when it has come", name)
	}
	return known(v, entries[0].Machine), nil
}

func (s *Server) letGo(ctx context.Context, m model.Machine, name string) error {
	if m.ID == s.cfg.Machine {
		return s.Local.Eject(ctx, name)
	}
	if err := s.reachable(m); err != nil {
		return err
	}
	return s.Peers.Eject(ctx, m, name)
}
