package machines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/fault"
)

// enterCgroups is a shell program: it takes away what an earlier boot has left in the
// cgroups whose process lists are named before "--", writes its pid to these, then
// becomes the command after it.
const enterCgroups = `while [ "$1" != -- ]; do
	find "${1%/*}" -mindepth 1 -depth -type d -delete
	echo $$ >"$1" || exit 1
	shift
done
shift
exec "$@"`

// keeper is a shell program, the power supply of a machine: it runs the program $2 with
// the arguments after it, and again whenever that ends with 133, which is how
// "systemd-nspawn --keep-unit" says that the machine asks for a reboot; not if the
// file $1 exists. It outlives the command that switched the machine on, needs no copy of
// this program, and stays outside of the machine's cgroups.
const keeper = `stay=$1 run=$2
shift 2
while :; do
	/bin/sh -c "$run" sh "$@"
	code=$?
	if [ $code != 133 ] || [ -e "$stay" ]; then exit $code; fi
done`

// keeperArgs is the command that runs a machine's nspawn, boot after boot, in the
// cgroups whose process lists the files are. Where systemd hands out cgroups
// systemd-nspawn does all that itself.
func keeperArgs(d disk, files, nspawn []string) []string {
	return slices.Concat([]string{"/bin/sh", "-c", keeper, "sh", d.stayOff(), enterCgroups}, files, []string{"--"}, nspawn)
}

// StayOff makes the machine's next reboot a power-off: it goes down and does not come
// back, until Boot.
func (l *Lab) StayOff(machine string) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	if l.host.Systemd {
		return fault.Hint(fmt.Errorf("%s cannot be kept off: with systemd on this machine systemd-nspawn does not ask before it boots again", machine), "flotilla lab kill %s, when it goes down", machine)
	}
	if err := os.WriteFile(l.disk(machine).stayOff(), nil, 0o600); err != nil {
		return fmt.Errorf("keep %s off: %w", machine, err)
	}
	return nil
}

// Reboot has the machine reboot as its own user would, and returns when it is up again.
func (l *Lab) Reboot(ctx context.Context, machine string) error {
	m, err := l.machine(machine)
	if err != nil {
		return err
	}
	before, err := l.BootID(machine)
	if err != nil {
		return err
	}
	ask := func() error { // it need not live to say that it was obeyed
		_, err := l.Output(ctx, machine, "systemctl", "reboot")
		return err
	}
	asked := ask()
	err = until(ctx, bootLimit, func(context.Context) bool {
		now, err := l.BootID(machine)
		switch {
		case err == nil && now != before, l.ended(machine):
			return true
		case err == nil && asked != nil: // one that boots has nobody yet to ask
			asked = ask()
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("reboot %s: it did not go down: %w", machine, errors.Join(err, asked))
	}
	return l.waitBooted(ctx, m, func() bool { return l.ended(machine) })
}

// ended reports whether there is nothing left that could boot the machine.
func (l *Lab) ended(machine string) bool { return len(nspawns(l.disk(machine).root())) == 0 }

// BootID is the machine's /proc/sys/kernel/random/boot_id: another one at each boot. The
// machine is not asked, its PID 1 is looked at from outside.
func (l *Lab) BootID(machine string) (string, error) {
	if _, err := l.machine(machine); err != nil {
		return "", err
	}
	if id := bootID(initOf(l.disk(machine).root())); id != "" {
		return id, nil
	}
	return "", fault.Hint(fmt.Errorf("%s is off, or between two boots", machine), "flotilla lab boot %s", machine)
}

// bootID is the boot id that the process with this number finds; "" if it is gone.
func bootID(pid int) string {
	if pid == 0 {
		return ""
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/root/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// boots counts the boots that the machine's journal knows; 0 if it cannot be asked.
func (l *Lab) boots(ctx context.Context, machine string) int {
	out, err := l.Output(ctx, machine, "journalctl", "--list-boots", "--quiet")
	if err != nil {
		return 0
	}
	return strings.Count(out, "\n")
}
