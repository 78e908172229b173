package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
	"flotilla/internal/unitfile"
)

// roll places a changed text as a roll does: the entry is watched.
func (f *fakeStore) roll(name, text string) {
	f.watched = true
	defer func() { f.watched = false }()
	f.place(name, text, model.Launched)
}

func (b *bench) judged(name string, health model.Health, why string) model.UnitState {
	b.t.Helper()
	s := b.store.state(name)
	if s.Health != health || !strings.Contains(s.HealthWhy, why) {
		b.t.Errorf("%s is judged %q (%s), want %q (%s)", name, s.Health, s.HealthWhy, health, why)
	}
	return s
}

// A note on how a job ended does not outlive what it says.
func TestMessageOfAJobThatIsOver(t *testing.T) {
	scenario(t, "the init system tries again, with success", func(b *bench) {
		b.units.Script("a.service", unitfake.Script{Start: unit.Failed})
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		if s := b.store.state("a.service"); !strings.Contains(s.Message, "start job ended with result") {
			b.t.Errorf("failed: the message is %q", s.Message)
		}
		b.units.Script("a.service", unitfake.Script{})
		for range b.units.Run(b.t.Context(), []unit.Job{{Kind: unit.Start, Unit: "a.service"}}) {
		}
		b.after(time.Second)
		if s := b.store.state("a.service"); s.Active != "active" || s.Message != "" {
			b.t.Errorf("%s: the message is %q", s.Active, s.Message)
		}
	})
}

func TestTrial(t *testing.T) {
	scenario(t, "a copy that stays up is good, and that is said once", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.judged("a.service", model.Unwatched, "")
		b.store.roll("a.service", two)
		b.after(900 * time.Millisecond)
		b.judged("a.service", model.Waiting, "it has not been active for 1s yet")
		b.after(200 * time.Millisecond)
		s := b.judged("a.service", model.Good, "active for 1s")
		if s.Hash != unitfile.HashText(two) || s.Gen != b.store.rev {
			b.t.Errorf("published is %+v", s)
		}
		before := b.store.written()
		b.after(time.Hour)
		b.stop()
		b.start()
		b.after(time.Hour)
		b.judged("a.service", model.Good, "judged before")
		if n := b.store.written() - before; n > 2 { // the states, then the judgement
			b.t.Errorf("%d writes", n)
		}
	})

	scenario(t, "a copy that fails is bad, and its log tells why", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.units.Print("a.service", "from the copy before")
		b.after(time.Second)
		b.units.Script("a.service", unitfake.Script{Start: unit.Failed, StartTakes: time.Second})
		b.store.roll("a.service", two)
		b.after(500 * time.Millisecond)
		b.judged("a.service", model.Waiting, "it is being started")
		b.units.Print("a.service", "no database at db:5432")
		b.after(time.Second)
		s := b.judged("a.service", model.Bad, "it failed (exit-code)")
		if !strings.Contains(s.Log, "no database at db:5432\n") || strings.Contains(s.Log, "copy before") {
			b.t.Errorf("the log is %q", s.Log)
		}
	})

	scenario(t, "no copy is bad by what was heard before the init system fell silent", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.store.roll("a.service", two)
		b.after(500 * time.Millisecond)
		b.units.Disconnect()
		b.agent.inbox.status(unit.Status{Name: "a.service", Load: "loaded", Active: "inactive", Sub: "dead"})
		b.after(3 * time.Second)
		b.judged("a.service", model.Waiting, "the init system does not say how it is")
		b.units.Connect()
		b.after(10 * time.Second)
		b.judged("a.service", model.Good, "active for 1s")
	})

	scenario(t, "a copy that crashes while it is watched is bad; later it is not judged", func(b *bench) {
		b.store.roll("a.service", one)
		b.store.roll("b.service", one)
		b.after(500 * time.Millisecond)
		b.units.Crash("a.service")
		b.after(time.Second)
		b.judged("a.service", model.Bad, "it failed")
		b.judged("b.service", model.Good, "")
		b.units.Crash("b.service")
		b.after(time.Hour)
		b.judged("b.service", model.Good, "")
	})

	scenario(t, "a health check must pass too, and is asked until then alone", func(b *bench) {
		asked := 0
		b.probe = func(_ context.Context, p unitfile.HealthProbe, _ string) error {
			asked++
			if asked < 4 {
				return errors.New("connection refused")
			}
			return nil
		}
		b.stop()
		b.start()
		text := one + "[X-Fleet]\nHealthCheck=tcp://:80\n"
		b.store.roll("a.service", text)
		b.after(2500 * time.Millisecond)
		b.judged("a.service", model.Waiting, "health check: connection refused")
		b.after(time.Second)
		b.judged("a.service", model.Good, "its health check passes")
		b.after(time.Hour)
		if asked != 4 {
			b.t.Errorf("asked %d times", asked)
		}
	})

	scenario(t, "a copy that never answers is bad after the timeout", func(b *bench) {
		b.probe = func(context.Context, unitfile.HealthProbe, string) error { return errors.New("HTTP 503") }
		b.stop()
		b.start()
		b.store.roll("a.service", one+"[X-Fleet]\nHealthCheck=http://localhost/\nHealthyTimeout=5s\n")
		b.after(4900 * time.Millisecond)
		b.judged("a.service", model.Waiting, "health check: HTTP 503")
		b.after(200 * time.Millisecond)
		b.judged("a.service", model.Bad, "not good within 5s: health check: HTTP 503")
	})

	scenario(t, "a text that is refused is bad at once", func(b *bench) {
		b.units.Script("a.service", unitfake.Script{InstallErr: unit.ErrRefused})
		b.store.roll("a.service", one)
		b.after(time.Millisecond)
		b.judged("a.service", model.Bad, "the init system refuses it")
	})

	scenario(t, "a unit that had ended before its text changed is no reason to stop a roll", func(b *bench) {
		b.store.place("a.service", one, model.Launched)
		b.after(time.Second)
		b.units.Crash("a.service")
		b.after(time.Second)
		b.store.gen = b.store.rev // nobody asks for a start
		b.store.roll("a.service", two)
		b.after(time.Second)
		b.expect("a.service", "inactive", 1)
		b.judged("a.service", model.Good, "it did not run, and is not started")
	})

	scenario(t, "the next text is judged anew", func(b *bench) {
		b.units.Script("a.service", unitfake.Script{Start: unit.Failed})
		b.store.roll("a.service", one)
		b.after(time.Second)
		b.judged("a.service", model.Bad, "")
		b.units.Script("a.service", unitfake.Script{})
		b.store.roll("a.service", two)
		b.after(100 * time.Millisecond)
		if s := b.judged("a.service", model.Waiting, ""); s.Log != "" {
			b.t.Errorf("the log is %q", s.Log)
		}
		b.after(time.Second)
		b.judged("a.service", model.Good, "")
	})
}
