// Package model is the vocabulary of fleet: machines, units, placements and
// states, as every other part of the component speaks of them.
package model

import (
	"fmt"
	"time"
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
	Text    string // canonical text; its hash is Hash
	Hash    string // 40 hex digits
	Desired State
	// Gen grows with every request for Desired, also for the value it already
	// has: asking to start a failed unit again is a new generation. It is the
	// store revision of the desired state.
	Gen int64
	Req Requirements // read from Text
	// Bad says why Text or Desired cannot be used; such a unit is never placed.
	Bad string
}

// Requirements is what the [X-Fleet] section of a unit asks for, specifiers
// expanded.
type Requirements struct {
	MachineID string              // full id or 8-digit short id; "" any
	MachineOf []string            // unit names that must be on the same machine, all of them
	Metadata  map[string][]string // key: any of the values; all keys
	Conflicts []string            // globs of unit names
	Replaces  []string            // globs of unit names
	Global    bool                // on every machine that fits
}

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
	// Leaving is set when the unit has been given to another machine. The machine
	// that holds this entry goes on running the unit until the entry is gone,
	// which is when the unit is up at its new place; it does not start it anew.
	Leaving bool
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
	// At is when the agent wrote it, by the machine's own clock.
	At time.Time
}

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
