// Package model is the vocabulary of fleet: machines, units, placements and
// states, as every other part of the component speaks of them.
package model

import (
	"fmt"
	"time"

	"flotilla/internal/unitfile"
)

// State is what users want of a unit, and how far the cluster has come. The order
// is meaningful: Inactive < Loaded < Launched.
type State int

// The three states of a unit.
const (
	Inactive State = iota // known, on no machine
	Loaded                // placed on a machine, its file known to the init system there
	Launched              // as Loaded, and the init system has been asked to start it
)

var stateNames = [...]string{"inactive", "loaded", "launched"}

// String returns the name on the wire.
func (s State) String() string {
	if s < Inactive || s > Launched {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// ParseState is the reverse of String. Anything else is an error: what is in the
// store is untrusted.
func ParseState(s string) (State, error) {
	for i, name := range stateNames {
		if s == name {
			return State(i), nil
		}
	}
	return Inactive, fmt.Errorf("unit state %q is not one of inactive, loaded, launched", s)
}

// MarshalText writes the name on the wire.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (s *State) UnmarshalText(b []byte) error {
	v, err := ParseState(string(b))
	*s = v
	return err
}

// Unit is a unit as the cluster knows it.
type Unit struct {
	Name    string
	Text    string // canonical text, drop-ins included (unitfile.Bundle); its hash is Hash
	Hash    string // 40 hex digits
	Desired State
	// Gen grows with every request for Desired, also for the value it already
	// has: asking to start a failed unit again is a new generation. It is the
	// store revision of the desired state.
	Gen int64
	// Restart is set when this generation asks for a new start also of what runs.
	Restart bool
	Req     Requirements // read from Text
	// Bad says why Text or Desired cannot be used; such a unit is never placed.
	Bad string
}

// Requirements is what the [X-Fleet] section of a unit asks for, specifiers
// expanded.
type Requirements struct {
	MachineID string   // full id or 8-digit short id; "" any
	MachineOf []string // unit names that must be on the same machine, all of them
	// Triggers is the unit that this one is there to start, as a timer its service, and
	// has to be with if the cluster has it; "" none.
	Triggers  string
	Metadata  map[string][]string // key: any of the values; all keys
	Conflicts []string            // globs of unit names
	Replaces  []string            // globs of unit names
	Global    bool                // on every machine that fits
	// Prefers is what a machine should better have, each as key=value: the machine
	// that has more of them goes before others that fit as well.
	Prefers []string
	// SpreadKey is the metadata key over whose values the instances of the unit's
	// template are to be spread evenly; "" none.
	SpreadKey string
	Pack      bool // the fullest machine that fits, in place of the emptiest
	Singleton bool // at most one runs: it is stopped before it is started elsewhere
	// MoveAfter is in place of the cluster's: how long the unit's machine must have
	// been away. 0: the cluster's; negative: never.
	MoveAfter time.Duration
	// Cores is how many thousandths of a processor the unit asks for, Memory how
	// many bytes; 0: nothing. [X-Fleet] says so, else CPUQuota=, and MemoryMax= or
	// MemoryHigh= of [Service].
	Cores, Memory int64
	// MaxRunning is on how many machines a global unit may run at a time; 0: all.
	MaxRunning int
	Roll       RollPolicy
}

// RollPolicy is how a unit is changed while it runs.
type RollPolicy struct {
	MaxUnavailable int           // at least 1; of the unit's group
	HealthyAfter   time.Duration // for how long a new copy must have been active
	HealthCheck    string        // see unitfile.ParseHealthCheck; "" none
	HealthyTimeout time.Duration // a new copy that is not good by then is bad
}

// Defaults of RollPolicy.
const (
	DefaultHealthyAfter   = time.Second
	DefaultHealthyTimeout = time.Minute
)

// Machine is a machine that is present: its lease is alive.
type Machine struct {
	ID       string            // 32 hex digits
	IP       string            // may be empty
	Hostname string            // may be empty
	Metadata map[string]string // configured values overlaid with dynamic ones
	Version  string            // of its fleetd
	// PeerAddr is where its fleetd serves other machines (host:port), PeerKey the
	// SHA-256 of the public key it shows there, in hex. Empty: it serves none.
	PeerAddr string
	PeerKey  string
	// Boot tells one run of the machine's daemon from the next.
	Boot string
	// Cores is how many thousandths of a processor units may ask for here, Memory
	// how many bytes; 0: not told, which is room for anything.
	Cores, Memory int64
	// Cordon is set when nothing new is to be placed here; nil: there is none.
	Cordon *Cordon
}

// Cordon keeps new units from a machine, present or not.
type Cordon struct {
	Drain bool // what is there is to leave, too
	Why   string
	By    string
	At    time.Time
}

// ShortID is the first 8 digits of a machine id.
func ShortID(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:8]
}

// Placement is one entry of a machine's schedule: that machine runs that unit. It
// holds all that the machine needs to know.
type Placement struct {
	Machine string
	Unit    string
	Text    string // canonical text
	Hash    string // of Text
	Desired State  // Loaded or Launched
	Gen     int64  // the generation of Desired: a higher one starts the unit again
	Restart bool   // with this generation what runs is restarted
	// Leaving is set when the unit has been given to another machine. The machine
	// that holds this entry goes on running the unit until the entry is gone,
	// which is when the unit is up at its new place; it does not start it anew.
	Leaving bool
	// Watched is set when the text came with a roll: the machine judges the health
	// of the unit and says so in its state.
	Watched bool
	// MoveAfter is the move time of a singleton that the machine stops it by when it
	// has lost touch: see Fence. Negative: never; 0: none, as of what is no singleton.
	MoveAfter time.Duration
	// WaitFor is how long the cluster has to wait in place of MoveAfter as long as the
	// machine may go by an earlier entry, until it has said (UnitState.Heard) that it
	// goes by this one. Negative: for ever; 0: MoveAfter.
	WaitFor time.Duration
	// Rev is the store revision of the entry, for guarded writes; 0: not stored.
	Rev int64
}

// UnitState is what a machine's init system says of a unit.
type UnitState struct {
	Unit    string
	Machine string
	Hash    string // of the text that is loaded
	Load    string
	Active  string
	Sub     string
	// Message is the agent's word on a unit it could not load or start.
	Message string
	// Gen is the generation that the agent has carried out.
	Gen int64
	// Heard is the revision of the entry by which the machine fences the unit, if that
	// entry waits to be told so (Placement.WaitFor); else 0.
	Heard int64
	// At is when the agent wrote it, by the machine's own clock.
	At time.Time
	// Health is the judgement on a unit whose placement is watched; HealthWhy is
	// its reason, Log the last lines of the unit's log if it is bad.
	Health    Health
	HealthWhy string
	Log       string // its lines, each with a newline
}

// Health is what a machine makes of a unit that is being rolled.
type Health string

// The judgements.
const (
	Unwatched Health = ""
	Waiting   Health = "waiting" // not good yet, and not too late
	Good      Health = "good"
	Bad       Health = "bad"
)

// Current derives a unit's current state from its placement on a machine and the
// state that this machine reports (zero: none), as the original did from target,
// state and heartbeat.
func Current(p Placement, s UnitState) State {
	switch {
	case p.Unit == "" || s.Unit == "" || s.Machine != p.Machine:
		return Inactive
	case p.Desired == Launched && s.Gen >= p.Gen:
		return Launched
	}
	return Loaded
}

// IsOneshot reports whether a unit's text is that of a service that is meant to end.
func IsOneshot(text string) bool {
	b, err := unitfile.ParseBundle(text)
	if err != nil {
		return false
	}
	v, _ := b.Effective().Get("Service", "Type")
	return v == "oneshot"
}
