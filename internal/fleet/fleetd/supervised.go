package fleetd

import (
	"context"
	"fmt"
	"os"

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
	out := initSystem{manager: sv, log: sv}
	if e, ok := any(sv).(epocher); ok {
		if out.epoch, err = e.Epoch(ctx); err != nil {
			return initSystem{}, err
		}
	}
	return out, nil
}

// epocher is an init system that can say which run of it this is: another one when
// the units of the one before have ended with it.
type epocher interface {
	Epoch(ctx context.Context) (string, error)
}
