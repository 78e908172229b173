package fleetd

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lock makes the store's users as the command says, and turns authentication on. It
// returns their passwords.
func (c *cluster) lock(args ...string) map[string]string {
	c.t.Helper()
	code, out, errs := fleetd(c.t, nil, append([]string{"store-roles", "--passwords", "--etcd-servers", c.url}, args...)...)
	if code != 0 || !strings.Contains(errs, "does not ask who its clients are yet") {
		c.t.Fatalf("exit code %d: %s", code, errs)
	}
	passwords := map[string]string{}
	for line := range strings.Lines(out) {
		name, password, _ := strings.Cut(strings.TrimSpace(line), " ")
		passwords[name] = password
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.url}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	ctx := c.t.Context()
	if _, err := client.UserAdd(ctx, "root", "secret"); err != nil {
		c.t.Fatal(err)
	}
	if _, err := client.UserGrantRole(ctx, "root", "root"); err != nil {
		c.t.Fatal(err)
	}
	if _, err := client.AuthEnable(ctx); err != nil {
		c.t.Fatal(err)
	}
	return passwords
}

// A machine that can write its own keys alone runs units, and its API reads; what it
// may not change, another machine's may.
func TestNarrowStoreRole(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 0, nil)
	id := strings.Repeat("2", 32)
	passwords := c.lock(id + "=worker")
	if len(passwords) != 2 || passwords["fleet"] == "" || passwords["worker"] == "" {
		t.Fatalf("users %v", passwords)
	}
	as := func(user string, never bool) func(*Config) {
		return func(cfg *Config) {
			cfg.EtcdUsername, cfg.EtcdPassword, cfg.DisableEngine = user, passwords[user], never
			// Logging in takes the store a while, on purpose.
			cfg.EtcdRequestTimeout, cfg.AgentTTL = 5*time.Second, 10*time.Second
		}
	}
	leader, worker := c.add(as("fleet", false)), c.add(as("worker", true))
	leader.wait("both are present", func() bool { return len(leader.listMachines()) == 2 })
	leader.launch("a.service", "X-Fleet MachineMetadata=name=m2")
	leader.wait("a.service runs", func() bool { return worker.pid("a.service") != 0 })
	worker.wait("its state is known", func() bool {
		s := worker.states("a.service")
		return len(s) == 1 && s[0].SystemdActiveState == "active"
	})
	status, body, _ := worker.do("DELETE", "/fleet/v1/units/a.service", "")
	if status != 403 || !strings.Contains(body, "the store does not allow it") || !strings.Contains(body, "another machine's fleetd") {
		t.Errorf("destroy through the worker: %d %s", status, body)
	}
	if status, body, _ := leader.do("DELETE", "/fleet/v1/units/a.service", ""); status != 204 {
		t.Errorf("destroy through the leader: %d %s", status, body)
	}
	worker.wait("it is gone", func() bool { return worker.pid("a.service") == 0 })
	// Its credentials work anew after the store was away.
	worker.cable.setCut(true)
	worker.stop()
	worker.start()
	worker.cable.setCut(false)
	worker.wait("it is present again", func() bool { return len(worker.listMachines()) == 2 })

	code, _, errs := fleetd(t, nil, "store-roles", "--etcd-servers", c.url)
	if code != 1 || !strings.Contains(errs, "user name is empty") {
		t.Errorf("without the rights of root: %d %s", code, errs)
	}
	if code, _, errs = fleetd(t, nil, "store-roles", "--etcd-servers", c.url, "--etcd-username=root", "--etcd-password=secret", id+"=worker"); code != 0 || errs != "" {
		t.Errorf("as root: %d %s", code, errs)
	}
}

func TestStoreRolesArguments(t *testing.T) {
	code, out, _ := fleetd(t, nil, "store-roles", "--dry-run", "--engine=", strings.Repeat("0a", 16))
	if code != 0 || !strings.HasPrefix(out, "etcdctl role add fleet-0a0a") || strings.Contains(out, "role add fleet\n") {
		t.Errorf("%d %s", code, out)
	}
	if code, _, errs := fleetd(t, nil, "store-roles", "m1", "m2=", "x=y"); code != 2 || !strings.Contains(errs, "m1, m2=, x=y: not the id of a machine") {
		t.Errorf("%d %s", code, errs)
	}
	if code, out, _ := fleetd(t, nil, "store-roles", "--help"); code != 0 || !strings.Contains(out, "--etcd_username") || strings.Contains(out, "--move_after") {
		t.Errorf("%d %s", code, out)
	}
}
