package lab

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
)

// cutFor is how long TestCutOff cuts a machine off: longer than it takes to move its units.
var cutFor = flag.Duration("lab.cut", 40*time.Second, "how `long` the longest cut lasts; what is promised for 2m has to be seen at 2m too")

// everything is what the scenarios run beside the singleton.
var everything = []string{"web@*", "beat.service"}

// A machine is cut off for less than the time after which units move: nobody does
// anything. Only a singleton may be stopped by its own machine, which cannot know for how
// long the cut will last; it is started there again.
func TestCutOffShort(t *testing.T) {
	c := scenario(t)
	webs(c)
	c.single()
	victim := c.lives("single.service")[0].machine
	// The long one first: it ends with a new lease, and the next cut begins with one.
	for _, d := range []time.Duration{15 * time.Second, 5 * time.Second} {
		what := fmt.Sprintf("a cut of %v", d)
		look := func() []life { return c.lives(everything...) }
		if d < fenced {
			look = func() []life { return append(c.lives(everything...), c.lives("single.service")...) }
		}
		want := look()
		c.takeCable(victim)
		over := time.After(d)
		tick := time.NewTicker(time.Second)
		for cut := true; cut; {
			select {
			case <-over:
				cut = false
			case <-tick.C:
				c.same(what, want, look())
			}
		}
		tick.Stop()
		c.giveCable(victim)
		began := time.Now()
		c.recovered(what)
		c.Logf("%s: all is right %.1f s after its end", what, time.Since(began).Seconds())
		c.same(what, want, look())
		c.never2(what)
	}
}

// fenced is how soon after a cut a machine may stop its singletons: a lease and the time
// until moves, less the margins of the fence and a third of a lease, as its last word
// may be so old.
const fenced = 20*time.Second - model.FenceStop - model.FenceMargin - 10*time.Second/3

// A machine that is cut off for longer keeps its units running, they start elsewhere,
// and it hands them over when it is back. The singleton stops before it starts
// elsewhere.
func TestCutOff(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	c.single()
	victim := c.lives("single.service")[0].machine
	began := time.Now()
	c.takeCable(victim)
	c.eventually(moveLimit, "units of "+victim+" active elsewhere too", func() error { return c.elsewhere("web@*", 6, victim) })
	c.keeps("the cut of "+victim, before, c.lives(everything...))
	c.eventually(singleLimit, "single.service active elsewhere", func() error { return c.elsewhere("single.service", 1, victim) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Since(began) < *cutFor {
		<-tick.C
		c.keeps("the cut of "+victim, before, c.lives(everything...))
	}
	elsewhere := slices.DeleteFunc(c.lives("single.service"), func(l life) bool { return l.machine == victim })
	c.giveCable(victim)
	c.eventually(heard, "the store answers on "+victim, func() error {
		_, err := c.try(victim, "curl", "--fail", "--silent", "--show-error", "--max-time", "0.5", "http://127.0.0.1:2379/v2/keys/?quorum=true")
		return err
	})
	c.neverTwiceFor(handOver, 20*time.Second)
	c.recovered("the return of " + victim)
	others := slices.DeleteFunc(slices.Clone(before), func(l life) bool { return l.machine == victim && l.unit != "beat.service" })
	c.keeps("the return of "+victim, others, c.lives(everything...))
	c.same("the return of "+victim, elsewhere, c.lives("single.service"))
	c.never2("a cut of " + cutFor.String())
}

// singleLimit is how long after the others a singleton may be active elsewhere: its
// machine must have had the time to stop it, cut off as it is.
const singleLimit = 15 * time.Second

// elsewhere complains unless n units that match the pattern are active on machines other
// than these.
func (c *cluster) elsewhere(pattern string, n int, machines ...string) error {
	c.Helper()
	units := map[string]bool{}
	for _, l := range c.lives(pattern) {
		if !slices.Contains(machines, l.machine) {
			units[l.unit] = true
		}
	}
	if len(units) != n {
		return fmt.Errorf("active elsewhere: %v", units)
	}
	return nil
}

func (c *cluster) takeCable(machine string) {
	c.Helper()
	c.cut = append(c.cut, machine)
	if err := lab.Cut(c.Context(), machine); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) giveCable(machine string) {
	c.Helper()
	c.cut = slices.DeleteFunc(c.cut, func(m string) bool { return m == machine })
	if err := lab.Heal(c.Context(), machine); err != nil {
		c.Fatal(err)
	}
}

// A machine stands still for longer than the move time, with all that is on it, and goes
// on where it was: its clocks have jumped, its leases have gone, its units are elsewhere.
func TestFrozen(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	c.single()
	victim := c.lives("single.service")[0].machine
	if err := lab.Freeze(victim); err != nil {
		t.Fatal(err)
	}
	c.off = victim
	c.eventually(moveLimit, "units of "+victim+" active elsewhere", func() error { return c.elsewhere("web@*", 6, victim) })
	c.eventually(singleLimit, "single.service active elsewhere", func() error { return c.elsewhere("single.service", 1, victim) })
	c.never2("the freeze of " + victim)
	thawed := time.Now()
	if err := lab.Thaw(victim); err != nil {
		t.Fatal(err)
	}
	c.off = ""
	c.neverTwiceFor(handOver, 20*time.Second)
	c.recovered("the thaw of " + victim)
	others := slices.DeleteFunc(slices.Clone(before), func(l life) bool { return l.machine == victim && l.unit != "beat.service" })
	c.keeps("the thaw of "+victim, others, c.lives(everything...))
	c.spokeAfterThaw(victim, thawed)
}

// thawLimit is how long a singleton that was frozen may still speak after the thaw: its
// process and the agent that ends it are let go at the same moment.
const thawLimit = 500 * time.Millisecond

// spokeAfterThaw tells for how long the machine's old run went on, and fails the test if
// that was too long, or if there was any other pair of runs at once.
func (c *cluster) spokeAfterThaw(victim string, thawed time.Time) {
	c.Helper()
	runs := c.spoken()
	for i, r := range runs {
		if r.machine != victim || r.first.After(thawed) || r.last.Before(thawed) {
			continue
		}
		late := r.last.Sub(thawed)
		c.Logf("after the thaw single.service on %s went on for %.3f s", victim, late.Seconds())
		if late > thawLimit {
			c.Errorf("after the thaw single.service went on for %v; %v is allowed", late, thawLimit)
		}
		runs = slices.Delete(runs, i, i+1)
		break
	}
	if v := judge(runs); v.twice > 0 {
		c.Errorf("single.service ran twice at once for %v: %v", v.twice, runs)
	}
}
