package fleetd

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"

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

// passedListeners takes the API's sockets from systemd (sd_listen_fds(3)).
func passedListeners() ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets passed by systemd: %w", err)
	}
	return slices.DeleteFunc(all, func(ln net.Listener) bool { return ln == nil }), nil
}
