package gate_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/client/keys"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/gate"
)

const id = "11111111111111111111111111111111"

func startStore(t *testing.T) *keys.Client {
	t.Helper()
	url := membertest.Start(t)
	c, err := keys.New(keys.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// The keys that docs/formats/registry.md lists, read and written.
func TestStore(t *testing.T) {
	t.Parallel()
	c := startStore(t)
	s := gate.NewStore(c, gate.FleetPrefix, id)
	read := func() gate.Fleet {
		t.Helper()
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := read(); f.Used() {
		t.Errorf("an empty store: %+v", f)
	}
	for key, value := range map[string]string{
		"machines/" + id + "/object":        `{"ID":"` + id + `"}`,
		"machines/2222/object":              `{"ID":"2222"}`,
		"machines/3333/cordon":              `{}`,
		"schedule/" + id + "/web@1.service": `{"text":"[Service]\nExecStart=/bin/true\n","desired":"launched","gen":2}`,
		"schedule/" + id + "/log.service":   `{"text":"[X-Fleet]\nGlobal=true\n","desired":"launched","gen":1}`,
		"schedule/2222/other.service":       `{}`,
		"states/" + id + "/web@1.service":   `{"loadState":"loaded","activeState":"active","subState":"running","gen":2}`,
		"engine/hold":                       "2 of 3 machines are away",
		"lease/engine-leader":               `{"MachineID":"2222"}`,
	} {
		if _, err := c.Set(t.Context(), "/_coreos.com/fleet/"+key, value, keys.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := gate.Fleet{
		Present: true, Others: []string{"2222"}, Led: true, Held: "2 of 3 machines are away",
		Entries: []gate.Entry{
			{Unit: "log.service", Desired: "launched", Gen: 1, Stays: "a global unit"},
			{Unit: "web@1.service", Desired: "launched", Gen: 2},
		},
		States: map[string]gate.State{"web@1.service": {Active: "active", Sub: "running", Gen: 2}},
	}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A cordon of somebody else's is put back, and never taken away.
func TestCordon(t *testing.T) {
	t.Parallel()
	c := startStore(t)
	s := gate.NewStore(c, gate.FleetPrefix, id)
	key := "/_coreos.com/fleet/machines/" + id + "/cordon"
	value := func() string {
		r, err := c.Get(t.Context(), key, keys.GetOptions{})
		if err != nil {
			return ""
		}
		return *r.Node.Value
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	must(s.Uncordon(t.Context())) // there is none
	must(s.Drain(t.Context(), "reboot: updated: libc6", at))
	const ours = `{"drain":true,"why":"reboot: updated: libc6","by":"locksmithd","at":"2026-11-21T12:00:00Z"}`
	if got := value(); got != ours {
		t.Errorf("cordon is %s", got)
	}
	must(s.Drain(t.Context(), "again", at.Add(time.Hour)))
	if got := value(); got != ours {
		t.Errorf("done twice it is %s", got)
	}
	must(s.Uncordon(t.Context()))
	if got := value(); got != "" {
		t.Errorf("a cordon is left: %s", got)
	}

	const theirs = `{"why":"disk","by":"ann","at":"2026-11-20T12:00:00Z"}`
	_, err := c.Set(t.Context(), key, theirs, keys.SetOptions{})
	must(err)
	must(s.Uncordon(t.Context()))
	if got := value(); got != theirs {
		t.Errorf("somebody else's cordon is %s", got)
	}
	must(s.Drain(t.Context(), "reboot", at))
	if f, err := s.Read(t.Context()); err != nil || f.Cordon == nil || !f.Cordon.Ours || !f.Cordon.Drain {
		t.Errorf("%+v, %v", f.Cordon, err)
	}
	must(s.Uncordon(t.Context()))
	if got := value(); got != theirs {
		t.Errorf("put back is %s", got)
	}
}
