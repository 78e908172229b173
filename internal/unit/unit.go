// Package unit is the vocabulary between whoever decides about units and the init
// system that runs them: statuses, jobs and log entries in systemd's own words
// (org.freedesktop.systemd1(5), systemd.unit(5)).
//
// Two init systems stand behind the ports below: real systemd over D-Bus and the
// built-in supervisor. The suite in unittest says what both must do.
package unit

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrRefused is in the error of Install when the init system cannot run such a
// text: trying the same text again is of no use. Other errors may pass.
var ErrRefused = errors.New("unit refused")

// Status is what the init system says of one unit. A unit that is inactive, has no
// job and is named by no unit that is loaded is unloaded: what it remembered of its
// last run (Result, ExitCode, Since, Restarts) is gone then, as is the count of its
// starts. A failed unit is kept, unless its CollectMode= says otherwise.
type Status struct {
	Name        string
	Description string
	Load        string    // loaded, not-found, bad-setting, error, masked
	Active      string    // active, reloading, inactive, failed, activating, deactivating
	Sub         string    // running, exited, dead, failed, start-pre, auto-restart, ...
	Result      string    // success, exit-code, signal, timeout, start-limit-hit, ...; services only
	MainPID     int       // 0: none
	ExitCode    int       // of the last main process; meaningful once it has ended
	Since       time.Time // when Active last changed; zero: never
	Fragment    string    // path of the unit file, "" if there is none
	NeedReload  bool      // the file on disk is not the one that is loaded
	Restarts    int       // automatic restarts since it was started by a job
	// Job is set while a job for the unit is queued or under way: its state may be
	// that of before, or one between stop and start.
	Job bool
}

// Kind is what a job does to a unit.
type Kind string

// The kinds of job that are asked for.
const (
	Start   Kind = "start"
	Stop    Kind = "stop"
	Restart Kind = "restart"
)

// Job asks the init system to change one unit's state.
type Job struct {
	Kind Kind
	Unit string
}

// Result is how a job ended, in the words of systemd's JobRemoved signal.
type Result string

// The results of a job.
const (
	Done       Result = "done"
	Canceled   Result = "canceled"
	Timeout    Result = "timeout"
	Failed     Result = "failed"
	Dependency Result = "dependency"
	Skipped    Result = "skipped"
	Assert     Result = "assert" // an Assert*= of the unit does not hold
)

// Outcome is the end of one job. Err is set, and Result empty, when the job could
// not be queued at all: the unit does not exist, or its file is bad.
type Outcome struct {
	Job    Job
	Result Result
	Err    error
}

// Manager is an init system as the agent uses it. All methods are safe for
// concurrent use. A manager runs units; it outlives whoever talks to it, and
// closing the connection stops nothing.
type Manager interface {
	// Install makes the text the unit's file and drop-ins (unitfile.Bundle), whole
	// or not at all: drop-ins of an earlier text that this one has not are removed,
	// those that others put beside the unit count and are left alone. The init system
	// knows the unit afterwards under its own name, except that a unit which was
	// loaded before with another text keeps that text until Reload: then the
	// unit's Status has NeedReload. With another text a failed state and the count of
	// starts are forgotten: they were the old one's. A text that the init system
	// cannot run is refused (the supervisor names each directive) and nothing is
	// written.
	Install(ctx context.Context, name, text string) error
	// Remove deletes the unit's files and forgets a failed state. A unit that still
	// runs goes on running: stop it first. Removing what is not there is no error.
	Remove(ctx context.Context, name string) error
	// Installed returns the text of every unit that Install wrote and Remove has
	// not deleted, by name. It survives a restart of the caller.
	Installed(ctx context.Context) (map[string]string, error)
	// Reload reads changed files of loaded units again. On systemd its cost grows
	// with the number of loaded units (about 1 s for 800): batch it.
	Reload(ctx context.Context) error
	// Run sends all jobs at once and returns a channel that has room for every
	// outcome; it is closed after the last. Cancelling ctx ends the wait, not the
	// jobs.
	Run(ctx context.Context, jobs []Job) <-chan Outcome
	// Status asks for the named units, in the order asked. A unit nobody knows has
	// Load "not-found" and Active "inactive". With an error come the units that
	// could be asked for all the same; none if it is about the connection.
	Status(ctx context.Context, names ...string) ([]Status, error)
	// Watch sends the status of every installed unit that changed, until ctx is
	// done; then the channel is closed. It is also closed when the connection to
	// the init system is lost: watch again and ask for everything once.
	Watch(ctx context.Context) (<-chan Status, error)
	// Show writes what a person asks for with "systemctl status" and returns that
	// command's exit code (0 active, 3 not active, 4 no such unit).
	Show(ctx context.Context, w io.Writer, name string) (int, error)
}

// Fencer is what an init system can do for units of which at most one may run in the
// cluster. All that run units here are Fencers.
type Fencer interface {
	// KillUnit ends every process of a unit at once, with SIGKILL. What the unit's
	// Restart= says of that is not its business: send a stop job first. Killing
	// what does not run is no error.
	KillUnit(ctx context.Context, name string) error
	// Guard has the init system itself stop the units, unless it is called again
	// within after, and kill them if they have not ended grace later. Without names
	// it stands down. It is for the time in which nobody else may be there to do so.
	Guard(ctx context.Context, after, grace time.Duration, names ...string) error
}

// Adopter is an init system that can hand a running unit over, from its own files to
// those of Install and back, without touching its processes.
type Adopter interface {
	// Own returns the canonical text of a unit that the machine has a file of its
	// own for, drop-ins included. It fails, and says why, for a unit that cannot be
	// taken over: one that has no file, or whose file another program makes.
	Own(ctx context.Context, name string) (text string, err error)
	// TakeOver is Install for such a unit: the machine's own files are put aside, or
	// overlaid where they belong to the distribution, and the unit is not started by
	// them any more. What runs goes on; a Reload makes the text count.
	TakeOver(ctx context.Context, name, text string) error
	// Eject makes the files of an installed unit the machine's own, has them count,
	// and has the unit enabled if its text says how. What runs goes on.
	Eject(ctx context.Context, name string) error
}

// LogQuery chooses entries of units' logs.
type LogQuery struct {
	Units  []string
	Lines  int       // at most so many of the newest before following; 0: none, below 0: all
	Follow bool      // go on with new entries until ctx is done
	Since  time.Time // zero: no bound
	After  string    // cursor of the last entry that is already known; "" none
}

// LogEntry is one line of a unit's log.
type LogEntry struct {
	Time     time.Time `json:"time"`
	Machine  string    `json:"machine,omitempty"` // host name
	Unit     string    `json:"unit"`
	Ident    string    `json:"ident,omitempty"` // SYSLOG_IDENTIFIER: the command's name
	PID      int       `json:"pid,omitempty"`
	Priority int       `json:"priority"` // syslog(3): 0 emergency ... 7 debug
	Message  string    `json:"message"`
	Cursor   string    `json:"cursor,omitempty"`
}

// LogReader reads units' logs, oldest entry first.
type LogReader interface {
	// ReadLog calls emit for each entry. It ends after the last one, with Follow
	// when ctx is done (nil error), or with emit's error.
	ReadLog(ctx context.Context, q LogQuery, emit func(LogEntry) error) error
}
