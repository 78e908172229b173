package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/dist"
	"flotilla/examples"
	"flotilla/internal/lab/machines"
)

const (
	webUnit = `[Unit]
Description=Web instance %i

[Service]
ExecStart=/bin/sh -c "while true; do echo web %i; sleep 1; done"
`
	beatUnit = `[Service]
ExecStart=/bin/sh -c "while true; do echo beat; sleep 1; done"

[X-Fleet]
Global=true
`
	// moveLimit: units of a machine that lost its power are active elsewhere.
	moveLimit = 25 * time.Second

	// handOver is how long a unit may run on two machines when one that was thought
	// dead comes back: until its agent has heard from the store that it has moved,
	// and the unit has stopped.
	handOver = 10 * time.Second

	// heard is how long it may take until a member that was cut off and is reachable
	// again answers with the others' consent: not for as long as it was away, which
	// is when TCP would try again. A connection on which nothing is acknowledged is given
	// up after five seconds, and that can happen twice.
	heard = 15 * time.Second

	// coldStart is how long a machine may take to run its units from the last known
	// schedule: it first gives the store time to be back.
	coldStart = time.Minute

	// storeAway is how long the store is gone: many times every timeout there is.
	storeAway = 2 * time.Minute
)

// webs starts six units and a global one, and returns their lives.
func webs(c *cluster) []life {
	c.Helper()
	c.submit("web@.service", webUnit)
	c.submit("beat.service", beatUnit)
	names := []string{"web@1.service", "web@2.service", "web@3.service", "web@4.service", "web@5.service", "web@6.service"}
	c.fleetctl(append([]string{"start"}, names...)...)
	c.fleetctl("start", "beat.service")
	c.active(30*time.Second, 1, names...)
	c.active(30*time.Second, size, "beat.service")
	return c.lives("web@*", "beat.service")
}

// The units that a package installs are what systemd calls sound.
func TestServices(t *testing.T) {
	c := scenario(t)
	for path := range dist.Units() {
		if out, err := c.try(c.names()[0], "sh", "-c", "systemd-analyze verify --man=no "+path+" 2>&1"); err != nil || out != "" {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
	for _, m := range c.names() {
		if state, _ := c.try(m, "systemctl", "is-system-running"); strings.TrimSpace(state) != "running" {
			t.Errorf("%s is %s", m, state)
		}
		for _, daemon := range []string{"etcd", "fleet"} {
			if l := c.life(m, daemon); l.restarts != "0" {
				t.Errorf("%v: a daemon that was left alone has restarted", l)
			}
		}
	}
}

// The unit of the first talk is an ordinary unit of the machine that it runs on.
func TestNative(t *testing.T) {
	c := scenario(t)
	text, err := examples.Files.ReadFile("hello.service")
	if err != nil {
		t.Fatal(err)
	}
	c.submit("hello.service", string(text))
	c.fleetctl("start", "hello")
	c.active(time.Minute, 1, "hello.service")
	at := c.lives("hello.service")
	if len(at) != 1 {
		t.Fatalf("hello runs as %v", at)
	}
	m := at[0].machine
	c.eventually(30*time.Second, "hello speaks", func() error {
		if out := c.on(m, "journalctl", "-o", "cat", "-u", "hello"); !strings.Contains(out, "Hello World\n") {
			return fmt.Errorf("its journal: %s", out)
		}
		return nil
	})
	status := c.on(m, "systemctl", "status", "--no-pager", "hello")
	for _, want := range []string{"hello.service - Hello world", "Loaded: loaded (", "Active: active (running)", "/system.slice/hello.service", "Main PID: " + at[0].pid} {
		if !strings.Contains(status, want) {
			t.Errorf("systemctl status does not say %q:\n%s", want, status)
		}
	}
	// fleet keeps a unit file's lines, not its comments.
	if cat := c.on(m, "systemctl", "cat", "hello"); !strings.Contains(cat, withoutComments(string(text))) {
		t.Errorf("systemctl cat is not the file that was submitted:\n%s", cat)
	}
	if out := c.fleetctl("journal", "--lines", "5", "hello"); !strings.Contains(out, "Hello World") {
		t.Errorf("fleetctl journal:\n%s", out)
	}
	for _, follow := range []string{"logs", "journal"} {
		line := "timeout 20 fleetctl " + follow + " -f -n 0 -o cat hello | head -n 1"
		if out := c.on(c.desk(), "sh", "-c", line); !strings.Contains(out, "Hello World") {
			t.Errorf("%s: nothing comes: %q", line, out)
		}
	}
	if out := c.fleetctl("status", "hello"); !strings.Contains(out, "hello.service - Hello world") {
		t.Errorf("fleetctl status:\n%s", out)
	}
	if failed := c.on(m, "systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("units failed on %s:\n%s", m, failed)
	}
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Our daemons die and are replaced; nothing that they started notices.
func TestDaemonsDie(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	for _, daemons := range [][]string{{"fleet"}, {"etcd"}, {"fleet", "etcd"}} {
		what := "kill -9 of " + strings.Join(daemons, " and ")
		old := c.daemons(daemons...)
		for _, m := range c.names() {
			c.on(m, append([]string{"systemctl", "kill", "--signal=KILL"}, daemons...)...)
		}
		c.replaced(what, old, daemons...)
		c.recovered(what)
		c.same(what, before, c.lives("web@*", "beat.service"))
	}
}

// The program is replaced while it runs, machine by machine.
func TestUpgrade(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	c.single()
	single := c.lives("single.service")
	program, err := build("flotilla-next", "lab-next")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.names() {
		if err := lab.Install(m, program); err != nil {
			t.Fatal(err)
		}
		old := c.daemons("fleet", "etcd")
		c.on(m, "systemctl", "restart", "fleet", "etcd")
		c.replaced("a new program on "+m, slices.DeleteFunc(old, func(l life) bool { return l.machine != m }), "fleet", "etcd")
		if out := c.on(m, "flotilla", "version"); !strings.Contains(out, "lab-next") {
			t.Errorf("%s runs %s", m, out)
		}
	}
	c.recovered("a new program")
	c.same("a new program", before, c.lives("web@*", "beat.service"))
	c.same("a new program", single, c.lives("single.service"))
	c.never2("a new program")
}

// daemons are the lives of our own services.
func (c *cluster) daemons(names ...string) []life {
	c.Helper()
	var out []life
	for _, m := range c.names() {
		for _, name := range names {
			out = append(out, c.life(m, name))
		}
	}
	return out
}

// replaced waits until none of the old daemons' processes is the main one any more.
func (c *cluster) replaced(what string, old []life, names ...string) {
	c.Helper()
	c.eventually(30*time.Second, what+": the old processes are gone", func() error {
		now := c.daemons(names...)
		for _, l := range old {
			if slices.ContainsFunc(now, func(n life) bool { return n.machine == l.machine && n.pid == l.pid }) {
				return fmt.Errorf("%v is still there", l)
			}
		}
		return nil
	})
}

// recovered waits until the daemons are back and the cluster's picture is whole and
// true: each web on one machine, the global unit on all.
func (c *cluster) recovered(what string) {
	c.Helper()
	c.eventually(time.Minute, "after "+what+": daemons run", func() error {
		for _, m := range c.names() {
			if out, err := c.try(m, "systemctl", "is-active", "fleet"); err != nil {
				return fmt.Errorf("%s: %w: %s", m, err, out)
			}
		}
		for _, m := range c.members() {
			if out, err := c.try(m, "systemctl", "is-active", "etcd"); err != nil {
				return fmt.Errorf("%s: %w: %s", m, err, out)
			}
		}
		return nil
	})
	c.joined(len(c.names()))
	c.active(time.Minute, 1, "web@1.service", "web@2.service", "web@3.service", "web@4.service", "web@5.service", "web@6.service")
	c.active(time.Minute, len(c.names()), "beat.service")
}

// members are the machines with a member of the store that can be asked.
func (c *cluster) members() []string {
	c.Helper()
	members, err := lab.Members()
	if err != nil {
		c.Fatal(err)
	}
	return slices.DeleteFunc(c.names(), func(m string) bool {
		return !slices.ContainsFunc(members, func(member machines.Machine) bool { return member.Name == m })
	})
}

// A machine loses its power and comes back.
func TestPowerLoss(t *testing.T) { losePower(scenario(t)) }

func losePower(c *cluster) {
	before := webs(c)
	c.single()
	victim := c.lives("single.service")[0].machine
	if err := lab.Kill(c.Context(), victim); err != nil {
		c.Fatal(err)
	}
	c.off = victim
	survivors := slices.DeleteFunc(slices.Clone(before), func(l life) bool { return l.machine == victim })

	c.eventually(moveLimit, "units of "+victim+" active elsewhere", func() error {
		running := map[string]bool{}
		for _, l := range c.lives("web@*") {
			running[l.unit] = true
		}
		if len(running) != 6 {
			return fmt.Errorf("active: %v", running)
		}
		return nil
	})
	moved := c.lives("web@*", "beat.service")
	c.keeps("the power loss of "+victim, survivors, moved)
	c.never2("the power loss of " + victim)

	if err := lab.Boot(c.Context(), victim); err != nil {
		c.Fatal(err)
	}
	c.off = ""
	c.neverTwiceFor(handOver, 30*time.Second)
	c.recovered("the return of " + victim)
	c.keeps("the return of "+victim, moved, c.lives("web@*", "beat.service"))
	c.never2("the return of " + victim)
}

// keeps fails the test unless every life of before is among after: others may have
// begun.
func (c *cluster) keeps(what string, before, after []life) {
	c.Helper()
	for _, l := range before {
		if !slices.Contains(after, l) {
			c.Errorf("%s: %v did not go on; now there are %v", what, l, after)
		}
	}
}

// neverTwiceFor watches the machines and fails the test when a unit runs on two of
// them for longer than the limit.
func (c *cluster) neverTwiceFor(limit, watch time.Duration) {
	c.Helper()
	since := map[string]time.Time{} // unit: when it was first seen twice
	var longest, last time.Duration
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(watch); time.Now().Before(end); <-tick.C {
		count := map[string]int{}
		for _, l := range c.lives("web@*") {
			count[l.unit]++
		}
		for unit, n := range count {
			if n < 2 {
				delete(since, unit)
				continue
			}
			if since[unit].IsZero() {
				since[unit] = time.Now()
			}
			longest, last = max(longest, time.Since(since[unit])), time.Since(began)
		}
	}
	c.Logf("the longest time that a unit ran twice: %.1f s; no unit does any more after %.1f s", longest.Seconds(), last.Seconds())
	if longest > limit {
		c.Errorf("a unit ran twice for %v; the hand-over may take %v", longest, limit)
	}
}

// Every member of the store is gone for longer than any timeout.
func TestStoreAway(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	c.single()
	for _, m := range c.names() {
		c.on(m, "systemctl", "kill", "--signal=KILL", "etcd")
		c.on(m, "systemctl", "stop", "etcd") // else systemd starts it at once
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for end := time.Now().Add(storeAway); time.Now().Before(end); <-tick.C {
		c.same("the store is away", before, c.lives("web@*", "beat.service"))
	}
	if out, err := c.try(c.names()[0], "timeout", "30", "fleetctl", "list-units"); err == nil {
		t.Logf("without a store list-units says:\n%s", out)
	} else {
		t.Logf("without a store list-units fails: %v", err)
	}
	for _, m := range c.names() {
		c.on(m, "systemctl", "start", "--no-block", "etcd")
	}
	c.recovered("the store's return")
	c.same("the store's return", before, c.lives("web@*", "beat.service"))
	c.never2("the store's return")
}

// All machines lose their power at once. The first to come back has no store, and runs
// what it ran; when the others are back every unit runs, once.
func TestAllLosePower(t *testing.T) {
	c := scenario(t)
	before := webs(c)
	c.single()
	names := c.names()
	for _, m := range names {
		if err := lab.Kill(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	first := names[0]
	if err := lab.Boot(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	c.eventually(coldStart, first+" alone runs what it ran", func() error {
		for _, l := range before {
			if l.machine != first {
				continue
			}
			if out, err := c.try(first, "systemctl", "is-active", l.unit); err != nil {
				return fmt.Errorf("%s is %s", l.unit, strings.TrimSpace(out))
			}
		}
		return nil
	})
	for _, m := range names[1:] {
		if err := lab.Boot(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	c.neverTwiceFor(handOver, 20*time.Second)
	c.recovered("the return of all")
	for _, unit := range []string{"web@1.service", "web@2.service", "web@3.service", "web@4.service", "web@5.service", "web@6.service"} {
		if at := c.lives(unit); len(at) != 1 {
			t.Errorf("%s runs as %v", unit, at)
		}
	}
	c.never2("the return of all")
}

// The lab itself: down leaves nothing, also of a lab that was not whole.
func TestDownIsComplete(t *testing.T) {
	if why != "" {
		t.Skip(why)
	}
	other := secondLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := other.Up(ctx, 2); err == nil {
		t.Fatal("two machines were up in 0.3 s: this test wants an interrupted start")
	}
	if err := errors.Join(other.Down(t.Context()), other.Down(t.Context())); err != nil {
		t.Fatal(err)
	}
	if left := tracesOf(*prefix + "x"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
