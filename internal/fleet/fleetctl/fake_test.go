package fleetctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
)

// fakeAPI is a fleet API of a cluster that exists in memory: machines that do what
// a script says (behave) when a unit is started.
type fakeAPI struct {
	mu       sync.Mutex
	classic  bool   // answer as fleet 1.0: no watch, no logs, no generations
	broken   int    // answer everything with this status
	brokenBy string // and these words
	machines map[string]api.Machine
	units    map[string]api.Unit
	states   map[[2]string]api.UnitState
	behave   map[string][]string
	logs     map[string][]string // by unit
	watchers map[chan api.Change]bool
	gen      int64
	sent     []string // requests that change something
	asked    int      // requests of any kind
	watched  []string // units that watches were asked for, or all
	rolls    map[string]api.Roll
	rollEnds *api.Roll // how every roll ends; nil: well
	versions map[string][]api.Version
	answers  map[string]string // by method and path
	cut      chan struct{}     // closed: the watches there are break
	done     chan struct{}
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{
		machines: map[string]api.Machine{},
		units:    map[string]api.Unit{},
		states:   map[[2]string]api.UnitState{},
		behave:   map[string][]string{},
		logs:     map[string][]string{},
		rolls:    map[string]api.Roll{},
		versions: map[string][]api.Version{},
		answers:  map[string]string{},
		watchers: map[chan api.Change]bool{},
		cut:      make(chan struct{}),
		done:     make(chan struct{}),
	}
}

func (f *fakeAPI) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.Prefix+"/machines", f.getMachines)
	mux.HandleFunc("GET "+api.Prefix+"/units", f.getUnits)
	mux.HandleFunc("GET "+api.Prefix+"/state", f.getStates)
	mux.HandleFunc("GET "+api.Prefix+"/units/{name}", f.getUnit)
	mux.HandleFunc("PUT "+api.Prefix+"/units/{name}", f.putUnit)
	mux.HandleFunc("DELETE "+api.Prefix+"/units/{name}", f.deleteUnit)
	mux.HandleFunc("GET "+api.Prefix+"/watch", f.watch)
	mux.HandleFunc("GET "+api.Prefix+"/units/{name}/journal", f.journal)
	mux.HandleFunc("GET "+api.Prefix+"/units/{name}/status", f.status)
	f.more(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked++
		code, words := f.broken, f.brokenBy
		own := strings.HasSuffix(r.URL.Path, "/watch") || strings.HasSuffix(r.URL.Path, "/journal") || strings.HasSuffix(r.URL.Path, "/status")
		if f.classic && own {
			code = http.StatusNotFound
		}
		if r.Method == http.MethodGet && r.URL.Path == api.Prefix+"/store" {
			code = 0 // needs no store that works
		}
		f.mu.Unlock()
		if code != 0 {
			fail(w, code, words)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func fail(w http.ResponseWriter, code int, words string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.ErrorBody{Error: api.Error{Code: code, Message: words}})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (f *fakeAPI) getMachines(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer(w, api.MachinePage{Machines: f.sortedMachines()})
}

func (f *fakeAPI) sortedMachines() []api.Machine {
	var all []api.Machine
	for _, id := range slices.Sorted(maps.Keys(f.machines)) {
		all = append(all, f.machines[id])
	}
	return all
}

// getUnits gives two units a page, so that every listing needs several.
func (f *fakeAPI) getUnits(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("nextPageToken"), &from)
	names := slices.Sorted(maps.Keys(f.units))
	var page api.UnitPage
	for _, n := range names[min(from, len(names)):min(from+2, len(names))] {
		page.Units = append(page.Units, f.tell(f.units[n]))
	}
	if from+2 < len(names) {
		page.NextPageToken = fmt.Sprint(from + 2)
	}
	answer(w, page)
}

// tell leaves out what fleet 1.0 did not know.
func (f *fakeAPI) tell(u api.Unit) api.Unit {
	if f.classic {
		u.Generation, u.Reason = 0, ""
	}
	return u
}

func (f *fakeAPI) tellState(st api.UnitState) api.UnitState {
	if f.classic {
		st.Generation, st.Message = 0, ""
	}
	return st
}

func (f *fakeAPI) getStates(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	var page api.UnitStatePage
	for _, k := range f.stateKeys() {
		if (q.Get("unitName") == "" || q.Get("unitName") == k[0]) && (q.Get("machineID") == "" || q.Get("machineID") == k[1]) {
			page.States = append(page.States, f.tellState(f.states[k]))
		}
	}
	answer(w, page)
}

func (f *fakeAPI) stateKeys() [][2]string {
	return slices.SortedFunc(maps.Keys(f.states), func(a, b [2]string) int {
		return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1])
	})
}

func (f *fakeAPI) getUnit(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, ok := f.units[r.PathValue("name")]
	if !ok {
		fail(w, http.StatusNotFound, "unit does not exist")
		return
	}
	answer(w, f.tell(u))
}

func (f *fakeAPI) putUnit(w http.ResponseWriter, r *http.Request) {
	var body api.Unit
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, "unable to decode body: "+err.Error())
		return
	}
	name := r.PathValue("name")
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := "PUT " + name + " " + body.DesiredState
	if body.Restart {
		sent += " restart"
	}
	f.sent = append(f.sent, sent)
	u, known := f.units[name]
	switch {
	case strings.Contains(bundleOf(body).String(), "refuse me"):
		fail(w, http.StatusBadRequest, "it is refused")
		return
	case !known && len(body.Options) == 0:
		fail(w, http.StatusConflict, "unit does not exist and options field empty")
		return
	case len(body.Options) > 0:
		if c := (api.UnitChange{Name: name, ToHash: bundleOf(body).Hash()}); known && c.ToHash != bundleOf(u).Hash() {
			f.rollOver([]string{name}, c)
		}
		u.Name, u.Options, u.DropIns = name, body.Options, body.DropIns
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
	f.gen++
	u.Generation, u.DesiredState = f.gen, body.DesiredState
	if u.CurrentState == "" && !isGlobalUnit(u) {
		u.CurrentState = inactive
	}
	if len(body.Options) > 0 {
		f.note(u, "submit")
	}
	f.setUnit(u)
	if f.rollEnds == nil || len(body.Options) == 0 {
		go f.agent(name, f.gen)
	}
}

func (f *fakeAPI) deleteUnit(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, "DELETE "+name)
	u, known := f.units[name]
	if !known {
		fail(w, http.StatusNotFound, "unit does not exist")
		return
	}
	delete(f.units, name)
	f.broadcast(api.Change{Deleted: true, Unit: &api.Unit{Name: name}})
	w.WriteHeader(http.StatusNoContent)
	go f.stopEverywhere(u.Name)
}

// setUnit, setState and dropState change what the cluster holds and tell it.
func (f *fakeAPI) setUnit(u api.Unit) {
	f.units[u.Name] = u
	u = f.tell(u)
	u.Options, u.DropIns = nil, nil
	f.broadcast(api.Change{Unit: &u})
}

func (f *fakeAPI) setState(st api.UnitState) {
	f.states[[2]string{st.Name, st.MachineID}] = st
	st = f.tellState(st)
	f.broadcast(api.Change{State: &st})
}

func (f *fakeAPI) dropState(key [2]string) {
	st := f.states[key]
	delete(f.states, key)
	f.broadcast(api.Change{Deleted: true, State: &st})
}

func (f *fakeAPI) broadcast(c api.Change) {
	for w := range f.watchers {
		w <- c
	}
}

// agent does what the machines do about a unit that was asked for.
func (f *fakeAPI) agent(name string, gen int64) {
	f.mu.Lock()
	u, ok := f.units[name]
	steps := f.behave[name]
	global := isGlobalUnit(u)
	ids := slices.Sorted(maps.Keys(f.machines))
	f.mu.Unlock()
	if !ok || u.DesiredState == inactive && u.MachineID == "" || strings.HasSuffix(strings.Split(name, ".")[0], "@") {
		return
	}
	if u.DesiredState == inactive {
		f.stopEverywhere(name)
		f.update(name, gen, func(u *api.Unit) { u.MachineID, u.CurrentState = "", inactive })
		return
	}
	if len(steps) > 0 && steps[0] == "unplaced" {
		f.update(name, gen, func(u *api.Unit) { u.Reason = strings.Join(steps[1:], " ") })
		return
	}
	if !global {
		ids = ids[:1]
		f.update(name, gen, func(u *api.Unit) { u.MachineID, u.CurrentState = ids[0], loaded })
	}
	for _, id := range ids {
		f.carryOut(u, id, gen, steps)
	}
	if !global {
		f.update(name, gen, func(u *api.Unit) { u.CurrentState = u.DesiredState })
	}
}

func (f *fakeAPI) update(name string, gen int64, change func(*api.Unit)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, ok := f.units[name]
	if ok && u.Generation == gen {
		change(&u)
		f.setUnit(u)
	}
}

// carryOut goes through the steps of a start: "ACTIVE/SUB", "ACTIVE/SUB/LOAD", a
// duration to wait for, "message=TEXT", "carried-out" (the job has ended: by rule at
// the last step); or it stops the unit.
func (f *fakeAPI) carryOut(u api.Unit, machine string, gen int64, steps []string) {
	st := api.UnitState{Name: u.Name, MachineID: machine, Hash: bundleOf(u).Hash(), SystemdLoadState: loaded, Generation: gen - 1}
	if u.DesiredState == loaded {
		st.SystemdActiveState, st.SystemdSubState, st.Generation = "inactive", "dead", gen
		f.locked(func() { f.setState(st) })
		return
	}
	if len(steps) == 0 {
		steps = []string{"active/running"}
	}
	for i, step := range steps {
		if d, err := time.ParseDuration(step); err == nil {
			select {
			case <-time.After(d):
			case <-f.done:
				return
			}
			continue
		}
		if step == "carried-out" {
			st.Generation = gen
			continue
		}
		if text, ok := strings.CutPrefix(step, "message="); ok {
			st.Message = text
			continue
		}
		words := append(strings.Split(step, "/"), loaded)
		st.SystemdActiveState, st.SystemdSubState, st.SystemdLoadState = words[0], words[1], words[2]
		if i == len(steps)-1 {
			st.Generation = gen
		}
		f.locked(func() { f.setState(st) })
	}
}

func (f *fakeAPI) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// stopEverywhere stops a unit on all machines and forgets it there.
func (f *fakeAPI) stopEverywhere(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.stateKeys() {
		if k[0] != name {
			continue
		}
		st := f.states[k]
		if !atRest(st) {
			st.SystemdActiveState, st.SystemdSubState = "deactivating", "stop-sigterm"
			f.setState(st)
		}
		f.dropState(k)
	}
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	ch := make(chan api.Change, 10000)
	only := r.URL.Query()["unit"]
	f.mu.Lock()
	f.watched = append(f.watched, cmp.Or(strings.Join(only, " "), "all"))
	for _, name := range slices.Sorted(maps.Keys(f.units)) {
		if len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		u := f.units[name]
		u.Options, u.DropIns = nil, nil
		ch <- api.Change{Unit: &u}
	}
	for _, k := range f.stateKeys() {
		st := f.states[k]
		if len(only) > 0 && !slices.Contains(only, st.Name) {
			continue
		}
		ch <- api.Change{State: &st}
	}
	for _, m := range f.sortedMachines() {
		ch <- api.Change{Machine: &m}
	}
	for _, g := range slices.Sorted(maps.Keys(f.rolls)) {
		r := f.rolls[g]
		ch <- api.Change{Roll: &r}
	}
	ch <- api.Change{Synced: true}
	f.watchers[ch] = true
	cut := f.cut
	f.mu.Unlock()
	defer f.locked(func() { delete(f.watchers, ch) })
	for {
		select {
		case c := <-ch:
			answer(w, c)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		case <-cut:
			return
		case <-f.done:
			return
		}
	}
}

// logTime is when everything in the fake logs was written.
var logTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (f *fakeAPI) journal(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	f.mu.Lock()
	machine := r.URL.Query().Get("machine")
	if machine == "" {
		machine = f.units[name].MachineID
	}
	lines := f.logs[name]
	f.mu.Unlock()
	n := len(lines)
	_, _ = fmt.Sscan(r.URL.Query().Get("lines"), &n)
	for i, text := range lines[max(0, len(lines)-n):] {
		answer(w, fleet.LogEntry{Time: logTime.Add(time.Duration(i) * time.Second), Machine: "host-" + machine[:2],
			Unit: name, Ident: "sh", PID: 42, Priority: 6, Message: text})
	}
}

func (f *fakeAPI) status(w http.ResponseWriter, r *http.Request) {
	name, machine := r.PathValue("name"), r.URL.Query().Get("machine")
	f.mu.Lock()
	st := f.states[[2]string{name, machine}]
	f.mu.Unlock()
	w.Header().Set("Trailer", fleet.ExitCodeHeader)
	fmt.Fprintf(w, "● %s - Hello\n     Active: %s (%s)\n", name, st.SystemdActiveState, st.SystemdSubState)
	code := "3"
	if st.SystemdActiveState == "active" {
		code = "0"
	}
	w.Header().Set(fleet.ExitCodeHeader, code)
}
