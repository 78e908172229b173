package locksmithd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fleet/fleetd"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/unit/unitfake"
)

// startStore runs a member of the store in this process until the test ends.
func startStore(t *testing.T) (string, *keys.Client) {
	t.Helper()
	url := membertest.Start(t)
	return url, storeClient(t, url)
}

func storeClient(t *testing.T, url string) *keys.Client {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// onStore makes a world's machines use a real store, in real time.
func (w *world) onStore(url string) {
	w.store = nil
	for _, m := range w.machines {
		c := storeClient(w.t, url)
		l, err := lock.New(c, "")
		if err != nil {
			w.t.Fatal(err)
		}
		m.locks, m.fleet = l, gate.NewStore(c, gate.FleetPrefix, m.id)
		m.cfg.Settle, m.downtime = 200*time.Millisecond, 100*time.Millisecond
		w.t.Cleanup(m.end)
	}
}

// engine imitates fleet for a machine, in the keys that docs/formats/registry.md lists:
// its unit leaves when it is to be drained, and comes when the cordon is gone.
func engine(ctx context.Context, c *keys.Client, machine string) {
	prefix := "/_coreos.com/fleet/"
	entry, state := prefix+"schedule/"+machine+"/web.service", prefix+"states/"+machine+"/web.service"
	set := func(key, value string) { c.Set(ctx, key, value, keys.SetOptions{}) }
	set(prefix+"machines/"+machine+"/object", `{"ID":"`+machine+`"}`)
	set(prefix+"lease/engine-leader", `{}`)
	const text = `{"text":"[Service]\nExecStart=/bin/true\n","desired":"launched","gen":1`
	arrive := func() {
		set(entry, text+`}`)
		set(state, `{"activeState":"active","gen":1}`)
	}
	arrive()
	for w := c.Watch(prefix+"machines/"+machine+"/cordon", keys.WatchOptions{After: 1}); ; {
		r, err := w.Next(ctx)
		switch {
		case err != nil:
			return
		case r.Action == "delete" || r.Action == "compareAndDelete":
			arrive()
		case strings.Contains(*r.Node.Value, `"drain":true`):
			set(entry, text+`,"leaving":true}`)
			c.Delete(ctx, entry, keys.DeleteOptions{})
			c.Delete(ctx, state, keys.DeleteOptions{})
		}
	}
}

// Three machines on a real store want to reboot at once: one after the other, each
// empty when it goes, and in the end the lock is free and its history has them all.
func TestOnARealStore(t *testing.T) {
	t.Parallel()
	url, c := startStore(t)
	w := newWorld(t, 3)
	w.onStore(url)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for _, m := range w.machines {
		go engine(ctx, c, m.id)
		w.within(10*time.Second, "its unit runs", func() bool { return has(c, "/_coreos.com/fleet/states/"+m.id+"/web.service") })
	}
	for _, m := range w.machines {
		m.beforeDown = func() {
			if has(c, "/_coreos.com/fleet/schedule/"+m.id+"/web.service") {
				t.Errorf("%s goes down with its unit", m.id)
			}
		}
		m.needs.want()
		m.start()
	}
	w.within(30*time.Second, "all have rebooted", func() bool {
		for _, m := range w.machines {
			if m.rebooted() != 1 {
				return false
			}
		}
		r, err := c.Get(t.Context(), lock.Key(""), keys.GetOptions{})
		return err == nil && strings.HasPrefix(*r.Node.Value, `{"semaphore":1,"max":1,"holders":[]`)
	})
	r, err := c.Get(t.Context(), "/coreos.com/updateengine/rebootlock/history", keys.GetOptions{Sorted: true})
	if err != nil || len(r.Node.Nodes) != 3 {
		t.Errorf("history: %+v, %v", r, err)
	}
	for _, m := range w.machines {
		if has(c, "/_coreos.com/fleet/machines/"+m.id+"/cordon") || !has(c, "/_coreos.com/fleet/schedule/"+m.id+"/web.service") {
			t.Errorf("%s is not as it was", m.id)
		}
	}
}

func has(c *keys.Client, key string) bool {
	_, err := c.Get(context.Background(), key, keys.GetOptions{})
	return err == nil
}

// fleetMachine is a machine with a real fleetd and an init system of pretended units.
type fleetMachine struct {
	*machine
	url    string
	units  *unitfake.Manager
	dir    string
	cancel context.CancelFunc
	done   chan struct{}
}

func (f *fleetMachine) startFleet(epoch int) {
	cfg := fleetd.Defaults()
	cfg.EtcdServers = []string{f.url}
	cfg.PublicIP, cfg.PeerListen = "127.0.0.1", "127.0.0.1:0"
	cfg.StateDir, cfg.RunDir, cfg.APISocket = filepath.Join(f.dir, "state"), filepath.Join(f.dir, "run"), filepath.Join(f.dir, "s")
	cfg.MachineID, cfg.Hostname = f.id, f.id[:2]
	cfg.AgentTTL, cfg.MoveAfter = 2*time.Second, time.Second
	d := fleetd.New(cfg, fleetd.Deps{
		Manager: f.units, Log: f.units, Epoch: fmt.Sprint(epoch),
		Logger: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	done := make(chan struct{})
	f.cancel, f.done = cancel, done
	go func() {
		defer close(done)
		if err := d.Run(ctx, func() { close(ready) }); err != nil {
			f.t.Errorf("fleetd: %v", err)
		}
	}()
	select {
	case <-ready:
	case <-done:
		f.t.Fatal("fleetd has ended")
	}
}

// do sends a request to the machine's fleet API.
func (f *fleetMachine) do(method, path, body string) int {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(f.dir, "s"))
		},
	}}
	req, err := http.NewRequest(method, "http://fleet"+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (f *fleetMachine) runs(unit string) bool {
	s, err := f.units.Status(context.Background(), unit)
	return err == nil && s[0].MainPID != 0
}

// Two machines with real fleetds: what runs on the one that reboots runs on the other
// before, and the global unit runs again before the lock is free.
func TestWithFleet(t *testing.T) {
	t.Parallel()
	url, c := startStore(t)
	w := newWorld(t, 0)
	w.add(strings.Repeat("a", 32))
	w.add(strings.Repeat("b", 32))
	w.onStore(url)
	var fleets []*fleetMachine
	for _, m := range w.machines {
		dir, err := os.MkdirTemp("", "fl") // sockets have short names
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		m.cfg.Settle = 2500 * time.Millisecond // longer than fleet's lease
		f := &fleetMachine{machine: m, url: url, dir: dir, units: unitfake.New()}
		f.startFleet(1)
		t.Cleanup(func() { f.cancel(); <-f.done })
		fleets = append(fleets, f)
	}
	put := func(name, more string) {
		t.Helper()
		body := `{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 1d"}` + more + `]}`
		w.within(10*time.Second, name+" is taken", func() bool { return fleets[0].do("PUT", "/fleet/v1/units/"+name, body)/100 == 2 })
	}
	put("web.service", "")
	put("log.service", `,{"section":"X-Fleet","name":"Global","value":"true"}`)
	w.within(20*time.Second, "the units run", func() bool {
		return fleets[0].runs("web.service") != fleets[1].runs("web.service") && fleets[0].runs("log.service") && fleets[1].runs("log.service")
	})
	from, to := fleets[0], fleets[1]
	if to.runs("web.service") {
		from, to = to, from
	}
	from.beforeDown = func() {
		if !to.runs("web.service") || from.runs("web.service") || !from.runs("log.service") {
			t.Error("web.service has not moved before the machine goes down, or log.service has")
		}
		from.cancel()
		<-from.done
		from.units.Reboot()
	}
	from.beforeUp = func() { from.startFleet(2) }
	from.needs.want()
	from.start()
	w.within(40*time.Second, "it has rebooted and is well", func() bool {
		r, err := c.Get(t.Context(), lock.Key(""), keys.GetOptions{})
		return from.rebooted() == 1 && err == nil && strings.HasPrefix(*r.Node.Value, `{"semaphore":1,"max":1,"holders":[]`)
	})
	if !from.runs("log.service") {
		t.Error("the lock is free before log.service runs again")
	}
	if has(c, "/_coreos.com/fleet/machines/"+from.id+"/cordon") {
		t.Error("the cordon is left")
	}
}
