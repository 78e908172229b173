package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/atomicfile"
	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
)

// A Result is the report of one run, also of one that was cut.
type Result struct {
	Version  string           `json:"version"` // of the program
	Sources  []string         `json:"sources,omitempty"`
	Started  time.Time        `json:"started"`
	Ended    time.Time        `json:"ended,omitzero"`
	Boot     string           `json:"boot,omitempty"`
	State    RunState         `json:"state"`
	Errors   []string         `json:"errors,omitempty"` // beside those of findings, notes and steps
	Findings []config.Finding `json:"findings,omitempty"`
	Notes    []plan.Note      `json:"notes,omitempty"`
	Steps    []Outcome        `json:"steps,omitempty"`
}

// RunState is how a run ended.
type RunState string

// How a run may have ended.
const (
	Running   RunState = "running" // or cut: the record of a process that is gone
	Succeeded RunState = "done"
	Unchanged RunState = "unchanged" // there was nothing to do
	HasFailed RunState = "failed"    // something could not be done
	WasCut    RunState = "cut"       // it was ended before its last step
)

// A Store keeps records and results below a workspace. There is one of each for every
// name: a vendor's document and the user's do not take each other's entries for
// removed ones.
type Store struct {
	Dir  string // the workspace, as this process sees it
	Name string
}

// recordFile is what is saved: a record, with the number of its form.
type recordFile struct {
	Form int `json:"form"`
	plan.Record
}

const recordForm = 1

func (s Store) path(kind string) string { return filepath.Join(s.Dir, kind, s.Name+".json") }

// Load reads the record; there is none before the first run.
func (s Store) Load() (plan.Record, error) {
	var f recordFile
	err := readJSON(s.path("records"), &f)
	if err == nil && f.Form > recordForm {
		err = fmt.Errorf("%s: is of form %d, and this program knows form %d", s.path("records"), f.Form, recordForm)
	}
	return f.Record, err
}

// Save makes the record last.
func (s Store) Save(r plan.Record) error {
	return writeJSON(s.path("records"), recordFile{recordForm, r}, 0o600)
}

// SaveResult makes the result last. Everybody may read it: it has no contents.
func (s Store) SaveResult(r Result) error { return writeJSON(s.path("results"), r, 0o644) }

// Results reads the results below a workspace, by name.
func Results(workspace string) (map[string]Result, error) {
	files, err := filepath.Glob(filepath.Join(workspace, "results", "*.json"))
	if err != nil {
		return nil, err
	}
	out := map[string]Result{}
	for _, f := range files {
		var r Result
		if err := readJSON(f, &r); err != nil {
			return nil, err
		}
		name := filepath.Base(f)
		out[name[:len(name)-len(".json")]] = r
	}
	return out, nil
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

func writeJSON(file string, v any, mode os.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(file, append(b, '\n'), mode)
}

// lockPause is how often a lock that another run has is tried for.
const lockPause = 100 * time.Millisecond

// Lock keeps other runs out until unlock is called. While another one is at work it
// waits, and calls waiting once.
func (s Store) Lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another run: %w", ctx.Err())
		case <-time.After(lockPause):
		}
	}
}
