package agent

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

// neverUp is a unit that does not come up: its start takes longer than any test waits for
// what is asked of it meanwhile.
var neverUp = unitfake.Script{StartTakes: time.Hour, Start: unit.Timeout}

// What is asked of a unit whose start is under way does not wait for that to end.
func TestStartUnderWay(t *testing.T) {
	starting := func(b *bench, name string) {
		b.t.Helper()
		b.units.Script(name, neverUp)
		b.store.place(name, one, model.Launched)
		b.after(time.Second)
		b.expect(name, "activating", 0)
	}
	sent := func(b *bench, job, name string, times int) {
		b.t.Helper()
		if n := strings.Count(b.log.String(), "msg="+job+" unit="+name); n != times {
			b.t.Errorf("%s of %s was sent %d times, want %d", job, name, n, times)
		}
	}
	noFailure := func(b *bench, name string) {
		b.t.Helper()
		if log := b.log.String(); strings.Contains(log, "canceled") || strings.Contains(log, "step failed") {
			b.t.Error("the start that was canceled counts as a failure")
		}
		if s := b.store.state(name); s.Message != "" {
			b.t.Errorf("published message %q", s.Message)
		}
	}

	scenario(t, "a unit that is to be loaded is stopped at once", func(b *bench) {
		starting(b, "a.service")
		b.store.place("a.service", one, model.Loaded)
		b.after(time.Second)
		b.expect("a.service", "inactive", 0)
		sent(b, "stop", "a.service", 1)
		noFailure(b, "a.service")
		if s := b.store.state("a.service"); s.Active != "inactive" || s.Gen != b.store.rev {
			b.t.Errorf("published is %+v", s)
		}
		b.units.Script("a.service", unitfake.Script{})
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "active", 1)
	})

	scenario(t, "a unit that is no longer placed here goes at once", func(b *bench) {
		starting(b, "a.service")
		b.store.release("a.service")
		b.after(time.Second)
		if files, _ := b.units.Installed(b.t.Context()); len(files) != 0 {
			b.t.Errorf("installed: %v", files)
		}
		if s := b.store.state("a.service"); s.Unit != "" {
			b.t.Errorf("still published: %+v", s)
		}
		noFailure(b, "a.service")
	})

	scenario(t, "another text is started at once, and one start at a time", func(b *bench) {
		starting(b, "a.service")
		b.units.Script("a.service", unitfake.Script{StopTakes: 10 * time.Second, StartTakes: 10 * time.Second})
		b.store.place("a.service", two, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "deactivating", 0)
		b.after(15 * time.Second)
		b.expect("a.service", "activating", 0)
		b.after(time.Hour)
		b.expect("a.service", "active", 1)
		sent(b, "start", "a.service", 1)
		sent(b, "restart", "a.service", 1)
		noFailure(b, "a.service")
	})

	scenario(t, "a stop does not wait for a restart either, whichever part of it is under way", func(b *bench) {
		for name, script := range map[string]unitfake.Script{
			"a.service": {StopTakes: time.Minute}, "b.service": {RestTakes: time.Hour}, "c.service": neverUp,
		} {
			b.store.place(name, one, model.Launched)
			b.after(time.Second)
			b.units.Script(name, script)
			b.store.place(name, two, model.Launched)
			b.after(time.Second)
			b.store.release(name)
		}
		b.after(2 * time.Minute)
		if files, _ := b.units.Installed(b.t.Context()); len(files) != 0 {
			b.t.Errorf("installed: %v", files)
		}
		for _, name := range []string{"a.service", "b.service", "c.service"} {
			sent(b, "restart", name, 1)
			sent(b, "stop", name, 1)
		}
	})

	scenario(t, "a start that is still wanted is left alone", func(b *bench) {
		starting(b, "a.service")
		b.store.place("a.service", one, model.Launched) // asked again
		b.store.place("b.service", one, model.Launched)
		b.after(30 * time.Minute)
		b.expect("a.service", "activating", 0)
		sent(b, "start", "a.service", 1)
		b.units.Script("a.service", unitfake.Script{})
		b.after(time.Hour) // it ends badly, and the later request is for another
		b.expect("a.service", "active", 1)
		sent(b, "start", "a.service", 2)
		sent(b, "restart", "a.service", 0)
	})

	scenario(t, "a start that an earlier run of the agent has sent is no different", func(b *bench) {
		b.deaf = true
		b.stop()
		b.start()
		starting(b, "a.service")
		starting(b, "b.service")
		starting(b, "c.service")
		b.stop()
		b.deaf = false
		b.start()
		b.after(time.Minute)
		b.store.place("a.service", one, model.Loaded)
		b.store.release("b.service")
		b.after(time.Second)
		b.expect("a.service", "inactive", 0)
		b.expect("b.service", "inactive", 0)
		b.expect("c.service", "activating", 0)
		sent(b, "start", "c.service", 1)
		noFailure(b, "a.service")
		b.after(2 * time.Hour)
		b.expect("c.service", "failed", 0)
		sent(b, "start", "c.service", 1)
	})

	scenario(t, "a singleton that does not come up is stopped at once, and may be started again", func(b *bench) {
		text := one + "[X-Fleet]\nSingleton=true\n"
		b.units.Script("a.service", neverUp)
		b.store.place("a.service", text, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "activating", 0)
		b.store.release("a.service")
		b.after(time.Second)
		if s := b.store.state("a.service"); s.Unit != "" {
			b.t.Errorf("still published: %+v", s)
		}
		b.units.Script("a.service", unitfake.Script{})
		b.store.place("a.service", text, model.Launched)
		b.after(time.Second)
		b.expect("a.service", "active", 1)
		if b.store.claims != 2 {
			b.t.Errorf("%d claims", b.store.claims)
		}
	})
}
