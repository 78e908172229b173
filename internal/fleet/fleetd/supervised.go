package fleetd

import (
	"context"
	"fmt"
	"os"

	"flotilla/internal/lifecycle"
	"flotilla/internal/supervisor"
)

// openSupervisor connects to the built-in supervisor, starting one if none runs.
// It outlives this daemon, and what it runs outlives it.
func openSupervisor(ctx context.Context, cfg Config) (initSystem, error) {
	exe, err := os.Executable()
	if err != nil {
		return initSystem{}, fmt.Errorf("start supervisor: %w", err)
	}
	sv, err := supervisor.Ensure(ctx, exe, cfg.SupervisorDir, supervisor.Options{Machine: hostname(cfg.Hostname)})
	if err != nil {
		return initSystem{}, err
	}
	self, err := sv.Self(ctx)
	if err != nil {
		return initSystem{}, err
	}
	boot, err := lifecycle.BootID()
	if err != nil {
		return initSystem{}, err
	}
	// A supervisor that ended took its units along, so another process is another
	// epoch. One that was killed left them to its successor: then what is active
	// is found active, and what had finished or failed is started once more.
	return initSystem{manager: sv, log: sv, epoch: fmt.Sprintf("%s/supervisor-%d", boot, self.PID)}, nil
}
