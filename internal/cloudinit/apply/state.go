package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
)

// A Result is the report of one run, also of one that was cut.
type Result struct {
	Version  string           `json:"version"` // of the program
	Source   string           `json:"source,omitempty"`
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
	Tree *Tree
	Dir  string // the workspace, a path of the tree
	Name string
}

// recordFile is what is saved: a record, with the number of its form.
type recordFile struct {
	Form int `json:"form"`
	plan.Record
}

const recordForm = 1

func (s Store) path(kind string) string { return path.Join("/", s.Dir, kind, s.Name+".json") }

// Load reads the record; there is none before the first run.
func (s Store) Load() (plan.Record, error) {
	var f recordFile
	err := readJSON(s.Tree, s.path("records"), &f)
	if err == nil && f.Form > recordForm {
		err = fmt.Errorf("%s: is of form %d, and this program knows form %d", s.path("records"), f.Form, recordForm)
	}
	return f.Record, err
}

// Save makes the record last.
func (s Store) Save(r plan.Record) error {
	return s.write("records", recordFile{recordForm, r}, 0o600)
}

// SaveResult makes the result last. Everybody may read it: it has no contents.
func (s Store) SaveResult(r Result) error { return s.write("results", r, 0o644) }

// Results reads the results below a workspace, by name. One that says that it is
// running is a run that was cut if nobody has the lock.
func Results(t *Tree, workspace string) (map[string]Result, error) {
	dir := path.Join("/", workspace, "results")
	names, err := t.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]Result{}
	for _, file := range names {
		name, ok := strings.CutSuffix(file, ".json")
		if !ok || strings.HasPrefix(file, ".") {
			continue
		}
		var r Result
		if err := readJSON(t, path.Join(dir, file), &r); err != nil {
			return nil, err
		}
		if r.State == Running && (Store{Tree: t, Dir: workspace}).free() {
			r.State = WasCut
		}
		out[name] = r
	}
	return out, nil
}

func readJSON(t *Tree, file string, v any) error {
	b, err := t.ReadFile(file)
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

func (s Store) write(kind string, v any, mode uint32) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if now, err := s.Tree.ReadFile(s.path(kind)); err == nil && bytes.Equal(now, b) {
		return nil
	}
	return s.Tree.Write(s.path(kind), b, mode, me())
}

// lockPause is how often a lock that another run has is tried for.
const lockPause = 100 * time.Millisecond

// Lock keeps other runs out until unlock is called. While another one is at work it
// waits, and calls waiting once.
func (s Store) Lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	dir, err := s.Tree.openDir(path.Join("/", s.Dir), true)
	if err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	for first := true; ; first = false {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			dir.Close()
			return nil, fmt.Errorf("lock %s: %w", s.Dir, err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, fmt.Errorf("wait for another run: %w", ctx.Err())
		case <-time.After(lockPause):
		}
	}
}

// free reports whether nobody has the lock.
func (s Store) free() bool {
	dir, err := s.Tree.openDir(path.Join("/", s.Dir), false)
	if err != nil {
		return false
	}
	defer dir.Close()
	return unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}
