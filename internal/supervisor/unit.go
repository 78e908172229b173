package supervisor

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/supervisor/jobs"
	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// svc is one unit that the supervisor knows. It belongs to the loop.
type svc struct {
	s    *Supervisor
	name string
	text string // the text that is loaded, drop-ins included
	path string // of the unit file
	bad  error  // why the text cannot be run; nil: m goes by it
	m    *service.Machine

	// Of the run, from its first process to its end.
	group   *proc.Group
	outputs []*output
	notify  *notifier
	pidDir  *dirWatch
	watched map[int]bool // processes other than main and control whose end is awaited

	timer     *time.Timer
	mainStart time.Time // of the last main process
	ran       []ranCommand
	reported  unit.Status // what watchers know
}

// ranCommand is a command of this run that has ended or is the main one, for Show.
type ranCommand struct {
	PID     int
	Phase   service.Phase
	Command string
	Role    service.Role
	Ended   bool
	Exit    service.Exit
}

// load makes the unit known by a text, or gives a known one another text.
func (s *Supervisor) load(name, path, text string) *svc {
	u := s.units[name]
	if u == nil {
		u = &svc{s: s, name: name, group: &proc.Group{}, watched: map[int]bool{}}
		s.units[name] = u
	}
	cfg, err := compile(name, text)
	u.text, u.path, u.bad = text, path, err
	if err != nil {
		cfg = &service.Config{Name: name}
	}
	if u.m == nil {
		u.m = service.NewMachine(cfg, u, service.Memory{})
	} else {
		u.m.Configure(cfg)
	}
	return u
}

// compile reads a unit's text with this machine's specifiers.
func compile(name, text string) (*service.Config, error) {
	b, err := unitfile.ParseBundle(text)
	if err != nil {
		return nil, err
	}
	return service.Compile(name, b, specifiers(name))
}

// find returns the unit, known or installed, also by its template; nil if there is
// none.
func (s *Supervisor) find(name string) *svc {
	if u := s.units[name]; u != nil && !s.forgetIfGone(u) {
		return u
	}
	if text, path := s.file(name); path != "" {
		return s.load(name, path, text)
	}
	return nil
}

// graph shows the units to package jobs.
type graph struct{ s *Supervisor }

func (g graph) Names() []string { return sortedKeys(g.s.units) }

func (g graph) Node(name string) jobs.Node {
	u := g.s.find(name)
	switch {
	case u == nil && g.s.provided(name):
		return jobs.Node{External: true}
	case u == nil && neverReached[name]:
		return jobs.Node{State: service.Dead}
	case u == nil:
		return jobs.Node{Err: fmt.Errorf("unit %s not found", name), State: service.Dead}
	case unitfile.IsTemplate(name):
		return jobs.Node{Err: fmt.Errorf("unit name %s is missing the instance name", name), State: service.Dead}
	case u.bad != nil:
		return jobs.Node{Err: fmt.Errorf("unit %s has a bad unit file: %w", name, u.bad), State: u.m.State, Through: u.m.Through()}
	}
	return jobs.Node{Deps: u.m.Config().Deps, State: u.m.State, Through: u.m.Through()}
}

// collect unloads the units that are through and that nobody names, as systemd does:
// the result of their last run, their counters and their start limit are gone then.
func (s *Supervisor) collect() {
	if !s.spent {
		return
	}
	s.spent = false
	loaded := s.queue.Loaded(graph{s})
	for _, name := range sortedKeys(s.units) {
		if u := s.units[name]; !loaded[name] && u.m.Through() && u.m.Unload() {
			u.ran, u.mainStart = nil, time.Time{}
			s.forgetState(name)
			s.refresh(u)
			s.publish(u)
		}
	}
}

// reached are the targets that a machine has passed when we run.
var reached = []string{
	"basic.target", "sysinit.target", "multi-user.target", "graphical.target", "default.target",
	"network.target", "network-online.target", "network-pre.target", "local-fs.target", "remote-fs.target",
	"nss-lookup.target", "nss-user-lookup.target", "time-sync.target", "time-set.target",
	"sockets.target", "timers.target", "paths.target", "slices.target", "swap.target", "getty.target",
}

// neverReached are the targets of a shutdown: units stand in conflict with them.
var neverReached = map[string]bool{
	"shutdown.target": true, "umount.target": true, "final.target": true, "reboot.target": true,
	"poweroff.target": true, "halt.target": true, "kexec.target": true, "rescue.target": true, "emergency.target": true,
}

// provided reports whether a unit that is not ours counts as active.
func (s *Supervisor) provided(name string) bool {
	if name == "docker.service" || name == "docker.socket" {
		return dockerAnswers()
	}
	return slices.Contains(reached, name) || slices.Contains(s.cfg.Provides, name)
}

// PIDs of the run that are neither the main nor the control process.
func (u *svc) others() []int {
	if len(u.group.Sessions) == 0 && u.group.Cgroup == "" {
		return nil
	}
	return slices.DeleteFunc(u.group.PIDs(), func(pid int) bool {
		return pid == u.m.MainPID || pid == u.m.ControlPID
	})
}

// Others implements service.World.
func (u *svc) Others() bool { return len(u.others()) > 0 }

// PIDFile implements service.World.
func (u *svc) PIDFile() (int, error) {
	name := u.m.Config().PIDFile
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s holds no PID", name)
	}
	// Signals go there: it must be one of the unit's own.
	if !slices.Contains(u.group.PIDs(), pid) {
		return 0, fmt.Errorf("%s: process %d is none of the unit's", name, pid)
	}
	return pid, nil
}

// Lone implements service.World: the only process whose parent is none of the
// unit's.
func (u *svc) Lone() int {
	pids := u.others()
	found := 0
	for _, pid := range pids {
		st, err := proc.Lookup(pid)
		if err != nil || slices.Contains(pids, st.Parent) {
			continue
		}
		if found != 0 {
			return 0
		}
		found = pid
	}
	return found
}

// Alien implements service.World.
func (u *svc) Alien(pid int) bool {
	st, err := proc.Lookup(pid)
	return err == nil && slices.Contains(u.group.PIDs(), st.Parent)
}

// Restarting implements service.World.
func (u *svc) Restarting() bool {
	kind, _, ok := u.s.queue.Job(u.name)
	return ok && kind == unit.Restart
}

// begin prepares a run: its id and its cgroup.
func (u *svc) begin() {
	var id [16]byte
	_, _ = rand.Read(id[:])
	u.closeRun()
	u.ran = nil
	u.group = &proc.Group{RunID: hex.EncodeToString(id[:])}
	if u.s.cgroup == "" {
		return
	}
	u.group.Cgroup = u.s.cgroup + "/" + u.name
	if err := u.group.Make(); err != nil {
		u.s.log.Warn("no cgroup for unit", "unit", u.name, "err", err)
		u.group.Cgroup = ""
	}
}

// closeRun lets go of what the run had and removes its traces.
func (u *svc) closeRun() {
	if u.notify != nil {
		u.notify.close()
		u.notify = nil
	}
	if u.pidDir != nil {
		u.pidDir.close()
		u.pidDir = nil
	}
	for _, o := range u.outputs {
		o.drain()
	}
}

// release lets go of the unit and leaves it running.
func (u *svc) release() {
	if u.timer != nil {
		u.timer.Stop()
	}
	if u.notify != nil {
		u.notify.release()
	}
	if u.pidDir != nil {
		u.pidDir.close()
	}
	for _, o := range u.outputs {
		o.release()
	}
}

// arm sets the timer to what the machine waits for.
func (u *svc) arm() {
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	at := u.m.Next()
	if at.IsZero() {
		return
	}
	u.timer = time.AfterFunc(at.Sub(u.s.now()), func() {
		u.s.post(func() { u.apply(u.m.Tick(u.s.now())) })
	})
}

// short is a name of fixed length for something whose own may be too long.
func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// onSignal calls f, never twice at once, after each signal until stop.
func onSignal(sig os.Signal, f func()) (stop func()) {
	c := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(c, sig)
	go func() {
		for {
			select {
			case <-c:
				f()
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(done)
	}
}
