package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit/unitfake"
)

func TestAdoptAndEject(t *testing.T) {
	scenario(t, "a unit of the machine's own changes hands and back as it runs", func(b *bench) {
		b.units.Native("web.service", one)
		text, err := b.agent.Adopt(b.t.Context(), "web.service")
		if err != nil || text != one {
			b.t.Fatalf("text %q, error %v", text, err)
		}
		b.after(time.Minute)
		b.stop()
		b.start()
		b.after(time.Minute)
		b.expect("web.service", "active", 1)
		b.store.place("web.service", one, model.Launched)
		b.after(time.Minute)
		b.expect("web.service", "active", 1)
		if s := b.store.state("web.service"); s.Gen == 0 || s.Active != "active" || s.Message != "" {
			b.t.Errorf("published is %+v", s)
		}
		b.store.place("web.service", two, model.Launched) // as any other from now on
		b.after(time.Minute)
		b.expect("web.service", "active", 2)

		if err := b.agent.Eject(b.t.Context(), "web.service"); err != nil {
			b.t.Fatal(err)
		}
		b.after(time.Minute)
		b.expect("web.service", "active", 2)
		b.store.release("web.service")
		b.after(time.Hour)
		b.expect("web.service", "active", 2)
		if text, err := b.units.Own(b.t.Context(), "web.service"); err != nil || text != two {
			b.t.Errorf("the machine's own text is %q, error %v", text, err)
		}
	})

	scenario(t, "without leave, or with another text, it is not taken over", func(b *bench) {
		b.units.Native("web.service", one)
		b.store.place("web.service", one, model.Launched)
		b.after(time.Minute)
		if s := b.store.state("web.service"); !strings.Contains(s.Message, "unit file of its own") {
			b.t.Errorf("published is %+v", s)
		}
		if _, err := b.agent.Adopt(b.t.Context(), "web.service"); err != nil {
			b.t.Fatal(err)
		}
		b.store.place("web.service", two, model.Launched)
		b.after(time.Minute)
		b.expect("web.service", "active", 1)
	})

	scenario(t, "what is not there is said to be so", func(b *bench) {
		if _, err := b.agent.Adopt(b.t.Context(), "none.service"); err == nil {
			b.t.Error("adopted")
		}
		if err := b.agent.Eject(b.t.Context(), "none.service"); err == nil || !strings.Contains(err.Error(), "not on this machine") {
			b.t.Errorf("ejected: %v", err)
		}
	})
}

// What its caller has given up is not done later, when nobody undoes it any more.
func TestGivenUpIsNotDone(t *testing.T) {
	a := New(Config{}, unitfake.New(), newFakeStore(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := false
	if err := a.inLoop(ctx, func() error { done = true; return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for _, found := range a.inbox.take().found {
		found()
	}
	if done {
		t.Error("it was done")
	}
}
