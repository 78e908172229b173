// Package sema is the reboot lock: a counting semaphore that machines hold while
// they drain, reboot and prove themselves. It decides; package lock writes.
//
// The whole lock is one value under one key, in the classic JSON
//
//	{"semaphore":0,"max":1,"holders":["MACHINE"]}
//
// and fields of ours, which classic clients do not read and drop when they write.
// Every change is a function from one value to the next, written with a compare on
// the index that was read: that only one of two writers succeeds is the store's
// promise, that no step leads to more than Max holders is this package's, and
// together they are the proof.
//
// Nothing here depends on the time of day: the times in a value are for people.
// That a holder is dead is decided by an [Observer] on its own monotonic clock.
package sema

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// What an operation refuses. The first three have the classic words.
var (
	// ErrFull: Take and Acquire, no slot is free.
	ErrFull = errors.New("semaphore is at 0")
	// ErrHolderExists: Take, the machine holds one already; Acquire, Refresh and Fail, a
	// person holds one for it.
	ErrHolderExists = errors.New("holder exists")
	// ErrNotHolder: Release, Fail, Refresh and Lose, the machine holds none.
	ErrNotHolder = errors.New("holder does not exist")
	// ErrStopped: Take and Acquire, nobody takes a slot until somebody looked. A *StoppedError
	// says why.
	ErrStopped = errors.New("stopped")
	// ErrLost: Acquire and Refresh, the machine has been given up or has come back bad. It must
	// not go on to reboot; Release makes it an ordinary machine again.
	ErrLost = errors.New("holder has been given up")
	// ErrChanged: Lose, the holder's entry is not the one that was watched: it lives.
	ErrChanged = errors.New("holder has given a sign of life")
	// ErrNotStopped: Resume, there is nothing to go on from.
	ErrNotStopped = errors.New("not stopped")
)

// StoppedError is the ErrStopped of a semaphore that is stopped.
type StoppedError struct{ Stop Stop }

// Error is "stopped: WHY".
func (e *StoppedError) Error() string { return "stopped: " + e.Stop.Why }

// Is makes it an ErrStopped.
func (e *StoppedError) Is(target error) bool { return target == ErrStopped }

// Phase is what a holder is doing.
type Phase string

// The phases of a holder, in the order of a reboot that goes well, then the others.
const (
	Draining  Phase = "draining"  // takes its units elsewhere
	Rebooting Phase = "rebooting" // may be down from now on
	Checking  Phase = "checking"  // is up and looks whether it is healthy
	ByHand    Phase = "by-hand"   // a person has taken the slot and gives it back: nobody watches it
	Lost      Phase = "lost"      // did not come back, and the semaphore is stopped
	Bad       Phase = "bad"       // came back and is not healthy, and the semaphore is stopped
)

// over tells whether the holder has been judged: it keeps its place only because
// the semaphore is stopped.
func (p Phase) over() bool { return p == Lost || p == Bad }

// Detail is what is known about a holder. A holder that a classic client has made
// or written over has none.
type Detail struct {
	Hostname string    `json:"hostname,omitempty"`
	Since    time.Time `json:"since,omitzero"` // by the holder's clock; zero: not known
	Why      string    `json:"why,omitempty"`
	Boot     string    `json:"boot,omitempty"` // boot id of the kernel that took it or wrote last
	Phase    Phase     `json:"phase,omitempty"`
	Seq      int       `json:"seq,omitempty"` // one more with each sign of life
	// Timeout is how many seconds the holder may be silent, of one that gives no signs of
	// life; 0: as long as every other. Above MaxTimeout it counts as that.
	Timeout int `json:"timeout,omitempty"`
}

// Casualty is a machine that did not come back, or came back bad.
type Casualty struct {
	Machine  string    `json:"machine"`
	Hostname string    `json:"hostname,omitempty"`
	Result   Phase     `json:"result"` // Lost or Bad
	Why      string    `json:"why"`
	At       time.Time `json:"at,omitzero"` // by the clock of who noticed
}

// Stop is why nobody takes a slot.
type Stop struct {
	Why string    `json:"why"`
	At  time.Time `json:"at,omitzero"`
}

// DefaultStopAfter is after how many casualties in a row nobody takes a slot any
// more, where nobody has said otherwise. One: a bad update is to break one machine.
const DefaultStopAfter = 1

// Semaphore is the value. Use New or Decode: the zero value has no slot. Operations
// return a changed copy and leave the receiver as it is, also in its slices and maps.
type Semaphore struct {
	Max     int
	Holders []string // sorted, each once
	// Details of holders, by machine. Not every holder has some.
	Details map[string]Detail
	// Bad is the casualties since the last reboot that went well, the latest last.
	Bad []Casualty
	// StopAfter casualties in a row the semaphore stops; 0 is never.
	StopAfter int
	// Stopped is nil unless nobody may take a slot.
	Stopped *Stop

	rest map[string]rawField // fields that are neither classic nor ours
}

// New is the semaphore that there is when nobody has written one: one slot, free.
func New() Semaphore { return Semaphore{Max: 1, StopAfter: DefaultStopAfter} }

// Free is how many slots are free: below 0 after Max has been lowered below the
// number of holders.
func (s Semaphore) Free() int { return s.Max - len(s.Holders) }

// Holds tells whether the machine holds a slot.
func (s Semaphore) Holds(machine string) bool {
	_, ok := slices.BinarySearch(s.Holders, machine)
	return ok
}

// clone makes a copy that may be changed.
func (s Semaphore) clone() Semaphore {
	s.Holders = slices.Clone(s.Holders)
	s.Bad = slices.Clone(s.Bad)
	s.Details = maps.Clone(s.Details)
	if s.Details == nil {
		s.Details = map[string]Detail{}
	}
	return s
}

// Take makes the machine a holder, in phase Draining unless d says otherwise.
//
// A holder whose entry has the boot and the time of d already is the same Take
// written twice, because the answer of the first was lost: it succeeds.
func (s Semaphore) Take(machine string, d Detail) (Semaphore, error) {
	if machine == "" {
		return s, errors.New("a holder needs a name")
	}
	if have, ok := s.Details[machine]; ok && !d.Since.IsZero() && have.Since.Equal(d.Since) && have.Boot == d.Boot && !have.Phase.over() {
		return s, nil
	}
	switch {
	case s.Stopped != nil:
		return s, &StoppedError{*s.Stopped}
	case s.Free() <= 0:
		return s, ErrFull
	case s.Holds(machine):
		return s, ErrHolderExists
	}
	if d.Phase == "" {
		d.Phase = Draining
	}
	d.Seq = 1
	next := s.clone()
	i, _ := slices.BinarySearch(next.Holders, machine)
	next.Holders = slices.Insert(next.Holders, i, machine)
	next.Details[machine] = d
	return next, nil
}

// Acquire is Take for a machine that does not know whether it holds a slot: one that
// asks again because it missed the answer, or was started anew. Whoever holds a slot
// keeps it, with a sign of life. What a person holds for the machine is not the
// machine's (ErrHolderExists).
func (s Semaphore) Acquire(machine string, d Detail) (Semaphore, error) {
	if !s.Holds(machine) {
		return s.Take(machine, d)
	}
	return s.Refresh(machine, d)
}

// AcquireByHand is Acquire for a person at the machine, who also goes on with the slot
// that a person has taken for it.
func (s Semaphore) AcquireByHand(machine string, d Detail) (Semaphore, error) {
	if !s.byHand(machine) {
		return s.Acquire(machine, d)
	}
	return s.refreshed(machine, d), nil
}

// byHand tells whether a person has taken a slot for the machine.
func (s Semaphore) byHand(machine string) bool { return s.Details[machine].Phase == ByHand }

// Refresh is a sign of life of a holder: its entry changes. The phase and boot are
// those of d; what d leaves empty stays as it was, and is filled in again by d if a
// classic client has dropped it.
func (s Semaphore) Refresh(machine string, d Detail) (Semaphore, error) {
	switch {
	case !s.Holds(machine):
		return s, ErrNotHolder
	case s.Details[machine].Phase.over():
		return s, ErrLost
	case s.byHand(machine):
		return s, ErrHolderExists
	}
	return s.refreshed(machine, d), nil
}

func (s Semaphore) refreshed(machine string, d Detail) Semaphore {
	next := s.clone()
	next.Details[machine] = merge(s.Details[machine], d)
	return next
}

// merge is the entry after a sign of life. Since is when the slot was taken, which
// only the first entry knows best.
func merge(have, d Detail) Detail {
	if !have.Since.IsZero() {
		d.Since = have.Since
	}
	if d.Hostname == "" {
		d.Hostname = have.Hostname
	}
	if d.Why == "" {
		d.Why = have.Why
	}
	if d.Boot == "" {
		d.Boot = have.Boot
	}
	if d.Phase == "" {
		d.Phase = have.Phase
	}
	if d.Timeout == 0 {
		d.Timeout = have.Timeout
	}
	d.Seq = have.Seq + 1
	return d
}

// Release takes the machine off as one whose reboot went well, or that a person
// vouches for. It ends a row of casualties. A casualty that is released comes off
// the list; if too few are left on it for a stop, the stop is over.
func (s Semaphore) Release(machine string) (Semaphore, error) {
	if !s.Holds(machine) && !s.isBad(machine) {
		return s, ErrNotHolder
	}
	next := s.clone()
	next.drop(machine)
	switch {
	case s.isBad(machine):
		next.Bad = slices.DeleteFunc(next.Bad, func(c Casualty) bool { return c.Machine == machine })
		if next.Stopped != nil && len(next.Bad) < max(next.StopAfter, 1) {
			next.goOn()
		}
	case s.Stopped == nil:
		next.Bad = nil
	}
	return next, nil
}

// GiveBack is Release for the machine itself: what a person holds for it stays, and what
// it does not hold it need not give back.
func (s Semaphore) GiveBack(machine string) (Semaphore, error) {
	if s.byHand(machine) {
		return s, nil
	}
	next, err := s.Release(machine)
	if errors.Is(err, ErrNotHolder) {
		return s, nil
	}
	return next, err
}

// Fail is the end of a reboot whose machine came back and is not healthy.
func (s Semaphore) Fail(machine, why string, at time.Time) (Semaphore, error) {
	switch {
	case !s.Holds(machine):
		return s, ErrNotHolder
	case s.byHand(machine):
		return s, ErrHolderExists
	}
	return s.casualty(machine, Bad, why, at), nil
}

// Lose takes a holder for dead. Seen is its entry as the observer has watched it:
// if the entry is another one by now, the holder lives and nothing is changed.
func (s Semaphore) Lose(machine string, seen Mark, why string, at time.Time) (Semaphore, error) {
	switch {
	case !s.Holds(machine):
		return s, ErrNotHolder
	case s.Mark(machine) != seen || !s.watched(machine):
		return s, ErrChanged
	}
	return s.casualty(machine, Lost, why, at), nil
}

// casualty puts the machine on the list. It keeps its slot exactly if the semaphore
// is stopped afterwards, so that classic clients find no slot either.
func (s Semaphore) casualty(machine string, as Phase, why string, at time.Time) Semaphore {
	next := s.clone()
	d := next.Details[machine]
	next.Bad = slices.DeleteFunc(next.Bad, func(c Casualty) bool { return c.Machine == machine })
	next.Bad = append(next.Bad, Casualty{Machine: machine, Hostname: d.Hostname, Result: as, Why: why, At: at})
	if next.Stopped == nil && s.StopAfter > 0 && len(next.Bad) >= s.StopAfter {
		next.Stopped = &Stop{Why: stopText(next.Bad), At: at}
	}
	if next.Stopped == nil {
		next.drop(machine)
		return next
	}
	d.Phase = as
	d.Seq++
	next.Details[machine] = d
	return next
}

func stopText(bad []Casualty) string {
	var parts []string
	for _, c := range bad {
		parts = append(parts, Name(c.Machine, c.Hostname)+": "+c.Why)
	}
	return strings.Join(parts, "; ")
}

// Name is a machine for people: "ID (HOSTNAME)", or the ID alone.
func Name(machine, hostname string) string {
	if hostname == "" {
		return machine
	}
	return machine + " (" + hostname + ")"
}

// HeldBy says who holds the slots, for people: "held by ID (HOSTNAME), PHASE; ID, PHASE",
// or "held by nobody".
func (s Semaphore) HeldBy() string {
	if len(s.Holders) == 0 {
		return "held by nobody"
	}
	var names []string
	for _, m := range s.Holders {
		d := s.Details[m]
		name := Name(m, d.Hostname)
		if d.Phase != "" {
			name += ", " + string(d.Phase)
		}
		names = append(names, name)
	}
	return "held by " + strings.Join(names, "; ")
}

// Resume goes on after a stop: casualties lose their slots and are forgotten.
func (s Semaphore) Resume() (Semaphore, error) {
	if s.Stopped == nil && len(s.Bad) == 0 {
		return s, ErrNotStopped
	}
	next := s.clone()
	next.Bad = nil
	next.goOn()
	return next, nil
}

// goOn ends a stop and takes off who holds a slot only because of it.
func (s *Semaphore) goOn() {
	s.Stopped = nil
	for _, m := range slices.Clone(s.Holders) {
		if s.Details[m].Phase.over() {
			s.drop(m)
		}
	}
}

func (s *Semaphore) drop(machine string) {
	if i, ok := slices.BinarySearch(s.Holders, machine); ok {
		s.Holders = slices.Delete(s.Holders, i, i+1)
	}
	delete(s.Details, machine)
}

// SetMax changes the number of slots. Nobody is thrown out.
func (s Semaphore) SetMax(n int) (Semaphore, error) {
	if n < 0 {
		return s, fmt.Errorf("max is a number from 0 on, not %d", n)
	}
	s.Max = n
	return s, nil
}

// SetStopAfter changes after how many casualties in a row the semaphore stops; 0 is
// never. A stop that there is stays one.
func (s Semaphore) SetStopAfter(n int) (Semaphore, error) {
	if n < 0 {
		return s, fmt.Errorf("stop-after is a number from 0 on, not %d", n)
	}
	s.StopAfter = n
	return s, nil
}

func (s Semaphore) isBad(machine string) bool {
	return slices.ContainsFunc(s.Bad, func(c Casualty) bool { return c.Machine == machine })
}
