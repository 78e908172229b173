package fleetd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	client "flotilla/client/fleet"
	"flotilla/internal/fault"
)

func TestAUnitRuns(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("hello.service")
	if at := c.active("hello.service"); at != m {
		t.Fatalf("runs on %v", at)
	}
	m.wait("hello.service is launched", func() bool { return m.unit("hello.service").CurrentState == "launched" })
	if status, body, _ := m.do("DELETE", "/fleet/v1/units/hello.service", ""); status != 204 {
		t.Fatalf("destroy: %d %s", status, body)
	}
	m.wait("hello.service is gone", func() bool { return m.pid("hello.service") == 0 && len(m.states("hello.service")) == 0 })
}

// running is the main processes of units, wherever they run, by "unit machine".
func (c *cluster) running(units ...string) map[string]int {
	out := map[string]int{}
	for _, m := range c.machines {
		for _, u := range units {
			if pid := m.pid(u); pid != 0 {
				out[u+" "+m.name] = pid
			}
		}
	}
	return out
}

func (c *cluster) unchanged(before map[string]int, units ...string) {
	c.t.Helper()
	after := c.running(units...)
	if fmt.Sprint(after) != fmt.Sprint(before) {
		c.t.Errorf("main processes before %v, after %v", before, after)
	}
}

// Nothing that runs is stopped because the store is away, and nothing is started
// again when it is back; what is asked for then happens.
func TestStoreAwayAndBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	units := []string{"a.service", "b.service", "c.service"}
	for _, u := range units {
		c.first().launch(u)
		c.active(u)
	}
	before := c.running(units...)
	c.store.stop()

	m := c.first()
	m.wait("the API says that the store is away", func() bool {
		status, body, _ := m.do("GET", "/fleet/v1/units", "")
		return status == 503 && strings.Contains(body, "unable to communicate with etcd") && strings.Contains(body, m.cable.url())
	})
	// Longer than presence, suspicion and move together.
	time.Sleep(5 * time.Second)
	c.unchanged(before, units...)

	c.startStore()
	m.launch503("d.service")
	c.active("d.service")
	time.Sleep(3 * time.Second)
	c.unchanged(before, units...)
}

// launch503 launches a unit, trying again while the store is not back.
func (m *machine) launch503(name string) {
	m.t.Helper()
	body := `{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`
	m.wait(name+" is accepted", func() bool {
		status, answer, _ := m.do("PUT", "/fleet/v1/units/"+name, body)
		if status != 201 && status != 204 && status != 503 {
			m.t.Fatalf("PUT %s: %d %s", name, status, answer)
		}
		return status < 300
	})
}

// A restart of the daemon, with the store there or away, touches no unit.
func TestRestartOfTheDaemon(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service")
	m.launch("b.service")
	c.active("a.service")
	c.active("b.service")
	before := c.running("a.service", "b.service")

	m.stop()
	m.start()
	m.wait("states are published again", func() bool { return len(m.states("a.service")) == 1 })
	c.unchanged(before, "a.service", "b.service")

	m.stop()
	m.cable.setCut(true)
	m.start()
	time.Sleep(4 * time.Second) // past the wait for the store
	c.unchanged(before, "a.service", "b.service")
	m.cable.setCut(false)
	m.wait("states are published again", func() bool { return len(m.states("a.service")) == 1 })
	c.unchanged(before, "a.service", "b.service")
	if n := m.units.Starts("a.service"); n != 1 {
		t.Errorf("a.service was started %d times", n)
	}
}

// A machine that boots while the store is away waits for it, then starts its units
// from what it knows.
func TestColdStartWithoutTheStore(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service")
	c.active("a.service")
	m.put("loaded.service", "loaded")
	m.wait("loaded.service is loaded", func() bool { return m.unit("loaded.service").CurrentState == "loaded" })

	m.stop()
	m.cable.setCut(true)
	m.reboot()
	m.start()
	if m.pid("a.service") != 0 {
		t.Error("started without waiting for the store")
	}
	m.wait("a.service runs again", func() bool { return m.pid("a.service") != 0 })
	if m.pid("loaded.service") != 0 {
		t.Error("loaded.service was started")
	}
	m.cable.setCut(false)
	m.wait("states are published again", func() bool { return len(m.states("a.service")) == 1 })
	if n := m.units.Starts("a.service"); n != 1 {
		t.Errorf("a.service was started %d times after the boot", n)
	}
}

func (m *machine) reboot() {
	m.units.Reboot()
	m.epoch++
}

// The units of a machine that is lost move, not before their time; when it is back
// it gives them up once they run elsewhere.
func TestMachineLostAndBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	for i := range 6 {
		c.first().launch(fmt.Sprintf("u%d.service", i))
	}
	c.active("u0.service")
	lost := c.active("u5.service")
	moved := lost.unitsOf(6)
	began := time.Now()
	lost.cable.setCut(true)
	for _, u := range moved {
		c.first().wait(u+" runs elsewhere", func() bool {
			s := c.first().states(u)
			return slices.ContainsFunc(s, func(s stateJSON) bool { return s.MachineID != lost.id && s.SystemdActiveState == "active" })
		})
	}
	if took := time.Since(began); took < 2*time.Second || took > 15*time.Second {
		t.Errorf("moved after %v; the lease is 2 s and the move 1 s later", took)
	}
	for _, u := range moved {
		if lost.pid(u) == 0 {
			t.Errorf("%s was stopped on the machine that is cut off", u)
		}
	}
	lost.cable.setCut(false)
	for _, u := range moved {
		lost.wait(u+" is given up", func() bool { return lost.pid(u) == 0 })
		lost.wait(u+" runs at its new place alone", func() bool {
			s := c.first().states(u)
			return len(s) == 1 && s[0].MachineID != lost.id && s[0].SystemdActiveState == "active"
		})
	}
}

// unitsOf is those of u0 .. un-1 that run on this machine.
func (m *machine) unitsOf(n int) []string {
	var out []string
	for i := range n {
		if u := fmt.Sprintf("u%d.service", i); m.pid(u) != 0 {
			out = append(out, u)
		}
	}
	return out
}

// When most machines vanish at once nothing moves, and the engine says why.
//
// Machines that are cut off come back one at a time, each when it next tries, a
// second or so apart: all of that is to fit into the time after which a unit moves.
func TestMassLossMovesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.MoveAfter = 5 * time.Second })
	for i := range 3 {
		c.first().launch(fmt.Sprintf("u%d.service", i))
		c.active(fmt.Sprintf("u%d.service", i))
	}
	before := c.running("u0.service", "u1.service", "u2.service")
	if len(before) != 3 {
		t.Fatalf("running: %v", before)
	}
	c.machines[1].cable.setCut(true)
	c.machines[2].cable.setCut(true)
	c.first().wait("two machines are gone", func() bool { return len(c.first().listMachines()) == 1 })
	c.first().wait("the engine holds moves", func() bool { return strings.Contains(c.log.String(), "moves are held") })
	time.Sleep(3 * time.Second)
	c.unchanged(before, "u0.service", "u1.service", "u2.service")
	c.machines[1].cable.setCut(false)
	c.machines[2].cable.setCut(false)
	c.first().wait("all machines are back", func() bool { return len(c.first().listMachines()) == 3 })
	time.Sleep(time.Second)
	c.unchanged(before, "u0.service", "u1.service", "u2.service")
}

// Another engine leads when the one that led is gone, cut off or stopped.
func TestEngineIsReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.first().launch("a.service")
	c.active("a.service")
	c.leader().stop() // resigns
	began := time.Now()
	c.first().launch("b.service", "X-Fleet MachineMetadata=name="+c.first().name)
	c.active("b.service")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a resigned engine was missed for %v", took)
	}
}

// leader is the machine whose engine has led first.
func (c *cluster) leader() *machine {
	c.t.Helper()
	for _, m := range c.machines {
		if strings.Contains(c.log.String(), "Engine leadership acquired\" machine="+m.name) {
			return m
		}
	}
	c.t.Fatal("nobody leads")
	return nil
}

// An engine that is gone without a word is replaced when its lease has run out,
// and what was asked for meanwhile is done.
func TestEngineIsKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.first().launch("a.service")
	c.active("a.service")
	killed := c.leader()
	killed.cable.setCut(true) // nothing that it does at its end reaches the store
	killed.stop()
	began := time.Now()
	c.first().launch("b.service", "X-Fleet MachineMetadata=name="+c.first().name)
	c.active("b.service")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("an engine that was killed was missed for %v; its lease is 5 s", took)
	}
}

// A store that has lost all its data and comes back under the same address stops
// nothing; what is submitted to it again is taken over as it runs.
func TestStoreReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service")
	m.launch("b.service")
	c.active("a.service")
	c.active("b.service")
	before := c.running("a.service", "b.service")
	if err := c.store.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "store")); err != nil {
		t.Fatal(err)
	}
	c.startStore()
	m.wait("the agent has found out", func() bool { return strings.Contains(c.log.String(), "this is another store") })
	m.wait("states are published again", func() bool { return len(m.states("a.service")) == 1 && len(m.states("b.service")) == 1 })
	m.launch503("c.service")
	c.active("c.service")
	m.launch("a.service")
	m.wait("a.service is taken over", func() bool { return m.unit("a.service").CurrentState == "launched" })
	m.stop()
	m.start()
	m.wait("states are published again", func() bool { return len(m.states("b.service")) == 1 })
	c.unchanged(before, "a.service", "b.service")
	if status, body, _ := m.do("DELETE", "/fleet/v1/units/a.service", ""); status != 204 {
		t.Fatalf("destroy: %d %s", status, body)
	}
	m.wait("a.service ends with the new store's word", func() bool { return m.pid("a.service") == 0 })
	if m.pid("b.service") == 0 {
		t.Error("b.service was stopped")
	}
}

// A store that is set back to a backup, with the id, the mark, the lead and the leases
// that it had: what was placed since goes on as it is and is published again, and what
// is asked for is done, whether the store has come further again meanwhile or not.
func TestStoreSetBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		further int // writes of others, before a fleetd reaches the store
	}{{"it has lower revisions", 0}, {"it has come further than it was", 300}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testStoreSetBack(t, c.further)
		})
	}
}

func testStoreSetBack(t *testing.T, further int) {
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service")
	c.active("a.service")
	store, backup := filepath.Join(c.dir, "store"), filepath.Join(c.dir, "backup")
	err := errors.Join(c.store.stop(), os.CopyFS(backup, os.DirFS(store)))
	if err != nil {
		t.Fatal(err)
	}
	c.startStore()
	m.launch503("b.service")
	c.active("b.service")
	m.wait("b.service is known", func() bool { return len(m.states("b.service")) == 1 })
	before := c.running("a.service", "b.service")
	if err := errors.Join(c.store.stop(), os.RemoveAll(store), os.Rename(backup, store)); err != nil {
		t.Fatal(err)
	}
	if further > 0 {
		c.comeFurther(further)
	}
	c.startStore()
	m.launch503("c.service")
	c.active("c.service")
	m.wait("states are published again", func() bool { return len(m.states("a.service")) == 1 && len(m.states("b.service")) == 1 })
	c.unchanged(before, "a.service", "b.service")
	m.launch503("b.service")
	m.wait("b.service is taken over", func() bool { return m.unit("b.service").CurrentState == "launched" })
	c.unchanged(before, "a.service", "b.service")
}

// comeFurther writes to the store where no fleetd reaches it.
func (c *cluster) comeFurther(n int) {
	c.t.Helper()
	url := c.url
	defer func() { c.url = url }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.url = "http://" + ln.Addr().String()
	ln.Close()
	c.startStore()
	client := c.client()
	for range n {
		if _, err := client.Put(c.t.Context(), "/elsewhere", ""); err != nil {
			c.t.Fatal(err)
		}
	}
	client.Close()
	if err := c.store.stop(); err != nil {
		c.t.Fatal(err)
	}
}

// A second machine with the same id is refused and says who has it; the first goes
// on.
func TestMachineIDInUse(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service")
	c.active("a.service")
	twin := c.twin(m)
	twin.wait("the twin is refused", func() bool {
		status, body, _ := twin.do("GET", "/fleet/v1/machines", "")
		return status == 503 && strings.Contains(body, "in use by m1 (127.0.0.1)")
	})
	if len(m.listMachines()) != 1 || m.pid("a.service") == 0 || twin.pid("a.service") != 0 {
		t.Error("the twin has taken over")
	}
	m.stop()
	twin.wait("the twin takes part once the id is free", func() bool {
		status, _, _ := twin.do("GET", "/fleet/v1/machines", "")
		return status == 200
	})
}

func TestUnitTheInitSystemRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.units.Script("bad.service", refusedScript("Type=dbus is not supported"))
	m.launch("bad.service")
	m.wait("the refusal is published", func() bool {
		s := m.states("bad.service")
		return len(s) == 1 && strings.Contains(s[0].Message, "Type=dbus is not supported")
	})
	m.launch("good.service")
	c.active("good.service")
}

func TestGlobalUnitsRunEverywhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.first().launch("g.service", "X-Fleet Global=true")
	c.first().wait("it runs on all machines", func() bool { return len(c.running("g.service")) == 3 })
	u := c.first().unit("g.service")
	if u.CurrentState != "" || u.MachineID != "" {
		t.Errorf("a global unit has no current state and no machine: %+v", u)
	}
}

func TestWhyAUnitIsNowhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m := c.first()
	m.launch("a.service", "X-Fleet MachineMetadata=disk=ssd")
	m.wait("the reason is told", func() bool { return strings.Contains(m.unit("a.service").Reason, "disk") })
	if status, body, _ := m.do("PATCH", "/fleet/v1/machines", fmt.Sprintf(`[{"op":"add","path":"/%s/metadata/disk","value":{"value":"ssd"}}]`, c.machines[1].id)); status != 204 {
		t.Fatalf("PATCH: %d %s", status, body)
	}
	if at := c.active("a.service"); at != c.machines[1] {
		t.Errorf("runs on %s", at.name)
	}
	m.wait("the reason is gone", func() bool { return m.unit("a.service").Reason == "" })
}

// Logs and statuses of another machine's units come through its fleetd.
func TestLogsAndStatusOfAnotherMachine(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	c.first().launch("a.service", "X-Fleet MachineMetadata=name=m2")
	c.active("a.service")
	for _, m := range c.machines {
		m.wait("the log comes to "+m.name, func() bool {
			status, body, _ := m.do("GET", "/fleet/v1/units/a.service/journal?lines=5", "")
			return status == 200 && strings.Contains(body, `"unit":"a.service"`)
		})
		status, body, header := m.do("GET", "/fleet/v1/units/a.service/status", "")
		if status != 200 || header.Get("X-Exit-Code") != "0" || !strings.Contains(body, "a.service") {
			t.Errorf("status on %s: %d %q exit code %s", m.name, status, body, header.Get("X-Exit-Code"))
		}
	}
}

// A socket that answers is another daemon's.
func TestSocketInUse(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	err := New(m.config(), Deps{Manager: m.units, Log: m.units}).Run(context.Background(), func() {})
	if err == nil || !strings.Contains(err.Error(), "another daemon answers there") || len(fault.Hints(err)) == 0 {
		t.Errorf("got %v", err)
	}
}

// A cluster in which nothing happens writes nothing: leases are renewed without a
// revision of the store. There is one for each machine, and one for the engine that leads:
// those that wait for the lead hold none.
func TestIdleWritesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.first().launch("a.service")
	c.active("a.service")
	c.first().launch("nowhere.service", "X-Fleet MachineMetadata=disk=ssd")
	c.first().wait("the reason is told", func() bool { return c.first().unit("nowhere.service").Reason != "" })
	time.Sleep(time.Second)
	before := c.revision()
	time.Sleep(6 * time.Second) // three leases long
	if after := c.revision(); after != before {
		t.Errorf("%d writes", after-before)
	}
	if n := c.leases(); n != len(c.machines)+1 {
		t.Errorf("%d leases are renewed for %d machines", n, len(c.machines))
	}
}

// New metadata is taken over while the daemon runs, and decides about units.
func TestReload(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.machines[0]
	m.launch("a.service", "X-Fleet MachineMetadata=disk=ssd")
	next := m.config()
	next.Metadata = map[string]string{"disk": "ssd"}
	m.reload <- next
	c.active("a.service")
	if got := m.listMachines()[0].Metadata; fmt.Sprint(got) != "map[disk:ssd]" {
		t.Errorf("metadata %v", got)
	}
}

// What was asked for is among the cluster's events, whichever machine is asked, also
// what was asked for while the store was away.
func TestRequestsAreEvents(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m := c.first()
	m.launch("a.service")
	m.do("DELETE", "/fleet/v1/units/nothing.service", "")
	m.cable.setCut(true)
	m.do("DELETE", "/fleet/v1/units/a.service", "")
	m.cable.setCut(false)
	m.do("PATCH", "/fleet/v1/machines", "[]")
	for _, want := range []string{
		`"kind":"request","unit":"a.service","what":"created, launched"`,
		`"unit":"nothing.service","what":"destroy: failed","why":"destroy unit nothing.service: unit does not exist"`,
		`"unit":"a.service","what":"destroy: failed","why":"destroy unit a.service: the store does not answer`,
	} {
		c.machines[1].wait(want, func() bool {
			_, body, _ := c.machines[1].do("GET", "/fleet/v1/events", "")
			return strings.Contains(body, want)
		})
	}
	if log := c.log.String(); !strings.Contains(log, "msg=audit") || !strings.Contains(log, `what="created, launched"`) {
		t.Error("the log does not have it")
	}
	if _, body, _ := m.do("GET", "/fleet/v1/events?unit=a.service", ""); !strings.Contains(body, `from this machine, process`) {
		t.Errorf("who it was and from where is not said: %s", body)
	}
}

// The logs of units on several machines are one stream, which goes on when a machine's
// daemon has been away.
func TestLogsOfSeveralMachines(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	for i := 1; i <= 2; i++ {
		c.first().launch(fmt.Sprintf("web@%d.service", i), fmt.Sprintf("X-Fleet MachineMetadata=name=m%d", i))
		c.active(fmt.Sprintf("web@%d.service", i))
	}
	far := c.machines[1]
	api, err := client.New(client.Config{Endpoint: "unix://" + filepath.Join(c.first().dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	c.first().units.Print("web@1.service", "say one")
	for line, err := range api.Logs(ctx, client.LogQuery{Units: []string{"web@*"}, Grep: "^say", Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if line.Notice == "" {
			got = append(got, line.Machine+" "+line.Message)
		}
		switch {
		case len(got) == 1 && line.Notice == "":
			far.units.Print("web@2.service", "say two")
		case len(got) == 2 && line.Notice == "":
			far.stop()
			far.units.Print("web@2.service", "say three")
			far.start()
		case len(got) == 3:
			cancel()
		}
	}
	if fmt.Sprint(got) != "[m1 say one m2 say two m2 say three]" {
		t.Errorf("got %v", got)
	}
}

// A unit that runs on a machine comes into the cluster and leaves it again without a
// stop, asked for through another machine.
func TestAdoptAndEject(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m, far := c.first(), c.machines[1]
	far.units.Native("web.service", "[Service]\nExecStart=/bin/sleep 1d\n")
	far.units.Native("picky.service", "[Service]\nExecStart=/bin/sleep 1d\n[X-Fleet]\nMachineMetadata=name=m1\n")
	pid := far.pid("web.service")
	post := func(path, body string, want int, words string) {
		t.Helper()
		if status, answer, _ := m.do("POST", "/fleet/v1"+path, body); status != want || !strings.Contains(answer, words) {
			t.Errorf("%s %s: %d %s", path, body, status, answer)
		}
	}
	post("/adopt", `{"unit":"none.service","machine":"2"}`, 502, "no such unit of its own")
	post("/adopt", `{"unit":"web.service","machine":"9"}`, 404, "no machine 9")
	post("/adopt", `{"unit":"web","machine":"2"}`, 400, "must contain")
	post("/adopt", `{"unit":"picky.service","machine":"2"}`, 409, "m2 may not run it: MachineMetadata: lacks name=m1")
	post("/adopt", `{"unit":"web.service","machine":"2"}`, 204, "")
	post("/adopt", `{"unit":"web.service","machine":"2"}`, 409, "the cluster has a unit web.service already")
	m.wait("web.service is launched", func() bool {
		u := m.unit("web.service")
		return u.CurrentState == "launched" && u.MachineID == far.id
	})
	if got := far.pid("web.service"); got != pid {
		t.Errorf("main process %d, before %d", got, pid)
	}
	post("/eject", `{"unit":"none.service"}`, 404, "unit does not exist")
	post("/eject", `{"unit":"web.service"}`, 204, "")
	m.wait("the cluster has forgotten it", func() bool { return len(m.states("web.service")) == 0 })
	if got := far.pid("web.service"); got != pid {
		t.Errorf("main process %d, before %d", got, pid)
	}
	if status, _, _ := m.do("GET", "/fleet/v1/units/web.service", ""); status != 404 {
		t.Errorf("it is still there: %d", status)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m := c.first()
	m.do("PUT", "/fleet/v1/machines/2/cordon", `{"drain":true}`)
	for _, want := range []string{
		`fleet_machines{state="draining"} 1`, `fleet_machines{state="open"} 1`, `fleet_rolls{state="rolling"} 0`,
		"fleet_moves_held 0", "fleet_events_kept_total 1", "fleet_events_lost_total 0", "fleet_engine_leader_start_time ",
	} {
		m.wait(want, func() bool {
			_, body, _ := m.do("GET", "/metrics", "")
			return strings.Contains(body, want)
		})
	}
	m.cable.setCut(true)
	status, body, _ := m.do("GET", "/metrics", "")
	if status != 200 || strings.Contains(body, "fleet_machines") || !strings.Contains(body, "fleet_events_lost_total") {
		t.Errorf("without the store: %d %s", status, body)
	}
}

// What the daemon knows can be asked for, with the store and without.
func TestDump(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.first()
	m.launch("a.service")
	c.active("a.service")
	dump := func() string {
		t.Helper()
		r, w := io.Pipe()
		m.dump <- w
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	if got := dump(); !strings.Contains(got, `"schedule":[{"unit":"a.service","desired":"launched"`) || !strings.Contains(got, `"hostname":"m1"`) {
		t.Errorf("got %s", got)
	}
	m.cable.setCut(true)
	if got := dump(); !strings.Contains(got, `"scheduleError":"read the registry: `) || !strings.Contains(got, `"storeAwaySince"`) {
		t.Errorf("without the store: %s", got)
	}
}
