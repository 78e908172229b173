// Package sched decides which machine runs which unit.
//
// Decide is a function from a snapshot of the cluster to decisions with reasons.
// It has no clock, no chance and no state: the same snapshot gives the same
// decisions, and the snapshot they lead to gives none. The order of the lists in a
// snapshot means nothing.
//
// Explain, WhatIf and Rebalance answer questions about a snapshot and decide
// nothing.
//
// A Cluster is for one who decides often: it is told of changes (SetMachine,
// SetUnit, SetPlacement, SetState and the like with Remove), and its Decide looks
// only at what they can have changed. It decides what Decide does of a snapshot of
// the same.
//
// # Where a unit goes
//
// A machine fits if it is the one of MachineID, has all MachineMetadata, runs every
// unit of MachineOf and the unit that this one triggers, runs nothing that conflicts
// (in either direction; leaving units conflict too) and nothing that replaces the
// unit, is not cordoned, and has room. Room is what the machine tells of itself less what is asked for by all that is on
// it, leaving and global units too; a machine that does not tell has room for
// anything, and a unit that asks for nothing needs none.
//
// Of the present machines that fit a unit goes to the first, by these criteria in
// this order:
//
//  1. one that says it runs this very text already, whatever else: after the loss
//     of a store the units are found where they are
//  2. more of what it Prefers
//  3. fewer instances of its template on all machines that have the same value of
//     the Spread key; machines without the key come last
//  4. fewer instances of its template, unless it is packed
//  5. least load. For a unit that asks for nothing: fewer units, then a lower share
//     in use; for one that asks: a lower share in use with it, then fewer units. The
//     share is the larger of those of cores and memory. Strategy=pack is the
//     reverse: the fullest machine on which it fits
//  6. the smaller id
//
// So a unit that is no instance and asks for nothing goes where the fewest units
// are, as it always did. Older requests are placed before younger ones, a unit after
// those it follows. A global unit goes to every present machine that fits. What is
// placed stays while its machine fits, however uneven the load, and though it may
// have come to ask for more than there is; of two units that have come to conflict
// the older request stays.
//
// A unit triggers another if its type and file say so, as a timer's do of its service
// (model.Requirements.Triggers). That counts as MachineOf as long as the cluster has the
// other, which is not global, and unless the other follows it in turn.
//
// Replaces is an anti-affinity that evicts: the unit may be placed beside one it
// replaces, which then moves. Units that replace each other in a circle do not
// replace each other at all.
//
// # When a unit moves
//
// When its machine no longer fits, at once. When its machine has been away for its
// MoveAfter, or else that of Policy, unless moves are held. When its machine is to be
// drained, in its turn. When somebody has asked to rebalance, and it evens out two
// machines by two units at least. Never for any other reason.
//
// In each case the old entry is marked as leaving and goes only when the unit is up
// at its new place: at least one runs. If no other machine fits, a unit whose machine
// is away or to be drained stays there, and one whose machine no longer fits is
// released, except while the only thing in its way is a unit that is about to leave.
// A unit that cannot be understood (Unit.Bad) is never placed, and never taken away
// from where it runs.
//
// A singleton is stopped first: at most one runs. Its entry is rewritten to loaded,
// with a generation that nobody has asked for, and is released when the machine has
// said that it has carried that out and that the unit is at rest; or, if the machine
// is away, when it must have stopped the unit by itself (model.Requirements.Fence).
// That goes for a unit that was destroyed, too.
//
// # When a text changes
//
// The entries of a unit take a new text when Snapshot.Allow lets them; its desired
// state and generation they take at once, with the text that they have. Until then a
// unit is judged by the text that it has, and takes it along if it has to move; if it
// may change where it is, it may change where it goes. Asking for a unit to be
// watched, or no longer, is by itself no reason to write an entry.
package sched

import (
	"time"

	"flotilla/internal/fleet/model"
)

// Moment is what a Cluster is told anew for each decision; the fields are those of
// Snapshot.
type Moment struct {
	Now, LeaderSince time.Time
	Policy           Policy
	Lost             map[string]time.Time
	Seen             int
	Allow            func(unit, machine string) bool
	Watch            func(unit string) bool
	Asks             []model.Ask
}

// Moment is the part of s that is no list of what there is.
func (s Snapshot) Moment() Moment {
	return Moment{
		Now: s.Now, LeaderSince: s.LeaderSince, Policy: s.Policy, Lost: s.Lost, Seen: s.Seen,
		Allow: s.Allow, Watch: s.Watch, Asks: s.Asks,
	}
}

// Snapshot is all that a decision depends on.
type Snapshot struct {
	Now time.Time
	// LeaderSince is when this engine was elected: it has seen nothing before.
	LeaderSince time.Time
	Policy      Policy
	Machines    []model.Machine
	// Lost says since when a machine is away that has placements and is not in
	// Machines. A machine not mentioned is away since LeaderSince.
	Lost map[string]time.Time
	// Seen is how many machines were present at once before the present losses
	// began: the measure for Policy.HoldFraction. Below what is there to be seen,
	// len(Machines) and the machines away that still have placements, it is that.
	Seen       int
	Units      []model.Unit
	Placements []model.Placement
	States     []model.UnitState
	// Allow says whether a stored entry, or the entry of a unit that moves to that
	// machine, may take the unit's text if that has changed; nil: all may. The text
	// waits, desired state and generation do not.
	Allow func(unit, machine string) bool
	// Watch says whether a unit that takes a new text is to be watched
	// (model.Placement.Watched); nil: none is.
	Watch func(unit string) bool
	// Asks is what somebody wants done once.
	Asks []model.Ask
}

// Policy is how the cluster deals with machines that fall silent.
type Policy struct {
	// MoveAfter is how long a machine's lease must have been gone before its
	// units move. 0 means 10 s: with a lease of 10 s, a machine is suspected 10 s
	// and its units move 20 s after its last word. Negative: never.
	MoveAfter time.Duration
	// HoldFraction is the share of the machines whose loss at once is taken for a
	// fault of the network or the store: nothing moves while more than this share
	// is away. 0 means 0.5. 1 or more: never hold.
	HoldFraction float64
}

// Op is what a decision does to a machine's schedule.
type Op string

// The operations, in the order in which decisions are returned.
const (
	// Release deletes the entry: the machine stops and removes the unit.
	Release Op = "release"
	// Leave marks the entry as leaving: the machine goes on running the unit
	// until Release.
	Leave Op = "leave"
	// Update rewrites the entry for a new text, desired state or generation, or
	// because a unit that was leaving stays.
	Update Op = "update"
	// Place writes a new entry: the machine loads and starts the unit.
	Place Op = "place"
)

// Decision is one change to the schedule.
type Decision struct {
	Op Op
	// Entry is the entry as it is to be (Place, Update, Leave) or as it was
	// (Release). Entry.Rev is the revision it replaces, 0 for Place.
	Entry model.Placement
	Why   string // log line, event and the expected text of the test
}

// Verdict says of one machine why it may or may not run a unit.
type Verdict struct {
	Machine string
	OK      bool
	Why     string
}

// Unplaced is a unit that should be on a machine and is on none, or whose machine
// is away without any other to move to.
type Unplaced struct {
	Unit     string
	Why      string    // one line: the machines' reasons, counted
	Verdicts []Verdict // each machine, in order of its id
}

// Note is a word on a unit.
type Note struct{ Unit, Why string }

// Drain is how far a machine has been drained. It is done when Left is 0.
type Drain struct {
	Machine string
	Left    int      // how many units have not left yet
	Moving  []string // those that are leaving, in order of name
	Stuck   []Note   // those that could not leave now, in the order in which they try
	Stays   []Note   // those that do not leave, and are not in Left
}

// Result is what Decide returns.
type Result struct {
	Decisions []Decision
	// Unplaced is every unit that no machine can run, in order of name.
	Unplaced []Unplaced
	// Held says why moves are held that would otherwise be due; "" if none are.
	Held string
	// Drains is the machines that are to be drained, in order of id.
	Drains []Drain
	// Wake is when time alone will change the decisions; zero: never.
	Wake time.Time
	// DoneAsks is the IDs of the Asks that Decisions carry out, or that there is
	// nothing to do for, in order.
	DoneAsks []string
	// Answers says of each of DoneAsks, by ID, what came of it.
	Answers map[string]string
}
