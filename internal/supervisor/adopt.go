package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
)

// record is what an adopting supervisor must know of a unit: DIR/state/NAME.json.
// It is written at every change and never synced, since it counts for one boot.
type record struct {
	Boot         string // of another boot: the unit is dead
	Text, Path   string // as loaded
	Memory       service.Memory
	Group        proc.Group
	MainStart    time.Time
	MainTicks    uint64 // proc.StartTime of main and control: PIDs are used again
	ControlTicks uint64
	Outputs      []outputRecord
	Ran          []ranCommand
}

func (s *Supervisor) statePath(name string) string { return s.path("state", name+".json") }

// persist writes the unit's record. A dead unit has none.
func (u *svc) persist() {
	if u.m.State == service.Dead && u.m.WindowCount == 0 {
		u.s.forgetState(u.name)
		return
	}
	r := record{
		Boot: bootID(), Text: u.text, Path: u.path, Memory: u.m.Memory, Group: *u.group,
		MainStart: u.mainStart, Ran: u.ran,
	}
	r.MainTicks, _ = proc.StartTime(u.m.MainPID)
	r.ControlTicks, _ = proc.StartTime(u.m.ControlPID)
	for _, o := range u.outputs {
		r.Outputs = append(r.Outputs, o.outputRecord)
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(u.s.statePath(u.name), data)
	}
	if err != nil {
		u.s.log.Error("unit cannot be adopted after a crash", "unit", u.name, "err", err)
	}
}

// replaceFile writes a file whole or not at all, as far as a crash of this process
// goes: for a crash of the machine the content means nothing.
func replaceFile(name string, data []byte) error {
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (s *Supervisor) forgetState(name string) { _ = os.Remove(s.statePath(name)) }

// adopt takes over the units that an earlier supervisor has left.
func (s *Supervisor) adopt() {
	files, _ := filepath.Glob(s.path("state", "*.json")) // the pattern is well formed
	kept := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		r, err := readRecord(file)
		if err != nil || r.Boot != bootID() {
			_ = os.Remove(file)
			continue
		}
		s.adoptUnit(name, r, kept)
	}
	// FIFOs of units that nobody knows any more.
	fifos, _ := filepath.Glob(s.path("run", "out", "*"))
	for _, f := range fifos {
		if !kept[f] {
			_ = os.Remove(f)
		}
	}
}

func readRecord(file string) (record, error) {
	var r record
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

func (s *Supervisor) adoptUnit(name string, r record, kept map[string]bool) {
	u := s.load(name, r.Path, r.Text)
	u.m = service.NewMachine(u.m.Config(), u, r.Memory)
	u.group, u.mainStart, u.ran = &r.Group, r.MainStart, r.Ran
	for _, rec := range r.Outputs {
		o := &output{outputRecord: rec, s: s, unit: name, drained: u.outputDrained}
		if o.open() != nil {
			continue
		}
		kept[rec.Path] = true
		u.outputs = append(u.outputs, o)
		o.begin()
	}
	if u.m.State.Inactive() {
		return
	}
	if u.m.State != service.AutoRestart && u.m.State != service.Active {
		if err := u.listen(); err != nil {
			s.log.Warn("unit cannot notify", "unit", name, "err", err)
		}
	}
	u.adoptProcess(u.m.MainPID, r.MainTicks)
	u.adoptProcess(u.m.ControlPID, r.ControlTicks)
	s.log.Info("unit adopted", "unit", name, "state", u.m.State, "main_pid", u.m.MainPID)
	s.logUnit(name, 6, fmt.Sprintf("%s: Adopted by a new supervisor.", name))
	u.resume()
	u.apply(nil)
}

func (u *svc) adoptProcess(pid int, ticks uint64) {
	if pid <= 0 {
		return
	}
	if u.s.procs.Watch(pid, ticks, func(e service.Exit) { u.exited(pid, e) }) != nil {
		u.exitedUnseen(pid)
	}
}

// resume goes on where the other supervisor was cut off: between deciding to start
// a process and having one.
func (u *svc) resume() {
	m := u.m
	switch m.State {
	case service.Conditional, service.StartPre, service.Start, service.StartPost:
		if m.MainPID > 0 || m.ControlPID > 0 {
			return
		}
	case service.Stop, service.StopPost:
		if m.ControlPID > 0 {
			return
		}
	default:
		return
	}
	u.apply(m.Interrupted(u.s.now()))
}
