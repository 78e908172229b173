package service

import (
	"fmt"
	"time"

	"flotilla/internal/unitfile"
)

// State is a service's state in the words of systemd's SubState.
type State string

// The states of a service, and "active", the one of a started target.
const (
	Dead         State = "dead"
	Conditional  State = "condition"
	StartPre     State = "start-pre"
	Start        State = "start"
	StartPost    State = "start-post"
	Running      State = "running"
	Exited       State = "exited"
	Reload       State = "reload"
	Stop         State = "stop"
	StopWatchdog State = "stop-watchdog"
	StopSigterm  State = "stop-sigterm"
	StopSigkill  State = "stop-sigkill"
	StopPost     State = "stop-post"
	FinalSigterm State = "final-sigterm"
	FinalSigkill State = "final-sigkill"
	Failed       State = "failed"
	AutoRestart  State = "auto-restart"
	Active       State = "active"
)

// Active is the state as systemd's ActiveState says it. The zero value is dead.
func (s State) Active() string {
	switch s {
	case Dead, "":
		return "inactive"
	case Failed:
		return "failed"
	case Conditional, StartPre, Start, StartPost, AutoRestart:
		return "activating"
	case Running, Exited, Active:
		return "active"
	case Reload:
		return "reloading"
	}
	return "deactivating"
}

// Inactive reports whether nothing of the unit runs or is about to.
func (s State) Inactive() bool { return s == Dead || s == Failed || s == "" }

// Up reports whether the unit counts as started.
func (s State) Up() bool { return s == Running || s == Exited || s == Reload || s == Active }

// starting are the states between a start job's beginning and its end.
func (s State) starting() bool {
	return s == Conditional || s == StartPre || s == Start || s == StartPost
}

// Role tells the two processes that a service has of its own.
type Role string

// The roles of a process.
const (
	MainProcess    Role = "Main"
	ControlProcess Role = "Control"
)

// Phase is the list of commands that the control process comes from.
type Phase string

// The phases, named as their options.
const (
	PhaseCondition Phase = "ExecCondition"
	PhasePre       Phase = "ExecStartPre"
	PhaseStart     Phase = "ExecStart"
	PhasePost      Phase = "ExecStartPost"
	PhaseReload    Phase = "ExecReload"
	PhaseStop      Phase = "ExecStop"
	PhaseStopPost  Phase = "ExecStopPost"
)

// Memory is all that a machine knows beyond its configuration. It is plain data:
// written down, it lets another machine go on.
type Memory struct {
	State    State
	Since    time.Time // of State
	Changed  time.Time // of State.Active(); zero: never
	Result   Result
	MainPID  int // 0: none
	MainExit Exit
	MainEnd  bool // MainExit tells of a main process of this run
	// MainKnown says that MainPID is the truth even if it is 0. A forking service
	// whose main process could not be told has only "any process" to go by.
	MainKnown   bool
	MainAlien   bool // MainPID was the child of another process of the unit
	MainCommand int  // index in ExecStart; -1: the main process is no command of ours
	ControlPID  int
	Phase       Phase // of the control process
	Command     int   // index in the phase's list

	ReloadResult  Result
	ForbidRestart bool // a stop job ended this run
	Restarts      int
	FlushRestarts bool // the next start sets Restarts to 0

	WindowBegan time.Time // of the start limit
	WindowCount int

	Deadline   time.Time // of State; zero: none
	WatchdogAt time.Time // zero: not watched
	Status     string    // the last STATUS= of the service
}

// World is what must be looked up before a decision can be made.
type World interface {
	// Others reports whether the unit has processes besides main and control.
	Others() bool
	// PIDFile reads the main process from the configured file.
	PIDFile() (int, error)
	// Lone returns the only process that can be the main one, 0 if none or several.
	Lone() int
	// Alien reports whether the process is the child of another one of the unit's:
	// how it ends is told to that one.
	Alien(pid int) bool
	// Restarting reports whether the unit's job is a restart: then a stop asks with
	// RestartKillSignal=.
	Restarting() bool
}

// Effect is something that the machine wants done. The effects of one call are
// carried out in order.
type Effect interface{ effect() }

// Spawn starts a command. Its outcome is told by Spawned or SpawnFailed.
type Spawn struct {
	Role    Role
	Phase   Phase
	Command Command
	Env     []string // what the machine alone knows: MAINPID, SERVICE_RESULT, ...
}

// Kill sends a signal to these processes, and with Group to all others of the
// unit.
type Kill struct {
	Signal int
	Hangup bool // SIGHUP after it
	PIDs   []int
	Group  bool
}

// Changed says that the state is another one. From and To can be the same, when a
// start failed before it began.
type Changed struct{ From, To State }

// Watch asks for the end of a process that the supervisor did not start: it is
// the main process now.
type Watch struct{ PID int }

// WatchPIDFile asks for a call of PIDFileChanged when the file appears.
type WatchPIDFile struct{}

// Log is a line for the unit's log, with a priority of syslog(3).
type Log struct {
	Priority int
	Text     string
}

// RestartDue asks for a restart job.
type RestartDue struct{}

func (Spawn) effect()        {}
func (Kill) effect()         {}
func (Changed) effect()      {}
func (Watch) effect()        {}
func (WatchPIDFile) effect() {}
func (Log) effect()          {}
func (RestartDue) effect()   {}

// Priorities of syslog(3) that the machine's lines have.
const (
	warning = 4
	notice  = 5
	info    = 6
)

// Machine decides what happens to one service. Each method tells it one event and
// returns the effects, in order. Machine is not safe for concurrent use.
type Machine struct {
	Memory
	cfg   *Config
	world World
	out   []Effect
}

// unloaded is what the machine of a service knows that did nothing yet.
var unloaded = Memory{State: Dead, Result: Success, MainCommand: -1}

// NewMachine returns the machine of a service that is dead, or goes on from mem.
func NewMachine(cfg *Config, world World, mem Memory) *Machine {
	if mem.State == "" {
		mem = unloaded
	}
	return &Machine{Memory: mem, cfg: cfg, world: world}
}

// Config returns what the machine goes by.
func (m *Machine) Config() *Config { return m.cfg }

// Configure replaces what the machine goes by, from the next event on.
func (m *Machine) Configure(cfg *Config) { m.cfg = cfg }

// Next is when Tick wants to be called; zero: never.
func (m *Machine) Next() time.Time {
	if m.Deadline.IsZero() || !m.WatchdogAt.IsZero() && m.WatchdogAt.Before(m.Deadline) {
		return m.WatchdogAt
	}
	return m.Deadline
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

func (m *Machine) take() []Effect {
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) logf(priority int, format string, args ...any) {
	m.emit(Log{Priority: priority, Text: m.cfg.Name + ": " + fmt.Sprintf(format, args...)})
}

func (m *Machine) set(now time.Time, s State) {
	from := m.State
	m.State, m.Since = s, now
	if from.Active() != s.Active() || m.Changed.IsZero() {
		m.Changed = now
	}
	switch s {
	case Running, Exited, Dead, Failed, Active:
		m.Deadline = time.Time{}
	}
	if s != Start && s != StartPost && s != Running && s != Reload {
		m.WatchdogAt = time.Time{}
	}
	if s.Inactive() {
		m.MainPID, m.ControlPID, m.Status = 0, 0, ""
	}
	m.emit(Changed{From: from, To: s})
}

func (m *Machine) arm(now time.Time, d time.Duration) {
	m.Deadline = time.Time{}
	if d != unitfile.Infinity {
		m.Deadline = now.Add(d)
	}
}

func (m *Machine) fail(f Result) {
	if m.Result == Success {
		m.Result = f
	}
}

// Start begins a run, for a start job. The unit must be inactive: whoever runs
// jobs waits for that.
func (m *Machine) Start(now time.Time) []Effect {
	if !m.State.Inactive() {
		return nil
	}
	if !m.withinLimit(now) {
		// The result stays what the last run left: see fail.
		m.logf(warning, "Start request repeated too quickly.")
		m.enterDead(now, StartLimit, false)
		return m.take()
	}
	if m.FlushRestarts {
		m.Restarts, m.FlushRestarts = 0, false
	}
	m.Result, m.ReloadResult, m.ForbidRestart = Success, Success, false
	m.MainPID, m.MainKnown, m.MainCommand, m.MainEnd = 0, false, -1, false
	m.MainExit, m.Status = Exit{}, ""
	switch {
	case m.cfg.Target:
		m.set(now, Active)
	case !m.runPhase(now, PhaseCondition):
		m.enterStartPre(now)
	}
	return m.take()
}

// withinLimit counts this start and says whether it is one too many
// (systemd.unit(5), "StartLimitIntervalSec=").
func (m *Machine) withinLimit(now time.Time) bool {
	limit := m.cfg.StartLimitInterval
	if limit == 0 || m.cfg.StartLimitBurst == 0 {
		return true
	}
	if m.WindowBegan.IsZero() || limit != unitfile.Infinity && now.Sub(m.WindowBegan) > limit {
		m.WindowBegan, m.WindowCount = now, 0
	}
	if m.WindowCount >= m.cfg.StartLimitBurst {
		return false
	}
	m.WindowCount++
	return true
}

// Forget ends a failed state and the memory of past starts.
func (m *Machine) Forget(now time.Time) []Effect {
	m.WindowBegan, m.WindowCount, m.Restarts = time.Time{}, 0, 0
	if m.State == Failed {
		m.Result = Success
		m.set(now, Dead)
	}
	return m.take()
}

// Through reports whether the unit may be unloaded once nobody names it
// (systemd.unit(5), "CollectMode=").
func (m *Machine) Through() bool {
	return m.State == Dead || m.State == Failed && m.cfg.CollectFailed
}

// Unload forgets all past runs; false if there were none. The unit must be Through.
func (m *Machine) Unload() bool {
	had := m.Memory != unloaded
	m.Memory = unloaded
	return had
}

// Stop ends a run, for a stop job.
func (m *Machine) Stop(now time.Time) []Effect {
	m.ForbidRestart = true
	switch {
	case m.State == Active, m.State == AutoRestart:
		m.set(now, Dead)
	case m.State == Reload, m.State.starting():
		m.enterSignal(now, StopSigterm, Success)
	case m.State == Running, m.State == Exited:
		m.enterStop(now, Success)
	}
	return m.take()
}

// CanReload reports whether a reload job has something to run.
func (m *Machine) CanReload() bool { return len(m.cfg.ExecReload) > 0 }

// Reload runs ExecReload=. The service must be running or exited.
func (m *Machine) Reload(now time.Time) []Effect {
	if m.State == Running || m.State == Exited {
		m.ReloadResult = Success
		m.runPhase(now, PhaseReload)
	}
	return m.take()
}

// phases says for each list of control commands which state it has.
var phaseState = map[Phase]State{
	PhaseCondition: Conditional, PhasePre: StartPre, PhaseStart: Start, PhasePost: StartPost,
	PhaseReload: Reload, PhaseStop: Stop, PhaseStopPost: StopPost,
}

func (m *Machine) commands(p Phase) []Command {
	switch p {
	case PhaseCondition:
		return m.cfg.ExecCondition
	case PhasePre:
		return m.cfg.ExecStartPre
	case PhaseStart:
		return m.cfg.ExecStart
	case PhasePost:
		return m.cfg.ExecStartPost
	case PhaseReload:
		return m.cfg.ExecReload
	case PhaseStop:
		return m.cfg.ExecStop
	case PhaseStopPost:
		return m.cfg.ExecStopPost
	}
	return nil
}

// runPhase starts the first control command of a phase; false if there is none.
func (m *Machine) runPhase(now time.Time, p Phase) bool {
	if len(m.commands(p)) == 0 {
		return false
	}
	m.Phase, m.Command = p, 0
	m.set(now, phaseState[p])
	m.spawnControl(now)
	return true
}

func (m *Machine) spawnControl(now time.Time) {
	if m.Phase == PhaseStop || m.Phase == PhaseStopPost {
		m.arm(now, m.cfg.TimeoutStop)
	} else {
		m.arm(now, m.cfg.TimeoutStart)
	}
	m.emit(Spawn{
		Role: ControlProcess, Phase: m.Phase,
		Command: m.commands(m.Phase)[m.Command], Env: m.environment(),
	})
}

// environment is what systemd.exec(5), "Environment Variables in Spawned
// Processes", says of the run itself.
func (m *Machine) environment() []string {
	var env []string
	if m.MainPID > 0 {
		env = append(env, fmt.Sprintf("MAINPID=%d", m.MainPID))
	}
	if m.Phase != PhaseStop && m.Phase != PhaseStopPost {
		return env
	}
	env = append(env, "SERVICE_RESULT="+string(m.Result))
	if m.MainEnd && !m.MainExit.Unknown {
		env = append(env, "EXIT_CODE="+m.MainExit.kind(), "EXIT_STATUS="+m.MainExit.status())
	}
	return env
}

func (m *Machine) enterStartPre(now time.Time) {
	if !m.runPhase(now, PhasePre) {
		m.enterStart(now)
	}
}

func (m *Machine) enterStart(now time.Time) {
	switch {
	case len(m.cfg.ExecStart) == 0:
		m.enterStartPost(now)
	case m.cfg.Type == Forking:
		m.runPhase(now, PhaseStart)
	default:
		m.MainCommand = 0
		m.set(now, Start)
		m.spawnMain(now)
	}
}

func (m *Machine) spawnMain(now time.Time) {
	m.arm(now, m.cfg.TimeoutStart)
	m.emit(Spawn{Role: MainProcess, Phase: PhaseStart, Command: m.cfg.ExecStart[m.MainCommand]})
}

// Spawned tells that the command of a Spawn runs: its execve succeeded.
func (m *Machine) Spawned(now time.Time, role Role, pid int) []Effect {
	if role == ControlProcess {
		m.ControlPID = pid
		return m.take()
	}
	m.MainPID, m.MainKnown, m.MainAlien = pid, true, false
	if m.State == Start && (m.cfg.Type == Simple || m.cfg.Type == Exec) {
		m.enterStartPost(now)
	}
	return m.take()
}

// SpawnFailed tells that the command of a Spawn could not be run. It counts as a
// process that ended with that status. A simple service is started by then: its
// start does not wait for the execve.
func (m *Machine) SpawnFailed(now time.Time, role Role, status int, reason string) []Effect {
	m.logf(warning, "%s process could not be started: %s", role, reason)
	e := Exit{Code: status}
	if role == ControlProcess {
		m.controlExited(now, e)
		return m.take()
	}
	m.MainKnown = true
	if m.State == Start && m.cfg.Type == Simple {
		m.MainPID = -1 // counts as alive until mainExited below
		m.enterStartPost(now)
	}
	m.mainExited(now, e)
	return m.take()
}

// SpawnRefused tells that a Spawn came to nothing before there was a process: a
// file that it needs is missing.
func (m *Machine) SpawnRefused(now time.Time, reason string) []Effect {
	m.logf(warning, "Failed to run '%s' task: %s", m.State, reason)
	switch m.State {
	case Reload:
		m.ReloadResult = Resources
		m.enterRunning(now, Success)
	case StopPost:
		m.enterSignal(now, FinalSigterm, Resources)
	case StartPost:
		m.enterStop(now, Resources)
	default:
		m.enterSignal(now, StopSigterm, Resources)
	}
	return m.take()
}

func (m *Machine) enterStartPost(now time.Time) {
	if m.cfg.Watchdog > 0 {
		m.WatchdogAt = now.Add(m.cfg.Watchdog)
	}
	if !m.runPhase(now, PhasePost) {
		m.enterRunning(now, Success)
	}
}

func (m *Machine) enterRunning(now time.Time, f Result) {
	m.fail(f)
	m.ControlPID = 0
	switch {
	case m.Result != Success:
		m.enterSignal(now, StopSigterm, f)
	case m.good():
		m.set(now, Running)
		m.arm(now, m.cfg.RuntimeMax)
	case m.cfg.RemainAfterExit:
		m.set(now, Exited)
	default:
		m.enterStop(now, Success)
	}
}

// good reports whether the service still has the process that makes it run.
func (m *Machine) good() bool {
	if m.MainKnown {
		return m.MainPID != 0
	}
	return m.world.Others()
}

func (m *Machine) enterStop(now time.Time, f Result) {
	m.fail(f)
	m.ControlPID = 0
	if !m.runPhase(now, PhaseStop) {
		m.enterSignal(now, StopSigterm, Success)
	}
}

// enterSignal signals the unit's processes and waits for their end. Where there is
// nobody to signal it goes on at once.
func (m *Machine) enterSignal(now time.Time, s State, f Result) {
	m.fail(f)
	if k, wait := m.kill(s); wait {
		if s == StopWatchdog {
			m.arm(now, m.cfg.TimeoutAbort)
		} else {
			m.arm(now, m.cfg.TimeoutStop)
		}
		m.set(now, s)
		m.emit(k)
		return
	}
	m.pastSignal(now, s, Success)
}

// pastSignal goes on after a signal that reached everybody it could, or that not
// everybody obeyed in time: with the signal that nobody can ignore, and after that
// with what comes next.
func (m *Machine) pastSignal(now time.Time, s State, f Result) {
	switch next := harder[s]; {
	case next != "" && m.cfg.SendSIGKILL:
		m.enterSignal(now, next, f)
	case s == FinalSigterm || s == FinalSigkill:
		// Processes that SendSIGKILL=no spared would be in the way of a new run.
		m.enterDead(now, f, s == FinalSigkill || f == Success)
	default:
		m.enterStopPost(now, f)
	}
}

// harder says which state follows one that asked in vain.
var harder = map[State]State{StopWatchdog: StopSigkill, StopSigterm: StopSigkill, FinalSigterm: FinalSigkill}

// kill is the signal that belongs to a state, and whether there is somebody to
// wait for (systemd.kill(5)).
func (m *Machine) kill(s State) (Kill, bool) {
	if m.cfg.KillMode == KillNone {
		return Kill{}, false
	}
	final := s == StopSigkill || s == FinalSigkill
	k := Kill{Signal: m.signalOf(s), Hangup: m.cfg.SendSIGHUP && !final && s != StopWatchdog}
	for _, pid := range []int{m.MainPID, m.ControlPID} {
		if pid > 0 {
			k.PIDs = append(k.PIDs, pid)
		}
	}
	k.Group = m.cfg.KillMode == KillGroup || m.cfg.KillMode == KillMixed && final
	return k, len(k.PIDs) > 0 || k.Group && m.world.Others()
}

func (m *Machine) signalOf(s State) int {
	switch s {
	case StopSigkill, FinalSigkill:
		return m.cfg.FinalKillSignal
	case StopWatchdog:
		return m.cfg.WatchdogSignal
	case StopSigterm:
		if m.cfg.RestartKillSignal != 0 && m.world.Restarting() {
			return m.cfg.RestartKillSignal
		}
	}
	return m.cfg.KillSignal
}

func (m *Machine) enterStopPost(now time.Time, f Result) {
	m.fail(f)
	m.ControlPID = 0
	if !m.runPhase(now, PhaseStopPost) {
		m.enterSignal(now, FinalSigterm, Success)
	}
}

func (m *Machine) enterDead(now time.Time, f Result, mayRestart bool) {
	m.fail(f)
	end := Failed
	switch m.Result {
	case Success:
		m.logf(info, "Deactivated successfully.")
		end = Dead
	case SkipCondition:
		m.logf(info, "Skipped due to 'exec-condition'.")
		end = Dead
	default:
		m.logf(warning, "Failed with result '%s'.", m.Result)
	}
	again := mayRestart && m.shallRestart()
	m.FlushRestarts = !again
	m.set(now, end)
	if again {
		m.arm(now, m.cfg.RestartDelay)
		m.set(now, AutoRestart)
	}
}

// WillRestart reports whether this end of a run is followed by another run: then
// what depends on the failure waits.
func (m *Machine) WillRestart() bool { return !m.FlushRestarts }

// shallRestart follows the table of systemd.service(5), "Restart=".
func (m *Machine) shallRestart() bool {
	r := m.Result
	switch {
	case m.ForbidRestart:
		return false
	case m.MainEnd && m.cfg.RestartPreventStatus.has(m.MainExit):
		return false
	case m.MainEnd && m.cfg.RestartForceStatus.has(m.MainExit):
		return true
	}
	switch m.cfg.Restart {
	case RestartAlways:
		return r != SkipCondition
	case RestartOnSuccess:
		return r == Success
	case RestartOnFailure:
		return r != Success && r != SkipCondition
	case RestartOnAbnormal:
		return r != Success && r != ExitCode && r != SkipCondition
	case RestartOnAbort:
		return r == Signal || r == CoreDump
	case RestartOnWatchdog:
		return r == Watchdog
	}
	return false
}
