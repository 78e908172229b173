package locksmithd

import (
	"fmt"
	"strings"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/reboot/trigger"
)

// Snapshot is all that a decision depends on. Facts that only some stages need are read
// in those alone: see Stage.
type Snapshot struct {
	Machine string
	Boot    string // id of this run of the system
	Need    trigger.Need
	Settled bool // everybody has been asked for the need once
	// Undone is the wish that the last reboot was for and that is still there after it.
	Undone bool
	// Locked says that a reboot needs the lock.
	Locked bool
	Lock   Lock
	Note   Note
	Window Window
	Rest   time.Duration // how long the lock is not to be asked for again
	Clean  bool          // no cordon of ours can be left over

	// Of Asking, Draining and GoingDown.
	Objections  []string
	ObjectedFor time.Duration

	// Of Draining, and the cordon of Checking.
	Fleet      gate.Fleet
	FleetErr   error
	DrainedFor time.Duration // since the drain began
	StillFor   time.Duration // since anything has left

	// Of GoingDown.
	Told       bool          // who is logged in knows
	NoticeLeft time.Duration // how long they still have
	Sure       bool          // nobody can have taken the slot away
	AskedFor   time.Duration // since logind was asked to reboot; 0: it was not

	// Of Checking.
	Unwell     []string
	CheckedFor time.Duration // since the check began
	WellFor    time.Duration // since all has been well

	Limits Limits
}

// Limits are how long things may take; the daemon's configuration has what they mean.
type Limits struct {
	gate.Limits
	Patience  time.Duration // with objections while the lock is held
	Gate      time.Duration
	Settle    time.Duration
	GoingDown time.Duration // of a reboot that logind has begun
	Look      time.Duration // how often is looked at units that leave or start
}

// Lock is the semaphore as it was last read.
type Lock struct {
	sema.Semaphore
	Known bool  // it has been read
	Err   error // why it cannot be read now; nil: it can
}

// Note is what the machine itself remembers until it reboots: that it is on its way.
// The zero value is no note.
type Note struct {
	Boot   string     `json:"boot"`
	Phase  sema.Phase `json:"phase"`
	Why    string     `json:"why"`
	Locked bool       `json:"locked"` // the lock was asked for, whatever the strategy says now
}

// Window is when the machine may reboot.
type Window struct {
	Closed bool
	Opens  time.Duration // until it opens, if it is closed
	Text   string        // for people; "" there is none
}

// Stage is what the machine is at: which facts a decision needs.
type Stage string

// The stages. Idle and Asking hold nothing.
const (
	Idle      Stage = "idle"
	Blind     Stage = "blind"  // the lock has not been read yet
	Asking    Stage = "asking" // a reboot is wanted
	Hand      Stage = "hand"   // somebody has taken the lock for this machine
	Draining  Stage = "draining"
	GoingDown Stage = "going down"
	Checking  Stage = "checking" // has been down, or was taken for it
)

// phase is how far a reboot is, and whether it began in this run of the system.
func (s Snapshot) phase() (p sema.Phase, thisBoot bool) {
	ours := s.Note.Boot == s.Boot
	if !s.Locked {
		if !ours {
			return "", false
		}
		return s.Note.Phase, true
	}
	switch d, holds := s.Lock.Details[s.Machine], s.Lock.Holds(s.Machine); {
	case !holds && s.casualty():
		return sema.Bad, true
	case !holds:
		return "", false
	case d.Phase == sema.ByHand, d.Phase == sema.Lost, d.Phase == sema.Bad:
		return d.Phase, d.Boot == s.Boot
	case d.Boot != "" && d.Phase != "":
		return d.Phase, d.Boot == s.Boot
	case ours:
		return s.Note.Phase, true // a client that knows no details has written the lock
	}
	return sema.Rebooting, false
}

// alive says whether the machine has to give signs of life: it holds the lock, and
// nobody has given it up.
func (s Snapshot) alive() bool {
	p, thisBoot := s.phase()
	return s.Locked && thisBoot && (p == sema.Draining || p == sema.Rebooting || p == sema.Checking)
}

// why is what the reboot is for.
func (s Snapshot) why() string {
	switch {
	case s.Note.Boot == s.Boot && s.Note.Why != "":
		return s.Note.Why
	case s.Lock.Details[s.Machine].Why != "":
		return s.Lock.Details[s.Machine].Why
	}
	return s.Need.Why
}

// casualty says whether the machine is on the list of those that did not come back
// well.
func (s Snapshot) casualty() bool {
	for _, c := range s.Lock.Bad {
		if c.Machine == s.Machine {
			return true
		}
	}
	return false
}

// Stage follows from the need, the lock and the note.
func (s Snapshot) Stage() Stage {
	if s.Locked && !s.Lock.Known {
		return Blind
	}
	p, thisBoot := s.phase()
	switch {
	case p == "" && s.Need.Wanted():
		return Asking
	case p == "":
		return Idle
	case p == sema.ByHand:
		return Hand
	case p == sema.Draining && thisBoot:
		return Draining
	case p == sema.Rebooting && thisBoot:
		return GoingDown
	}
	return Checking
}

// Do is what the daemon does.
type Do string

// The steps, in the order of a reboot; GiveBack ends one that has not been.
const (
	Wait     Do = "wait"
	Take     Do = "take"     // the lock; the phase is draining then
	Cordon   Do = "cordon"   // the machine, so that what is there leaves
	Announce Do = "announce" // the phase rebooting
	Tell     Do = "tell"     // who is logged in
	Reboot   Do = "reboot"
	Check    Do = "check"     // the phase checking: the machine is up again
	Uncordon Do = "uncordon"  // if the cordon is ours
	Release  Do = "release"   // the lock: all is well
	Fail     Do = "fail"      // give the lock back as a machine that is not well
	GiveBack Do = "give back" // without having rebooted
)

// Step is what to do next, and why: the reason is the line in the log and the status.
// After is when to look again at the latest though nothing has happened.
type Step struct {
	Do    Do
	Why   string
	After time.Duration
}

// How often is looked at what nobody tells of.
const (
	soon  = 2 * time.Second  // Limits.Look of the daemon
	again = 10 * time.Second // objections, while the lock is held
	later = 30 * time.Second // objections, while it is not; the clock on the wall, which may be set
	idle  = 10 * time.Minute
)

func wait(after time.Duration, format string, args ...any) Step {
	return Step{Wait, fmt.Sprintf(format, args...), after}
}

func step(do Do, format string, args ...any) Step {
	return Step{Do: do, Why: fmt.Sprintf(format, args...)}
}

// Next decides. It depends on nothing but the snapshot; the order of a reboot is
//
//	Take, Cordon, Announce, Tell, Reboot, Check, Uncordon, Release
//
// and every step is one that may be done again after the daemon was killed before, in
// or behind it.
func Next(s Snapshot) Step {
	switch s.Stage() {
	case Blind:
		return wait(idle, "%s", s.unread())
	case Hand:
		return wait(idle, "somebody has taken the lock for this machine: 'locksmithctl unlock' gives it back")
	case Asking:
		return s.asking()
	case Draining:
		return s.draining()
	case GoingDown:
		return s.goingDown()
	case Checking:
		return s.checking()
	}
	if s.leftover() {
		return step(Uncordon, "no reboot is under way: if one was given up, its cordon is left")
	}
	return wait(idle, "nothing wants a reboot")
}

// leftover says whether a cordon of ours may be left, of a reboot that somebody else has
// ended.
func (s Snapshot) leftover() bool { return s.Locked && !s.Clean && s.Lock.Err == nil }

func orNil(err error, otherwise string) any {
	if err == nil {
		return otherwise
	}
	return err
}

// asking is the way to the lock.
func (s Snapshot) asking() Step {
	why := s.Need.Why
	switch {
	case s.leftover():
		return step(Uncordon, "no reboot is under way: if one was given up, its cordon is left")
	case s.Undone:
		return wait(idle, "%s: it still says so after the reboot for it, so there is no second one", why)
	case s.Window.Closed:
		return wait(min(s.Window.Opens, later), "%s: until the window opens (%s)", why, s.Window.Text)
	case s.Rest > 0:
		return wait(s.Rest, "%s: %v after the last try", why, s.Rest.Round(time.Second))
	case s.Locked && s.Lock.Err != nil:
		return wait(later, "%s: %s", why, s.unread())
	case s.Locked && s.Lock.Stopped != nil:
		return wait(idle, "%s: the lock is stopped ('locksmithctl resume' goes on): %s", why, s.Lock.Stopped.Why)
	case s.Locked && s.Lock.Free() <= 0:
		return wait(idle, "%s: %s", why, noSlot(s.Lock.Semaphore))
	case len(s.Objections) > 0:
		return wait(later, "%s: objected to by %s", why, strings.Join(s.Objections, "; "))
	}
	return step(Take, "%s", why)
}

// unread is why the lock is not known, and what helps.
func (s Snapshot) unread() string {
	if s.Lock.Err == nil {
		return "asks the store for the lock"
	}
	text := s.Lock.Err.Error()
	for _, hint := range fault.Hints(s.Lock.Err) {
		text += " (" + hint + ")"
	}
	return text
}

// noSlot is why no slot is free.
func noSlot(l sema.Semaphore) string {
	if len(l.Holders) == 0 {
		return fmt.Sprintf("the lock lets %d machines reboot at once", l.Max)
	}
	return "the lock is " + l.HeldBy()
}

// draining gets the machine empty. Until it goes down the lock can be given back.
func (s Snapshot) draining() Step {
	switch {
	case s.Settled && !s.Need.Wanted():
		return step(GiveBack, "nothing wants a reboot any more")
	case s.Window.Closed:
		return step(GiveBack, "the window has closed before the machine was empty")
	case s.FleetErr != nil:
		return wait(s.Limits.Look, "what runs here is not known: %v", s.FleetErr)
	case s.Fleet.Used() && (s.Fleet.Cordon == nil || !s.Fleet.Cordon.Ours || !s.Fleet.Cordon.Drain):
		return step(Cordon, "%s", s.why())
	}
	empty, why := s.Fleet.Drained(s.DrainedFor, s.StillFor, s.Limits.Limits)
	switch {
	case !empty:
		return wait(s.Limits.Look, "%s", why)
	case len(s.Objections) > 0:
		return s.objected()
	}
	return step(Announce, "%s", why)
}

// objected waits for those who object, holding the lock, and not for ever.
func (s Snapshot) objected() Step {
	who := strings.Join(s.Objections, "; ")
	if s.ObjectedFor >= s.Limits.Patience {
		return step(GiveBack, "objected to for %v by %s", s.Limits.Patience, who)
	}
	return wait(again, "objected to by %s", who)
}

// goingDown is the last way.
func (s Snapshot) goingDown() Step {
	switch {
	case s.AskedFor > 0 && s.AskedFor < s.Limits.GoingDown:
		return wait(s.Limits.GoingDown-s.AskedFor, "the machine goes down")
	case s.Locked && !s.Sure:
		return wait(s.Limits.Look, "the store has not confirmed that the lock is still held: %v", orNil(s.Lock.Err, "not asked yet"))
	case !s.Told:
		return step(Tell, "%s", s.why())
	case s.NoticeLeft > 0:
		return wait(s.NoticeLeft, "who is logged in has %v left", s.NoticeLeft.Round(time.Second))
	case len(s.Objections) > 0:
		return s.objected()
	}
	return step(Reboot, "%s", s.why())
}

// checking is after the boot.
func (s Snapshot) checking() Step {
	p, thisBoot := s.phase()
	judged := p == sema.Lost || p == sema.Bad
	switch {
	case !judged && (p != sema.Checking || !thisBoot):
		return step(Check, "up again")
	case s.FleetErr == nil && s.Fleet.Present && s.Fleet.Cordon != nil && s.Fleet.Cordon.Ours:
		return step(Uncordon, "up again")
	case len(s.Unwell) > 0 && !judged && s.CheckedFor >= s.Limits.Gate:
		return step(Fail, "not well %v after the boot: %s", s.Limits.Gate, strings.Join(s.Unwell, "; "))
	case len(s.Unwell) > 0:
		return wait(s.Limits.Look, "up again, not well yet: %s", strings.Join(s.Unwell, "; "))
	case s.WellFor < s.Limits.Settle:
		return wait(min(s.Limits.Look, s.Limits.Settle-s.WellFor), "up again and well for %v of %v", s.WellFor.Round(time.Second), s.Limits.Settle)
	}
	return step(Release, "up again and well")
}
