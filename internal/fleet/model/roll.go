package model

import (
	"time"

	"flotilla/internal/unitfile"
)

// RollState is how far a roll has come.
type RollState string

// The states of a roll. Those from Done on are final.
const (
	Rolling   RollState = "rolling"
	Paused    RollState = "paused"    // nothing more is changed until somebody resumes
	Reverting RollState = "reverting" // the old texts are being put back
	Done      RollState = "done"
	Reverted  RollState = "reverted"
)

// What can be asked of a roll.
const (
	Pause  = "pause"
	Resume = "resume"
	Revert = "revert"
)

// Final reports whether the roll is over.
func (s RollState) Final() bool { return s == Done || s == Reverted }

// Roll is a change of the text of units that run, a few at a time.
type Roll struct {
	// Group is the template of the instances that are rolled, or the unit itself.
	Group string
	State RollState
	// From and To are the hashes of each unit before and after, by unit.
	From, To map[string]string
	// Texts holds what From speaks of, by hash: what a revert puts back.
	Texts map[string]string
	// Since is the entries that are being changed, by RollKey: since when each may
	// have the text that it is to have and has not been good with it.
	Since   map[string]time.Time
	Started time.Time
	Ended   time.Time // zero: not yet
	By      string    // who asked for it
	// Why says what the roll waits for, or why it failed or ended.
	Why string
	// Failed is the unit that failed, on Machine, with the last lines of its Log.
	Failed, Machine string
	Log             []string
	// Asked is what somebody wants of the roll: Pause, Resume or Revert; "" nothing.
	// AskedBy is who.
	Asked, AskedBy string
	Rev            int64 // store revision, for guarded writes; 0: not stored
}

// RollKey names an entry of the schedule in Roll.Since.
func RollKey(unit, machine string) string { return unit + " " + machine }

// GroupOf is the group that a unit is rolled with: the instances of its template,
// or the unit alone.
func GroupOf(name string) string {
	if template, ok := unitfile.TemplateOf(name); ok {
		return template
	}
	return name
}

// InstanceIn is how a unit of a group is told from the others: the instance's name,
// "" for the template or for a unit alone. UnitIn is the reverse.
func InstanceIn(group, unit string) string {
	if unit == group {
		return ""
	}
	_, instance, _ := unitfile.Split(unit)
	return instance
}

// UnitIn is the unit of a group that InstanceIn told.
func UnitIn(group, instance string) string {
	if instance == "" {
		return group
	}
	prefix, _, typ := unitfile.Split(group)
	return prefix + "@" + instance + "." + typ
}

// Version is a text that a unit has had.
type Version struct {
	Unit string
	Seq  int // from 1; the newest has the highest
	Hash string
	Text string
	At   time.Time
	By   string
	Why  string // apply, rollback to 3, "reverted: web@2 failed"
}

// Event is something that happened, for people.
type Event struct {
	At      time.Time
	Kind    EventKind
	Unit    string // "" none
	Machine string // "" none
	What    string // what happened, in a few words
	Why     string // "" if What says it all
	By      string // who asked for it; "" nobody did
}

// EventKind sorts events.
type EventKind string

// The kinds of event.
const (
	Scheduled EventKind = "schedule" // placed, moved, updated, released
	Presence  EventKind = "machine"  // came, fell silent, is lost, cordoned
	Failure   EventKind = "failure"  // a unit failed, or could not be started
	Held      EventKind = "hold"     // moves are held, or not any more
	RollEvent EventKind = "roll"
	Request   EventKind = "request" // somebody changed something through the API
)

// Ask is something that the engine is to do once.
type Ask struct {
	ID   string // its key's last part
	Kind AskKind
	// Unit and Machine are what it is about, for Adopt; Machine for Forget.
	Unit, Machine string
	Max           int // moves, for Rebalance; 0: one
	By            string
	At            time.Time
}

// AskKind says what is asked of the engine.
type AskKind string

// The kinds of Ask.
const (
	Rebalance AskKind = "rebalance" // move units from full machines to emptier ones
	Adopt     AskKind = "adopt"     // place a unit on the machine that runs it already
	Forget    AskKind = "forget"    // a machine that is away will not return: it counts no more
)

// Known reports whether it is one of those.
func (k AskKind) Known() bool { return k == Rebalance || k == Adopt || k == Forget }
