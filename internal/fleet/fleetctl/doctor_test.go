package fleetctl

import (
	"strings"
	"testing"
	"time"

	api "flotilla/api/fleet"
)

// While moves are held nobody is told that units move.
func TestDoctorPromisesNoMovesWhileHeld(t *testing.T) {
	e := evidence{
		engine:   &api.Engine{Leader: "m1", Held: "2 of 3 machines are away (hold_fraction=0.5)"},
		machines: []api.Machine{{ID: "m1"}},
		units:    []api.Unit{{Name: "a.service", MachineID: "m2"}},
	}
	for _, f := range []finding{judgeEngine(e), judgeMachines(e)} {
		if !strings.Contains(f.Try, "'fleetctl forget MACHINE'") || strings.Contains(f.Try, "units move") {
			t.Errorf("%s: %s", f.Check, f.Try)
		}
	}
}

func TestJudgeEvidence(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	healthy := func() evidence {
		return evidence{
			now:      now,
			engine:   &api.Engine{Leader: "aaaaaaaabbbb"},
			store:    &api.Store{Members: []api.StoreMember{{Name: "s1", Answers: true, Healthy: true, Leader: true}, {Name: "s2", Answers: true, Healthy: true}, {Name: "s3", Answers: true, Healthy: true}}},
			machines: []api.Machine{{ID: "m1", Version: "1.0"}, {ID: "m2", Version: "1.0"}},
			units: []api.Unit{
				{Name: "a.service", DesiredState: launched, CurrentState: launched, MachineID: "m1"},
				{Name: "web@.service", DesiredState: inactive, CurrentState: inactive},
				{Name: "g.service", DesiredState: launched},
			},
			states: []api.UnitState{{Name: "a.service", MachineID: "m1", SystemdActiveState: "active", SystemdSubState: "running", SystemdLoadState: loaded}},
			rolls:  []api.Roll{{Group: "a.service", State: "done"}, {Group: "b.service", State: "rolling", Started: now.Add(-time.Minute)}},
		}
	}
	for name, test := range map[string]struct {
		spoil func(*evidence)
		want  string // the findings that are not ok
	}{
		"healthy":      {func(*evidence) {}, ""},
		"no leader":    {func(e *evidence) { e.engine.Leader = "" }, "bad engine"},
		"old server":   {func(e *evidence) { e.engine = nil }, "warn engine"},
		"held":         {func(e *evidence) { e.engine.Held = "3 of 5 machines are away" }, "warn engine"},
		"member away":  {func(e *evidence) { e.store.Members[1] = api.StoreMember{Name: "s2", Why: "refused"} }, "bad members"},
		"member ill":   {func(e *evidence) { e.store.Members[1].Healthy, e.store.Members[1].Why = false, "no leader" }, "bad members"},
		"learner away": {func(e *evidence) { e.store.Members[1] = api.StoreMember{Name: "s2", Learner: true} }, "bad members"},
		"no majority": {func(e *evidence) {
			e.store.Members = append(e.store.Members[:1], api.StoreMember{Name: "s2"}, api.StoreMember{Name: "s3"})
		}, "bad members"},
		"alarm":        {func(e *evidence) { e.store.Members[1].Alarms = []string{"NOSPACE"} }, "bad members"},
		"store closed": {func(e *evidence) { *e.store = api.Store{Why: "permission denied"} }, ""},
		"old store":    {func(e *evidence) { e.store = nil }, ""},
		"no machines":  {func(e *evidence) { e.machines = nil }, "bad machines"},
		"silent":       {func(e *evidence) { e.units[0].MachineID = "m3" }, "bad machines"},
		"cordoned":     {func(e *evidence) { e.machines[0].Cordon = &api.Cordon{Why: "disk"} }, "warn cordons"},
		"versions":     {func(e *evidence) { e.machines[0].Version = "1.1" }, "warn versions"},
		"failed":       {func(e *evidence) { e.states[0].SystemdActiveState = "failed" }, "bad units"},
		"trying again": {func(e *evidence) { e.states[0].SystemdSubState = "auto-restart" }, "bad units"},
		"not loaded":   {func(e *evidence) { e.states[0].SystemdLoadState = "bad-setting" }, "bad units"},
		"nobody's":     {func(e *evidence) { e.states[0].Name, e.states[0].SystemdActiveState = "x.service", "failed" }, ""},
		"unplaced": {func(e *evidence) {
			e.units[0].MachineID, e.units[0].CurrentState, e.units[0].Reason = "", inactive, "no room"
		}, "bad placing"},
		"stuck":               {func(e *evidence) { e.rolls[1].Started = now.Add(-time.Hour) }, "warn rolls"},
		"paused":              {func(e *evidence) { e.rolls[1].State = "paused" }, "warn rolls"},
		"reverted":            {func(e *evidence) { e.rolls[0].State, e.rolls[0].Failed = "reverted", "a.service" }, "warn texts"},
		"reverted on request": {func(e *evidence) { e.rolls[0].State = "reverted" }, ""},
		"reverted and gone":   {func(e *evidence) { e.rolls[1].State, e.rolls[1].Failed = "reverted", "b.service" }, ""},
	} {
		e := healthy()
		test.spoil(&e)
		var got []string
		for _, f := range judgeEvidence(e) {
			if f.Level != levelOK {
				got = append(got, f.Level+" "+f.Check)
			}
			if f.Level == levelBad && f.Try == "" {
				t.Errorf("%s: %s is bad, and nothing is said to try", name, f.Check)
			}
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
