package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Local is what the machine's own systemd says.
type Local struct {
	// System is the word of "systemctl is-system-running".
	System string
	// BootComplete is the state of boot-complete.target, "" if nothing on this machine
	// needs it: it says that the boot was a good one, to whoever counts them.
	BootComplete string
}

// Unwell is what is not as it should be; empty if all is well. A system with failed
// units is one: which of its units matter is for fleet and the health directory to say.
func (l Local) Unwell() []string {
	var out []string
	switch l.System {
	case "running", "degraded":
	case "":
		out = append(out, "systemd does not say how it is")
	default:
		out = append(out, "the system is "+l.System)
	}
	if l.BootComplete != "" && l.BootComplete != "active" {
		out = append(out, "boot-complete.target is "+l.BootComplete)
	}
	return out
}

// systemctlLimit is how long systemctl may take: a systemd that is busy starting a
// hundred units answers within seconds.
const systemctlLimit = 30 * time.Second

// Look asks systemd, by systemctl.
func Look(ctx context.Context) (Local, error) {
	// It ends with status 1 for everything but "running".
	state, err := systemctl(ctx, "is-system-running")
	if err != nil {
		return Local{}, err
	}
	props, err := systemctl(ctx, "show", "--property=LoadState,ActiveState,RequiredBy,WantedBy,RequisiteOf", "boot-complete.target")
	if err != nil {
		return Local{}, err
	}
	return Local{System: strings.TrimSpace(state), BootComplete: bootComplete(props)}, nil
}

// Active says whether one of these units is active.
func Active(ctx context.Context, units ...string) (bool, error) {
	out, err := systemctl(ctx, append([]string{"is-active"}, units...)...)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(out) {
		if strings.TrimSpace(line) == "active" {
			return true, nil
		}
	}
	return false, nil
}

// bootComplete reads what systemctl shows of the target. It is there on most machines;
// it counts where something waits for it.
func bootComplete(shown string) string {
	props := map[string]string{}
	for line := range strings.Lines(shown) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		props[name] = v
	}
	wanted := props["RequiredBy"] != "" || props["WantedBy"] != "" || props["RequisiteOf"] != ""
	if props["LoadState"] != "loaded" || !wanted {
		return ""
	}
	return props["ActiveState"]
}

// systemctl returns what it prints, whatever status it ends with.
func systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, systemctlLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && out.Len() > 0 {
		return out.String(), nil
	}
	return "", fmt.Errorf("systemctl %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
}
