package machines

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"flotilla/internal/fault"
)

// The faults that a machine can be given, and their ends. Each may be repeated.

// Cut takes the machine's cable out: it runs on and reaches nobody.
func (l *Lab) Cut(ctx context.Context, machine string) error {
	return l.link(ctx, machine, "down")
}

// Heal puts the cable back in.
func (l *Lab) Heal(ctx context.Context, machine string) error {
	return l.link(ctx, machine, "up")
}

func (l *Lab) link(ctx context.Context, machine, state string) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	return l.setLink(ctx, machine, state)
}

// Kill cuts the machine's power: nothing in it gets to say a last word. Its disk
// stays as it is.
func (l *Lab) Kill(ctx context.Context, machine string) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	return powerOff(ctx, l.disk(machine).root())
}

// Boot powers the machine on: the same disk, the same machine id. It is an error if
// it runs.
func (l *Lab) Boot(ctx context.Context, machine string) error {
	m, err := l.machine(machine)
	if err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if len(nspawns(l.disk(machine).root())) > 0 {
		return fmt.Errorf("%s is on already", machine)
	}
	return l.each(ctx, []Machine{m}, "is up", l.start)
}

// Freeze stops every process of the machine where it is, as a host does that has no
// time for its guest; Thaw lets them go on.
func (l *Lab) Freeze(machine string) error { return l.freezeKnown(machine, true) }

// Thaw undoes Freeze.
func (l *Lab) Thaw(machine string) error { return l.freezeKnown(machine, false) }

func (l *Lab) freezeKnown(machine string, frozen bool) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	return l.freeze(machine, frozen)
}

func (l *Lab) freeze(machine string, frozen bool) error {
	dir, err := l.payload(machine)
	if err != nil {
		return err
	}
	value := "0"
	if frozen {
		value = "1"
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(value), 0); err != nil {
		return fmt.Errorf("freeze %s: %w", machine, err)
	}
	return nil
}

// frozen reports whether the machine is frozen; one that is off is not.
func (l *Lab) frozen(machine string) bool {
	dir, err := l.payload(machine)
	if err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
	return err == nil && len(b) > 0 && b[0] == '1'
}

func (l *Lab) payload(machine string) (string, error) {
	pid := initOf(l.disk(machine).root())
	if pid == 0 {
		return "", fault.Hint(fmt.Errorf("%s is off", machine), "flotilla lab boot %s", machine)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("%s: %w", machine, err)
	}
	dir, err := payload(l.host.Cgroups, string(b))
	if err != nil {
		return "", fmt.Errorf("%s: %w", machine, err)
	}
	return dir, nil
}

// Status is what can be seen of a machine.
type Status struct {
	Machine
	// Power is "on", "off" or "frozen".
	Power string `json:"power"`
	// Network is "up" or "cut".
	Network string `json:"network"`
	// System is what systemctl is-system-running says; "" unless the power is on.
	System string `json:"system,omitempty"`
	// PID is its PID 1's number on this machine; 0 when it is off, or just between two
	// boots.
	PID int `json:"pid,omitempty"`
	// BootID tells one boot from another (random(4)); "" unless the power is on.
	BootID string `json:"boot_id,omitempty"`
	// Boots is how many boots its journal knows, this one among them; 0 unless the
	// power is on.
	Boots int `json:"boots,omitempty"`
}

// Status looks at every machine.
func (l *Lab) Status(ctx context.Context) ([]Status, error) {
	s, err := l.load()
	if err != nil {
		return nil, err
	}
	cut, err := l.cutOff(ctx)
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, m := range s.Machines {
		out = append(out, l.look(ctx, m, cut[m.Name]))
	}
	return out, nil
}

func (l *Lab) look(ctx context.Context, m Machine, cut bool) Status {
	s := Status{Machine: m, Power: "off", Network: "up", PID: initOf(l.disk(m.Name).root())}
	if cut {
		s.Network = "cut"
	}
	switch {
	case s.PID == 0:
		if len(nspawns(l.disk(m.Name).root())) > 0 {
			s.Power = "on" // it is about to boot
		}
	case l.frozen(m.Name):
		s.Power = "frozen"
	default:
		s.Power = "on"
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // a sick systemd must not hide the rest
		defer cancel()
		s.System = l.systemState(ctx, m.Name)
		s.BootID = bootID(s.PID)
		s.Boots = l.boots(ctx, m.Name)
	}
	return s
}
