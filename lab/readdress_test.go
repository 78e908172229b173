package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// All machines lose their power and come back with other addresses: the store finds
// itself again, nobody types a command, and every unit runs where it ran.
func TestAllMachinesGetOtherAddresses(t *testing.T) {
	c := scenario(t)
	webs(c)
	before := places(c)
	ctx := context.Background()
	names := c.names()
	if out, err := c.try(names[0], "etcdctl", "set", "/kept", "yes"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for range 2 { // there, and back
		for _, m := range names {
			if err := lab.Kill(ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		if err := lab.Readdress(ctx, names...); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, m := range names {
			if err := lab.Boot(ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range names {
			c.eventually(time.Minute, "the store answers on "+m, func() error {
				out, err := c.try(m, "etcdctl", "get", "--quorum", "/kept")
				if err == nil && strings.TrimSpace(out) != "yes" {
					err = fmt.Errorf("/kept is %q", out)
				}
				return err
			})
		}
		t.Logf("the store is back %.1f s after the first machine was switched on", time.Since(began).Seconds())
		c.joined(size)
		c.onRecord()
		c.eventually(coldStart, "every unit runs where it ran", func() error {
			if after := places(c); after != before {
				return fmt.Errorf("units are at\n%s\nbefore at\n%s", after, before)
			}
			return nil
		})
	}
}

// onRecord waits until the store has every member on record at its machine's address.
func (c *cluster) onRecord() {
	c.Helper()
	all, err := lab.Machines()
	if err != nil {
		c.Fatal(err)
	}
	c.eventually(30*time.Second, "the members' addresses are on record", func() error {
		out, err := c.try(all[0].Name, "etcdctl", "member", "list")
		if err != nil {
			return err
		}
		for _, m := range all {
			if !strings.Contains(out, "peerURLs=https://"+m.Address+":2380") {
				return fmt.Errorf("%s is not at %s:\n%s", m.Name, m.Address, out)
			}
		}
		return nil
	})
}

// places is which unit runs on which machine.
func places(c *cluster) string {
	var b strings.Builder
	for _, l := range c.lives("web@*", "beat.service") {
		fmt.Fprintf(&b, "%s on %s\n", l.unit, l.machine)
	}
	return b.String()
}
