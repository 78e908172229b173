package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowUnit is a web server whose change takes a second for each instance.
var slowUnit = strings.ReplaceAll(rolledUnit, "HealthyAfter=200ms", "HealthyAfter=1s")

// awayFor is how long the store is away in the middle of a change: longer than the lease
// of the engine's leader and of the machines.
const awayFor = 15 * time.Second

// Every member of the store is gone in the middle of a rolling change: nothing stops
// that is not being changed, no request of a client that tries another instance fails,
// and when the store is back the change goes on to its end.
func TestStoreAwayInARoll(t *testing.T) {
	c := scenario(t)
	v := newVisitor(addressesOf(c))
	c.write("web@.service", fmt.Sprintf(slowUnit, "v0"))
	c.inDesk("fleetctl start web@{1..3}")
	c.eventually(20*time.Second, "all serve v0", func() error { return v.version("v0") })
	c.single()
	ctx, stop := context.WithCancel(t.Context())
	var visitors sync.WaitGroup
	visitors.Go(func() { v.visit(ctx) })
	defer visitors.Wait()
	defer stop()

	text := fmt.Sprintf(slowUnit, "v1")
	c.write("web@.service", text)
	c.inDesk("fleetctl start --replace --no-block web@{1..3}")
	c.eventually(20*time.Second, "the first instance serves v1", func() error {
		if n := v.serving("v1"); n != 1 {
			return fmt.Errorf("%d of 3 do", n)
		}
		return nil
	})
	for _, m := range c.names() {
		c.on(m, "systemctl", "kill", "--signal=KILL", "etcd")
		c.on(m, "systemctl", "stop", "etcd") // else systemd starts it at once
	}
	// The instance that is being changed has the time to be there again.
	c.eventually(10*time.Second, "three instances serve", func() error {
		if n := v.serving("v0") + v.serving("v1"); n != 3 {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	running := c.lives("web@*")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(awayFor); time.Now().Before(end); <-tick.C {
		c.same("the store is away in a roll", running, c.lives("web@*"))
	}
	for _, m := range c.names() {
		c.on(m, "systemctl", "start", "--no-block", "etcd")
	}
	began := time.Now()
	c.eventually(time.Minute, "the store is back", func() error {
		_, err := c.try(c.desk(), "fleetctl", "list-units")
		return err
	})
	r := c.rolled("web@.service", "web@1.service", text)
	t.Logf("the roll is %s %.1f s after the store was started: %s", r.State, time.Since(began).Seconds(), r.Why)
	if r.State != "done" {
		t.Errorf("the roll is %s: %s\n%s", r.State, r.Why, strings.Join(r.Log, "\n"))
	}
	if err := v.version("v1"); err != nil {
		t.Error(err)
	}
	stop()
	visitors.Wait()
	t.Logf("%d requests, %d of them tried again, %d failed", v.requests, v.retried, v.failed)
	if v.failed > 0 {
		t.Errorf("%d of %d requests failed, the last with %v", v.failed, v.requests, v.lastFailure)
	}
	c.never2("the store is away in a roll")
}

// serving is how many instances serve a version.
func (v *visitor) serving(version string) int {
	n := 0
	for _, a := range v.addresses {
		if got, err := v.get(a); err == nil && got == version {
			n++
		}
	}
	return n
}

// addressesOf are the addresses of all machines.
func addressesOf(c *cluster) []string {
	c.Helper()
	all, err := lab.Machines()
	if err != nil {
		c.Fatal(err)
	}
	var out []string
	for _, m := range all {
		out = append(out, m.Address)
	}
	return out
}
