package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// memory is what the agent has carried out, kept in RunDir/agent.json. It is true
// as long as the init system's units live.
type memory struct {
	Epoch string          `json:"epoch"`
	Units map[string]done `json:"units"`
	// Own is the units of the machine's own that may be taken over, with the hash of
	// their text.
	Own   map[string]string `json:"own,omitempty"`
	dirty bool
}

// done is what the agent has carried out for a unit.
type done struct {
	Gen   int64       `json:"gen"`
	State model.State `json:"state"`
	Hash  string      `json:"hash,omitempty"` // of the text last started
	Good  bool        `json:"good,omitempty"` // and it was judged good in a roll
	// Guarded is set for a singleton that ran when the agent ended: should it have
	// taken too long to come back, the init system has stopped it.
	Guarded bool `json:"guarded,omitempty"`
	// Refused is the hash of a text not to be tried again for this generation. A
	// new run of the agent tries it once more, so that its reason is known again.
	Refused string `json:"-"`
	// Sent is the start or restart job that may be under way. It is written down
	// before the job is sent: an agent that is killed meanwhile may leave it behind.
	Sent sent `json:"sent,omitzero"`
}

// sent is a job that was sent, what will have been carried out with it, and since
// when the unit had been in its state then: a unit that has changed its state since
// has got the job.
type sent struct {
	Gen   int64       `json:"gen"`
	State model.State `json:"state"`
	Hash  string      `json:"hash,omitempty"`
	Since int64       `json:"since"` // microseconds; 0: it had never changed
}

// stamp is a time as it is kept in sent.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func (m *memory) set(name string, d done) {
	if m.Units[name] != d {
		m.Units[name] = d
		m.dirty = true
	}
}

func (m *memory) drop(name string) {
	if _, ok := m.Units[name]; ok {
		delete(m.Units, name)
		m.dirty = true
	}
}

func (a *Agent) memoryPath() string   { return filepath.Join(a.cfg.RunDir, "agent.json") }
func (a *Agent) schedulePath() string { return filepath.Join(a.cfg.StateDir, "schedule.json") }

// loadMemory reads the memory of an epoch; one of another epoch is empty.
func loadMemory(path, epoch string) (memory, error) {
	fresh := memory{Epoch: epoch, Units: map[string]done{}}
	var m memory
	if err := readJSON(path, &m); err != nil {
		return fresh, err
	}
	if m.Epoch != epoch || m.Units == nil {
		return fresh, nil
	}
	return m, nil
}

// scheduleFile is the last known schedule on disk.
type scheduleFile struct {
	Machine string          `json:"machine"`
	Store   string          `json:"store,omitempty"` // it was read from
	Rev     int64           `json:"rev,omitempty"`   // of that store
	Units   []scheduleEntry `json:"units"`
}

type scheduleEntry struct {
	Unit    string      `json:"unit"`
	Hash    string      `json:"hash"` // "": the unit is held
	Desired model.State `json:"desired"`
	Gen     int64       `json:"gen"`
	Leaving bool        `json:"leaving,omitempty"`
	Restart bool        `json:"restart,omitempty"`
	// MoveAfter is in nanoseconds; -1: never.
	MoveAfter time.Duration `json:"moveAfter,omitempty"`
	Foreign   string        `json:"foreign,omitempty"` // the store that placed it, if that is another
	Text      string        `json:"text"`
}

func loadSchedule(path, machine string) (wanted, error) {
	var f scheduleFile
	if err := readJSON(path, &f); err != nil {
		return wanted{}, err
	}
	if f.Machine != "" && f.Machine != machine {
		return wanted{}, fmt.Errorf("%s is the schedule of machine %s", path, f.Machine)
	}
	out := wanted{
		units: make(map[string]model.Placement, len(f.Units)), foreign: map[string]string{},
		store: f.Store, rev: f.Rev,
	}
	var damaged []error
	for _, e := range f.Units {
		switch {
		case e.Hash == "":
			out.units[e.Unit] = held(machine, e.Unit)
		case unitfile.HashText(e.Text) != e.Hash:
			damaged = append(damaged, fmt.Errorf("%s: the text of unit %s is damaged", path, e.Unit))
			out.units[e.Unit] = held(machine, e.Unit)
		default:
			out.units[e.Unit] = e.placement(machine)
		}
		if e.Foreign != "" {
			out.foreign[e.Unit] = e.Foreign
		}
	}
	return out, errors.Join(damaged...)
}

func (e scheduleEntry) placement(machine string) model.Placement {
	return model.Placement{
		Machine: machine, Unit: e.Unit, Text: e.Text, Hash: e.Hash,
		Desired: e.Desired, Gen: e.Gen, Leaving: e.Leaving, Restart: e.Restart,
		MoveAfter: e.MoveAfter,
	}
}

func encodeSchedule(machine string, want wanted) []byte {
	f := scheduleFile{Machine: machine, Store: want.store, Rev: want.rev}
	for _, p := range sortedValues(want.units) {
		f.Units = append(f.Units, scheduleEntry{
			Unit: p.Unit, Hash: p.Hash, Desired: p.Desired, Gen: p.Gen, Leaving: p.Leaving, Restart: p.Restart, Text: p.Text,
			MoveAfter: p.MoveAfter, Foreign: want.foreign[p.Unit],
		})
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		panic(fmt.Sprintf("agent: encode schedule: %v", err)) // strings and numbers
	}
	return b
}

// remember writes down what has changed. A disk that takes nothing is said once
// and tried again at the next change: units matter more.
func (a *Agent) remember() {
	a.rememberWork()
	if a.source != store || a.adopted == a.saved {
		return
	}
	// Texts may hold secrets of Environment=, hence the mode.
	err := atomicfile.Write(a.schedulePath(), encodeSchedule(a.cfg.Presence.ID, a.want), 0o600)
	a.diskSaid("schedule", err)
	if err == nil {
		a.saved = a.adopted
	}
}

// rememberWork writes down what has been carried out and what is being sent.
func (a *Agent) rememberWork() {
	if !a.memory.dirty {
		return
	}
	b, err := json.Marshal(a.memory)
	if err == nil {
		err = atomicfile.Write(a.memoryPath(), b, 0o600)
	}
	a.diskSaid("memory", err)
	a.memory.dirty = err != nil
}

func (a *Agent) diskSaid(what string, err error) {
	if err == nil {
		delete(a.diskErr, what)
		return
	}
	if a.diskErr[what] != err.Error() {
		a.diskErr[what] = err.Error()
		a.log.Error("agent cannot write down what it knows: a restart may start units again", "what", what, "err", err)
	}
}

// readJSON reads a file; one that is not there leaves v as it is.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
