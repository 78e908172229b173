package lab

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Five machines, three of them members of the store, and what may happen to them: what
// holds for three has to hold where most of a majority is elsewhere, and where machines
// have no member of their own.
func TestFive(t *testing.T) {
	ownLab(t, 5)
	if err := startCluster(lab); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		name string
		do   func(*cluster)
	}{
		{"one loses its power", losePower},
		{"two are cut off", cutTwo},
		{"the leader dies", killLeader},
	} {
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			s.do(fresh(t))
			t.Logf("the scenario took %.1f s", time.Since(began).Seconds())
		})
	}
}

// cutTwo cuts a member of the store and a machine without one off, one of them with the
// singleton. They keep their units running, these start elsewhere, and are handed over
// when the two are back; the singleton stops before it starts elsewhere.
func cutTwo(c *cluster) {
	before := webs(c)
	c.single()
	victims := c.twoWith(c.lives("single.service")[0].machine)
	what := fmt.Sprintf("the cut of %v", victims)
	for _, v := range victims {
		c.takeCable(v)
	}
	c.eventually(moveLimit, "their units active elsewhere too", func() error { return c.elsewhere("web@*", 6, victims...) })
	c.keeps(what, before, c.lives(everything...))
	c.eventually(singleLimit, "single.service active elsewhere", func() error { return c.elsewhere("single.service", 1, victims...) })
	c.keeps(what, before, c.lives(everything...))
	elsewhere := slices.DeleteFunc(c.lives("single.service"), func(l life) bool { return slices.Contains(victims, l.machine) })
	for _, v := range victims {
		c.giveCable(v)
	}
	c.neverTwiceFor(handOver, 15*time.Second)
	c.recovered("the return of both")
	others := slices.DeleteFunc(slices.Clone(before), func(l life) bool {
		return slices.Contains(victims, l.machine) && l.unit != "beat.service"
	})
	c.keeps("the return of both", others, c.lives(everything...))
	c.same("the return of both", elsewhere, c.lives("single.service"))
	c.never2(what)
}

// twoWith is the machine and another one: one of them is a member of the store.
func (c *cluster) twoWith(machine string) []string {
	c.Helper()
	members := c.members()
	for _, m := range c.names() {
		if slices.Contains(members, m) != slices.Contains(members, machine) {
			return []string{machine, m}
		}
	}
	c.Fatalf("all machines, or none, are members: %v", members)
	return nil
}
