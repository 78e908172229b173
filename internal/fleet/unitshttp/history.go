package unitshttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/rollout"
	"flotilla/internal/unitfile"
)

func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	versions, present, err := s.readHistory(r.Context(), name)
	if err != nil {
		return err
	}
	if len(versions) == 0 && present.Name == "" {
		return registry.ErrNoUnit
	}
	var out fleet.VersionList
	for i, v := range versions {
		out.Versions = append(out.Versions, fleet.Version{
			Seq: v.Seq, Hash: v.Hash, Text: v.Text, At: v.At, By: v.By, Why: v.Why,
			Present: i == presentIn(versions, present),
		})
	}
	reply(w, http.StatusOK, out)
	return nil
}

// readHistory returns a unit's versions, newest first, and the unit as it is; the
// zero unit if it is not there.
func (s *Server) readHistory(ctx context.Context, name string) ([]model.Version, model.Unit, error) {
	versions, err := s.Store.ReadHistory(ctx, name)
	if err != nil {
		return nil, model.Unit{}, err
	}
	v, err := s.Store.ReadJob(ctx, name)
	if err != nil {
		return nil, model.Unit{}, err
	}
	u, _ := v.Unit(name)
	return versions, u, nil
}

// presentIn is the newest version whose text the unit has now; -1 if none has.
func presentIn(versions []model.Version, u model.Unit) int {
	return slices.IndexFunc(versions, func(v model.Version) bool { return u.Name != "" && v.Hash == u.Hash })
}

// versionFor chooses the version to go back to: that of seq, or with 0 the newest
// before the present one that has another text and was not taken back by a roll. Of a
// unit that is gone it is the last.
func versionFor(versions []model.Version, u model.Unit, seq int) (model.Version, error) {
	at := presentIn(versions, u)
	i := slices.IndexFunc(versions, func(v model.Version) bool { return v.Seq == seq })
	if seq == 0 {
		i = -1
		for k := at + 1; k < len(versions) && i < 0; k++ {
			if versions[k].Hash != u.Hash && !takenBack(versions, k) {
				i = k
			}
		}
	}
	switch {
	case i >= 0:
		return versions[i], nil
	case seq == 0:
		return model.Version{}, refuse(http.StatusConflict, "there is no version before the present one")
	}
	return model.Version{}, refuse(http.StatusNotFound, "there is no version %d", seq)
}

// takenBack reports whether the version after k, newest first, is a roll that went
// back from it.
func takenBack(versions []model.Version, k int) bool {
	return k > 0 && strings.HasPrefix(versions[k-1].Why, rollout.TakenBack)
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	req := access.Request{Kind: access.Units, Doing: "roll units back", Units: []string{name}}
	var report fleet.ApplyReport
	err := s.audited(r, req, act{unit: name, what: "rollback"}, func(ctx context.Context, by string) ([]act, error) {
		var body fleet.RollbackRequest
		if err := decodeOptional(w, r, &body); err != nil {
			return nil, err
		}
		if err := checkWhy(body.Why); err != nil {
			return nil, err
		}
		for range maxRaces {
			p, version, err := s.rolledBack(ctx, whoOf(r), name, body)
			if errors.Is(err, registry.ErrStale) {
				continue
			}
			report.Changes = p.changes
			done := []act{{unit: name, what: fmt.Sprintf("rolled back to version %d", version.Seq), why: body.Why}}
			for _, c := range p.changes {
				done = append(done, followed(c, body.Why)...)
			}
			return done, err
		}
		return nil, refuse(http.StatusConflict, "the unit changes all the time")
	})
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, report)
	return nil
}

func (s *Server) rolledBack(ctx context.Context, who access.Who, name string, body fleet.RollbackRequest) (plan, model.Version, error) {
	versions, u, err := s.readHistory(ctx, name)
	if err != nil {
		return plan{}, model.Version{}, err
	}
	if len(versions) == 0 && u.Name == "" {
		return plan{}, model.Version{}, registry.ErrNoUnit
	}
	version, err := versionFor(versions, u, body.Seq)
	if err != nil {
		return plan{}, version, err
	}
	text, err := unitfile.ParseBundle(version.Text)
	if err != nil {
		return plan{}, version, refuse(http.StatusConflict, "version %d cannot be used: %w", version.Seq, err)
	}
	in, wrong := readIntent(wireUnit(name, text))
	if len(wrong) > 0 {
		return plan{}, version, refuse(http.StatusConflict, "version %d cannot be used: %s", version.Seq, wrong[0])
	}
	v, err := s.all.Read(ctx)
	if err != nil {
		return plan{}, version, err
	}
	p := planApply(v, []intent{in}, body.Follow)
	may := p.request([]intent{in})
	may.Doing, may.Units = "roll units back", append(may.Units, name)
	if err := access.Decide(who, may); err != nil {
		return plan{}, version, err
	}
	why := cmp.Or(body.Why, fmt.Sprintf("rollback to %d", version.Seq))
	return p, version, s.Store.Apply(ctx, p.writes, who.Name, why)
}

// wireUnit is a unit with a text as a request has it.
func wireUnit(name string, b unitfile.Bundle) fleet.Unit {
	u := fleet.Unit{Name: name, Options: optionsOf(b.Main)}
	for _, d := range b.DropIns {
		u.DropIns = append(u.DropIns, fleet.DropIn{Name: d.Name, Options: optionsOf(d.File)})
	}
	return u
}
