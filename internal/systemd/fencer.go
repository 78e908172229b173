package systemd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

var _ unit.Fencer = (*Manager)(nil)

// noSuchProcess is systemd's answer to a kill of what does not run.
const noSuchProcess = busName + ".NoSuchProcess"

// KillUnit implements unit.Fencer.
func (m *Manager) KillUnit(ctx context.Context, name string) error {
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		return b.call(ctx, managerPath, managerIface+".KillUnit", name, "all", int32(9))
	})
	switch errorName(err) {
	case noSuchUnit, noSuchProcess:
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return nil
}

// The guard is a transient timer and its service: they need no file and no reload,
// and systemd forgets them when they have done their work. Each has a name of its
// own, since one that was just stopped may not be forgotten yet.
const guardPrefix = "fleet-guard-"

// guardScript stops the units that it is given after the grace, and kills what is
// left of them, twice for what was just being started.
const guardScript = `grace=$1; ctl="systemctl $2"; shift 2
$ctl stop --no-block -- "$@"
sleep "$grace"
$ctl kill -s KILL -- "$@"; sleep 1; $ctl kill -s KILL -- "$@"; :`

// Guard implements unit.Fencer. The timer's clock stands still while the machine
// sleeps: whoever wakes up with it has to look for himself.
func (m *Manager) Guard(ctx context.Context, after, grace time.Duration, names ...string) error {
	for _, name := range names {
		if err := unitfile.CheckName(name); err != nil {
			return fmt.Errorf("guard %s: %w", name, err)
		}
	}
	err := m.do(ctx, func(ctx context.Context, b *bus) error {
		old, err := b.guards(ctx)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			if err := b.startGuard(ctx, m.cfg.User, after, grace, names); err != nil {
				return err
			}
		}
		for _, name := range old {
			err := b.call(ctx, managerPath, managerIface+".StopUnit", name, "replace")
			if err != nil && errorName(err) != noSuchUnit {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("guard %s: %w", few(names), err)
	}
	return nil
}

// guards names the timers that stand guard, of whatever process, and the services of
// those that have gone off and are still at it: what they would kill may be started
// anew meanwhile.
func (b *bus) guards(ctx context.Context) ([]string, error) {
	var units []struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            dbus.ObjectPath
		JobID                                           uint32
		JobType                                         string
		JobPath                                         dbus.ObjectPath
	}
	call := b.send(managerPath, managerIface+".ListUnitsByPatterns", []string{}, []string{guardPrefix + "*"})
	if err := b.reply(ctx, call, &units); err != nil {
		return nil, err
	}
	var out []string
	for _, u := range units {
		if u.Active != "inactive" {
			out = append(out, u.Name)
		}
	}
	return out, nil
}

// property of a transient unit, and a unit that comes with one, as D-Bus has them.
type (
	transientProperty struct {
		Name  string
		Value dbus.Variant
	}
	transientUnit struct {
		Name       string
		Properties []transientProperty
	}
	execCommand struct {
		Path   string
		Args   []string
		Ignore bool
	}
	monotonicTimer struct {
		Base string
		USec uint64
	}
)

func (b *bus) startGuard(ctx context.Context, user bool, after, grace time.Duration, names []string) error {
	stem := fmt.Sprintf("%s%d", guardPrefix, monotonic())
	scope := "--system"
	if user {
		scope = "--user"
	}
	args := slices.Concat([]string{"/bin/sh", "-c", guardScript, "guard", fmt.Sprintf("%.3f", grace.Seconds()), scope}, names)
	property := func(name string, value any) transientProperty {
		return transientProperty{name, dbus.MakeVariant(value)}
	}
	timer := []transientProperty{
		property("Description", "Stops singletons unless fleetd comes back"),
		property("TimersMonotonic", []monotonicTimer{{"OnActiveSec", uint64(max(after, time.Millisecond).Microseconds())}}),
		property("AccuracyUSec", uint64(10_000)),
		property("RemainAfterElapse", false),
		property("CollectMode", "inactive-or-failed"),
	}
	service := transientUnit{stem + ".service", []transientProperty{
		property("Description", "Stops singletons: fleetd did not come back in time"),
		property("Type", "oneshot"),
		property("CollectMode", "inactive-or-failed"),
		property("ExecStart", []execCommand{{"/bin/sh", args, false}}),
	}}
	return b.call(ctx, managerPath, managerIface+".StartTransientUnit", stem+".timer", "replace", timer, []transientUnit{service})
}
