package rollout

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
)

var seeds = flag.Int("seeds", 200, "how many random stories are played")

// chance is a world in which things happen at random: texts good and bad, machines
// that go and come, people who interfere.
type chance struct {
	*world
	*rand.Rand
	names   []string
	ids     []string
	global  bool
	limit   int
	version int
	stopped bool // something was stopped: its next start is no roll
}

func newChance(seed uint64) *chance {
	c := &chance{world: newWorld(), Rand: rand.New(rand.NewPCG(seed, 1))}
	c.limit = 1 + c.IntN(3)
	for i := range 2 + c.IntN(5) {
		c.ids = append(c.ids, string(rune('a'+i)))
		c.machines[c.ids[i]] = true
	}
	c.global = c.IntN(3) == 0
	c.names = []string{"log.service"}
	if !c.global {
		c.names = nil
		for i := range 1 + c.IntN(6) {
			c.names = append(c.names, fmt.Sprintf("web@%d.service", i))
		}
	}
	c.text("good-0")
	for i, name := range c.names {
		for j, id := range c.ids {
			if c.global || j == i%len(c.ids) {
				if err := c.command("on " + name + " " + id); err != nil {
					panic(err)
				}
			}
		}
	}
	return c
}

// text gives all units a text; what a bad one does is never good.
func (c *chance) text(version string) {
	options := []string{fmt.Sprintf("MaxUnavailable=%d", c.limit)}
	if c.global {
		options = append(options, "Global=true")
	}
	for _, name := range c.names {
		desired := model.Launched
		if u, ok := c.units[name]; ok {
			desired = u.Desired
		}
		c.units[name] = model.NewUnit(name, textOf(version, options), desired, 1)
	}
}

func pick[T any](c *chance, list []T) T { return list[c.IntN(len(list))] }

// happen lets something happen.
func (c *chance) happen() {
	switch n := c.IntN(100); {
	case n < 60:
		if keys := slices.Sorted(maps.Keys(c.places)); len(keys) > 0 {
			c.report(pick(c, keys))
		}
	case n < 75:
		c.now = c.now.Add(time.Duration(c.IntN(40)) * time.Second)
	case n < 80:
		c.version++
		c.text(fmt.Sprintf("%s-%d", pick(c, []string{"good", "good", "bad"}), c.version))
	case n < 84:
		id := pick(c, c.ids)
		if c.machines[id] {
			_ = c.command("lose " + id)
		} else {
			_ = c.command("machine " + id)
		}
	case n < 88:
		c.move()
	case n < 91:
		for _, group := range slices.Sorted(maps.Keys(c.rolls)) {
			if r := c.rolls[group]; !r.State.Final() {
				r.Asked, r.AskedBy = pick(c, []string{model.Pause, model.Resume, model.Resume, model.Revert}), "ann"
				c.rolls[group] = r
			}
		}
	case n < 93:
		c.stopped = true
		_ = c.command(pick(c, []string{"stop ", "start "}) + pick(c, c.names))
	}
}

// report lets a machine go on with one entry: see it, start it, judge it.
func (c *chance) report(key string) {
	p, s := c.places[key], c.states[key]
	if !c.machines[p.Machine] {
		return
	}
	isBad := strings.HasPrefix(versionOf(p.Text), "bad")
	switch {
	case s.Hash != p.Hash:
		s = model.UnitState{Unit: p.Unit, Machine: p.Machine, Hash: p.Hash, Active: "activating"}
		if p.Watched {
			s.Health = model.Waiting
		}
	case isBad:
		s.Active, s.Health, s.HealthWhy = "failed", model.Bad, "it is no good"
	default:
		s.Active = "active"
		if p.Watched {
			s.Health = model.Good
		}
	}
	c.states[key] = s
}

// move takes an instance from a machine that is away to one that is not, as sched
// would.
func (c *chance) move() {
	if c.global {
		return
	}
	r := Plan(c.snapshot())
	for _, key := range slices.Sorted(maps.Keys(c.places)) {
		p := c.places[key]
		to := pick(c, c.ids)
		if c.machines[p.Machine] || !c.machines[to] {
			continue
		}
		delete(c.places, key)
		delete(c.states, key)
		p.Machine = to
		if u := c.units[p.Unit]; r.Allow(p.Unit, to) {
			p.Text, p.Hash, p.Watched = u.Text, u.Hash, r.Watch(p.Unit)
		}
		c.places[model.RollKey(p.Unit, to)] = p
		return
	}
}

// serves reports whether an entry serves, for somebody who looks from outside.
func (c *chance) serves(key string) bool {
	p, s := c.places[key], c.states[key]
	return c.machines[p.Machine] && s.Hash == p.Hash && s.Active == "active" && s.Health != model.Waiting && s.Health != model.Bad
}

// beside reports whether a unit has a text of its own that the roll is not about.
func beside(r model.Roll, unit string) bool {
	if r.State == model.Reverting {
		return r.From[unit] == "" || r.From[unit] == r.To[unit]
	}
	return r.To[unit] == ""
}

// step plans and carries out, and checks that the plan does not take down more than
// it may: of those that serve only while fewer than the limit are down on machines
// that are present, but for those that were given up, and those beside the roll that
// have failed for long enough.
func (c *chance) step(t *testing.T) {
	t.Helper()
	serving := map[string]bool{}
	for key := range c.places {
		serving[key] = c.serves(key)
	}
	changed := c.carryOut(Plan(c.snapshot()))
	down := 0
	for key, p := range c.places {
		roll := c.rolls[model.GroupOf(p.Unit)]
		since, given := roll.Since[key]
		if c.states[key].Active == "failed" && !c.now.Before(roll.Started.Add(model.DefaultHealthyTimeout)) && beside(roll, p.Unit) {
			continue
		}
		if !serving[key] && c.machines[p.Machine] && c.units[p.Unit].Desired == model.Launched && !(given && since.IsZero()) {
			down++
		}
	}
	taken := 0
	for _, key := range changed {
		if serving[key] && c.places[key].Desired == model.Launched {
			taken++
		}
	}
	if taken > 0 && down+taken > c.limit {
		var lines []string
		for _, key := range slices.Sorted(maps.Keys(c.places)) {
			p, s := c.places[key], c.states[key]
			lines = append(lines, fmt.Sprintf("%s: %s, present %v, served %v, says %.4s %s %s of %.4s",
				key, versionOf(p.Text), c.machines[p.Machine], serving[key], s.Hash, s.Active, s.Health, p.Hash))
		}
		t.Fatalf("%d were down, %d more were taken down (%q), and %d may be\n%s\n%+v",
			down, taken, changed, c.limit, strings.Join(lines, "\n"), c.rolls)
	}
}

// settle lets all machines come back and all reports come in.
func (c *chance) settle(t *testing.T) {
	t.Helper()
	for _, id := range c.ids {
		_ = c.command("machine " + id)
	}
	for range 200 {
		for group, r := range c.rolls {
			if r.State == model.Paused {
				r.Asked = model.Resume
				c.rolls[group] = r
			}
		}
		for key := range c.places {
			c.report(key)
		}
		c.now = c.now.Add(5 * time.Second)
		c.step(t)
	}
}

func TestRollsConvergeAndNeverTakeTooManyDown(t *testing.T) {
	for seed := range uint64(*seeds) {
		c := newChance(seed)
		for range 150 {
			c.happen()
			c.step(t)
		}
		c.settle(t)
		for key, p := range c.places {
			u := c.units[p.Unit]
			if p.Hash != u.Hash {
				t.Fatalf("seed %d: %s runs %s, wanted is %s", seed, key, versionOf(p.Text), versionOf(u.Text))
			}
			if !c.stopped && strings.HasPrefix(versionOf(p.Text), "bad") {
				t.Fatalf("seed %d: %s is left with %s", seed, key, versionOf(p.Text))
			}
		}
		for group, r := range c.rolls {
			if !r.State.Final() {
				t.Fatalf("seed %d: the roll of %s is %s: %s", seed, group, r.State, r.Why)
			}
		}
		if r := Plan(c.snapshot()); len(r.Put)+len(r.Reverts)+len(r.Events) > 0 {
			t.Fatalf("seed %d: still to do: %+v", seed, r)
		}
	}
}

// The same snapshot gives the same plan, in whatever order it lists things.
func TestPlanDoesNotDependOnOrder(t *testing.T) {
	for seed := range uint64(200) {
		c := newChance(seed)
		for range 60 {
			c.happen()
			c.step(t)
		}
		want := fmt.Sprintf("%+v", Plan(c.snapshot()))
		for range 3 { // maps are listed in another order each time
			if got := fmt.Sprintf("%+v", Plan(c.snapshot())); got != want {
				t.Fatalf("seed %d:\n%s\nthen\n%s", seed, want, got)
			}
		}
	}
}
