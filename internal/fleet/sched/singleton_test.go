package sched

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"flotilla/internal/fleet/model"
)

const leaseTTL = 10 // seconds

// agent is a machine as far as it matters to singletons: it learns of its schedule,
// acts on it and tells of it in steps between which anything can happen.
type agent struct {
	id       string
	cut      bool // it cannot reach the store
	lastWord int  // when it sent the last renewal that was answered
	schedule map[string]model.Placement
	runs     map[string]string        // what runs, and its text
	fences   map[string]time.Duration // by which move time it is stopped, if it is a singleton
	done     map[string]model.Placement
}

// sim is a cluster of agents. Its world is the store.
type sim struct {
	*world
	*told
	t      *rapid.T
	second int
	agents []*agent
	log    []string
}

func newSim(t *rapid.T, machines int) *sim {
	s := &sim{world: newWorld(), told: newTold(), t: t}
	for i := range machines {
		a := &agent{id: fmt.Sprintf("m%d", i)}
		a.boot()
		s.agents = append(s.agents, a)
		s.register(a)
	}
	return s
}

func (a *agent) boot() {
	a.schedule, a.runs, a.done = map[string]model.Placement{}, map[string]string{}, map[string]model.Placement{}
	a.fences = map[string]time.Duration{}
}

func (s *sim) do(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.log = append(s.log, line)
	if err := s.command(line); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) register(a *agent) {
	s.do("machine %s role=%s", a.id, rapid.SampledFrom([]string{"x", "y"}).Draw(s.t, "role"))
	a.lastWord = s.second
}

// decide lets the engine have a look, and writes what it decides.
func (s *sim) decide() {
	s.told.tell(s.world)
	r := s.told.Decide(s.snapshot().Moment())
	s.carryOut(r.Decisions)
	for _, d := range r.Decisions {
		s.log = append(s.log, fmt.Sprintf("> %s %s %s %v # %s", d.Op, d.Entry.Machine, d.Entry.Unit, d.Entry.Desired, d.Why))
	}
}

// second passes: leases are renewed or end, and those who are cut off stop what they
// must.
func (s *sim) tick() {
	s.second++
	s.do("at %d", s.second)
	for _, a := range s.agents {
		_, present := s.world.machines[a.id]
		switch {
		case !a.cut && !present:
			s.register(a)
		case !a.cut:
			a.lastWord = s.second
		case present && s.second >= a.lastWord+leaseTTL:
			s.do("lose %s", a.id)
		}
		if a.cut {
			s.fence(a)
		}
	}
}

func (s *sim) fence(a *agent) {
	for name := range a.runs {
		after, single := a.fences[name]
		_, kill, fenced := model.Fence(leaseTTL*time.Second, after)
		if single && fenced && s.second >= a.lastWord+int(kill/time.Second) {
			s.log = append(s.log, "fence "+a.id+" "+name)
			delete(a.runs, name)
		}
	}
}

// learn has a read its schedule.
func (s *sim) learn(a *agent) {
	if a.cut {
		return
	}
	clear(a.schedule)
	for key, p := range s.world.placements {
		if key.machine != a.id {
			continue
		}
		a.schedule[key.unit] = p
		delete(a.fences, key.unit)
		if model.NewUnit(p.Unit, p.Text, p.Desired, p.Gen).Req.Singleton {
			a.fences[key.unit] = p.MoveAfter
		}
	}
}

// act has a do one thing that its schedule asks for.
func (s *sim) act(a *agent) {
	names := slices.Sorted(maps.Keys(a.schedule))
	for name := range a.runs {
		if _, ok := a.schedule[name]; !ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	name := rapid.SampledFrom(names).Draw(s.t, "unit")
	p, wanted := a.schedule[name]
	done := a.done[name]
	switch {
	case !wanted:
		delete(a.runs, name)
		delete(a.done, name)
	case p.Leaving:
		return
	case p.Desired == model.Loaded && (done.Desired != model.Loaded || done.Gen < p.Gen):
		delete(a.runs, name)
		a.done[name] = p
	case p.Desired == model.Launched && (done.Desired != model.Launched || done.Gen < p.Gen):
		a.runs[name] = p.Text
		a.done[name] = p
	default:
		return
	}
	s.log = append(s.log, fmt.Sprintf("%s acts on %s: %v %v", a.id, name, wanted, p.Desired))
	s.check()
}

// publish has a say what it knows.
func (s *sim) publish(a *agent) {
	if _, present := s.world.machines[a.id]; a.cut || !present {
		return
	}
	maps.DeleteFunc(s.world.states, func(k place, _ model.UnitState) bool { return k.machine == a.id })
	for name, p := range a.done {
		st := model.UnitState{Unit: name, Machine: a.id, Hash: p.Hash, Gen: p.Gen, Load: "loaded", Active: "inactive"}
		if _, ok := a.runs[name]; ok {
			st.Active = "active"
		}
		if entry := a.schedule[name]; entry.WaitFor != 0 {
			st.Heard = entry.Rev
		}
		s.world.states[place{name, a.id}] = st
	}
}

func (s *sim) check() {
	where := map[string]string{}
	for _, a := range s.agents {
		for name := range a.runs {
			if other := where[name]; other != "" && name[0] == 's' {
				s.t.Fatalf("%s runs on %s and %s:\n%q", name, other, a.id, s.log)
			}
			where[name] = a.id
		}
	}
}

// change has somebody ask for something.
func (s *sim) change() {
	name := rapid.SampledFrom([]string{"s@1.service", "s@2.service", "s@3.service", "w@1.service"}).Draw(s.t, "name")
	switch rapid.IntRange(0, 5).Draw(s.t, "change") {
	case 0, 1:
		options := map[string]string{"s@1.service": "Singleton=true" + rapid.SampledFrom([]string{"", "", " MoveAfter=5s", " MoveAfter=30s", " MoveAfter=never"}).Draw(s.t, "after"), "s@2.service": "Singleton=true MoveAfter=1s",
			"s@3.service": "Singleton=true MoveAfter=never", "w@1.service": "Memory=1G"}[name]
		more := rapid.SampledFrom([]string{"", "", " MachineMetadata=role=x", " MachineMetadata=role=y", " load",
			" MachineOf=w@1.service", " Conflicts=w@*", " Replaces=w@*"}).Draw(s.t, "more")
		s.do("unit %s %s%s", name, options, more)
	case 2:
		s.do("destroy %s", name)
	case 3:
		s.do("%s %s", rapid.SampledFrom([]string{"start", "load", "unload"}).Draw(s.t, "verb"), name)
	default:
		a := rapid.SampledFrom(s.agents).Draw(s.t, "machine")
		if _, present := s.world.machines[a.id]; present {
			s.do("machine %s role=%s%s", a.id, rapid.SampledFrom([]string{"x", "y"}).Draw(s.t, "role"),
				rapid.SampledFrom([]string{"", "", " drain"}).Draw(s.t, "drain"))
		}
	}
}

// Whatever happens, in whatever order it is noticed, a singleton runs on one machine
// at most.
func TestAtMostOneRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t, rapid.IntRange(2, 4).Draw(t, "machines"))
		s.policy.HoldFraction = 1
		for range rapid.IntRange(20, 150).Draw(t, "steps") {
			a := rapid.SampledFrom(s.agents).Draw(t, "agent")
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			case 0, 1:
				s.change()
			case 2, 3:
				s.decide()
			case 4:
				s.tick()
			case 5, 6:
				s.learn(a)
			case 7, 8:
				s.act(a)
			case 9:
				s.publish(a)
			case 10:
				s.jump(a)
			default:
				s.settleDown()
			}
		}
	})
}

// jump is what happens to a machine: it is cut off, comes back, or starts anew; or
// the engine does.
func (s *sim) jump(a *agent) {
	switch rapid.IntRange(0, 3).Draw(s.t, "jump") {
	case 0:
		a.cut = true
	case 1:
		a.cut = false
	case 2:
		a.boot()
	default: // its machine may be configured otherwise than that of the last one
		s.do("move-after %s", rapid.SampledFrom([]string{"10s", "10s", "5s", "25s"}).Draw(s.t, "move-after"))
		s.do("elected")
	}
	s.log = append(s.log, fmt.Sprintf("%s cut: %v, runs %v", a.id, a.cut, slices.Sorted(maps.Keys(a.runs))))
}

// settleDown lets everybody do what there is to do for a while.
func (s *sim) settleDown() {
	for range 3 {
		s.tick()
		s.decide()
		for _, a := range s.agents {
			s.learn(a)
			for range len(a.schedule) + len(a.runs) {
				s.act(a)
			}
			s.publish(a)
		}
	}
}
