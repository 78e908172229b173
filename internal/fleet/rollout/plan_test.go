package rollout

import (
	"testing"
	"time"

	"flotilla/internal/fleet/model"
)

// That one group puts its texts back says nothing of another that has done so.
func TestGroupsGoBackEachByItself(t *testing.T) {
	const before, after = "[Service]\nExecStart=/bin/1\n", "[Service]\nExecStart=/bin/2\n"
	now := time.Unix(1000, 0)
	s := Snapshot{Now: now, LeaderSince: now, Present: func(string) bool { return true }}
	for name, text := range map[string]string{"a.service": after, "b.service": before} {
		from, to := model.NewUnit(name, before, model.Launched, 1), model.NewUnit(name, after, model.Launched, 1)
		u := model.NewUnit(name, text, model.Launched, 1)
		s.Units = append(s.Units, u)
		s.Placements = append(s.Placements, model.Placement{Unit: name, Machine: "m", Text: text, Hash: u.Hash, Desired: model.Launched, Gen: 1})
		s.States = append(s.States, model.UnitState{Unit: name, Machine: "m", Hash: u.Hash, Load: "loaded", Active: "active", Gen: 1})
		s.Rolls = append(s.Rolls, model.Roll{
			Group: name, State: model.Reverting, Started: now, Why: "asked for",
			From: map[string]string{name: from.Hash}, To: map[string]string{name: to.Hash}, Texts: map[string]string{from.Hash: before},
		})
	}
	r := Plan(s)
	if len(r.Reverts) != 1 || r.Reverts[0].Unit != "a.service" {
		t.Errorf("reverts %+v", r.Reverts)
	}
	if len(r.Put) != 1 || r.Put[0].Group != "b.service" || r.Put[0].State != model.Reverted {
		t.Errorf("records %+v", r.Put)
	}
}

// What may take for ever to be good is waited for.
func TestPatienceWithoutEnd(t *testing.T) {
	const before, after = "[Service]\nExecStart=/bin/1\n", "[Service]\nExecStart=/bin/2\n[X-Fleet]\nHealthyTimeout=infinity\n"
	now := time.Unix(1000, 0)
	from, to := model.NewUnit("a.service", before, model.Launched, 1), model.NewUnit("a.service", after, model.Launched, 1)
	r := Plan(Snapshot{
		Now: now, LeaderSince: now, Present: func(string) bool { return true },
		Units: []model.Unit{to},
		Placements: []model.Placement{{Unit: to.Name, Machine: "m", Text: to.Text, Hash: to.Hash,
			Desired: model.Launched, Gen: 1, Watched: true}},
		States: []model.UnitState{{Unit: to.Name, Machine: "m", Hash: from.Hash, Load: "loaded", Active: "active", Gen: 1}},
		Rolls: []model.Roll{{
			Group: to.Name, State: model.Rolling, Started: now, Since: map[string]time.Time{model.RollKey(to.Name, "m"): now.Add(-time.Second)},
			From: map[string]string{to.Name: from.Hash}, To: map[string]string{to.Name: to.Hash}, Texts: map[string]string{from.Hash: before},
		}},
	})
	for _, roll := range r.Put {
		if roll.State != model.Rolling {
			t.Errorf("the roll is %s: %s", roll.State, roll.Why)
		}
	}
}
