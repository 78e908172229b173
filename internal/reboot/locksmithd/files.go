package locksmithd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
	"flotilla/internal/reboot/trigger"
)

// files is what the daemon keeps on the machine: the coordinator's file, the note that
// a reboot forgets, and what the last reboot was for.
type files struct {
	cfg         Config
	coordinator *os.File
}

// lastReboot is what a reboot was for, and the run of the system that it ended.
type lastReboot struct {
	Boot   string         `json:"boot"`
	Source trigger.Source `json:"source"`
	Why    string         `json:"why"`
}

func (l lastReboot) need() trigger.Need { return trigger.Need{Source: l.Source, Why: l.Why} }

// AskedFile is what locksmithctl leaves behind in the directory for what a reboot
// forgets: the reason why it is to reboot.
const AskedFile = "need-reboot"

const (
	noteFile = "note.json"
	lastFile = "last-reboot.json"
)

// open makes this process the one that reboots the machine.
func (f *files) open(cfg Config) error {
	f.cfg = cfg
	for _, dir := range []string{cfg.RunDir, cfg.StateDir, filepath.Dir(cfg.CoordinatorFile)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fault.Hint(err, "locksmithd runs as root")
		}
	}
	c, err := os.OpenFile(cfg.CoordinatorFile, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(c.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer c.Close()
		return fault.Hint(fmt.Errorf("%s is held by another program (%s): %w", cfg.CoordinatorFile, coordinatorName(c), err),
			"two that reboot the machine would not know of each other: stop one")
	}
	f.coordinator = c
	f.state("starting")
	return nil
}

// coordinatorName is what the holder calls itself.
func coordinatorName(c *os.File) string {
	b := make([]byte, 4096)
	n, _ := c.ReadAt(b, 0)
	for line := range strings.Lines(string(b[:n])) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "NAME="); ok {
			return name
		}
	}
	return "of no name"
}

// state says in the coordinator's file what the daemon is at. It is for others to read:
// that it cannot be written holds nothing up.
func (f *files) state(state string) {
	if f.coordinator == nil {
		return
	}
	text := fmt.Sprintf("NAME=locksmithd\nSTRATEGY=%s\nSTATE=%s\n", f.cfg.Strategy, state)
	if _, err := f.coordinator.WriteAt([]byte(text), 0); err == nil {
		_ = f.coordinator.Truncate(int64(len(text)))
	}
}

func (f *files) close() {
	f.coordinator.Close()
}

func (f *files) readNote() (n Note) {
	f.read(filepath.Join(f.cfg.RunDir, noteFile), &n)
	return n
}

func (f *files) writeNote(n Note) error {
	return f.write(filepath.Join(f.cfg.RunDir, noteFile), n, n == Note{})
}

func (f *files) readLast() (l lastReboot) {
	f.read(filepath.Join(f.cfg.StateDir, lastFile), &l)
	return l
}

func (f *files) writeLast(l lastReboot) error {
	return f.write(filepath.Join(f.cfg.StateDir, lastFile), l, false)
}

func (f *files) forgetLast() error {
	return f.write(filepath.Join(f.cfg.StateDir, lastFile), nil, true)
}

// read leaves v as it is if there is nothing that can be read.
func (f *files) read(path string, v any) {
	b, err := os.ReadFile(path)
	if err == nil {
		_ = json.Unmarshal(b, v) // whatever else is there is not ours
	}
}

// write writes a file, or removes it.
func (f *files) write(path string, v any, remove bool) error {
	if remove {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o644)
}
