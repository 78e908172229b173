package fleetctl

import (
	"strings"
	"testing"

	api "flotilla/api/fleet"
)

const m1 = "148a18ff6e954cd892dac9de9bb90d5a"

// scene makes a picture of one machine and the unit a.service: the unit, and what
// the machine reports ("load active sub generation", "" nothing).
func scene(u *api.Unit, report string) *picture {
	p := newPicture()
	p.machines[m1] = api.Machine{ID: m1, PrimaryIP: "10.0.0.1"}
	if u != nil {
		u.Name = "a.service"
		p.units[u.Name] = *u
	}
	if w := strings.Fields(report); len(w) == 4 {
		p.states["a.service"] = map[string]api.UnitState{m1: {
			Name: "a.service", MachineID: m1, Hash: "h1",
			SystemdLoadState: w[0], SystemdActiveState: w[1], SystemdSubState: w[2],
			Generation: int64(w[3][0] - '0'),
		}}
	}
	return p
}

func on(machine, desired, current string, gen int64) *api.Unit {
	return &api.Unit{MachineID: machine, DesiredState: desired, CurrentState: current, Generation: gen}
}

func TestJudge(t *testing.T) {
	const perhaps = " perhaps"
	reason := &api.Unit{DesiredState: launched, CurrentState: inactive, Generation: 5, Reason: "no disk"}
	for _, c := range []struct {
		about  string
		want   want
		unit   *api.Unit
		report string
		verdict
	}{
		{"nothing told yet", want{goal: launched}, nil, "", waitFor("the request to be taken up")},
		{"destroyed by somebody", want{goal: launched, before: 4}, nil, "", verdict{kind: failed, tentative: true, text: "it has been destroyed meanwhile"}},
		{"the request is not there yet", want{goal: launched, before: 5}, on(m1, launched, launched, 5), "loaded failed failed 5", waitFor("the request to be taken up")},
		{"asked otherwise by somebody", want{goal: launched, before: 4}, on(m1, loaded, loaded, 6), "", verdict{kind: failed, tentative: true, text: "it was asked to be loaded meanwhile"}},
		{"no machine yet", want{goal: launched}, on("", launched, inactive, 5), "", waitFor("a machine to be chosen")},
		{"no machine can", want{goal: launched}, reason, "", verdict{kind: failed, tentative: true, text: "no machine can take it: no disk"}},
		{"not reported yet", want{goal: launched}, on(m1, launched, inactive, 5), "", waitFor("148a18ff.../10.0.0.1 to load it")},
		{"another text still", want{goal: launched, hash: "h2"}, on(m1, launched, loaded, 5), "loaded active running 5", waitFor("148a18ff.../10.0.0.1 to load the new text")},

		{"an old failure", want{goal: launched}, on(m1, launched, loaded, 5), "loaded failed failed 4", verdict{text: "failed on 148a18ff.../10.0.0.1"}},
		{"an old run", want{goal: launched}, on(m1, launched, loaded, 5), "loaded active running 4", verdict{text: "active/running on 148a18ff.../10.0.0.1"}},
		{"nothing carried out yet", want{goal: launched}, on(m1, launched, loaded, 5), "loaded inactive dead 0", verdict{text: "inactive/dead on 148a18ff.../10.0.0.1"}},
		{"running", want{goal: launched}, on(m1, launched, launched, 5), "loaded active running 5", verdict{kind: done}},
		{"starting", want{goal: launched}, on(m1, launched, loaded, 5), "loaded activating start-pre 5", verdict{text: "activating/start-pre on 148a18ff.../10.0.0.1", busy: true}},
		{"finished", want{goal: launched}, on(m1, launched, launched, 5), "loaded inactive dead 5", verdict{kind: done}},
		{"failed", want{goal: launched}, on(m1, launched, launched, 5), "loaded failed failed 5", verdict{kind: failed, text: "failed on 148a18ff.../10.0.0.1 (failed)", logs: true}},
		{"dying again and again", want{goal: launched}, on(m1, launched, launched, 5), "loaded activating auto-restart 5",
			verdict{kind: failed, text: "failed and will be tried again on 148a18ff.../10.0.0.1 (activating/auto-restart)", logs: true}},
		{"refused", want{goal: launched}, on(m1, launched, launched, 5), "bad-setting inactive dead 5", verdict{kind: failed, text: "could not be launched on 148a18ff.../10.0.0.1 (bad-setting)", logs: true, refused: true}},

		{"active, and had failed before", want{goal: launched, before: 4, failedBefore: true}, on(m1, launched, launched, 6), "loaded active running 6", verdict{kind: done, tentative: true}},
		{"finished" + perhaps, want{goal: launched}, on(m1, launched, launched, 0), "loaded inactive dead 0", verdict{kind: done, tentative: true}},
		{"failed" + perhaps, want{goal: launched}, on(m1, launched, launched, 0), "loaded failed failed 0", verdict{kind: failed, tentative: true, text: "failed on 148a18ff.../10.0.0.1 (failed)", logs: true}},
		{"running, surely", want{goal: launched}, on(m1, launched, launched, 0), "loaded active running 0", verdict{kind: done}},

		{"still running", want{goal: loaded}, on(m1, loaded, loaded, 5), "loaded deactivating stop-sigterm 5", verdict{text: "it to stop (deactivating/stop-sigterm) on 148a18ff.../10.0.0.1", busy: true}},
		{"stopped", want{goal: loaded}, on(m1, loaded, loaded, 5), "loaded inactive dead 5", verdict{kind: done}},
		{"stopped with an error", want{goal: loaded}, on(m1, loaded, loaded, 5), "loaded failed failed 5", verdict{kind: done}},
		{"not loadable", want{goal: loaded}, on(m1, loaded, loaded, 5), "error inactive dead 5", verdict{kind: failed, text: "could not be loaded on 148a18ff.../10.0.0.1 (error)", logs: true, refused: true}},

		{"unloaded but running", want{goal: inactive}, on("", inactive, inactive, 5), "loaded active running 4", verdict{text: "it to stop (active/running) on 148a18ff.../10.0.0.1"}},
		{"not unloaded", want{goal: inactive}, on(m1, inactive, loaded, 5), "loaded inactive dead 5", waitFor("148a18ff.../10.0.0.1 to unload it")},
		{"unloaded", want{goal: inactive}, on("", inactive, inactive, 5), "", verdict{kind: done}},

		{"not destroyed", want{goal: gone, before: 5}, on(m1, launched, launched, 5), "", waitFor("the request to be taken up")},
		{"destroyed but running", want{goal: gone, before: 5}, nil, "loaded active running 5", verdict{text: "it to stop (active/running) on 148a18ff.../10.0.0.1"}},
		{"destroyed", want{goal: gone, before: 5}, nil, "loaded inactive dead 5", verdict{kind: done}},
		{"made anew", want{goal: gone, before: 5}, on("", inactive, inactive, 7), "", verdict{kind: done}},
	} {
		c.want.unit = "a.service"
		got := judge(c.want, scene(c.unit, c.report))
		got.machine = ""
		if got != c.verdict {
			t.Errorf("%s: got %+v, want %+v", c.about, got, c.verdict)
		}
	}
}

// A machine that has tried says why it could not. It may try again, so that counts
// once it has stood for a while.
func TestJudgeHearsTheAgent(t *testing.T) {
	p := scene(on(m1, launched, loaded, 5), "not-found inactive dead 0")
	st := p.states["a.service"][m1]
	st.Message = "refused: PrivateNetwork="
	p.states["a.service"][m1] = st
	want := verdict{kind: failed, tentative: true, machine: m1, text: "could not be launched on 148a18ff.../10.0.0.1 (not-found): refused: PrivateNetwork=", logs: true, refused: true}
	if got := judge(wantOf("a.service"), p); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func wantOf(unit string) want { return want{unit: unit, goal: launched} }

// What a machine that is gone said last holds nobody up.
func TestJudgeForgetsAbsentMachines(t *testing.T) {
	p := scene(nil, "loaded active running 5")
	delete(p.machines, m1)
	if v := judge(want{unit: "a.service", goal: gone, before: 5}, p); v.kind != done {
		t.Errorf("got %+v, want done", v)
	}
}

func TestDue(t *testing.T) {
	for _, c := range []struct {
		about  string
		goal   string
		unit   *api.Unit
		report string
		want   bool
	}{
		{"loaded, to be started", launched, on(m1, loaded, loaded, 1), "loaded inactive dead 1", true},
		{"running", launched, on(m1, launched, launched, 1), "loaded active running 1", false},
		{"starting", launched, on(m1, launched, loaded, 1), "loaded activating start 1", false},
		{"waiting for a machine", launched, on("", launched, inactive, 1), "", false},
		{"failed", launched, on(m1, launched, launched, 1), "loaded failed failed 1", true},
		{"stopped by hand", launched, on(m1, launched, launched, 1), "loaded inactive dead 1", true},
		{"dying again and again", launched, on(m1, launched, launched, 1), "loaded activating auto-restart 1", true},
		{"launched, to be stopped", loaded, on(m1, launched, launched, 1), "loaded active running 1", true},
		{"stopped", loaded, on(m1, loaded, loaded, 1), "loaded inactive dead 1", false},
		{"started by hand, to be stopped", loaded, on(m1, loaded, loaded, 1), "loaded active running 1", true},
		{"unloaded", inactive, on("", inactive, inactive, 1), "", false},
	} {
		p := scene(c.unit, c.report)
		if got := due(c.goal, p.units["a.service"], p.states["a.service"]); got != c.want {
			t.Errorf("%s: got %v", c.about, got)
		}
	}
}
