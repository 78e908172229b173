package etcdctl

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flotilla/internal/applet"
	"flotilla/internal/kv/member/membertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"etcdctl": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(Applet().Run(ctx, applet.Env{
				Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv,
			}))
		},
	})
}

// Every script runs against the same member; each keeps to keys of its own.
func TestScripts(t *testing.T) {
	url := membertest.Start(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("URL", url)
			env.Setenv("ETCDCTL_ENDPOINTS", url)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": wantCode,
			"soon": soon,
			"stir": stir,
		},
	})
}

// wantCode is "code N COMMAND...": runs the command and wants it to end with exit
// code N.
func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %s, want exit code %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// soon is "soon FILE TEXT...": waits until the file contains each text.
func soon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: soon FILE TEXT...")
	}
	for _, text := range args[1:] {
		until(ts, args[0], text, func() {})
	}
}

// stir is "stir FILE TEXT KEY VALUE": sets the key until the file contains the
// text, which is when the watch that writes it has begun.
func stir(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: stir FILE TEXT KEY VALUE")
	}
	until(ts, args[0], args[1], func() { ts.Exec("etcdctl", "set", args[2], args[3]) })
}

func until(ts *testscript.TestScript, file, text string, do func()) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		content, _ := os.ReadFile(ts.MkAbs(file))
		if strings.Contains(string(content), text) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never contained %q:\n%s", file, text, content)
		}
		do()
		time.Sleep(20 * time.Millisecond) // between looks at the file
	}
}

// quietEnv is an environment without any store in it.
func quietEnv(t *testing.T, args ...string) (applet.Env, *strings.Builder, *strings.Builder) {
	var out, errs strings.Builder
	home := t.TempDir()
	return applet.Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		LookupEnv: func(k string) (string, bool) {
			return map[string]string{"HOME": home}[k], k == "HOME"
		},
	}, &out, &errs
}

// Without any word on where the store is, the one of a local "flotilla up" counts.
func TestFindsLocalUp(t *testing.T) {
	env, out, errs := quietEnv(t, "ls")
	run := filepath.Join(env.Getenv("HOME"), ".local/state/flotilla/current/run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "client-urls"), fmt.Append(nil, membertest.Start(t), "\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := Applet().Run(t.Context(), env); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}
