package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// apply carries out what the machine decided, and what it decides upon that.
func (u *svc) apply(list []service.Effect) {
	for {
		if len(list) == 0 {
			list = u.lookAround()
		}
		if len(list) == 0 {
			break
		}
		e := list[0]
		list = append(list[1:], u.do(e)...)
	}
	// What a command prints comes after what is said of its start.
	for _, o := range u.outputs {
		o.begin()
	}
	u.arm()
	u.s.publish(u)
}

// do carries out one effect and returns what follows.
func (u *svc) do(e service.Effect) []service.Effect {
	switch e := e.(type) {
	case service.Log:
		u.s.logUnit(u.name, e.Priority, e.Text)
	case service.Changed:
		u.changed(e)
	case service.Spawn:
		return u.spawn(e)
	case service.Kill:
		u.kill(e)
	case service.Watch:
		u.watchMain(e.PID)
	case service.WatchPIDFile:
		return u.watchPIDFile()
	case service.RestartDue:
		u.s.enqueue(unit.Restart, u.name)
	}
	return nil
}

// spawn starts a command and tells the machine how that went.
func (u *svc) spawn(e service.Spawn) []service.Effect {
	pid, err := u.start(e)
	now := u.s.now()
	if err != nil {
		var known *proc.StartError
		if !errors.As(err, &known) {
			return u.m.SpawnRefused(now, err.Error())
		}
		u.remember(ranCommand{Phase: e.Phase, Role: e.Role, Command: e.Command.String(), Ended: true, Exit: service.Exit{Code: known.Status}})
		return u.m.SpawnFailed(now, e.Role, known.Status, err.Error())
	}
	if e.Role == service.MainProcess {
		u.mainStart = now
	}
	u.group.Sessions = append(u.group.Sessions, pid)
	u.remember(ranCommand{PID: pid, Phase: e.Phase, Role: e.Role, Command: e.Command.String()})
	out := u.m.Spawned(now, e.Role, pid)
	u.persist()
	return out
}

// remembered is how many commands of a run Show can tell of.
const remembered = 20

func (u *svc) remember(c ranCommand) {
	if len(u.ran) == remembered {
		u.ran = slices.Delete(u.ran, 0, 1)
	}
	u.ran = append(u.ran, c)
}

// exited is called by the process table, outside the loop.
func (u *svc) exited(pid int, e service.Exit) {
	u.s.post(func() {
		for _, o := range u.outputs {
			o.drain() // its last lines come before what we say of its end
		}
		for i := range u.ran {
			if u.ran[i].PID == pid {
				u.ran[i].Ended, u.ran[i].Exit = true, e
			}
		}
		switch pid {
		case u.m.MainPID:
			u.apply(u.m.MainExited(u.s.now(), e))
		case u.m.ControlPID:
			u.apply(u.m.ControlExited(u.s.now(), e))
		default:
			u.apply(nil)
		}
	})
}

// lookAround tells the machine when the last process has ended, where that is
// what it waits for, and watches those that are left.
func (u *svc) lookAround() []service.Effect {
	st := u.m.State
	if u.m.MainPID > 0 || u.m.ControlPID > 0 || st.Inactive() || st == service.AutoRestart ||
		st == service.Exited || st == service.Active || u.m.Config().Target {
		return nil
	}
	for _, pid := range u.others() {
		if u.watched[pid] || u.watch(pid) == nil {
			return nil // one that lives is enough: its end brings us here again
		}
	}
	return u.m.Empty(u.s.now())
}

// watch awaits the end of a process that is neither main nor control.
func (u *svc) watch(pid int) error {
	err := u.s.procs.Watch(pid, 0, func(service.Exit) {
		u.s.post(func() {
			delete(u.watched, pid)
			u.apply(nil)
		})
	})
	if err == nil {
		u.watched[pid] = true
	}
	return err
}

// watchMain awaits the end of a main process that we did not start.
func (u *svc) watchMain(pid int) {
	u.mainStart = u.s.now()
	err := u.s.procs.Watch(pid, 0, func(e service.Exit) { u.exited(pid, e) })
	if err != nil {
		u.exitedUnseen(pid)
	}
	u.persist()
}

// exitedUnseen reports a process that is gone without anybody having seen its end.
func (u *svc) exitedUnseen(pid int) {
	go u.exited(pid, service.Exit{Unknown: true, Foreign: true})
}

// kill sends a signal.
func (u *svc) kill(k service.Kill) {
	pids := slices.Clone(k.PIDs)
	if k.Group {
		for _, pid := range u.others() {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		if k.Signal == 9 {
			st, _ := proc.Lookup(pid)
			u.s.logUnit(u.name, 5, fmt.Sprintf("%s: Killing process %d (%s) with signal SIGKILL.", u.name, pid, st.Comm))
		}
		u.signal(pid, k.Signal)
		if k.Hangup {
			u.signal(pid, 1)
		}
	}
	if k.Group && k.Signal == 9 {
		u.group.KillEach() // also what was forked meanwhile
	}
}

func (u *svc) signal(pid, sig int) {
	if err := u.s.procs.Signal(pid, sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !gone(err) {
		u.s.logUnit(u.name, 4, fmt.Sprintf("%s: Failed to send signal SIG%s to process %d: %v", u.name, unitfile.SignalName(sig), pid, err))
	}
}

func (u *svc) watchPIDFile() []service.Effect {
	if u.pidDir != nil {
		u.pidDir.close()
	}
	w, err := watchDirOf(u.m.Config().PIDFile, func() {
		u.s.post(func() { u.apply(u.m.PIDFileChanged(u.s.now())) })
	})
	if err != nil {
		u.s.logUnit(u.name, 4, fmt.Sprintf("%s: Cannot wait for the PID file: %v", u.name, err))
		return nil
	}
	u.pidDir = w
	// It may have come before the watch.
	return u.m.PIDFileChanged(u.s.now())
}

// changed does what a new state asks for: the record on disk, the job that was
// waiting for it, the units that depend on it.
func (u *svc) changed(e service.Changed) {
	if e.From.Inactive() && !e.To.Inactive() && e.To != service.AutoRestart && !u.m.Config().Target {
		u.begin()
	}
	u.persist()
	u.s.jobStateChanged(u, e)
	if !e.To.Inactive() {
		return
	}
	if !u.m.WillRestart() || u.m.ForbidRestart {
		u.closeRun()
	}
	u.group.Remove()
	u.s.spent = true
	u.s.afterEnd(u, e)
}
