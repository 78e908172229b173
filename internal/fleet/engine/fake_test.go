package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
)

// fake is a store in memory. Its keys and values are those of the real one.
type fake struct {
	mu        sync.Mutex
	rev       int64
	values    map[string]string
	revs      map[string]int64
	followers map[chan written]bool
	events    []model.Event
	trimmed   int
	applied   []string // units that the engine wrote, with its reason
	away      error    // what events and rolls are answered
	tooLarge  string   // the group whose roll is not written
	refuses   error    // what units that the engine writes are answered
}

// written is one transaction.
type written struct {
	values map[string]string
	gone   []string
	rev    int64
}

func newFake() *fake {
	return &fake{values: map[string]string{"mark": "x"}, revs: map[string]int64{}, followers: map[chan written]bool{}}
}

// write does one transaction; an empty value deletes.
func (f *fake) write(values map[string]string) int64 {
	f.rev++
	w := written{values: map[string]string{}, rev: f.rev}
	for path, value := range values {
		if value == "" {
			delete(f.values, path)
			delete(f.revs, path)
			w.gone = append(w.gone, path)
			continue
		}
		f.values[path], f.revs[path], w.values[path] = value, f.rev, value
	}
	for c := range f.followers {
		c <- w
	}
	return f.rev
}

// changed reports whether a value is not the one that was there at a revision: a view
// that was loaded as a whole knows a later one than the value's own.
func (f *fake) changed(path string, rev int64) bool {
	return f.revs[path] > rev || (f.revs[path] == 0) != (rev == 0)
}

// put writes one value for the test.
func (f *fake) put(path, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write(map[string]string{path: value})
}

func (f *fake) get(path string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values[path]
}

// counts is the store's revision and how many events were written.
func (f *fake) counts() (rev int64, events int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rev, len(f.events)
}

func (f *fake) NewView() *registry.View { return registry.NewView("/f/") }

func (f *fake) Follow(ctx context.Context, _ string, v *registry.View, changed func([]registry.Change, bool)) {
	c := make(chan written, 10_000)
	f.mu.Lock()
	f.followers[c] = true
	values, rev := maps.Clone(f.values), f.rev
	f.mu.Unlock()
	changed(v.Load(values, rev), true)
	for {
		select {
		case <-ctx.Done():
			f.mu.Lock()
			delete(f.followers, c)
			f.mu.Unlock()
			return
		case w := <-c:
			changed(v.Update(w.values, w.gone, w.rev), false)
		}
	}
}

func (f *fake) Hold(ctx context.Context, _ time.Duration, _ bool, run func(context.Context, registry.Lease)) {
	run(ctx, registry.Lease{})
}

func (f *fake) AwaitVacancy(ctx context.Context, _ registry.Candidate, _ bool) error {
	return ctx.Err()
}

func (f *fake) Campaign(context.Context, registry.Lease, registry.Candidate) (registry.Leadership, error) {
	return registry.Leadership{}, nil
}

func (f *fake) WriteSchedule(_ context.Context, _ registry.Leadership, ds []sched.Decision, written func([]sched.Decision)) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	values := map[string]string{}
	for _, d := range ds {
		path := "schedule/" + d.Entry.Machine + "/" + d.Entry.Unit
		if f.changed(path, d.Entry.Rev) {
			return f.rev, registry.ErrStale
		}
		values[path] = ""
		if d.Op != sched.Release {
			values[path] = toJSON(map[string]any{
				"hash": d.Entry.Hash, "text": d.Entry.Text, "desired": d.Entry.Desired, "gen": d.Entry.Gen,
				"leaving": d.Entry.Leaving, "watched": d.Entry.Watched,
			})
		}
	}
	if len(values) == 0 {
		return 0, nil
	}
	written(ds)
	return f.write(values), nil
}

func (f *fake) WriteNotes(_ context.Context, _ registry.Leadership, n registry.Notes) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.Hold == nil {
		return 0, nil
	}
	return f.write(map[string]string{"engine/hold": *n.Hold}), nil
}

func (f *fake) WriteRolls(_ context.Context, _ registry.Leadership, put []model.Roll, remove []string) (int64, map[string]error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil && len(put) > 0 {
		return 0, nil, f.away
	}
	values, unwritten := map[string]string{}, map[string]error{}
	for _, r := range put {
		if f.tooLarge == r.Group {
			unwritten[r.Group] = errors.New("its record is too large")
			continue
		}
		if f.changed("roll/"+r.Group, r.Rev) {
			return 0, nil, registry.ErrStale
		}
		var changes []map[string]any
		for unit, to := range r.To {
			changes = append(changes, map[string]any{"from": r.From[unit], "to": to, "units": []string{model.InstanceIn(r.Group, unit)}})
		}
		values["roll/"+r.Group] = toJSON(map[string]any{
			"state": r.State, "changes": changes, "texts": r.Texts, "since": r.Since, "started": r.Started,
			"ended": r.Ended, "by": r.By, "why": r.Why, "failed": r.Failed, "machine": r.Machine, "log": r.Log,
		})
	}
	for _, group := range remove {
		values["roll/"+group] = ""
	}
	if len(values) == 0 {
		return 0, unwritten, nil
	}
	return f.write(values), unwritten, nil
}

func (f *fake) DeleteAsks(_ context.Context, _ registry.Leadership, ids []string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(ids) == 0 {
		return 0, nil
	}
	values := map[string]string{}
	for _, id := range ids {
		values["ask/"+id] = ""
	}
	return f.write(values), nil
}

func (f *fake) ForgetUnits(_ context.Context, _ registry.Leadership, units []string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(units) == 0 {
		return 0, nil
	}
	values := map[string]string{}
	for _, name := range units {
		values["destroyed/"+name] = ""
	}
	return f.write(values), nil
}

func (f *fake) Apply(_ context.Context, ws []registry.UnitWrite, _, why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	values := map[string]string{}
	if f.refuses != nil {
		return f.refuses
	}
	for _, w := range ws {
		if f.changed("job/"+w.Name+"/object", w.Rev) {
			return registry.ErrStale
		}
		values["job/"+w.Name+"/object"] = toJSON(map[string]string{"Raw": w.Text.Canonical})
		f.applied = append(f.applied, w.Name+": "+why)
	}
	f.write(values)
	return nil
}

func (f *fake) ReadHistory(_ context.Context, unit string) ([]model.Version, error) {
	return []model.Version{{Unit: unit, By: "ann"}}, nil
}

func (f *fake) WriteEvents(_ context.Context, es []model.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, es...)
	return nil
}

func (f *fake) TrimEvents(context.Context, registry.Leadership, int, time.Time) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trimmed++
	return 0, nil
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// stage is an engine on a fake store, with machines that do as they are told.
type stage struct {
	*fake
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
}

func newStage(t *testing.T) *stage { return &stage{fake: newFake(), t: t} }

// engine starts an engine; the one before has to be stopped.
func (s *stage) engine() {
	ctx, cancel := context.WithCancel(s.t.Context())
	e := New(Config{Candidate: registry.Candidate{Machine: "e"}}, s.fake, slog.New(slog.DiscardHandler))
	s.stop, s.done = cancel, make(chan struct{})
	go func() { defer close(s.done); e.Run(ctx) }()
	synctest.Wait()
}

func (s *stage) quit() {
	s.stop()
	<-s.done
}

func (s *stage) machines(ids ...string) {
	for _, id := range ids {
		s.put("machines/"+id+"/object", `{"Version":"1"}`)
	}
}

func (s *stage) lose(ids ...string) {
	for _, id := range ids {
		s.put("machines/"+id+"/object", "")
	}
}

func textOf(version string) string { return "[Service]\nExecStart=/bin/web " + version + "\n" }

// unit writes a unit's text, and that it is to run if it is new.
func (s *stage) unit(name, version string) {
	s.put("job/"+name+"/object", toJSON(map[string]string{"Raw": textOf(version)}))
	if s.get("job/"+name+"/target-state") == "" {
		s.put("job/"+name+"/target-state", "launched")
	}
	synctest.Wait()
}

// report lets all machines say how their units are: a text of which part is in it is
// bad. What is watched is judged.
func (s *stage) report(bad string) {
	for path, value := range s.schedule() {
		var p struct {
			Hash, Text string
			Gen        int64
			Watched    bool
		}
		if err := json.Unmarshal([]byte(value), &p); err != nil {
			s.t.Fatal(err)
		}
		st := map[string]any{"loadState": "loaded", "activeState": "active", "unitHash": p.Hash, "gen": p.Gen, "health": ""}
		if p.Watched {
			st["health"] = "good"
		}
		if bad != "" && strings.Contains(p.Text, bad) {
			st["activeState"], st["health"], st["healthWhy"], st["log"] = "failed", "bad", "exited", "no such file\n"
		}
		machine, unit, _ := strings.Cut(strings.TrimPrefix(path, "schedule/"), "/")
		if s.get("machines/"+machine+"/object") != "" {
			s.put("states/"+machine+"/"+unit, toJSON(st))
		}
	}
	synctest.Wait()
}

// schedule is all entries.
func (s *stage) schedule() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.values)
	maps.DeleteFunc(out, func(path, _ string) bool { return !strings.HasPrefix(path, "schedule/") })
	return out
}

// is checks which version each entry has: "a/web@1.service v1".
func (s *stage) is(want ...string) {
	s.t.Helper()
	got := map[string]bool{}
	for path, value := range s.schedule() {
		var p struct{ Text string }
		if err := json.Unmarshal([]byte(value), &p); err != nil {
			s.t.Fatal(err)
		}
		_, v, _ := strings.Cut(p.Text, "/bin/web ")
		got[strings.TrimPrefix(path, "schedule/")+" "+strings.TrimSpace(v)] = true
	}
	wanted := map[string]bool{}
	for _, w := range want {
		wanted[w] = true
	}
	if !maps.Equal(got, wanted) {
		s.t.Errorf("the schedule is %v, want %v", got, wanted)
	}
}

// said checks that an event was written, by the beginning of "UNIT MACHINE: WHAT # WHY".
func (s *stage) said(want string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		line := fmt.Sprintf("%s %s: %s # %s", e.Unit, e.Machine, e.What, e.Why)
		if strings.HasPrefix(line, want) {
			return
		}
		all = append(all, line)
	}
	s.t.Errorf("nothing was said like %q, but\n%s", want, strings.Join(all, "\n"))
}
