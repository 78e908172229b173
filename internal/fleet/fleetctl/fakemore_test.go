package fleetctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	api "flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// more are the resources that fleet 1.0 did not have. Those whose answers a script
// gives ("answers") are not judged here.
func (f *fakeAPI) more(mux *http.ServeMux) {
	mux.HandleFunc("POST "+api.Prefix+"/apply", f.apply)
	mux.HandleFunc("GET "+api.Prefix+"/rolls", f.getRolls)
	mux.HandleFunc("POST "+api.Prefix+"/rolls/{group}", f.askRoll)
	mux.HandleFunc("GET "+api.Prefix+"/units/{name}/history", f.history)
	mux.HandleFunc("POST "+api.Prefix+"/units/{name}/rollback", f.rollback)
	mux.HandleFunc("PUT "+api.Prefix+"/machines/{id}/cordon", f.cordon)
	mux.HandleFunc("DELETE "+api.Prefix+"/machines/{id}/cordon", f.cordon)
	mux.HandleFunc("/", f.canned)
}

func (f *fakeAPI) apply(w http.ResponseWriter, r *http.Request) {
	var body api.ApplyRequest
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		fail(w, http.StatusBadRequest, "unable to decode body")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.classic {
		fail(w, http.StatusNotFound, "")
		return
	}
	var report api.ApplyReport
	var todo []func()
	for _, u := range body.Units {
		if strings.Contains(bundleOf(u).String(), "refuse me") {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, api.ErrorBody{Error: api.Error{Code: 400, Message: "1 problem", Problems: []api.Problem{{Unit: u.Name, Message: "it is refused"}}}})
			return
		}
		if _, exists := f.units[u.Name]; body.New && exists {
			fail(w, http.StatusConflict, "unit exists")
			return
		}
		c, do := f.change(u, body.Follow)
		report.Changes, todo = append(report.Changes, c), append(todo, do)
	}
	if !body.DryRun {
		f.sent = append(f.sent, "POST apply")
		for _, do := range todo {
			do()
		}
	}
	answer(w, report)
}

// change says what becomes of a unit and returns what does it.
func (f *fakeAPI) change(u api.Unit, follow bool) (api.UnitChange, func()) {
	old, exists := f.units[u.Name]
	want := cmp.Or(u.DesiredState, old.DesiredState, inactive)
	c := api.UnitChange{Name: u.Name, DesiredState: want, FromHash: bundleOf(old).Hash(), ToHash: bundleOf(u).Hash(), Action: api.ActionUnchanged}
	switch {
	case !exists:
		c.Action, c.FromHash = api.ActionCreate, ""
	case c.FromHash != c.ToHash:
		c.Action = api.ActionChange
	case want != old.DesiredState && want == launched:
		c.Action = api.ActionStart
	case want != old.DesiredState:
		c.Action = api.ActionStop
	}
	if of := u.Name; follow && c.Action == api.ActionChange && unitfile.IsTemplate(of) {
		for _, name := range slices.Sorted(maps.Keys(f.units)) {
			if t, _ := unitfile.TemplateOf(name); t == of && bundleOf(f.units[name]).Hash() == c.FromHash {
				c.Instances = append(c.Instances, name)
			}
		}
	}
	return c, func() {
		if c.Action == api.ActionUnchanged {
			return
		}
		names := append([]string{u.Name}, c.Instances...)
		if c.Action == api.ActionChange {
			f.rollOver(names, c)
		}
		for _, name := range names {
			n := f.units[name]
			n.Name, n.Options, n.DropIns = name, u.Options, u.DropIns
			if name == u.Name && want != n.DesiredState {
				f.gen++
				n.DesiredState, n.Generation = want, f.gen
			}
			if n.CurrentState == "" && !isGlobalUnit(n) {
				n.CurrentState = inactive
			}
			f.note(n, "apply")
			f.setUnit(n)
			if f.rollEnds == nil && n.DesiredState != inactive {
				go f.agent(name, n.Generation)
			}
		}
	}
}

// rollOver tells of a roll over those of the units that run, and of its end, if that
// is known beforehand (see "rolls-end").
func (f *fakeAPI) rollOver(names []string, c api.UnitChange) {
	r := api.Roll{Group: model.GroupOf(names[len(names)-1]), State: "rolling", To: map[string]string{}, Started: time.Now()}
	for _, n := range names {
		if f.units[n].DesiredState == launched {
			r.To[n] = c.ToHash
			r.Total++
		}
	}
	if r.Total == 0 {
		return
	}
	f.setRoll(r)
	if end := f.rollEnds; end != nil {
		r.State, r.Failed, r.Machine, r.Why, r.Log = end.State, end.Failed, end.Machine, end.Why, end.Log
		f.setRoll(r)
		return
	}
	delete(f.rolls, r.Group) // it is over before anybody has looked
	f.broadcast(api.Change{Deleted: true, Roll: &r})
}

func (f *fakeAPI) setRoll(r api.Roll) {
	f.rolls[r.Group] = r
	f.broadcast(api.Change{Roll: &r})
}

// note adds a version to a unit's history.
func (f *fakeAPI) note(u api.Unit, why string) {
	b := bundleOf(u)
	f.versions[u.Name] = append(f.versions[u.Name], api.Version{
		Seq: len(f.versions[u.Name]) + 1, At: logTime, By: "root", Hash: b.Hash(), Text: b.String(), Why: why})
}

func (f *fakeAPI) getRolls(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out api.RollList
	for _, g := range slices.Sorted(maps.Keys(f.rolls)) {
		out.Rolls = append(out.Rolls, f.rolls[g])
	}
	answer(w, out)
}

func (f *fakeAPI) askRoll(w http.ResponseWriter, r *http.Request) {
	var body api.RollAction
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	defer f.mu.Unlock()
	roll, ok := f.rolls[r.PathValue("group")]
	if !ok {
		fail(w, http.StatusNotFound, "there was no roll of "+r.PathValue("group"))
		return
	}
	f.sent = append(f.sent, "POST rolls "+roll.Group+" "+body.Action)
	roll.State = map[string]string{"pause": "paused", "resume": "rolling", "revert": "reverted"}[body.Action]
	f.setRoll(roll)
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeAPI) history(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Clone(f.versions[r.PathValue("name")])
	slices.Reverse(all)
	if len(all) == 0 {
		fail(w, http.StatusNotFound, "unit does not exist")
		return
	}
	all[0].Present = true
	answer(w, api.VersionList{Versions: all})
}

func (f *fakeAPI) rollback(w http.ResponseWriter, r *http.Request) {
	var body api.RollbackRequest
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	defer f.mu.Unlock()
	name := r.PathValue("name")
	b, _ := unitfile.ParseBundle(f.versions[name][body.Seq-1].Text)
	c, do := f.change(*putOf(name, "", b), body.Follow)
	f.sent = append(f.sent, fmt.Sprintf("POST rollback %s %d", name, body.Seq))
	do()
	answer(w, api.ApplyReport{Changes: []api.UnitChange{c}})
}

func (f *fakeAPI) cordon(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.machines[r.PathValue("id")]
	if !ok {
		fail(w, http.StatusNotFound, "no such machine")
		return
	}
	m.Cordon = nil
	if r.Method == http.MethodPut {
		m.Cordon = &api.Cordon{}
		_ = json.NewDecoder(r.Body).Decode(m.Cordon)
		m.Cordon.By = "root"
	}
	f.sent = append(f.sent, r.Method+" cordon "+m.ID[:4])
	f.machines[m.ID] = m
	f.broadcast(api.Change{Machine: &m})
	if m.Cordon != nil && m.Cordon.Drain {
		go f.drain(m.ID)
	}
	w.WriteHeader(http.StatusNoContent)
}

// drain moves what can be moved to the last machine, one after the other.
func (f *fakeAPI) drain(id string) {
	f.mu.Lock()
	ids := slices.Sorted(maps.Keys(f.machines))
	names := slices.Sorted(maps.Keys(f.units))
	f.mu.Unlock()
	for _, name := range names {
		f.locked(func() {
			u := f.units[name]
			if u.MachineID != id || strings.Contains(bundleOf(u).String(), "MachineID=") {
				return
			}
			st := f.states[[2]string{name, id}]
			st.MachineID, u.MachineID = ids[len(ids)-1], ids[len(ids)-1]
			f.setState(st)
			f.setUnit(u)
			f.dropState([2]string{name, id})
		})
	}
}

// canned answers what a script has said is the answer.
func (f *fakeAPI) canned(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, api.Prefix)
	text, ok := f.answers[r.Method+" "+path]
	if !ok || f.classic {
		http.NotFound(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	sent := r.Method + " " + path
	if q := r.URL.Query().Encode(); q != "" {
		sent += "?" + q
	}
	if len(body) > 0 {
		sent += " " + string(body)
	}
	if r.Method != http.MethodGet || r.URL.RawQuery != "" {
		f.sent = append(f.sent, sent)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, text)
}

func cmdAnswers(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	text := ts.ReadFile(args[1])
	f.locked(func() { f.answers[args[0]] = text })
}

func cmdRollsEnd(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	f.locked(func() {
		if f.rollEnds = nil; args[0] != "well" {
			f.rollEnds = new(api.Roll)
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), f.rollEnds))
		}
	})
}

func cmdRoll(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	var r api.Roll
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	f.locked(func() { f.setRoll(r) })
}

func cmdDescribe(ts *testscript.TestScript, _ bool, args []string) {
	f := fake(ts)
	f.locked(func() {
		m := f.machines[args[0]]
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &m))
		f.machines[m.ID] = m
		f.broadcast(api.Change{Machine: &m})
	})
}
