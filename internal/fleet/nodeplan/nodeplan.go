// Package nodeplan decides what one machine does to make its units what the
// schedule says: a function from two snapshots to steps with reasons.
package nodeplan

import "flotilla/internal/fleet/model"

// Want is a unit that this machine's schedule holds, by unit name.
type Want = model.Placement

// Have is what this machine knows of a unit: what is installed, what the init
// system says, and what the agent remembers of its own doing since the machine
// started (kept under /run: a reboot forgets it).
type Have struct {
	Installed bool   // the agent installed a file for it
	Hash      string // of the installed text
	Active    string // systemd's ActiveState; "" unknown
	// NeedReload is set when the init system runs another text than the file's.
	NeedReload bool
	// DoneGen and DoneState are the generation and desired state that the agent
	// has carried out for it; 0 and Inactive: none yet.
	DoneGen   int64
	DoneState model.State
	// DoneHash is the hash of the text that was last started.
	DoneHash string
	// Busy is set while a job of the agent for this unit is under way: no step is
	// planned for it until the job has ended.
	Busy bool
	// Refused is the hash of a text that the init system refused to install;
	// it is not tried again.
	Refused string
}

// Op is what a step does.
type Op string

// The operations, in the order of the phases.
const (
	Stop    Op = "stop"    // a stop job, waited for
	Remove  Op = "remove"  // delete the unit's file; after Stop
	Install Op = "install" // write the unit's file
	Reload  Op = "reload"  // read changed files again, once for all
	Start   Op = "start"   // a start job
	Restart Op = "restart" // a restart job, for a changed text of a running unit
	Record  Op = "record"  // remember the generation as carried out; nothing else to do
)

// Step is one thing to do, and why.
type Step struct {
	Op   Op
	Unit string // empty for Reload
	Why  string // log line, API field and test output
}
