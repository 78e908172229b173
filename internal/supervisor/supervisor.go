// Package supervisor runs services where systemd is not PID 1: in a container, in
// CI, on a first try. It is a small init: a process of its own that owns the
// processes of the units, so whoever talks to it may come and go. It reads unit
// files as systemd.service(5) says, and refuses by name what it cannot do.
//
// # The process
//
// "flotilla supervisor --dir DIR" serves DIR/run/supervisor.sock; Ensure starts it
// and Dial talks to it. It is a subreaper: orphans of its units stay in its reach.
// Where a cgroup can be made, every unit gets one.
//
// # What survives what
//
// The end of a client touches nothing. If the supervisor itself is killed the
// units run on: what they print waits in FIFOs, which they hold open themselves,
// and the next supervisor adopts them from DIR/state. A reboot ends all units and
// starts none: that is for whoever decides about units.
//
//	DIR/units/NAME          the unit files, each with its drop-ins (unitfile.Bundle)
//	DIR/state/NAME.json     what an adopting supervisor must know of a unit
//	DIR/journal/            the log, see package logfile
//	DIR/run/                socket, lock, FIFOs and notify sockets
//
// # How it is written
//
// One goroutine, the loop, owns all state. Packages service and jobs decide, this
// one carries out what they decide. Every event, from a client, a timer or an
// ended process, is a function that the loop runs.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
	"flotilla/internal/supervisor/jobs"
	"flotilla/internal/supervisor/logfile"
	"flotilla/internal/supervisor/proc"
	"flotilla/internal/unit"
)

// Config is what a supervisor needs to know.
type Config struct {
	Dir     string       // where everything is kept; created if it is not there
	Log     *slog.Logger // of the supervisor itself; nil: none
	Machine string       // in log entries; "" the host name
	// Provides names units that others may require and that are not ours, such as
	// etcd.service: they count as active. Common boot targets are known.
	Provides []string
	// Subreaper makes the process adopt and reap orphans of its units. It is for a
	// process that is a supervisor and nothing else.
	Subreaper bool
	// NoCgroup tracks the units' processes as where no cgroup can be made.
	NoCgroup bool
	// LogBytes bounds the log on disk; 0 means logfile.DefaultTotal.
	LogBytes int64
}

// Supervisor runs units. It satisfies unit.Manager and unit.LogReader while
// Serve runs.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	events  chan func()
	done    chan struct{} // closed when the loop has ended
	running atomic.Bool

	// The rest belongs to the loop.
	journal  *logfile.Log
	procs    *proc.Table
	cgroup   string            // parent of the units' cgroups, "" for none
	files    map[string]string // the installed texts by name
	units    map[string]*svc
	queue    jobs.Queue
	nextID   int
	waiting  map[int]request
	watchers map[*watcher]bool
	guard    *time.Timer // of Guard; nil: none
	spent    bool        // there may be units to unload
	stopping bool        // a shutdown is under way
	over     bool        // the loop ends after this event ...
	failure  error       // ... with this error
}

// request is a job that a client asked for.
type request struct {
	job unit.Job
	out chan<- unit.Outcome // has room for it
}

// ErrEnded is why a call failed when the supervisor has ended, or has not begun.
var ErrEnded = errors.New("the supervisor does not run")

// New makes a supervisor; it touches nothing.
func New(cfg Config) *Supervisor {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{
		cfg: cfg, log: cfg.Log,
		events: make(chan func()), done: make(chan struct{}),
		procs: &proc.Table{}, units: map[string]*svc{},
		waiting: map[int]request{}, watchers: map[*watcher]bool{},
	}
}

var (
	_ unit.Manager   = (*Supervisor)(nil)
	_ unit.LogReader = (*Supervisor)(nil)
)

func (s *Supervisor) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

// Serve runs the supervisor and calls ready when it answers. It adopts the units
// that an earlier one left running. Serve ends with nil after Shutdown or Kill.
// When ctx is done it ends and leaves the units running.
func (s *Supervisor) Serve(ctx context.Context, ready func()) error {
	unlock, err := s.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	defer s.journal.Close()
	defer close(s.done)
	defer s.release()
	if s.cfg.Subreaper {
		stop := s.reap()
		defer stop()
	}
	if err := s.readFiles(); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	s.adopt()
	s.settle()
	s.running.Store(true)
	ready()
	for !s.over {
		select {
		case f := <-s.events:
			f()
			s.settle()
		case <-ctx.Done():
			return nil
		}
	}
	return s.failure
}

// quit ends the loop. It is for the loop itself.
func (s *Supervisor) quit(err error) { s.over, s.failure = true, err }

// prepare makes the directories and takes the lock that lets one supervisor at a
// time use them.
func (s *Supervisor) prepare() (unlock func(), err error) {
	if s.cfg.Machine == "" {
		s.cfg.Machine, _ = os.Hostname()
	}
	if s.cfg.Dir, err = filepath.Abs(s.cfg.Dir); err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	if n := len(s.path("run", "notify", "0123456789ab")); n > maxSocketPath {
		return nil, fault.Hint(fmt.Errorf("supervisor: %s is too long: a socket's path has at most %d bytes", s.cfg.Dir, maxSocketPath),
			"choose a directory that is at least %d bytes shorter", n-maxSocketPath)
	}
	// Services of other users reach their notify socket through DIR and run.
	for dir, mode := range map[string]os.FileMode{"": 0o755, "units": 0o755, "state": 0o700, "run": 0o711, "run/out": 0o700, "run/notify": 0o711} {
		if err := os.MkdirAll(s.path(dir), mode); err != nil {
			return nil, fmt.Errorf("supervisor: %w", err)
		}
	}
	unlock, err = lock(s.path("run", "lock"))
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	if s.journal, err = logfile.Open(s.path("journal"), 0, s.cfg.LogBytes); err != nil {
		unlock()
		return nil, err
	}
	s.makeCgroup()
	return unlock, nil
}

func (s *Supervisor) makeCgroup() {
	err := errors.New("asked for")
	if !s.cfg.NoCgroup {
		s.cgroup, err = proc.CgroupRoot(cgroupName(s.cfg.Dir))
	}
	if err != nil {
		s.log.Info("processes are tracked by descent, session and environment", "why", err)
	}
}

// maxSocketPath is the longest path of a unix socket, without its final zero.
const maxSocketPath = 107

func cgroupName(dir string) string { return "flotilla-" + short(dir) }

func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s is locked", ErrRunning, name)
	}
	return func() { f.Close() }, nil
}

// ErrRunning says that another supervisor uses the directory.
var ErrRunning = errors.New("another supervisor runs here")

// reap makes this process the parent of orphans of its units and reaps them.
func (s *Supervisor) reap() (stop func()) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.log.Warn("orphans of units are out of reach", "err", err)
	}
	return onSignal(syscall.SIGCHLD, s.procs.Sweep)
}

// release lets go of everything but the units.
func (s *Supervisor) release() {
	s.running.Store(false)
	if s.guard != nil {
		s.guard.Stop()
	}
	for _, u := range s.units {
		u.release()
	}
	s.procs.Close()
	for _, r := range s.waiting {
		r.out <- unit.Outcome{Job: r.job, Err: ErrEnded}
	}
}

// post hands an event to the loop. Events that come after its end are dropped.
func (s *Supervisor) post(f func()) {
	select {
	case s.events <- f:
	case <-s.done:
	}
}

// do runs f in the loop and waits for it.
func (s *Supervisor) do(ctx context.Context, f func() error) error {
	var err error
	ran := make(chan struct{})
	select {
	case s.events <- func() { err = f(); close(ran) }:
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	// The loop never waits for anybody, so this is soon.
	<-ran
	return err
}

// settle runs the jobs that became ready.
func (s *Supervisor) settle() {
	if s.over {
		return
	}
	s.dispatch()
	s.collect()
	if s.stopping && s.queue.Len() == 0 {
		s.finishShutdown()
	}
}

func (s *Supervisor) now() time.Time { return time.Now() }

// logUnit writes a line of the supervisor's own into a unit's log.
func (s *Supervisor) logUnit(name string, priority int, text string) {
	s.append(unit.LogEntry{
		Time: s.now(), Machine: s.cfg.Machine, Unit: name, Ident: "supervisor",
		PID: os.Getpid(), Priority: priority, Message: text,
	})
}

func (s *Supervisor) append(entries ...unit.LogEntry) {
	if err := s.journal.Append(entries...); err != nil {
		s.log.Error("log lines lost", "lines", len(entries), "err", err)
	}
}

// ReadLog implements unit.LogReader.
func (s *Supervisor) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	if !s.running.Load() {
		return ErrEnded
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return s.journal.ReadLog(ctx, q, emit)
}

// Shutdown stops all units, in their order, ends what they left behind, and ends
// Serve. It returns when all that is done; cancelling ctx ends the wait alone.
func (s *Supervisor) Shutdown(ctx context.Context) error {
	err := s.do(ctx, func() error {
		s.beginShutdown()
		return nil
	})
	if errors.Is(err, ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for units to stop: %w", ctx.Err())
	}
}

func (s *Supervisor) beginShutdown() {
	s.stopping = true
	for _, name := range sortedKeys(s.units) {
		if u := s.units[name]; !u.m.State.Inactive() {
			s.ended(s.queue.Add([]unit.Job{{Kind: unit.Stop, Unit: name}}, "", 0))
		} else if _, _, ok := s.queue.Job(name); ok {
			s.finish(name, unit.Canceled)
		}
	}
}

// finishShutdown ends what KillMode=process and none have left, and orphans.
func (s *Supervisor) finishShutdown() {
	s.killEverything()
	s.forgetAll()
	s.quit(nil)
}

// forgetAll makes the next supervisor begin as after a boot.
func (s *Supervisor) forgetAll() {
	for name := range s.units {
		s.forgetState(name)
	}
}

// Kill is the power loss of the machine: every process of every unit ends at once,
// nothing is stopped in order, and Serve ends.
func (s *Supervisor) Kill(ctx context.Context) error {
	err := s.do(ctx, func() error {
		s.killEverything()
		s.forgetAll()
		s.quit(nil)
		return nil
	})
	if errors.Is(err, ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	<-s.done
	return nil
}

// killEverything ends every process at once and removes what the runs had.
func (s *Supervisor) killEverything() {
	// SIGKILL takes effect as soon as a process leaves the kernel; one that hangs
	// there, on a dead disk, must not hold us up.
	const limit = 5 * time.Second
	for _, u := range s.units {
		u.group.KillAll()
	}
	if s.cfg.Subreaper {
		orphans := func() []int { return proc.Descendants(os.Getpid()) }
		for _, pid := range orphans() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		proc.Await(orphans, limit)
	}
	for _, u := range s.units {
		u.group.AwaitEmpty(limit)
		u.group.Remove()
		u.closeRun()
		for _, o := range u.outputs {
			_ = os.Remove(o.Path)
		}
	}
	if s.cgroup != "" {
		// Also what units left behind that are forgotten since.
		all := proc.Group{Cgroup: s.cgroup}
		all.KillAll()
		all.AwaitEmpty(limit)
		all.Remove()
	}
}
