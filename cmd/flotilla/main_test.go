package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flotilla/internal/supervisor"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"flotilla":         main,
		"fleetctl":         main,
		"etcdctl":          main,
		"locksmithctl":     main,
		"coreos-cloudinit": main,
	})
}

// The programs as a person uses them: each file of testdata/script is a story.
func TestScripts(t *testing.T) {
	testscript.Run(t, params(t, "testdata/script/*.txtar"))
}

// params is what the scripts of a pattern run with.
func params(t *testing.T, pattern string) testscript.Params {
	files, _ := filepath.Glob(pattern) // the pattern is a good one
	return testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			// Sockets have short addresses: the work directory of a test is too long.
			home, err := os.MkdirTemp("", "fl")
			if err != nil {
				return err
			}
			env.Defer(func() { endSupervisors(t, home) })
			env.Setenv("HOME", home)
			env.Setenv("XDG_STATE_HOME", home)
			env.Setenv("DIR", filepath.Join(home, "d"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfile": waitFile,
			"holdport": holdPort,
			"freeport": freePort,
			"bigfile":  bigFile,
			"retry":    retry,
			"code":     wantCode,
			"issue":    issue,
			"dns":      serveZone,
		},
	}
}

// endSupervisors ends what a failed script left running, and removes its files.
func endSupervisors(t *testing.T, home string) {
	var dirs []string
	for _, up := range []string{"d", "flotilla/up"} { // --dir, and where it is by rule
		found, err := filepath.Glob(filepath.Join(home, up, "machines", "*", "sv"))
		if err != nil {
			t.Error(err)
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		c := supervisor.Dial(dir)
		if _, err := c.Self(context.Background()); err != nil {
			continue // it has ended, as it should
		}
		if err := c.Kill(context.Background()); err != nil {
			t.Errorf("end the supervisor in %s: %v", dir, err)
		}
	}
	os.RemoveAll(home)
}

// waitfile FILE waits until the file exists, 60 s at most.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile FILE")
	}
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := os.Stat(path); err == nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	ts.Fatalf("%s does not appear", path)
}

// retry COMMAND [ARGS...] runs a command until it succeeds, 60 s at most: for what
// the cluster is to become by itself.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: retry COMMAND [ARGS...]")
	}
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err = ts.Exec(args[0], args[1:]...); (err == nil) != neg {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	ts.Fatalf("%v: still %v", args, err)
}

// holdport VAR listens on a free port of loopback until the end of the script and
// puts the address into VAR.
func holdPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: holdport VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// freeport VAR... puts addresses of loopback that nobody uses now into variables.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR...")
	}
	for _, name := range args { // all are held until all are found, so that they differ
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close()
		ts.Setenv(name, l.Addr().String())
	}
}

// bigfile FILE writes a unit file of 2 MB.
func bigFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: bigfile FILE")
	}
	b := []byte("[Service]\nExecStart=/bin/true\n")
	for len(b) < 2<<20 {
		b = append(b, "Environment=FILL=0123456789012345678901234567890123456789\n"...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}
