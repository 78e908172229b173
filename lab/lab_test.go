// Package lab is scenarios on real systemd machines: what the cluster promises, tried
// on what it will run on. One lab serves most of them; each scenario destroys its units.
// Those that want other machines have a lab of their own.
//
// They take minutes and need root: "go test -short" and other users skip them.
package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/lab/machines"
)

// prefix keeps this lab apart from a person's own, the demonstration's, and other runs.
var (
	prefix = flag.String("lab.name", "test", "the lab's `NAME`: its machines are called NAME1, NAME2...")
	keep   = flag.Bool("lab.keep", false, "use the lab as it is if it is up, and leave it up: for writing scenarios")
)

// What the present test is on: tests run one after the other.
var (
	lab  *machines.Lab
	size int // how many machines it has
)

var (
	why     string          // the scenarios are skipped; "" if they are not
	scratch string          // directory for programs that are built
	running context.Context // ends when the run is interrupted

	// program is the one of this source tree, built when first wanted.
	program = sync.OnceValues(func() (string, error) { return build("flotilla", "lab") })
	// shared boots the lab that most scenarios share, when first wanted.
	shared = sync.OnceValue(up)

	labsMu sync.Mutex
	labs   []*machines.Lab // what has been made
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	flag.Parse()
	switch {
	case testing.Short():
		why = "lab scenarios take minutes"
	case os.Geteuid() != 0:
		why = "lab machines need root"
	}
	if why != "" {
		return m.Run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	running = ctx
	var err error
	if scratch, err = os.MkdirTemp("", "flotilla-lab-test-"); err != nil {
		fault.Print(os.Stderr, "lab", err)
		return 1
	}
	defer func() { code = max(code, down()) }()
	// An interrupted run takes its labs away too.
	defer context.AfterFunc(ctx, func() { down(); os.Exit(1) })()
	return m.Run()
}

// down takes all labs away and returns the exit code.
func down() int {
	labsMu.Lock()
	defer labsMu.Unlock()
	err := os.RemoveAll(scratch)
	if !*keep {
		for _, l := range labs {
			err = errors.Join(err, takeAway(l))
		}
	}
	if err != nil {
		fault.Print(os.Stderr, "lab", err)
		return 1
	}
	return 0
}

// takeAway waits for a scenario that is just booting a machine: it has the lab locked.
func takeAway(l *machines.Lab) (err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 30 {
		// Not the interrupted context: this is what is left to do.
		if err = l.Down(context.Background()); err == nil {
			return nil
		}
		<-tick.C
	}
	return err
}

// up boots the lab that scenarios share and starts a cluster of what is in this source
// tree.
func up() error {
	l, err := newLab(*prefix)
	if err != nil {
		return err
	}
	lab, size = l, 3
	if up, err := lab.Machines(); *keep && err == nil && len(up) == size {
		return nil
	}
	// What a killed test run left is nobody's.
	if err := lab.Down(running); err != nil {
		return err
	}
	if err := lab.Up(running, size); err != nil {
		return err
	}
	return startCluster(lab)
}

// lastWords tells what our daemons, and whatever failed, said on machines that will be gone.
func lastWords(t *testing.T, l *machines.Lab) {
	all, err := l.Machines()
	if err != nil {
		t.Log(err)
		return
	}
	for _, m := range all {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		out, err := l.Output(ctx, m.Name, "sh", "-c", "systemctl list-units --failed --plain --no-legend; journalctl --boot --no-pager --no-hostname --lines 25 "+
			"--unit etcd --unit fleet --unit locksmithd --unit '*cloudinit*'")
		cancel()
		t.Logf("%s: %v\n%s", m.Name, err, out)
	}
}

func startCluster(l *machines.Lab) error {
	program, err := program()
	if err != nil {
		return err
	}
	return l.Cluster(running, program)
}

// newLab returns a lab that will be taken away when the run ends.
func newLab(prefix string) (*machines.Lab, error) {
	host, err := machines.Inspect()
	if err != nil {
		return nil, err
	}
	if err := host.Check(); err != nil {
		return nil, err
	}
	if host.Docker == "" {
		return nil, fault.Hint(errors.New("dockerd is not installed: the scenarios run the examples in Docker"), "apt-get install docker.io busybox-static")
	}
	l, err := machines.New(prefix, host, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return nil, err
	}
	labsMu.Lock()
	defer labsMu.Unlock()
	labs = append(labs, l)
	return l, nil
}

// ownLab boots n machines for one test, which is on them until it ends.
func ownLab(t *testing.T, n int, options ...machines.Option) {
	t.Helper()
	if why != "" {
		t.Skip(why)
	}
	l, err := newLab(*prefix + "o")
	if err != nil {
		t.Fatal(err)
	}
	before, beforeSize := lab, size
	lab, size = l, n
	t.Cleanup(func() {
		if t.Failed() {
			lastWords(t, l)
		}
		lab, size = before, beforeSize
		if err := takeAway(l); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(l.Down(running), l.Up(running, n, options...)); err != nil {
		t.Fatal(err)
	}
}

// build builds the program and returns its path.
func build(name, version string, flags ...string) (string, error) {
	path := filepath.Join(scratch, name)
	args := slices.Concat([]string{"build", "-trimpath", "-ldflags", "-s -w -X flotilla/internal/applet.Version=" + version, "-o", path}, flags)
	cmd := exec.Command("go", append(args, "flotilla/cmd/flotilla")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

// scenario returns the lab for one test: all machines have joined, and no unit of an
// earlier one is left.
func scenario(t *testing.T) *cluster {
	t.Helper()
	if why != "" {
		t.Skip(why)
	}
	if err := shared(); err != nil {
		t.Fatal(err)
	}
	return fresh(t)
}

// fresh is the lab that the test is on, when all its machines have joined.
func fresh(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{T: t}
	c.joined(size)
	t.Cleanup(c.destroyAll)
	return c
}

// cluster is the lab as a scenario sees it. Its methods end the test when something
// cannot be done at all.
type cluster struct {
	*testing.T
	off string   // machine without power, or frozen
	cut []string // machines without a cable: asked, but not typed on
}

// names are the machines that can be asked.
func (c *cluster) names() []string {
	c.Helper()
	all, err := lab.Machines()
	if err != nil {
		c.Fatal(err)
	}
	var out []string
	for _, m := range all {
		if m.Name != c.off {
			out = append(out, m.Name)
		}
	}
	return out
}

// on runs a command in a machine; try gives the error back.
func (c *cluster) on(machine string, args ...string) string {
	c.Helper()
	out, err := c.try(machine, args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *cluster) try(machine string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return lab.Output(ctx, machine, args...)
}

// fleetctl runs on the first machine that is whole.
func (c *cluster) fleetctl(args ...string) string {
	c.Helper()
	return c.on(c.desk(), append([]string{"fleetctl"}, args...)...)
}

// desk is the first machine with power and a cable.
func (c *cluster) desk() string {
	c.Helper()
	return slices.DeleteFunc(c.names(), func(m string) bool { return slices.Contains(c.cut, m) })[0]
}

// submit writes a unit file into every machine and makes it known to the cluster.
func (c *cluster) submit(name, text string) {
	c.Helper()
	path := "/root/" + name
	for _, m := range c.names() {
		if err := lab.WriteFile(m, path, []byte(text), 0o644); err != nil {
			c.Fatal(err)
		}
	}
	c.fleetctl("submit", path)
}

// eventually waits until cond has no complaint; the last one is in the failure.
func (c *cluster) eventually(limit time.Duration, what string, cond func() error) time.Duration {
	c.Helper()
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			c.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
			return time.Since(began)
		}
		if time.Since(began) > limit {
			c.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}

// joined waits until every machine with power lists n machines.
func (c *cluster) joined(n int) {
	c.Helper()
	c.eventually(time.Minute, fmt.Sprintf("%d machines joined", n), func() error {
		for _, m := range c.names() {
			out, err := c.try(m, "fleetctl", "list-machines", "--no-legend")
			if err != nil {
				return err
			}
			if got := strings.Count(out, "\n"); got != n {
				return fmt.Errorf("%s lists %d machines", m, got)
			}
		}
		return nil
	})
}

// listed is what fleetctl list-units says: for each unit the machines (by name) on
// which it is active.
func (c *cluster) listed() (map[string][]string, error) {
	out, err := c.try(c.desk(), "fleetctl", "list-units", "--no-legend", "--full")
	if err != nil {
		return nil, err
	}
	all, err := lab.Machines()
	if err != nil {
		return nil, err
	}
	units := map[string][]string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("list-units says %q", line)
		}
		for _, m := range all {
			if f[2] == "active" && strings.HasSuffix(f[1], "/"+m.Address) {
				units[f[0]] = append(units[f[0]], m.Name)
			}
		}
	}
	return units, nil
}

// active waits until each unit is listed as active on n machines.
func (c *cluster) active(limit time.Duration, n int, units ...string) {
	c.Helper()
	c.eventually(limit, fmt.Sprintf("%s active on %d", strings.Join(units, " "), n), func() error {
		at, err := c.listed()
		if err != nil {
			return err
		}
		for _, u := range units {
			if len(at[u]) != n {
				return fmt.Errorf("%s is active on %v", u, at[u])
			}
		}
		return nil
	})
}

// life is one run of a unit, as the systemd of its machine sees it.
type life struct {
	machine, unit, pid, invocation, restarts string
}

func (l life) String() string {
	return fmt.Sprintf("%s on %s (pid %s, run %.8s, %s restarts)", l.unit, l.machine, l.pid, l.invocation, l.restarts)
}

// lives asks the systemd of every machine with power for its active units that match
// the patterns: the truth, whatever the cluster thinks.
func (c *cluster) lives(patterns ...string) []life {
	c.Helper()
	var out []life
	for _, m := range c.names() {
		list := c.on(m, append([]string{"systemctl", "list-units", "--plain", "--no-legend", "--state=active"}, patterns...)...)
		for line := range strings.Lines(list) {
			out = append(out, c.life(m, strings.Fields(line)[0]))
		}
	}
	slices.SortFunc(out, func(a, b life) int { return strings.Compare(a.unit+" "+a.machine, b.unit+" "+b.machine) })
	return out
}

func (c *cluster) life(machine, unit string) life {
	c.Helper()
	l := life{machine: machine, unit: unit}
	for line := range strings.Lines(c.on(machine, "systemctl", "show", "-p", "MainPID,InvocationID,NRestarts", unit)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "MainPID":
			l.pid = value
		case "InvocationID":
			l.invocation = value
		case "NRestarts":
			l.restarts = value
		}
	}
	return l
}

// same fails the test unless every life of before goes on.
func (c *cluster) same(what string, before, after []life) {
	c.Helper()
	if !slices.Equal(before, after) {
		c.Errorf("%s: units were disturbed\nbefore: %v\nafter:  %v", what, before, after)
	}
}

// destroyAll leaves the lab as the next scenario wants it.
func (c *cluster) destroyAll() {
	c.repair()
	c.joined(size)
	names := strings.Fields(c.fleetctl("list-unit-files", "--no-legend", "--fields=unit"))
	if len(names) == 0 {
		return
	}
	c.fleetctl(append([]string{"destroy"}, names...)...)
	c.eventually(time.Minute, "all units gone", func() error {
		for _, m := range c.names() {
			have := strings.Fields(c.on(m, "ls", "/run/systemd/system"))
			for _, name := range names {
				if slices.Contains(have, name) {
					return fmt.Errorf("%s still has %s", m, name)
				}
			}
		}
		return nil
	})
}

// repair gives every machine its power, its time and its cable back, whatever a scenario that
// failed has left.
func (c *cluster) repair() {
	c.Helper()
	ctx := context.Background()
	all, err := lab.Status(ctx)
	if err != nil {
		c.Fatal(err)
	}
	for _, m := range all {
		if m.Power == "off" {
			err = errors.Join(err, lab.Boot(ctx, m.Name))
		}
		if m.Power == "frozen" {
			err = errors.Join(err, lab.Thaw(m.Name))
		}
		if m.Network == "cut" {
			err = errors.Join(err, lab.Heal(ctx, m.Name))
		}
	}
	if err != nil {
		c.Fatal(err)
	}
	c.off, c.cut = "", nil
}
