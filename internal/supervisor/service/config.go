// Package service knows what a service is and decides what happens to it: which
// command runs next, which signal is due, whether it is started again. It follows
// systemd.service(5), systemd.exec(5) and systemd.kill(5) and touches nothing:
// effects are values that the supervisor carries out.
package service

import (
	"fmt"
	"strings"
	"time"

	"flotilla/internal/unitfile"
)

// The types of service (systemd.service(5), "Type=").
const (
	Simple  = "simple"
	Exec    = "exec"
	Oneshot = "oneshot"
	Notify  = "notify"
	Forking = "forking"
	idle    = "idle"
)

// The values of Restart=.
const (
	RestartNo         = "no"
	RestartAlways     = "always"
	RestartOnSuccess  = "on-success"
	RestartOnFailure  = "on-failure"
	RestartOnAbnormal = "on-abnormal"
	RestartOnAbort    = "on-abort"
	RestartOnWatchdog = "on-watchdog"
)

// The values of KillMode=.
const (
	KillGroup   = "control-group"
	KillMixed   = "mixed"
	KillProcess = "process"
	KillNone    = "none"
)

// The values of NotifyAccess=.
const (
	NotifyNone = "none"
	NotifyMain = "main"
	NotifyExec = "exec"
	NotifyAll  = "all"
)

// Config is what a unit file says, every value read and every specifier replaced.
type Config struct {
	Name   string
	Target bool // a target: nothing to run, active once started
	Deps

	Description   string
	Conditions    []Condition
	CollectFailed bool // CollectMode=inactive-or-failed

	StartLimitInterval time.Duration // 0: no limit
	StartLimitBurst    int

	Type            string
	RemainAfterExit bool
	GuessMainPID    bool
	PIDFile         string
	NotifyAccess    string

	ExecCondition, ExecStartPre, ExecStart, ExecStartPost []Command
	ExecReload, ExecStop, ExecStopPost                    []Command

	Restart              string
	RestartDelay         time.Duration
	SuccessExitStatus    ExitSet
	RestartPreventStatus ExitSet
	RestartForceStatus   ExitSet
	TimeoutStart         time.Duration // unitfile.Infinity: none; so are the others
	TimeoutStop          time.Duration
	TimeoutAbort         time.Duration
	RuntimeMax           time.Duration
	Watchdog             time.Duration // 0: none

	KillMode          string
	KillSignal        int
	RestartKillSignal int // 0: KillSignal
	FinalKillSignal   int
	WatchdogSignal    int
	SendSIGHUP        bool
	SendSIGKILL       bool

	Context Context
}

// Context is how the processes of a service are set up (systemd.exec(5)).
type Context struct {
	User, Group        string
	SupplementaryGroup []string
	WorkingDirectory   string // "" the root, or the user's home for "~"
	ChdirMayFail       bool
	UMask              uint32
	Nice               *int
	OOMScoreAdjust     *int
	Limits             []Limit
	Environment        []string // NAME=VALUE
	EnvironmentFiles   []EnvironmentFile
	PassEnvironment    []string
	UnsetEnvironment   []string
	Stdout, Stderr     Stream
	Ident              string // SyslogIdentifier=, "" the command's name
	LogLevel           int    // priority of lines without a prefix
	LevelPrefix        bool   // <N> at the start of a line sets its priority
}

// EnvironmentFile is a file of assignments. It may be missing if Optional.
type EnvironmentFile struct {
	Path     string
	Optional bool
}

// Limit is one resource limit: the number of RLIMIT_*, and its values, with
// math.MaxUint64 for none.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// Stream is where output goes.
type Stream struct {
	Kind string // journal, null, file, append, truncate, inherit
	Path string
}

// Deps are a unit's relations to others (systemd.unit(5)).
type Deps struct {
	Requires, Requisite, Wants, BindsTo, PartOf, Conflicts, After, Before []string
	OnFailure, OnSuccess                                                  []string
}

// Condition is one Condition*= or Assert*= line.
type Condition struct {
	Name    string // such as PathExists
	Value   string
	Negate  bool
	Trigger bool // "|": one of all of these must hold
	Assert  bool
}

// Problem is why a unit file cannot be run here.
type Problem struct {
	DropIn    string // the drop-in that has it, "" for the unit file itself
	Line      int    // 0: the file as a whole
	Directive string // "Section.Name", "" for none in particular
	Text      string
}

func (p Problem) String() string {
	text := p.Text
	if p.Line != 0 && p.Directive != "" {
		text = p.Directive[strings.IndexByte(p.Directive, '.')+1:] + "= " + text
	}
	if p.Line != 0 {
		text = fmt.Sprintf("line %d: %s", p.Line, text)
	}
	if p.DropIn != "" {
		return "drop-in " + p.DropIn + ": " + text
	}
	return text
}

// Problems is every reason why a unit file is refused.
type Problems struct {
	Unit string
	List []Problem
}

// Error has one line for each problem.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, q := range p.List {
		lines[i] = p.Unit + ": " + q.String()
	}
	return strings.Join(lines, "\n")
}

// defaults is a service of which the file says nothing
// (systemd.service(5), systemd-system.conf(5)).
func defaults(name string) *Config {
	return &Config{
		Name:               name,
		StartLimitInterval: 10 * time.Second,
		StartLimitBurst:    5,
		GuessMainPID:       true,
		Restart:            RestartNo,
		RestartDelay:       100 * time.Millisecond,
		TimeoutStart:       -1,
		TimeoutStop:        90 * time.Second,
		TimeoutAbort:       -1,
		RuntimeMax:         unitfile.Infinity,
		KillMode:           KillGroup,
		KillSignal:         15,
		FinalKillSignal:    9,
		WatchdogSignal:     6,
		SendSIGKILL:        true,
		Context: Context{
			UMask:       0o022,
			Stdout:      Stream{Kind: "journal"},
			Stderr:      Stream{Kind: "inherit"},
			LogLevel:    6,
			LevelPrefix: true,
		},
	}
}

// Compile reads a unit file and its drop-ins for the unit called name: what a drop-in
// says comes after, so that an empty value takes back what a list had before it.
// lookup gives the specifiers. If anything in the files cannot be honoured, Compile
// returns every reason at once as a *Problems.
func Compile(name string, b unitfile.Bundle, lookup func(byte) (string, bool)) (*Config, error) {
	c := &compiler{Config: defaults(name), lookup: lookup}
	_, _, typ := unitfile.Split(name)
	switch typ {
	case "service":
	case "target":
		c.Target = true
	default:
		c.problem(0, "", "the supervisor runs .service and .target units, not .%s: that needs systemd", typ)
		return nil, &Problems{Unit: name, List: c.problems}
	}
	c.file("", b.Main)
	for _, d := range b.DropIns {
		c.file(d.Name, d.File)
	}
	c.dropIn = ""
	c.finish()
	if len(c.problems) > 0 {
		return nil, &Problems{Unit: name, List: c.problems}
	}
	return c.Config, nil
}

// finish fills in what follows from other options and checks what must agree.
func (c *compiler) finish() {
	if c.Target {
		return
	}
	if c.Type == "" {
		c.Type = Simple
		if len(c.ExecStart) == 0 {
			c.Type = Oneshot
		}
	}
	c.finishNotify()
	if c.TimeoutStart < 0 {
		c.TimeoutStart = 90 * time.Second
		if c.Type == Oneshot {
			c.TimeoutStart = unitfile.Infinity
		}
	}
	if c.TimeoutAbort < 0 {
		c.TimeoutAbort = c.TimeoutStop
	}
	c.checkExec()
	if c.Type == Oneshot && (c.Restart == RestartAlways || c.Restart == RestartOnSuccess) {
		c.problem(0, "", "Restart=%s does not go with Type=oneshot", c.Restart)
	}
}

func (c *compiler) finishNotify() {
	switch {
	case c.NotifyAccess == "":
		c.NotifyAccess = NotifyNone
		if c.Type == Notify || c.Watchdog > 0 {
			c.NotifyAccess = NotifyMain
		}
	case c.Type == Notify && c.NotifyAccess == NotifyNone:
		// As in systemd: Type=notify opens the access that it needs.
		c.NotifyAccess = NotifyMain
	}
}

func (c *compiler) checkExec() {
	switch {
	case len(c.ExecStart) == 0 && c.Type != Oneshot:
		c.problem(0, "", "no ExecStart=: only Type=oneshot can do without")
	case len(c.ExecStart) == 0 && len(c.ExecStop) == 0:
		c.problem(0, "", "neither ExecStart= nor ExecStop=: there is nothing to run")
	case len(c.ExecStart) == 0 && !c.RemainAfterExit:
		c.problem(0, "", "no ExecStart=: only RemainAfterExit=yes can do without")
	case len(c.ExecStart) > 1 && c.Type != Oneshot:
		c.dropIn = c.ExecStart[1].DropIn
		c.problem(c.ExecStart[1].Line, "Service.ExecStart", "appears more than once: only Type=oneshot can have that")
	}
}
