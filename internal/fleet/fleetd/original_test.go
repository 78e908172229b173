package fleetd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

// buildOriginal builds the unmodified fleetctl 1.0.0 and returns the directory it is
// in. Its sources come through the module proxy, once; then Go's caches have them.
func buildOriginal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("testdata", "original", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", "bin/fleetctl",
		"-ldflags=-X github.com/coreos/fleet/version.Version=1.0.0", "github.com/coreos/fleet/fleetctl")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the original fleetctl: %v\n%s\nIts sources come through the Go module proxy ('go env GOPROXY'): run this test once where that is within reach.", err, out)
	}
	return filepath.Join(dir, "bin")
}

// The original fleetctl, unmodified, drives a cluster of three machines. Scripts have
// these commands besides testscript's:
//
//	exits CODE fleetctl ...   as exec, with that exit code
//	settled UNIT STATE        go on when a machine reports the unit to be so
//	gone UNIT                 go on when no machine reports the unit
//	fails UNIT                from now on the unit fails as soon as it is started
func TestOriginalFleetctl(t *testing.T) {
	bin := buildOriginal(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/original",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			c := newCluster(env.T().(testing.TB), 3, nil)
			env.Values[clusterKey{}] = c
			env.Setenv("PATH", bin)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("FLEETCTL_ENDPOINT", "unix://"+filepath.Join(c.first().dir, "s"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "settled": cmdSettled, "gone": cmdGone, "fails": cmdFails,
		},
	})
}

type clusterKey struct{}

func clusterOf(ts *testscript.TestScript) *cluster { return ts.Value(clusterKey{}).(*cluster) }

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func cmdSettled(ts *testscript.TestScript, _ bool, args []string) {
	m := clusterOf(ts).first()
	m.wait(strings.Join(args, " "), func() bool {
		for _, s := range m.states(args[0]) {
			if s.SystemdActiveState == args[1] {
				return true
			}
		}
		return false
	})
}

func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	m := clusterOf(ts).first()
	m.wait(fmt.Sprint(args, " is gone"), func() bool { return len(m.states(args[0])) == 0 })
}

func cmdFails(ts *testscript.TestScript, _ bool, args []string) {
	for _, m := range clusterOf(ts).machines {
		m.units.Script(args[0], failingScript())
	}
}

// failingScript is an init system on which each start of the unit fails.
func failingScript() unitfake.Script { return unitfake.Script{Start: unit.Failed} }
