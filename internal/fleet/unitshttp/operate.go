package unitshttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

func (s *Server) listRolls(w http.ResponseWriter, r *http.Request) error {
	v, err := s.all.Read(r.Context())
	if err != nil {
		return err
	}
	var out fleet.RollList
	for _, roll := range v.Rolls() {
		out.Rolls = append(out.Rolls, rollOf(v, roll))
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (s *Server) getRoll(w http.ResponseWriter, r *http.Request) error {
	v, err := s.all.Read(r.Context())
	if err != nil {
		return err
	}
	roll, ok := v.Roll(r.PathValue("name"))
	if !ok {
		return refuse(http.StatusNotFound, "there was no roll of %s", r.PathValue("name"))
	}
	reply(w, http.StatusOK, rollOf(v, roll))
	return nil
}

// rollOf is a roll as the API tells it, with how far it has come.
func rollOf(v *registry.View, roll model.Roll) fleet.Roll {
	out := fleet.Roll{
		Group: roll.Group, State: string(roll.State), From: roll.From, To: roll.To,
		Started: roll.Started, Ended: roll.Ended, By: roll.By, Why: roll.Why,
		Failed: roll.Failed, Machine: roll.Machine, Log: roll.Log, Asked: roll.Asked,
	}
	for unit, hash := range roll.To {
		for _, p := range v.PlacementsOf(unit) {
			if p.Leaving {
				continue
			}
			out.Total++
			if p.Hash == hash {
				out.Changed++
			}
		}
	}
	return out
}

func (s *Server) askRoll(w http.ResponseWriter, r *http.Request) error {
	group := r.PathValue("name")
	req := access.Request{Kind: access.Units, Doing: "steer rolls", Units: []string{group}}
	return s.done(w, s.audited(r, req, act{unit: group, what: "steer roll"}, func(ctx context.Context, by string) ([]act, error) {
		var body fleet.RollAction
		if err := decodeBody(w, r, &body); err != nil {
			return nil, err
		}
		if !slices.Contains([]string{model.Pause, model.Resume, model.Revert}, body.Action) {
			return nil, refuse(http.StatusBadRequest, "action %q is none of pause, resume, revert", body.Action)
		}
		err := s.Store.AskRoll(ctx, group, body.Action, by)
		if errors.Is(err, registry.ErrNoRoll) {
			err = refuse(http.StatusNotFound, "%w", err)
		}
		return []act{{unit: group, what: body.Action + " roll"}}, err
	}))
}

func (s *Server) engine(w http.ResponseWriter, r *http.Request) error {
	v, err := s.all.Read(r.Context())
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, fleet.Engine{Leader: v.Leader(), Held: v.Hold()})
	return nil
}

// store tells how the store's members are. That they cannot be asked, because the store
// is reached through something else or does not allow it, is an answer as well.
func (s *Server) store(w http.ResponseWriter, r *http.Request) error {
	members, err := s.Store.Members(r.Context())
	if errors.Is(err, registry.ErrAway) || r.Context().Err() != nil {
		return err
	}
	var out fleet.Store
	if err != nil {
		out.Why = err.Error()
	}
	for _, m := range members {
		out.Members = append(out.Members, fleet.StoreMember{
			Name: m.Name, URL: m.URL, Learner: m.Learner, Answers: m.Answers, Healthy: m.Healthy,
			Leader: m.Leads, Why: m.Why, Alarms: m.Alarms,
		})
	}
	reply(w, http.StatusOK, out)
	return nil
}

// done answers a request that has no more to say than that it was carried out.
func (s *Server) done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

var wholeID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// machineID is the id that is meant: a whole one, of a machine present or not, or
// the beginning of one that is present.
func (s *Server) machineID(ctx context.Context, id string) (string, error) {
	if wholeID.MatchString(id) {
		return id, nil
	}
	v, err := s.Store.ReadMachines(ctx)
	if err != nil {
		return "", err
	}
	found, err := oneMachine(v.Machines(), id)
	if err != nil {
		return "", err
	}
	return found[0].ID, nil
}

// forget has the cluster forget a machine that will not return.
func (s *Server) forget(w http.ResponseWriter, r *http.Request) error {
	req := access.Request{Kind: access.Cluster, Doing: "forget machines"}
	var units []string
	err := s.audited(r, req, act{machine: r.PathValue("name"), what: "forget"}, func(ctx context.Context, by string) ([]act, error) {
		id, err := s.awayID(ctx, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		units, err = s.Store.ForgetMachine(ctx, id, by)
		if errors.Is(err, registry.ErrPresent) {
			err = fault.Hint(refuse(http.StatusConflict, "%w", err), "'fleetctl drain' empties a machine that is alive")
		}
		return []act{{machine: id, what: "forgotten", why: fmt.Sprintf("units there: %d", len(units))}}, err
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, fleet.Forgotten{Units: units})
	return nil
}

// awayID is the id that is meant: a whole one, or the beginning of one of a machine that
// is present, or away with units.
func (s *Server) awayID(ctx context.Context, id string) (string, error) {
	if wholeID.MatchString(id) {
		return id, nil
	}
	v, err := s.all.Read(ctx)
	if err != nil {
		return "", err
	}
	known := v.Machines()
	away := map[string]bool{}
	for _, p := range v.Placements() {
		if _, present := v.Machine(p.Machine); !present && !away[p.Machine] {
			away[p.Machine] = true
			known = append(known, model.Machine{ID: p.Machine})
		}
	}
	if !slices.ContainsFunc(known, func(m model.Machine) bool { return strings.HasPrefix(m.ID, id) }) {
		return "", fault.Hint(refuse(http.StatusNotFound, "no machine %s is away with units", id), "one without units can be named by its whole id")
	}
	found, err := oneMachine(known, id)
	if err != nil {
		return "", err
	}
	return found[0].ID, nil
}

func (s *Server) cordon(w http.ResponseWriter, r *http.Request) error {
	req := access.Request{Kind: access.Cluster, Doing: "cordon machines"}
	return s.done(w, s.audited(r, req, act{machine: r.PathValue("name"), what: "cordon"}, func(ctx context.Context, by string) ([]act, error) {
		var body fleet.Cordon
		if err := decodeOptional(w, r, &body); err != nil {
			return nil, err
		}
		if err := checkWhy(body.Why); err != nil {
			return nil, err
		}
		id, err := s.machineID(ctx, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		what := "cordoned"
		if body.Drain {
			what = "cordoned, to be drained"
		}
		c := model.Cordon{Drain: body.Drain, Why: body.Why, By: by, At: time.Now()}
		return []act{{machine: id, what: what, why: body.Why}}, s.Store.SetCordon(ctx, id, c)
	}))
}

func (s *Server) uncordon(w http.ResponseWriter, r *http.Request) error {
	req := access.Request{Kind: access.Cluster, Doing: "uncordon machines"}
	return s.done(w, s.audited(r, req, act{machine: r.PathValue("name"), what: "uncordon"}, func(ctx context.Context, _ string) ([]act, error) {
		id, err := s.machineID(ctx, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return []act{{machine: id, what: "uncordoned"}}, s.Store.Uncordon(ctx, id)
	}))
}
