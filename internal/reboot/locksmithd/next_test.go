package locksmithd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/reboot/trigger"
)

const (
	me     = "11111111111111111111111111111111"
	other  = "22222222222222222222222222222222"
	before = "boot-1" // run of the system before the reboot
	now    = "boot-2" // this one
)

var limits = Limits{
	Limits: gate.Limits{Timeout: 10 * time.Minute, Stuck: 30 * time.Second}, Patience: 5 * time.Minute,
	Gate: 10 * time.Minute, Settle: 15 * time.Second, GoingDown: 10 * time.Minute, Look: soon,
}

// snapshot is a machine that wants nothing, in a cluster whose lock is free.
func snapshot(change ...func(*Snapshot)) Snapshot {
	s := Snapshot{Machine: me, Boot: now, Locked: true, Settled: true, Clean: true, Limits: limits, Lock: Lock{Semaphore: sema.New(), Known: true}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func wants(s *Snapshot) { s.Need = trigger.Need{Source: trigger.Required, Why: "updated: libc6"} }

func noLock(s *Snapshot) { s.Locked = false }

// holds makes a machine a holder.
func holds(machine, boot string, phase sema.Phase) func(*Snapshot) {
	return func(s *Snapshot) {
		s.Lock.Holders = append(s.Lock.Holders, machine)
		if s.Lock.Details == nil {
			s.Lock.Details = map[string]sema.Detail{}
		}
		if phase != "" {
			s.Lock.Details[machine] = sema.Detail{Boot: boot, Phase: phase, Why: "updated: linux"}
		}
	}
}

func noted(boot string, phase sema.Phase) func(*Snapshot) {
	return func(s *Snapshot) { s.Note = Note{Boot: boot, Phase: phase, Why: "updated: linux", Locked: s.Locked} }
}

func fleet(f gate.Fleet) func(*Snapshot) { return func(s *Snapshot) { s.Fleet = f } }

var (
	web     = gate.Entry{Unit: "web.service", Desired: "launched", Gen: 1}
	full    = gate.Fleet{Present: true, Others: []string{other}, Led: true, Entries: []gate.Entry{web}}
	leaving = gate.Fleet{Present: true, Others: []string{other}, Led: true, Entries: []gate.Entry{web}, Cordon: &gate.Cordon{Drain: true, Ours: true}}
	empty   = gate.Fleet{Present: true, Others: []string{other}, Led: true, Cordon: &gate.Cordon{Drain: true, Ours: true}}
)

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Snapshot
		want string // what it does, and the beginning of why
	}{
		{"at rest", snapshot(), "wait: nothing wants a reboot"},
		{"a cordon may be left", snapshot(func(s *Snapshot) { s.Clean = false }), "uncordon: no reboot is under way"},
		{"but the store is away", snapshot(func(s *Snapshot) { s.Clean, s.Lock.Err = false, errors.New("x") }), "wait: nothing wants a reboot"},
		{"the store has never answered", snapshot(wants, func(s *Snapshot) { s.Lock = Lock{Err: errors.New("connection refused")} }),
			"wait: connection refused"},
		{"somebody has written nonsense", snapshot(wants, func(s *Snapshot) { s.Lock = Lock{Err: fault.Hint(errors.New("max: string"), "a free lock: x")} }), "wait: max: string (a free lock: x)"},
		{"before it was asked", snapshot(func(s *Snapshot) { s.Lock = Lock{} }), "wait: asks the store for the lock"},

		{"wants to, the lock is free", snapshot(wants), "take: updated: libc6"},
		{"without a lock", snapshot(wants, noLock), "take: updated: libc6"},
		{"the window is closed", snapshot(wants, func(s *Snapshot) { s.Window = Window{Closed: true, Opens: time.Hour, Text: "04:00 for 1h0m0s (UTC)"} }),
			"wait: updated: libc6: until the window opens (04:00 for 1h0m0s (UTC))"},
		{"the store is away now", snapshot(wants, func(s *Snapshot) { s.Lock.Err = errors.New("refused") }),
			"wait: updated: libc6: refused"},
		{"another holds it", snapshot(wants, holds(other, "boot-9", sema.Checking)), "wait: updated: libc6: the lock is held by " + other + ", checking"},
		{"a classic client holds it", snapshot(wants, holds(other, "", "")), "wait: updated: libc6: the lock is held by " + other},
		{"max is 0", snapshot(wants, func(s *Snapshot) { s.Lock.Max = 0 }), "wait: updated: libc6: the lock lets 0 machines reboot at once"},
		{"two at once", snapshot(wants, func(s *Snapshot) { s.Lock.Max = 2 }, holds(other, "boot-9", sema.Draining)), "take: "},
		{"all is stopped", snapshot(wants, func(s *Snapshot) { s.Lock.Stopped = &sema.Stop{Why: "x: no sign of life for 15m0s"} }),
			"wait: updated: libc6: the lock is stopped ('locksmithctl resume' goes on): x: no sign of life for 15m0s"},
		{"somebody objects", snapshot(wants, func(s *Snapshot) { s.Objections = []string{"inhibitor dpkg: installs", "10-raid: rebuilding"} }),
			"wait: updated: libc6: objected to by inhibitor dpkg: installs; 10-raid: rebuilding"},
		{"a while after giving up", snapshot(wants, func(s *Snapshot) { s.Rest = time.Minute }), "wait: updated: libc6: 1m0s after the last try"},
		{"the reboot has changed nothing", snapshot(wants, func(s *Snapshot) { s.Undone = true }), "wait: updated: libc6: it still says so after the reboot for it"},
		{"a person has taken the lock", snapshot(wants, holds(me, "", sema.ByHand)), "wait: somebody has taken the lock for this machine"},

		{"holds it, units are here", snapshot(wants, holds(me, now, sema.Draining), fleet(full)), "cordon: updated: linux"},
		{"somebody else's cordon is there", snapshot(wants, holds(me, now, sema.Draining), fleet(full), func(s *Snapshot) { s.Fleet.Cordon = &gate.Cordon{By: "ann"} }), "cordon: "},
		{"no fleet here", snapshot(wants, holds(me, now, sema.Draining)), "announce: fleet runs nothing here"},
		{"units leave", snapshot(wants, holds(me, now, sema.Draining), fleet(leaving)), "wait: web.service to leave"},
		{"the drain takes too long", snapshot(wants, holds(me, now, sema.Draining), fleet(leaving), func(s *Snapshot) { s.DrainedFor = 10 * time.Minute }),
			"announce: web.service did not leave within 10m0s"},
		{"empty", snapshot(wants, holds(me, now, sema.Draining), fleet(empty)), "announce: nothing is here that could run elsewhere"},
		{"empty, and somebody objects", snapshot(wants, holds(me, now, sema.Draining), fleet(empty), func(s *Snapshot) { s.Objections = []string{"inhibitor dpkg"} }),
			"wait: objected to by inhibitor dpkg"},
		{"for too long", snapshot(wants, holds(me, now, sema.Draining), fleet(empty), func(s *Snapshot) { s.Objections, s.ObjectedFor = []string{"inhibitor dpkg"}, 5*time.Minute }),
			"give back: objected to for 5m0s by inhibitor dpkg"},
		{"the wish is gone", snapshot(holds(me, now, sema.Draining), fleet(leaving)), "give back: nothing wants a reboot any more"},
		{"not everybody has been asked", snapshot(holds(me, now, sema.Draining), fleet(leaving), func(s *Snapshot) { s.Settled = false }), "wait: web.service to leave"},
		{"the window closes meanwhile", snapshot(wants, holds(me, now, sema.Draining), fleet(leaving), func(s *Snapshot) { s.Window.Closed = true }),
			"give back: the window has closed"},
		{"what runs is not known", snapshot(wants, holds(me, now, sema.Draining), func(s *Snapshot) { s.FleetErr = errors.New("refused") }), "wait: what runs here is not known: refused"},
		{"a classic client has dropped the details", snapshot(wants, holds(me, "", ""), noted(now, sema.Draining), fleet(leaving)), "wait: web.service to leave"},

		{"the lock is not certain", snapshot(wants, holds(me, now, sema.Rebooting)), "wait: the store has not confirmed that the lock is still held"},
		{"it is", snapshot(wants, holds(me, now, sema.Rebooting), sure), "tell: updated: linux"},
		{"without a lock it is always", snapshot(wants, noLock, noted(now, sema.Rebooting)), "tell: updated: linux"},
		{"they are told", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(90*time.Second)), "wait: who is logged in has 1m30s left"},
		{"and have had their time", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(0)), "reboot: updated: linux"},
		{"an inhibitor comes in the last moment", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(0), func(s *Snapshot) { s.Objections = []string{"inhibitor dpkg"} }),
			"wait: objected to by inhibitor dpkg"},
		{"and stays", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(0), func(s *Snapshot) { s.Objections, s.ObjectedFor = []string{"x"}, time.Hour }), "give back: objected to"},
		{"it goes down", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(0), func(s *Snapshot) { s.AskedFor = time.Second }), "wait: the machine goes down"},
		{"it does not", snapshot(wants, holds(me, now, sema.Rebooting), sure, told(0), func(s *Snapshot) { s.AskedFor = 10 * time.Minute }), "reboot: "},

		{"up again", snapshot(holds(me, before, sema.Rebooting), fleet(empty)), "check: up again"},
		{"up again after a power cut in the drain", snapshot(wants, holds(me, before, sema.Draining), fleet(leaving)), "check: up again"},
		{"up again, a classic client has dropped the details", snapshot(holds(me, "", "")), "check: up again"},
		{"and again, killed in the check", snapshot(holds(me, before, sema.Checking)), "check: up again"},
		{"checks, still cordoned", snapshot(holds(me, now, sema.Checking), fleet(empty)), "uncordon: up again"},
		{"fleetd is not there yet", snapshot(holds(me, now, sema.Checking), fleet(gate.Fleet{Cordon: &gate.Cordon{Ours: true}}), unwell("fleetd has not joined")),
			"wait: up again, not well yet: fleetd has not joined"},
		{"well, not for long", snapshot(holds(me, now, sema.Checking), func(s *Snapshot) { s.WellFor = 5 * time.Second }), "wait: up again and well for 5s of 15s"},
		{"well", snapshot(holds(me, now, sema.Checking), well), "release: up again and well"},
		{"not well in time", snapshot(holds(me, now, sema.Checking), unwell("web.service is failed"), func(s *Snapshot) { s.CheckedFor = 10 * time.Minute }),
			"fail: not well 10m0s after the boot: web.service is failed"},

		{"was bad, is not well", snapshot(wants, holds(me, now, sema.Bad), unwell("web.service is failed"), func(s *Snapshot) { s.CheckedFor = time.Hour }), "wait: up again, not well yet"},
		{"was bad, is well", snapshot(holds(me, now, sema.Bad), well), "release: "},
		{"was lost, is there", snapshot(holds(me, before, sema.Lost), well), "release: "},
		{"was lost while it drained", snapshot(wants, holds(me, now, sema.Lost), fleet(leaving)), "uncordon: up again"},
		{"was lost, and all went on", snapshot(func(s *Snapshot) { s.Lock.Bad = []sema.Casualty{{Machine: me, Result: sema.Lost}} }, well), "release: "},
	} {
		got := Next(c.s)
		if text := string(got.Do) + ": " + got.Why; !strings.HasPrefix(text, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, text, c.want)
		}
		if got.Do == Wait && got.After <= 0 {
			t.Errorf("%s: waits for %v", c.name, got.After)
		}
	}
}

func sure(s *Snapshot) { s.Sure = true }

func well(s *Snapshot) { s.WellFor = time.Minute }

func unwell(why string) func(*Snapshot) { return func(s *Snapshot) { s.Unwell = []string{why} } }

func told(left time.Duration) func(*Snapshot) {
	return func(s *Snapshot) { s.Told, s.NoticeLeft = true, left }
}

// Whatever the daemon finds, it reboots with the lock in its hand, in the phase in which
// all others wait for it, and nobody who objects.
func FuzzNeverRebootsWithoutTheLock(f *testing.F) {
	f.Add(uint8(0), uint8(3), true, true, false, uint16(7))
	f.Fuzz(func(t *testing.T, phase, boots uint8, sure, told, asked bool, flags uint16) {
		phases := []sema.Phase{"", sema.Draining, sema.Rebooting, sema.Checking, sema.ByHand, sema.Lost, sema.Bad, "other"}
		ids := []string{"", before, now}
		bit := func(n int) bool { return flags&(1<<n) != 0 }
		s := snapshot(func(s *Snapshot) { s.Sure, s.Told = sure, told })
		if bit(0) {
			wants(&s)
		}
		if bit(1) {
			holds(me, ids[boots%3], phases[phase%8])(&s)
		}
		if bit(2) {
			noted(ids[boots/3%3], phases[phase/8%8])(&s)
		}
		s.Lock.Known, s.Window.Closed = bit(3), bit(4)
		if bit(5) {
			s.Objections = []string{"x"}
		}
		if bit(6) {
			holds(other, "boot-9", sema.Rebooting)(&s)
		}
		if bit(7) {
			s.Lock.Stopped = &sema.Stop{}
		}
		if asked {
			s.AskedFor = time.Second
		}
		got := Next(s)
		if got.Do == Reboot && (!s.Lock.Holds(me) || !s.Sure || !s.Told || len(s.Objections) > 0 || asked) {
			t.Errorf("reboots: %+v", s)
		}
		if got.Do == Take && (s.Lock.Holds(me) || s.Lock.Stopped != nil || s.Lock.Free() <= 0 || s.Window.Closed || !s.Need.Wanted()) {
			t.Errorf("takes the lock: %+v", s)
		}
		if got.Do == Wait && got.After <= 0 {
			t.Errorf("waits for nothing: %+v", got)
		}
	})
}
