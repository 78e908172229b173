package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

func TestSlots(t *testing.T) {
	const text = brief + "[X-Fleet]\nGlobal=true\nMaxRunning=2\n"
	runs := unitfake.Script{StartTakes: time.Minute, StartSub: "condition"}
	file := func(b *bench) string { return filepath.Join(b.dir, "run", "slots", "job.service") }
	may := func(b *bench, want bool) {
		b.t.Helper()
		_, err := os.Stat(file(b))
		if err == nil != want {
			b.t.Errorf("the unit may go on: %v, want %v", err == nil, want)
		}
	}
	start := func(b *bench) { b.units.Run(b.t.Context(), []unit.Job{{Kind: unit.Start, Unit: "job.service"}}) }
	placed := func(b *bench) {
		b.units.Script("job.service", runs)
		b.store.place("job.service", text, model.Loaded)
		b.after(time.Second)
	}

	scenario(t, "a start waits until a slot is free, and gives it back", func(b *bench) {
		placed(b)
		b.store.change(func() { b.store.slots = 2 })
		start(b)
		b.after(20 * time.Second)
		may(b, false)
		b.store.change(func() { b.store.slots = 1 })
		b.after(5 * time.Second)
		may(b, true)
		if n := b.store.taken(); n != 2 {
			b.t.Errorf("%d slots are taken", n)
		}
		b.after(time.Minute) // it is through
		if n := b.store.taken(); n != 1 {
			b.t.Errorf("%d slots are taken", n)
		}
		may(b, false)
	})

	scenario(t, "without the store it waits on", func(b *bench) {
		placed(b)
		b.store.change(func() { b.store.away = true })
		start(b)
		b.after(30 * time.Second)
		may(b, false)
		b.store.change(func() { b.store.away = false })
		b.after(10 * time.Second)
		may(b, true)
	})

	const lasting = one + "[X-Fleet]\nGlobal=true\nMaxRunning=2\n"
	scenario(t, "a unit that is started again at once waits again", func(b *bench) {
		b.units.Script("job.service", runs)
		b.store.place("job.service", lasting, model.Launched)
		b.after(5 * time.Second)
		may(b, true)
		os.Remove(file(b)) // the unit goes on
		b.after(2 * time.Minute)
		may(b, false)
		b.units.Run(b.t.Context(), []unit.Job{{Kind: unit.Restart, Unit: "job.service"}})
		b.after(5 * time.Second)
		may(b, true)
		if n := b.store.taken(); n != 1 {
			b.t.Errorf("%d slots are taken", n)
		}
	})

	scenario(t, "what was not given back in time is not taken from the next start", func(b *bench) {
		placed(b)
		for away := range 20 {
			start(b)
			b.after(5 * time.Second)
			os.Remove(file(b))
			b.after(time.Minute - 6*time.Second)
			b.store.change(func() { b.store.away = true })
			b.after(2 * time.Second) // it is through
			start(b)
			b.after(time.Duration(away) * 300 * time.Millisecond)
			b.store.change(func() { b.store.away = false })
			b.after(20 * time.Second)
			may(b, true)
			if n := b.store.taken(); n != 1 {
				b.t.Errorf("%d slots are taken", n)
			}
			os.Remove(file(b))
			b.after(2 * time.Minute)
			if n := b.store.taken(); n != 0 {
				b.t.Errorf("at rest: %d slots are taken", n)
			}
		}
	})

	scenario(t, "the agent's drop-in is no part of the unit", func(b *bench) {
		placed(b)
		have, _ := b.units.Installed(b.t.Context())
		if !strings.Contains(have["job.service"], "#### 99-fleet-slot.conf\n[Service]\nExecCondition=+/bin/sh") {
			b.t.Errorf("installed is %q", have["job.service"])
		}
		b.stop()
		before := strings.Count(b.log.String(), "msg=install")
		b.start()
		b.after(time.Minute)
		if n := strings.Count(b.log.String(), "msg=install"); n != before {
			b.t.Errorf("installed %d times more", n-before)
		}
		if got := withoutSlot(have["job.service"]); got != text {
			b.t.Errorf("without it the text is %q", got)
		}
	})
}
