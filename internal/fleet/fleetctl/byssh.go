package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
	"flotilla/internal/fault"
	"flotilla/internal/tunnel"
)

// bySSH is how status and journal ask a unit's machine where the API cannot, or is not
// to: with systemctl and journalctl over SSH, as fleet 1.0 always did. A flag that
// speaks of SSH asks for it; a server of fleet 1.0 has nothing else.
type bySSH struct {
	port int  // 0: what ~/.ssh/config says, else 22
	sudo bool // journal: read it as root
}

func (b *bySSH) flags(f *pflag.FlagSet) {
	f.IntVar(&b.port, "ssh-port", 0, "ask the machine over SSH at this port, not through the API")
}

func (b *bySSH) wanted() bool { return b.port != 0 || b.sudo }

// isClassic reports whether an error is that of a server that has no logs and no
// status to give.
func isClassic(err error) bool {
	var e *fleet.Error
	return errors.As(err, &e) && e.Code == http.StatusNotFound && e.Message == ""
}

// statusOf writes what systemctl says of a unit on a machine and returns its exit code.
func (s *session) statusOf(ctx context.Context, w io.Writer, name, id string) (int, error) {
	if !s.bySSH.wanted() {
		code, err := s.client.Status(ctx, w, name, id)
		if !isClassic(err) {
			return code, err
		}
	}
	m, err := s.present(ctx, id)
	if err != nil {
		return 0, err
	}
	return s.execOn(ctx, m, s.bySSH.port, tunnel.Command{Line: "systemctl status -l " + word(name), Stdout: w, Stderr: s.env.Stderr})
}

// journalOf prints a unit's log by the journalctl of its machine.
func (s *session) journalOf(ctx context.Context, j *journaling, name string, ids []string) error {
	if len(ids) > 1 {
		return fault.Hint(sentence("Unable to retrieve journal of global unit %s.", name), "over SSH it is one machine's: choose with --machine: %s", strings.Join(ids, " "))
	}
	m, err := s.present(ctx, ids[0])
	if err != nil {
		return err
	}
	line := fmt.Sprintf("journalctl --unit %s --no-pager -n %d --output %s", word(name), j.lines, first(j.output, "short"))
	if j.follow {
		line += " -f"
	}
	if s.bySSH.sudo {
		line = "sudo " + line
	}
	return s.sshRun(ctx, m, s.bySSH.port, tunnel.Command{Line: line})
}

// present is the machine with that id.
func (s *session) present(ctx context.Context, id string) (api.Machine, error) {
	machines, err := s.client.Machines(ctx)
	if err != nil {
		return api.Machine{}, sentence("Error retrieving list of active machines from fleet API (%w)", err)
	}
	i := slices.IndexFunc(machines, func(m api.Machine) bool { return m.ID == id })
	if i < 0 {
		return api.Machine{}, fmt.Errorf("machine %s is not present", shortID(id, false))
	}
	return machines[i], nil
}

// word makes one word of s for a POSIX shell.
func word(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
