package machines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The keeper boots again as often as the machine asks for it; it then ends as the machine
// does. The machine is a program that counts its boots and asks for two more.
func TestKeeper(t *testing.T) {
	for _, c := range []struct {
		name, machine string
		stay          bool
		boots         string
		code          int
	}{
		{"asks twice", `echo boot >>boots; [ $(wc -l <boots) = 3 ] || exit 133`, false, "3", 0},
		{"is switched off", `echo boot >>boots`, false, "1", 0},
		{"cannot boot", `echo boot >>boots; exit 1`, false, "1", 1},
		{"loses its power", `echo boot >>boots; kill -9 $$`, false, "1", 137},
		{"is to stay off", `echo boot >>boots; exit 133`, true, "1", 133},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := disk{t.TempDir()}
			if c.stay {
				if err := os.WriteFile(d.stayOff(), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := keeperArgs(d, nil, []string{"/bin/sh", "-c", c.machine})
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = d.dir
			if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("the keeper ends with %v: %s", err, out)
			}
			boots, err := os.ReadFile(filepath.Join(d.dir, "boots"))
			if got := strings.Count(string(boots), "boot\n"); err != nil || c.boots != string(rune('0'+got)) {
				t.Errorf("%d boots, %v; want %s", got, err, c.boots)
			}
		})
	}
}

// A boot begins in the machine's cgroups, with nothing left of the boot before.
func TestKeeperEntersCgroups(t *testing.T) {
	d := disk{t.TempDir()}
	procs := filepath.Join(d.dir, "cgroup", "cgroup.procs")
	left := filepath.Join(d.dir, "cgroup", "payload", "system.slice")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	args := keeperArgs(d, []string{procs}, []string{"/bin/sh", "-c", "echo $$"})
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if in, err := os.ReadFile(procs); err != nil || string(in) != string(out) {
		t.Errorf("in the cgroup is process %q, the machine is %q: %v", in, out, err)
	}
	if _, err := os.Stat(filepath.Dir(left)); err == nil {
		t.Errorf("%s is still there", left)
	}
}

// The keeper is one of the machine's processes: a power cut that left it would be none.
func TestKeeperIsKnown(t *testing.T) {
	d := disk{"/d/m1"}
	args := keeperArgs(d, []string{"/x/cgroup.procs"}, nspawnArgs(Machine{"m1", "10.10.1.1"}, d, "flotilla-lab-m1", Host{}))
	if !boots(args, d.root()) {
		t.Errorf("we would not know our own process again: %v", args)
	}
}
