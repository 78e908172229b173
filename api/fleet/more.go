package fleet

import "time"

// The resources below are not the original server's.

// ApplyRequest is the body of POST /apply: units that are to be as they are given,
// all of them or none.
type ApplyRequest struct {
	// DryRun: say what would change and change nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Follow: instances whose text is that of a template before this request get
	// the template's new text.
	Follow bool `json:"follow,omitempty"`
	// Units have Options, and DropIns if they have any. An empty DesiredState
	// leaves that of a unit that is there, and is inactive for one that is not.
	Units []Unit `json:"units"`
	// New: none of the units may be there yet; if one is, nothing is written (409).
	New bool   `json:"new,omitempty"`
	Why string `json:"why,omitempty"` // for the history; empty: "apply"
}

// ApplyReport is the answer to POST /apply and POST /units/NAME/rollback.
type ApplyReport struct {
	Changes []UnitChange `json:"changes,omitempty"` // in order of name
}

// Action is what applying does to one unit.
type Action string

// The actions. Change is a change of the text, whatever becomes of the state
// besides; Start and Stop are a change of the desired state alone.
const (
	ActionCreate    Action = "create"
	ActionChange    Action = "change"
	ActionStart     Action = "start"
	ActionStop      Action = "stop"
	ActionUnchanged Action = "unchanged"
)

// UnitChange is what applying does to one unit.
type UnitChange struct {
	Action Action `json:"action"`
	// DesiredState is what is wanted of the unit afterwards.
	DesiredState string `json:"desiredState,omitempty"`
	FromHash     string `json:"fromHash,omitempty"` // empty for create
	// Instances are those of a template that follow it, in order of name. They
	// have no entry of their own.
	Instances []string `json:"instances,omitempty"`
	Name      string   `json:"name"`
	ToHash    string   `json:"toHash,omitempty"`
}

// Roll is a change of the text of units that run, a few at a time.
type Roll struct {
	// Asked is what somebody wants of the roll and the engine has not done yet:
	// pause, resume or revert.
	Asked   string    `json:"asked,omitempty"`
	By      string    `json:"by,omitempty"`      // who changed the text
	Changed int       `json:"changed,omitempty"` // how many of Total have the new text by now
	Ended   time.Time `json:"ended,omitzero"`
	// Failed is the unit that failed, on Machine; Log has its last lines.
	Failed  string            `json:"failed,omitempty"`
	From    map[string]string `json:"from,omitempty"` // hash before, by unit
	Group   string            `json:"group"`          // template of the instances, or the unit
	Log     []string          `json:"log,omitempty"`
	Machine string            `json:"machine,omitempty"`
	Started time.Time         `json:"started,omitzero"`
	State   string            `json:"state"`           // rolling, paused, reverting, done, reverted
	To      map[string]string `json:"to,omitempty"`    // hash after, by unit
	Total   int               `json:"total,omitempty"` // running copies: units, or machines of a global unit
	Why     string            `json:"why,omitempty"`   // what it waits for, or why it failed or ended
}

// Final reports whether the roll is over.
func (r Roll) Final() bool { return r.State == "done" || r.State == "reverted" }

// RollList is the answer to GET /rolls, in order of group.
type RollList struct {
	Rolls []Roll `json:"rolls,omitempty"`
}

// RollAction is the body of POST /rolls/GROUP.
type RollAction struct {
	Action string `json:"action"` // pause, resume or revert
}

// Version is a text that a unit has had.
type Version struct {
	At   time.Time `json:"at,omitzero"`
	By   string    `json:"by,omitempty"`
	Hash string    `json:"hash"`
	// Present: this is the unit's text now.
	Present bool   `json:"present,omitempty"`
	Seq     int    `json:"seq"` // from 1; the newest has the highest
	Text    string `json:"text"`
	Why     string `json:"why,omitempty"`
}

// VersionList is the answer to GET /units/NAME/history, newest first.
type VersionList struct {
	Versions []Version `json:"versions,omitempty"`
}

// RollbackRequest is the body of POST /units/NAME/rollback.
type RollbackRequest struct {
	// Follow: instances whose text is that of the template before this request get
	// the template's text.
	Follow bool   `json:"follow,omitempty"`
	Seq    int    `json:"seq,omitempty"` // 0: the version before the present one
	Why    string `json:"why,omitempty"`
}

// Why is the answer to GET /units/NAME/why.
type Why struct {
	Desired string `json:"desiredState,omitempty"`
	Global  bool   `json:"global,omitempty"`
	// Held is why the unit stays on a machine that is away, since all moves are held; empty:
	// they are not, or it is on one that is present.
	Held string `json:"held,omitempty"`
	// Placed are the ids of the machines that the unit is placed on.
	Placed   []string  `json:"placed,omitempty"`
	Reason   string    `json:"reason,omitempty"` // why it is nowhere, or cannot be used
	Unit     string    `json:"unit"`
	Verdicts []Verdict `json:"verdicts,omitempty"` // in order of machine
}

// Verdict says of one machine why it may or may not run a unit.
type Verdict struct {
	Here     bool   `json:"here,omitempty"` // the unit is on it
	Hostname string `json:"hostname,omitempty"`
	Machine  string `json:"machine"`
	OK       bool   `json:"ok"` // no rule is against it that is not soft
	Rules    []Rule `json:"rules,omitempty"`
}

// Rule is one thing that a machine is judged by.
type Rule struct {
	OK   bool   `json:"ok"`
	Rule string `json:"rule"`
	// Soft: it makes one machine better than another, and keeps the unit from none.
	Soft bool   `json:"soft,omitempty"`
	Why  string `json:"why,omitempty"` // with numbers
}

// WhatIf is the answer to GET /what-if and POST /rebalance.
type WhatIf struct {
	Held  string  `json:"held,omitempty"` // why nothing would move at first; empty: it would
	Moves []Move  `json:"moves,omitempty"`
	Stuck []Stuck `json:"stuck,omitempty"` // what would not fit anywhere, or is bound to its machine
}

// Move is a unit that goes from one machine to another.
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
	Unit string `json:"unit"`
	Why  string `json:"why,omitempty"`
}

// Stuck is a unit that has no place to go to.
type Stuck struct {
	From string `json:"from"`
	Unit string `json:"unit"`
	Why  string `json:"why,omitempty"`
}

// RebalanceRequest is the body of POST /rebalance.
type RebalanceRequest struct {
	DryRun bool `json:"dryRun,omitempty"` // say what would move and move nothing
	Max    int  `json:"max,omitempty"`    // units to move; 0: one
}

// Engine is the answer to GET /engine: who decides for the cluster.
type Engine struct {
	Held   string `json:"held,omitempty"`   // why all moves are held; empty: they are not
	Leader string `json:"leader,omitempty"` // id of the machine whose engine leads; empty: none does
}

// Forgotten is the answer to DELETE /machines/ID.
type Forgotten struct {
	Units []string `json:"units,omitempty"` // that were placed there, in order of name
}

// Store is the answer to GET /store: how the members of the store are.
type Store struct {
	Members []StoreMember `json:"members,omitempty"` // by name
	Why     string        `json:"why,omitempty"`     // why they could not be asked; empty: they were
}

// StoreMember is a member of the store, as the fleetd that was asked sees it.
type StoreMember struct {
	Alarms  []string `json:"alarms,omitempty"`  // that it has raised: NOSPACE, CORRUPT
	Answers bool     `json:"answers,omitempty"` // it was reached
	Healthy bool     `json:"healthy,omitempty"` // a majority confirms what it reads
	Leader  bool     `json:"leader,omitempty"`
	Learner bool     `json:"learner,omitempty"` // it has no vote
	Name    string   `json:"name"`
	URL     string   `json:"url,omitempty"` // for clients
	Why     string   `json:"why,omitempty"` // why it is not healthy
}

// Event is something that happened, for people: a line of GET /events.
type Event struct {
	At      time.Time `json:"at,omitzero"`
	By      string    `json:"by,omitempty"`      // who asked for it; empty: nobody did
	Kind    string    `json:"kind"`              // schedule, machine, failure, hold, roll, request
	Machine string    `json:"machine,omitempty"` // id
	Unit    string    `json:"unit,omitempty"`
	What    string    `json:"what"`
	Why     string    `json:"why,omitempty"`
}

// LogLine is one line of GET /logs and of GET /units/NAME/journal: a log entry, or,
// with Notice set, a remark on the stream itself.
type LogLine struct {
	Time     time.Time `json:"time,omitzero"`
	Machine  string    `json:"machine,omitempty"` // host name
	Unit     string    `json:"unit,omitempty"`
	Ident    string    `json:"ident,omitempty"` // the command's name
	PID      int       `json:"pid,omitempty"`
	Priority int       `json:"priority"` // syslog(3): 0 emergency ... 7 debug
	Message  string    `json:"message"`
	Cursor   string    `json:"cursor,omitempty"` // on its machine
	// Notice is "machine m2 does not answer, ...": then only Machine is set besides.
	Notice string `json:"notice,omitempty"`
}

// AdoptRequest is the body of POST /adopt: the cluster takes over a unit that runs
// on a machine already.
type AdoptRequest struct {
	Machine string `json:"machine"` // id, or the beginning of one
	Unit    string `json:"unit"`
}

// EjectRequest is the body of POST /eject: the machine of a unit keeps it as an
// ordinary unit of its own, and the cluster forgets it.
type EjectRequest struct {
	Unit string `json:"unit"`
}

// WhoAmI is the answer to GET /whoami: whom the server takes the caller for.
type WhoAmI struct {
	Name string `json:"name"`
	// Prefix is what unit names of a deployer begin with, one of them.
	Prefix []string `json:"prefix,omitempty"`
	Role   string   `json:"role"` // admin, deployer or viewer
}

// MetadataOp is one operation of PATCH /machines.
type MetadataOp struct {
	Op    string         `json:"op"`   // add, replace or remove
	Path  string         `json:"path"` // /MACHINEID/metadata/KEY
	Value *MetadataValue `json:"value,omitempty"`
}

// MetadataValue is the value of a MetadataOp, as the original server takes it.
type MetadataValue struct {
	Value string `json:"value"`
}
