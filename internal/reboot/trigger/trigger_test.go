package trigger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/systemd/updateengine"
)

func TestDecide(t *testing.T) {
	need := updateengine.Status{Operation: updateengine.NeedReboot, NewVersion: "9.1"}
	for _, c := range []struct {
		name  string
		facts Facts
		want  Need
	}{
		{"nobody says anything", Facts{}, Need{}},
		{"the engine is idle", Facts{Engine: updateengine.Status{Operation: "UPDATE_STATUS_IDLE"}}, Need{}},
		{"the engine downloads", Facts{Engine: updateengine.Status{Operation: "UPDATE_STATUS_DOWNLOADING", NewVersion: "9.1"}}, Need{}},
		{"the engine is done", Facts{Engine: need}, Need{Engine, "the update engine has installed 9.1"}},
		{"no version", Facts{Engine: updateengine.Status{Operation: updateengine.NeedReboot}}, Need{Engine, "the update engine has installed an update"}},
		{"the file alone", Facts{Required: true}, Need{Required, "updated packages need it"}},
		{"with packages", Facts{Required: true, Packages: []string{"linux-image", "libc6"}}, Need{Required, "updated: linux-image, libc6"}},
		{"many", Facts{Required: true, Packages: strings.Split("a b c d e f g", " ")}, Need{Required, "updated: a, b, c, d, e and 2 more"}},
		{"packages without the file", Facts{Packages: []string{"libc6"}}, Need{}},
		{"needs-restarting", Facts{Restart: true, Updated: []string{"kernel"}}, Need{Restart, "updated: kernel"}},
		{"asked", Facts{Asked: true, AskedWhy: "new\n disk \n"}, Need{Asked, "new disk"}},
		{"asked without words", Facts{Asked: true}, Need{Asked, "somebody has asked for it with locksmithctl"}},
		{"several", Facts{Asked: true, AskedWhy: "now", Engine: need, Required: true}, Need{Asked, "now"}},
	} {
		if got := Decide(c.facts); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestParseNeedsRestarting(t *testing.T) {
	for _, c := range []struct {
		name string
		exit int
		out  string
		need bool
		pkgs []string
		err  string
	}{
		{"no", 0, "No core libraries or services have been updated since boot-up.\nReboot should not be necessary.\n", false, nil, ""},
		{"dnf", 1, "Core libraries or services have been updated since boot-up:\n  * kernel\n  * systemd\n\nReboot is required to fully utilize these updates.\nMore information: https://access.redhat.com/solutions/27943\n", true, []string{"kernel", "systemd"}, ""},
		{"yum", 1, "Core libraries or services have been updated:\n  kernel -> 3.10.0\n  glibc -> 2.17\n\nReboot is required to ensure that your system benefits from these updates.\n", true, []string{"kernel", "glibc"}, ""},
		{"a dnf without it", 1, "No such command: needs-restarting. Please use /usr/bin/dnf --help\n", false, nil, "it ended with status 1: No such command: needs-restarting. Please use /usr/bin/dnf --help"},
		{"another dnf without it", 2, "Unknown argument \"needs-restarting\"\n", false, nil, "it ended with status 2: Unknown argument \"needs-restarting\""},
		{"killed", -1, "", false, nil, "it ended with status -1: without a word"},
	} {
		need, pkgs, err := parseNeedsRestarting(c.exit, c.out)
		if need != c.need || !cmp.Equal(pkgs, c.pkgs) || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %t, %q, %v", c.name, need, pkgs, err)
		}
	}
}

func FuzzParseNeedsRestarting(f *testing.F) {
	f.Add(1, "  * kernel\nReboot is required\n")
	f.Add(1, "  \n  * \nReboot is required")
	f.Fuzz(func(t *testing.T, exit int, out string) {
		need, pkgs, err := parseNeedsRestarting(exit, out)
		if need && err != nil || !need && len(pkgs) > 0 {
			t.Errorf("%t, %q, %v", need, pkgs, err)
		}
		for _, p := range append(pkgs, parsePackages(out)...) {
			if p == "" || strings.ContainsAny(p, "\n") {
				t.Errorf("package %q", p)
			}
		}
	})
}

func TestFind(t *testing.T) {
	has := func(programs ...string) func(string) (string, error) {
		return func(p string) (string, error) {
			for _, have := range programs {
				if have == p {
					return "/usr/bin/" + p, nil
				}
			}
			return "", os.ErrNotExist
		}
	}
	for _, c := range []struct {
		have []string
		want string
	}{
		{nil, ""},
		{[]string{"dnf"}, "/usr/bin/dnf needs-restarting -r"},
		{[]string{"dnf", "needs-restarting"}, "/usr/bin/needs-restarting -r"},
	} {
		if got := strings.Join(Find(has(c.have...)), " "); got != c.want {
			t.Errorf("%v: %q, want %q", c.have, got, c.want)
		}
	}
}

// run runs a watcher until the test ends.
func run(t *testing.T, cfg Config) *Watcher {
	t.Helper()
	w := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-ready
	return w
}

// until waits for a need.
func until(t *testing.T, w *Watcher, want Need) {
	t.Helper()
	for deadline := time.After(10 * time.Second); w.Need() != want; {
		select {
		case <-w.Changed():
		case <-deadline:
			t.Fatalf("the need is %+v, want %+v", w.Need(), want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Files are noticed when they come and when they go, without polling.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	required, asked := filepath.Join(dir, "reboot-required"), filepath.Join(dir, "need-reboot")
	write(t, required, "*** System restart required ***\n")
	w := run(t, Config{RequiredFile: required, AskedFile: asked})
	if got := w.Need(); got.Source != Required {
		t.Errorf("at the start: %+v", got)
	}
	write(t, required+".pkgs", "libc6\nlinux-base\nlibc6\n")
	until(t, w, Need{Required, "updated: libc6, linux-base"})
	write(t, asked, "a new disk")
	until(t, w, Need{Asked, "a new disk"})
	if err := w.Withdraw(); err != nil {
		t.Fatal(err)
	}
	until(t, w, Need{Required, "updated: libc6, linux-base"})
	os.Remove(required)
	until(t, w, Need{})
}

func TestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	command := filepath.Join(dir, "needs-restarting")
	script := "#!/bin/sh\n[ \"$LC_ALL\" = C ] && [ \"$1\" = -r ] || exit 9\n[ -e " + dir + "/new ] || exit 0\nprintf '  * kernel\\n\\nReboot is required\\n'; exit 1\n"
	if err := os.WriteFile(command, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w := run(t, Config{Command: []string{command, "-r"}, CommandEvery: 20 * time.Millisecond})
	write(t, filepath.Join(dir, "new"), "")
	until(t, w, Need{Restart, "updated: kernel"})
}

// A command that leaves something behind which holds its output open has answered all the
// same.
func TestCommandLeavesSomethingBehind(t *testing.T) {
	t.Parallel()
	for exit, want := range map[int]bool{0: false, 1: true} {
		w := New(Config{Command: []string{"/bin/sh", "-c", fmt.Sprintf("sleep 30 & echo 'Reboot is required'; exit %d", exit)}})
		began := time.Now()
		need, _, err := w.ask(t.Context())
		if took := time.Since(began); need != want || err != nil || took > 15*time.Second {
			t.Errorf("exit status %d: %t, %v, after %v", exit, need, err, took)
		}
	}
}

// fakeEngine fails to be watched some times.
type fakeEngine struct {
	fails int
	tries []time.Time
	say   chan updateengine.Status
}

func (e *fakeEngine) Status(context.Context) (updateengine.Status, error) {
	return updateengine.Status{}, updateengine.ErrAbsent
}

func (e *fakeEngine) Watch(ctx context.Context, ready func(), fn func(updateengine.Status), _ func(error)) error {
	e.tries = append(e.tries, time.Now())
	if len(e.tries) <= e.fails {
		return errors.New("no bus")
	}
	ready()
	for {
		select {
		case s := <-e.say:
			fn(s)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A bus that is away is tried again, ever more rarely; nothing that the engine says
// afterwards is missed.
func TestEngineBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeEngine{fails: 8, say: make(chan updateengine.Status)}
		w := New(Config{Engine: e})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.watchEngine(ctx) })
		e.say <- updateengine.Status{Operation: updateengine.NeedReboot, NewVersion: "2"}
		<-w.Changed()
		cancel()
		wg.Wait()
		if got := w.Need().Source; got != Engine {
			t.Errorf("need of %q", got)
		}
		var pauses []time.Duration
		for i := 1; i < len(e.tries); i++ {
			pauses = append(pauses, e.tries[i].Sub(e.tries[i-1]))
		}
		s := time.Second
		if want := []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}; !cmp.Equal(pauses, want) {
			t.Errorf("pauses %v", pauses)
		}
	})
}
