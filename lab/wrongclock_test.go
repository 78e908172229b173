package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wrong is how far a clock is off.
const wrong = 5 * time.Minute

// buildWrong builds the program for a machine with a wrong clock. Machines that share a
// kernel share its clock, and no namespace has another time of day: so the program is
// built with a time package whose time of day is off, and whose monotonic clock is right,
// as on a machine whose clock somebody has set wrong. Its source is the same.
func buildWrong() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const read = "sec, nsec, mono := runtimeNow()\n"
	if n := strings.Count(string(text), read); n != 1 {
		return "", fmt.Errorf("%s reads the clock in %d places, not in one: this Go is not known here", source, n)
	}
	changed := strings.Replace(string(text), read, fmt.Sprintf("%s\tsec += %d\n", read, int(wrong.Seconds())), 1)
	file := filepath.Join(scratch, "time.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: file}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(scratch, "overlay.json"), overlay, 0o600); err != nil {
		return "", err
	}
	return build("flotilla-wrong", "lab-wrong", "-overlay="+filepath.Join(scratch, "overlay.json"))
}

// One machine's clock is five minutes ahead of the others', for the store, for fleetd
// and for fleetctl: nothing stops, nothing moves, nothing expires early.
func TestWrongClock(t *testing.T) {
	c := scenario(t)
	wrongProgram, err := buildWrong()
	if err != nil {
		t.Fatal(err)
	}
	right, err := build("flotilla-right", "lab")
	if err != nil {
		t.Fatal(err)
	}
	before := webs(c)
	c.single()
	single := c.lives("single.service")
	victim := single[0].machine
	t.Cleanup(func() { c.program(victim, right) })
	c.program(victim, wrongProgram)
	if off := c.clock(victim); off < wrong-time.Minute || off > wrong+time.Minute {
		t.Fatalf("the store on %s is %v ahead: nothing is tried", victim, off)
	}
	c.recovered("a clock that is wrong")
	// Several times the time after which a silent machine's units move.
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); <-tick.C {
		c.same("a wrong clock", before, c.lives(everything...))
		c.same("a wrong clock", single, c.lives("single.service"))
	}
	// The cluster works on as the others see it and as that machine does.
	for _, m := range c.names() {
		if out, err := c.try(m, "fleetctl", "stop", "web@6"); err != nil {
			t.Errorf("fleetctl stop on %s: %v\n%s", m, err, out)
		}
		if out, err := c.try(m, "fleetctl", "start", "web@6"); err != nil {
			t.Errorf("fleetctl start on %s: %v\n%s", m, err, out)
		}
	}
	c.program(victim, right)
	c.recovered("a clock that is right again")
	c.same("a clock that is right again", single, c.lives("single.service"))
	c.never2("a wrong clock")
}

// program replaces the program of a machine and restarts the daemons.
func (c *cluster) program(machine, path string) {
	c.Helper()
	if err := lab.Install(machine, path); err != nil {
		c.Fatal(err)
	}
	c.on(machine, "systemctl", "restart", "etcd", "fleet")
}

// clock is how far the store's time of day on a machine is ahead of ours.
func (c *cluster) clock(machine string) time.Duration {
	c.Helper()
	const ttl = 600
	out := c.on(machine, "curl", "-sS", "-X", "PUT", fmt.Sprintf("http://127.0.0.1:2379/v2/keys/clock?value=x&ttl=%d", ttl))
	var answer struct {
		Node struct{ Expiration time.Time }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		c.Fatalf("%v: %s", err, out)
	}
	return time.Until(answer.Node.Expiration) - ttl*time.Second
}
