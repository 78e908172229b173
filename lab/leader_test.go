package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// leader is the machine whose fleetd decides for the cluster.
func (c *cluster) leader() string {
	c.Helper()
	var lease struct{ MachineID string }
	if err := json.Unmarshal([]byte(c.on(c.desk(), "etcdctl", "get", "/_coreos.com/fleet/lease/engine-leader")), &lease); err != nil {
		c.Fatal(err)
	}
	for _, m := range c.names() {
		if strings.TrimSpace(c.on(m, "cat", "/etc/machine-id")) == lease.MachineID {
			return m
		}
	}
	c.Fatalf("no machine has the leader's id %s", lease.MachineID)
	return ""
}

// The fleetd that decides is killed while fifty units start: the command goes through,
// and every unit runs, once.
func TestLeaderDies(t *testing.T) { killLeader(scenario(t)) }

func killLeader(c *cluster) {
	const n = 50
	before := webs(c)
	c.single()
	leader := c.leader()
	desk := ""
	for _, m := range c.names() {
		if m != leader {
			desk = m
		}
	}
	for _, m := range c.names() {
		if err := lab.WriteFile(m, "/root/bulk@.service", []byte("[Service]\nExecStart=/bin/sleep infinity\n"), 0o644); err != nil {
			c.Fatal(err)
		}
	}
	type result struct {
		out string
		err error
	}
	ended := make(chan result, 1)
	began := time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, err := lab.Output(ctx, desk, "sh", "-c", fmt.Sprintf("cd /root && fleetctl start 'bulk@{1..%d}'", n))
		ended <- result{out, err}
	}()
	// Where it happens, to be there in time: all fifty take less than a second.
	c.on(leader, "sh", "-c", "until ls /run/systemd/system/bulk@*; do sleep 0.01; done >/dev/null 2>&1; systemctl kill --signal=KILL fleet")
	at := c.invocations("bulk@*")
	c.Logf("the leader %s is killed when %d of %d units run", leader, len(at), n)
	r := <-ended
	c.Logf("fleetctl start ends %.1f s after it was typed", time.Since(began).Seconds())
	if r.err != nil {
		c.Errorf("fleetctl start: %v\n%s", r.err, r.out)
	}
	c.eventually(30*time.Second, "every unit runs once", func() error {
		now := c.invocations("bulk@*")
		count := map[string]int{}
		for key := range now {
			_, unit, _ := strings.Cut(key, " ")
			count[unit]++
		}
		for unit, k := range count {
			if k > 1 {
				c.Errorf("%s runs %d times", unit, k)
			}
		}
		if len(count) != n {
			return fmt.Errorf("%d of %d run", len(count), n)
		}
		return nil
	})
	c.Logf("all units run %.1f s after the command was typed", time.Since(began).Seconds())
	for key, run := range at {
		if now := c.invocations("bulk@*")[key]; now != run {
			c.Errorf("%s was run %s, and is %s", key, run, now)
		}
	}
	c.recovered("the leader's death")
	c.same("the leader's death", before, c.lives(everything...))
	c.never2("the leader's death")
}

// invocations is the run of every unit that matches, by "MACHINE UNIT": lives in one
// command a machine, for many units.
func (c *cluster) invocations(pattern string) map[string]string {
	c.Helper()
	out := map[string]string{}
	for _, m := range c.names() {
		text := c.on(m, "sh", "-c", "u=$(systemctl list-units --plain --no-legend --state=active '"+pattern+"' | cut -d' ' -f1); [ -z \"$u\" ] || systemctl show -P Id -P InvocationID $u")
		fields := strings.Fields(text)
		for i := 0; i+1 < len(fields); i += 2 {
			out[m+" "+fields[i]] = fields[i+1]
		}
	}
	return out
}
