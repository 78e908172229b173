package service

import (
	"fmt"
	"time"
)

// MainExited tells that the main process ended.
func (m *Machine) MainExited(now time.Time, e Exit) []Effect {
	m.mainExited(now, e)
	return m.take()
}

func (m *Machine) mainExited(now time.Time, e Exit) {
	m.MainPID, m.MainKnown = 0, true
	if m.MainAlien && e.Foreign {
		m.alienEnded(now)
		return
	}
	m.MainExit, m.MainEnd = e, true
	f := judge(e, m.cfg.Type != Oneshot, m.cfg.SuccessExitStatus)
	if m.ignoresFailure() {
		f = Success
	}
	m.logExit(MainProcess, e, f)
	m.fail(f)
	if m.MainCommand >= 0 && m.MainCommand+1 < len(m.cfg.ExecStart) && m.cfg.Type == Oneshot && f == Success && m.State == Start {
		m.MainCommand++
		m.spawnMain(now)
		return
	}
	m.MainCommand = -1
	m.afterMain(now, f)
}

// alienEnded: where the parent is told how the main process ended, we are not. As with
// systemd the service then runs as long as it has any process, and ends well.
func (m *Machine) alienEnded(now time.Time) {
	m.MainCommand = -1
	if m.State != Running {
		m.afterMain(now, Success)
	}
}

func (m *Machine) ignoresFailure() bool {
	if m.MainCommand >= 0 && m.MainCommand < len(m.cfg.ExecStart) {
		return m.cfg.ExecStart[m.MainCommand].IgnoreFailure
	}
	// A daemon that forked away goes by the prefix of the command that started it.
	return len(m.cfg.ExecStart) > 0 && m.cfg.ExecStart[0].IgnoreFailure
}

// logExit tells only of failures, as systemd does at its usual level.
func (m *Machine) logExit(role Role, e Exit, f Result) {
	if f == Success || f == SkipCondition {
		return
	}
	suffix := ""
	if e.Unknown {
		suffix = " (it ended while no supervisor watched; taken as failed)"
	}
	m.logf(notice, "%s process exited, %v%s", role, e, suffix)
}

// afterMain decides what the end of the main process means in each state. States
// that are not listed wait for their control process.
func (m *Machine) afterMain(now time.Time, f Result) {
	switch m.State {
	case Start:
		m.mainEndedInStart(now, f)
	case Running:
		m.enterRunning(now, f)
	default:
		m.stopGoesOn(now, f)
	}
}

// stopGoesOn leaves a state of the stop if that waited for the main or the control
// process and neither runs any more.
func (m *Machine) stopGoesOn(now time.Time, f Result) {
	if m.MainPID > 0 || m.ControlPID > 0 {
		return
	}
	switch m.State {
	case StopWatchdog, StopSigterm, StopSigkill:
		m.enterStopPost(now, f)
	case StopPost:
		m.enterSignal(now, FinalSigterm, f)
	case FinalSigterm, FinalSigkill:
		m.finish(now, f)
	}
}

func (m *Machine) mainEndedInStart(now time.Time, f Result) {
	switch {
	case m.cfg.Type == Oneshot && f == Success:
		m.enterStartPost(now)
	case m.cfg.Type == Oneshot, m.cfg.Type == Notify && f != Success:
		m.enterSignal(now, StopSigterm, f)
	case m.cfg.Type == Notify:
		// It ended well, but never said that it was ready.
		m.enterSignal(now, StopSigterm, Protocol)
	default:
		m.enterRunning(now, f)
	}
}

// finish ends the run unless other processes of the unit are still to be waited
// for: then Empty comes.
func (m *Machine) finish(now time.Time, f Result) {
	if m.cfg.KillMode == KillGroup || m.cfg.KillMode == KillMixed {
		if m.world.Others() {
			m.fail(f)
			return
		}
	}
	m.enterDead(now, f, true)
}

// ControlExited tells that the control process ended.
func (m *Machine) ControlExited(now time.Time, e Exit) []Effect {
	m.controlExited(now, e)
	return m.take()
}

func (m *Machine) controlExited(now time.Time, e Exit) {
	m.ControlPID = 0
	f := m.judgeControl(e)
	m.logExit(ControlProcess, e, f)
	if m.Phase != PhaseReload {
		m.fail(f)
	}
	if f == Success && phaseState[m.Phase] == m.State && m.Command+1 < len(m.commands(m.Phase)) {
		m.Command++
		m.spawnControl(now)
		return
	}
	m.afterControl(now, f)
}

// judgeControl: an ExecCondition that ends with 1 to 254 says "skip", not "failed".
func (m *Machine) judgeControl(e Exit) Result {
	list := m.commands(m.Phase)
	f := judge(e, false, m.cfg.SuccessExitStatus)
	switch {
	case m.Command < len(list) && list[m.Command].IgnoreFailure:
		return Success
	case m.Phase == PhaseCondition && f == ExitCode && e.Code < exitGeneric && !e.Unknown:
		return SkipCondition
	}
	return f
}

func (m *Machine) afterControl(now time.Time, f Result) {
	switch m.State {
	case Conditional:
		m.after(now, f, m.enterStartPre)
	case StartPre:
		m.after(now, f, m.enterStart)
	case Start:
		m.after(now, f, m.forked)
	case StartPost:
		m.after(now, f, m.posted)
	case Reload:
		m.ReloadResult = f
		m.enterRunning(now, Success)
	case Stop:
		m.enterSignal(now, StopSigterm, f)
	case StopPost:
		m.enterSignal(now, FinalSigterm, f)
	default:
		m.stopGoesOn(now, f)
	}
}

func (m *Machine) after(now time.Time, f Result, next func(time.Time)) {
	if f == Success {
		next(now)
		return
	}
	m.enterSignal(now, StopSigterm, f)
}

// forked looks for the daemon that a forking service left behind. A PID file that
// is not there yet may still be written by the daemon or by ExecStartPost=.
func (m *Machine) forked(now time.Time) {
	if m.cfg.PIDFile == "" {
		m.guessMain()
		m.enterStartPost(now)
		return
	}
	if m.loadPIDFile() || len(m.cfg.ExecStartPost) > 0 {
		m.enterStartPost(now)
		return
	}
	m.awaitPIDFile(now)
}

func (m *Machine) posted(now time.Time) {
	if m.cfg.Type == Forking && m.cfg.PIDFile != "" && !m.MainKnown && !m.loadPIDFile() {
		m.awaitPIDFile(now)
		return
	}
	m.enterRunning(now, Success)
}

func (m *Machine) awaitPIDFile(now time.Time) {
	if !m.world.Others() {
		m.logf(warning, "Daemon never wrote its PID file. Failing.")
		m.enterSignal(now, StopSigterm, Protocol)
		return
	}
	m.emit(WatchPIDFile{})
}

// PIDFileChanged tells that something happened where the PID file is expected.
func (m *Machine) PIDFileChanged(now time.Time) []Effect {
	waiting := m.State == Start || m.State == StartPost
	if waiting && m.ControlPID == 0 && m.loadPIDFile() {
		if m.State == Start {
			m.enterStartPost(now)
		} else {
			m.enterRunning(now, Success)
		}
	}
	return m.take()
}

func (m *Machine) loadPIDFile() bool {
	pid, err := m.world.PIDFile()
	if err != nil {
		return false
	}
	m.takeMain(pid)
	return true
}

func (m *Machine) guessMain() {
	if !m.cfg.GuessMainPID {
		return
	}
	if pid := m.world.Lone(); pid > 0 {
		m.takeMain(pid)
	}
}

func (m *Machine) takeMain(pid int) {
	if pid == m.MainPID {
		return
	}
	m.MainPID, m.MainKnown, m.MainEnd = pid, true, false
	if m.MainAlien = m.world.Alien(pid); m.MainAlien {
		m.logf(warning, "Supervising process %d which is not our child: how it ends is not known.", pid)
	}
	m.emit(Watch{PID: pid})
}

// Empty tells that no process of the unit is left.
func (m *Machine) Empty(now time.Time) []Effect {
	alone := m.MainPID <= 0 && m.ControlPID <= 0
	switch {
	case !alone:
	case m.State == Start && m.cfg.Type == Notify:
		m.enterSignal(now, StopSigterm, Protocol)
	case (m.State == Start || m.State == StartPost) && m.cfg.PIDFile != "" && !m.MainKnown:
		m.logf(warning, "Daemon never wrote its PID file. Failing.")
		m.enterSignal(now, StopSigterm, Protocol)
	case m.State == Running:
		m.enterRunning(now, Success)
	case m.State == StopWatchdog, m.State == StopSigterm, m.State == StopSigkill:
		m.enterStopPost(now, Success)
	case m.State == StopPost, m.State == FinalSigterm, m.State == FinalSigkill:
		m.enterDead(now, Success, true)
	}
	return m.take()
}

// Tick tells that the time which Next gave has come. Earlier calls do nothing.
func (m *Machine) Tick(now time.Time) []Effect {
	switch {
	case !m.WatchdogAt.IsZero() && !now.Before(m.WatchdogAt):
		m.logf(warning, "Watchdog timeout (limit %s)!", m.cfg.Watchdog)
		m.enterSignal(now, StopWatchdog, Watchdog)
	case !m.Deadline.IsZero() && !now.Before(m.Deadline):
		m.Deadline = time.Time{}
		m.timedOut(now)
	}
	return m.take()
}

func (m *Machine) timedOut(now time.Time) {
	switch m.State {
	case Conditional, StartPre, Start, StartPost:
		m.logf(warning, "%s operation timed out. Terminating.", m.State)
		m.enterSignal(now, StopSigterm, Timeout)
	case Running:
		m.logf(warning, "Service reached runtime time limit. Stopping.")
		m.enterStop(now, Timeout)
	case Reload:
		m.logf(warning, "Reload operation timed out. Killing reload process.")
		m.emit(Kill{Signal: m.cfg.FinalKillSignal, PIDs: m.control()})
		m.ReloadResult = Timeout
		m.enterRunning(now, Success)
	case Stop:
		m.logf(warning, "Stopping timed out. Terminating.")
		m.enterSignal(now, StopSigterm, Timeout)
	case StopPost:
		m.logf(warning, "State '%s' timed out. Terminating.", m.State)
		m.enterSignal(now, FinalSigterm, Timeout)
	case AutoRestart:
		m.Restarts++
		m.logf(info, "Scheduled restart job, restart counter is at %d.", m.Restarts)
		m.emit(RestartDue{})
	default:
		m.killTimedOut(now)
	}
}

func (m *Machine) control() []int {
	if m.ControlPID <= 0 {
		return nil
	}
	return []int{m.ControlPID}
}

func (m *Machine) killTimedOut(now time.Time) {
	switch {
	case m.State == StopSigkill:
		m.logf(warning, "Processes still around after SIGKILL. Ignoring.")
	case m.State == FinalSigkill:
		m.logf(warning, "Processes still around after final SIGKILL. Entering failed mode.")
	case harder[m.State] == "":
		return
	case m.cfg.SendSIGKILL:
		m.logf(warning, "State '%s' timed out. Killing.", m.State)
	case m.State == FinalSigterm:
		m.logf(warning, "State '%s' timed out. Skipping SIGKILL. Entering failed mode.", m.State)
	default:
		m.logf(warning, "State '%s' timed out. Skipping SIGKILL.", m.State)
	}
	m.pastSignal(now, m.State, Timeout)
}

// Message is one datagram of sd_notify(3).
type Message struct {
	PID       int // of the sender
	Ready     bool
	Reloading bool
	Stopping  bool
	Alive     bool // WATCHDOG=1
	Trigger   bool // WATCHDOG=trigger
	Status    *string
	MainPID   int
	Extend    time.Duration // EXTEND_TIMEOUT_USEC
}

// Notified tells what the service said of itself. Whom it listens to is
// NotifyAccess=.
func (m *Machine) Notified(now time.Time, msg Message) []Effect {
	if reason := m.deaf(msg.PID); reason != "" {
		m.logf(warning, "Got notification message from PID %d, but %s", msg.PID, reason)
		return m.take()
	}
	if msg.MainPID > 0 && !m.State.Inactive() && m.State != AutoRestart {
		m.takeMain(msg.MainPID)
	}
	if msg.Status != nil {
		m.Status = *msg.Status
	}
	if msg.Extend > 0 && !m.Deadline.IsZero() && m.Deadline.Before(now.Add(msg.Extend)) {
		m.Deadline = now.Add(msg.Extend)
	}
	m.notifiedState(now, msg)
	m.notifiedWatchdog(now, msg)
	return m.take()
}

func (m *Machine) notifiedState(now time.Time, msg Message) {
	switch {
	case msg.Ready && m.State == Start && m.cfg.Type == Notify:
		m.enterStartPost(now)
	case msg.Ready && m.State == Reload && m.ControlPID == 0:
		m.enterRunning(now, Success)
	case msg.Reloading && m.State == Running:
		m.arm(now, m.cfg.TimeoutStart)
		m.set(now, Reload)
	case msg.Stopping && m.State == Running:
		m.arm(now, m.cfg.TimeoutStop)
		m.set(now, StopSigterm)
	}
}

func (m *Machine) notifiedWatchdog(now time.Time, msg Message) {
	if m.WatchdogAt.IsZero() {
		return
	}
	if msg.Alive {
		m.WatchdogAt = now.Add(m.cfg.Watchdog)
	}
	if msg.Trigger {
		m.logf(warning, "Watchdog request received")
		m.enterSignal(now, StopWatchdog, Watchdog)
	}
}

// deaf says why a message of this process does not count.
func (m *Machine) deaf(pid int) string {
	switch m.cfg.NotifyAccess {
	case NotifyNone:
		return "reception is disabled."
	case NotifyMain:
		if pid != m.MainPID {
			return fmt.Sprintf("reception only permitted for main PID %d", m.MainPID)
		}
	case NotifyExec:
		if pid != m.MainPID && pid != m.ControlPID {
			return fmt.Sprintf("reception only permitted for main PID %d and control PID %d", m.MainPID, m.ControlPID)
		}
	}
	return ""
}

// Interrupted tells that a Spawn was decided and never carried out, because the
// supervisor ended in between. A start fails; a stop goes on without the command.
func (m *Machine) Interrupted(now time.Time) []Effect {
	switch {
	case m.State.starting():
		m.logf(warning, "The supervisor ended while it started a command. Failing.")
		m.enterSignal(now, StopSigterm, Resources)
	case m.State == Stop:
		m.enterSignal(now, StopSigterm, Success)
	case m.State == StopPost:
		m.enterSignal(now, FinalSigterm, Success)
	}
	return m.take()
}
