package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/unitfile"
)

// web writes three instances of a template.
func (c *cluster) web(t *testing.T, version, more string) {
	t.Helper()
	text := "[Service]\nExecStart=/usr/bin/web " + version + "\n" + more
	f, err := unitfile.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var ws []registry.UnitWrite
	for i := range 3 {
		ws = append(ws, registry.UnitWrite{
			Name: fmt.Sprintf("web@%d.service", i+1), Text: registry.Text{Canonical: f.String(), Hash: f.Hash()},
			Want: model.Launched, Rev: registry.AnyRev,
		})
	}
	if err := c.reg.Apply(t.Context(), ws, "ann", "apply"); err != nil {
		t.Fatal(err)
	}
}

// versions is which version each of the three runs, by what its machine says.
func (c *cluster) versions() string {
	texts := map[string]string{}
	for _, p := range c.view.Placements() {
		_, v, _ := strings.Cut(p.Text, "/usr/bin/web ")
		v, _, _ = strings.Cut(v, "\n")
		texts[p.Hash] = v
	}
	var out []string
	for i := range 3 {
		for _, s := range c.view.StatesOf(fmt.Sprintf("web@%d.service", i+1)) {
			out = append(out, texts[s.Hash]+" "+s.Active)
		}
	}
	return strings.Join(out, ", ")
}

// A change of a template's instances, through the real store, engine and agents: one
// after the other, and back when the new version is bad.
func TestRoll(t *testing.T) {
	c, err := start(t.Context(), Config{
		Endpoint: membertest.Start(t), Dir: t.TempDir(), Machines: 3, TTL: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	_, quit, err := c.lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer quit()
	await := func(what string, ok func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := c.await(ctx, what, ok); err != nil {
			r, _ := c.view.Roll("web@.service")
			t.Fatalf("%v: they run %s; the roll is %s: %s", err, c.versions(), r.State, r.Why)
		}
	}
	runs := func(v string) func() bool {
		return func() bool { return c.versions() == strings.Repeat(v+" active, ", 2)+v+" active" }
	}
	ended := func(state model.RollState) func() bool {
		return func() bool {
			r, _ := c.view.Roll("web@.service")
			return r.State == state
		}
	}
	policy := "[X-Fleet]\nHealthyAfter=50ms\nHealthyTimeout=2s\n"
	c.web(t, "v1", policy)
	await("v1", runs("v1"))

	c.web(t, "v2", policy)
	await("v2", runs("v2"))
	await("the roll to be done", ended(model.Done))

	c.web(t, "v3", policy+"HealthCheck=/bin/false\n")
	await("the roll to go back", ended(model.Reverted))
	await("v2 again", runs("v2"))
	r, _ := c.view.Roll("web@.service")
	if r.By != "ann" || r.Failed != "web@1.service" || !strings.Contains(r.Why, "/bin/false") {
		t.Errorf("the record says %+v", r)
	}
	versions, err := c.reg.ReadHistory(t.Context(), "web@2.service")
	if err != nil || len(versions) != 4 || versions[0].Hash != versions[2].Hash || !strings.HasPrefix(versions[0].Why, "reverted: web@1.service") {
		t.Errorf("history %+v, %v", versions, err)
	}
	var told []string
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = c.reg.FollowEvents(ctx, registry.EventFilter{Unit: "web@.service"}, func(e model.Event) error {
		if told = append(told, e.What); e.What == "the roll has gone back" {
			return enough
		}
		return nil
	})
	if want := "the roll begins, the roll is done, the roll begins, the roll has gone back"; strings.Join(told, ", ") != want {
		t.Errorf("told was %q, %v, want %q", told, err, want)
	}
}
