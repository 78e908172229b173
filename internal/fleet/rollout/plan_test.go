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

// released is a unit that was let go to take another text with these options, and of
// which nothing has been heard since.
func released(now, since time.Time, options string) Snapshot {
	const before = "[Service]\nExecStart=/bin/1\n"
	from := model.NewUnit("a.service", before, model.Launched, 1)
	to := model.NewUnit("a.service", "[Service]\nExecStart=/bin/2\n"+options, model.Launched, 1)
	return Snapshot{
		Now: now, LeaderSince: now.Add(-time.Hour), Present: func(string) bool { return true },
		Units: []model.Unit{to},
		Placements: []model.Placement{{
			Unit: to.Name, Machine: "m", Text: to.Text, Hash: to.Hash, Desired: model.Launched, Gen: 1, Watched: true,
		}},
		States: []model.UnitState{{Unit: to.Name, Machine: "m", Hash: from.Hash, Load: "loaded", Active: "active", Gen: 1}},
		Rolls: []model.Roll{{
			Group: to.Name, State: model.Rolling, Started: now, Since: map[string]time.Time{model.RollKey(to.Name, "m"): since},
			From: map[string]string{to.Name: from.Hash}, To: map[string]string{to.Name: to.Hash}, Texts: map[string]string{from.Hash: before},
		}},
	}
}

// rollState is the state of the only roll after a plan.
func rollState(s Snapshot) model.RollState {
	for _, roll := range Plan(s).Put {
		return roll.State
	}
	return s.Rolls[0].State
}

// What may take for ever to be good is waited for.
func TestPatienceWithoutEnd(t *testing.T) {
	now := time.Unix(100000, 0)
	if got := rollState(released(now, now.Add(-time.Second), "[X-Fleet]\nHealthyTimeout=infinity\n")); got != model.Rolling {
		t.Errorf("the roll is %s", got)
	}
}

// How long nothing was heard of an entry is counted by one clock: that of the machine
// whose engine let it go may go wrong by hours.
func TestPatienceIsOfOneClock(t *testing.T) {
	now := time.Unix(100000, 0)
	for _, c := range []struct {
		name           string
		since, elected time.Duration // ago
		want           model.RollState
	}{
		{"let go by this engine", 2 * time.Minute, time.Hour, model.Reverting},
		{"let go by this engine just now", time.Second, time.Hour, model.Rolling},
		{"by one whose clock is slow", 3 * time.Hour, time.Second, model.Rolling},
		{"by one whose clock is fast", -3 * time.Hour, time.Second, model.Rolling},
		{"by one whose clock was fast, long ago", -3 * time.Hour, 2 * time.Minute, model.Reverting},
	} {
		s := released(now, now.Add(-c.since), "")
		s.LeaderSince = now.Add(-c.elected)
		if got := rollState(s); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
