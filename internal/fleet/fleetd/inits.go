package fleetd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"

	"flotilla/internal/fault"
	"flotilla/internal/journal"
	"flotilla/internal/systemd"
	"flotilla/internal/unit"
)

// initSystem is who runs this machine's units.
type initSystem struct {
	manager unit.Manager
	log     unit.LogReader
	epoch   string // of its present run; empty: the kernel's
}

// openInit picks the init system that the configuration names.
func openInit(ctx context.Context, cfg Config) (initSystem, error) {
	if cfg.Units == "systemd" || cfg.Units == "auto" && (cfg.SystemdUser || systemdRuns()) {
		return initSystem{
			manager: systemd.New(systemd.Config{User: cfg.SystemdUser, UnitsDir: cfg.UnitsDirectory}),
			log:     journal.New(journal.Config{User: cfg.SystemdUser}),
		}, nil
	}
	return openSupervisor(ctx, cfg)
}

// systemdRuns is sd_booted(3).
func systemdRuns() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// passedListeners takes the API's sockets from systemd (sd_listen_fds(3)). The API
// knows no authentication but the socket's permissions, so it is not served on
// addresses that other machines reach.
func passedListeners(log *slog.Logger) ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets passed by systemd: %w", err)
	}
	var out []net.Listener
	refused := ""
	for _, ln := range all {
		switch {
		case ln == nil:
		case localOnly(ln.Addr()):
			out = append(out, ln)
		default:
			refused = ln.Addr().String()
			log.Error("socket passed by systemd is not served: other machines reach it, and the API has no authentication", "address", refused)
			ln.Close()
		}
	}
	if refused != "" && len(out) == 0 {
		return nil, fault.Hint(fmt.Errorf("sockets passed by systemd: %s is open to other machines, and there is no other", refused),
			"let fleet.socket listen on /run/fleet.sock, and reach other machines with 'fleetctl --tunnel'")
	}
	return out, nil
}

func localOnly(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}
