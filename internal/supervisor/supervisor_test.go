package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/applet"
	"flotilla/internal/supervisor/proc"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unittest"
)

// TestMain lets the test binary be the supervisor's own program: Ensure starts it
// as it would start flotilla.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervisor" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := Applet().Run(ctx, applet.Env{
			Args: os.Args[2:], Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv,
		})
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

const testLimit = 30 * time.Second

// process starts a supervisor in a process of its own, and ends it with the test.
func process(t *testing.T, o Options) (*Client, string) {
	t.Helper()
	dir := shortTempDir(t)
	c := ensure(t, dir, o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testLimit)
		defer cancel()
		if err := c.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "supervisor.log")); t.Failed() && err == nil {
			t.Logf("supervisor.log:\n%s", text)
		}
	})
	return c, dir
}

func ensure(t *testing.T, dir string, o Options) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	c, err := Ensure(ctx, "/proc/self/exe", dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inProcess runs a supervisor in the test's own process.
func inProcess(t *testing.T, cfg Config) *Supervisor {
	t.Helper()
	cfg.Subreaper = true // a forking service's daemon is ours to wait for
	s := New(cfg)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("it ended at once: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// shortTempDir: the path of a socket is short. Units of any user can reach it.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConformance(t *testing.T) {
	t.Run("InProcess", func(t *testing.T) {
		outlast(syscall.SIGHUP) // nohup make test: the services would be born ignoring it
		unittest.Run(t, func(t *testing.T) unittest.Subject {
			s := inProcess(t, Config{Dir: shortTempDir(t)})
			return unittest.Subject{Manager: s, Log: s, Dir: shortTempDir(t)}
		})
	})
	for name, o := range map[string]Options{"Socket": {}, "SocketNoCgroup": {NoCgroup: true}} {
		t.Run(name, func(t *testing.T) {
			unittest.Run(t, func(t *testing.T) unittest.Subject {
				c, _ := process(t, o)
				return unittest.Subject{Manager: c, Log: c, Dir: shortTempDir(t)}
			})
		})
	}
}

// run sends jobs and wants all of them done.
func run(t *testing.T, m unit.Manager, list ...unit.Job) {
	t.Helper()
	for o := range m.Run(t.Context(), list) {
		if o.Err != nil || o.Result != unit.Done {
			t.Fatalf("%s %s: %s %v", o.Job.Kind, o.Job.Unit, o.Result, o.Err)
		}
	}
}

// install installs units from "NAME: line; line" texts.
func install(t *testing.T, m unit.Manager, name string, lines ...string) {
	t.Helper()
	if err := m.Install(t.Context(), name, strings.Join(lines, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, m unit.Manager, name string) unit.Status {
	t.Helper()
	list, err := m.Status(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func wantStatus(t *testing.T, m unit.Manager, name, active string) unit.Status {
	t.Helper()
	var st unit.Status
	err := unittest.Eventually(t.Context(), func() error {
		st = status(t, m, name)
		if st.Active+"/"+st.Sub != active {
			return fmt.Errorf("%s is %s/%s, want %s", name, st.Active, st.Sub, active)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v: %+v\n%s", err, st, strings.Join(messages(t, m.(unit.LogReader), name), "\n"))
	}
	return st
}

func messages(t *testing.T, r unit.LogReader, name string) []string {
	t.Helper()
	var out []string
	err := r.ReadLog(t.Context(), unit.LogQuery{Units: []string{name}, Lines: -1}, func(e unit.LogEntry) error {
		out = append(out, e.Message)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantMessage(t *testing.T, r unit.LogReader, name, text string) {
	t.Helper()
	err := unittest.Eventually(t.Context(), func() error {
		if got := messages(t, r, name); !slices.Contains(got, text) {
			return fmt.Errorf("no line %q in\n%s", text, strings.Join(got, "\n"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// crash kills the supervisor and nothing else, and waits until it is gone.
func crash(t *testing.T, c *Client) {
	t.Helper()
	self, err := c.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(self.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := awaitEnd(t.Context(), self.PID); err != nil {
		t.Fatal(err)
	}
}

func alive(pid int) bool {
	st, err := proc.Lookup(pid)
	return err == nil && !st.Ended()
}

func waitFile(t *testing.T, name string) string {
	t.Helper()
	var data []byte
	err := unittest.Eventually(t.Context(), func() (err error) {
		data, err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestUnitsSurviveTheSupervisor(t *testing.T) {
	for name, o := range map[string]Options{"Cgroup": {}, "NoCgroup": {NoCgroup: true}} {
		t.Run(name, func(t *testing.T) { testSurvive(t, o) })
	}
}

func testSurvive(t *testing.T, o Options) {
	c, dir := process(t, o)
	work := shortTempDir(t)
	install(t, c, "talk.service", "[Service]",
		"ExecStart=/bin/sh -c 'echo before; while ! test -e "+work+"/go; do sleep 0.02; done; echo meanwhile; : >"+work+"/said; exec sleep 1000'")
	install(t, c, "stay.service", "[Service]", "Type=oneshot", "RemainAfterExit=yes", "ExecStart=/bin/true",
		"ExecStop=/bin/sh -c 'echo stopped >"+work+"/stopped'")
	install(t, c, "group.service", "[Service]", "KillMode=control-group",
		"ExecStart=/bin/sh -c 'sleep 1000 & echo $$! >"+work+"/child; wait'")
	install(t, c, "again.service", "[Service]", "Restart=on-failure", "RestartSec=0", "ExecStart=/bin/sleep 1000")
	var start []unit.Job
	names := []string{"talk.service", "stay.service", "group.service", "again.service"}
	for _, n := range names {
		start = append(start, unit.Job{Kind: unit.Start, Unit: n})
	}
	run(t, c, start...)
	wantMessage(t, c, "talk.service", "before")
	child, _ := strconv.Atoi(waitFile(t, work+"/child"))
	before := map[string]unit.Status{}
	for _, n := range names {
		before[n] = status(t, c, n)
	}

	crash(t, c)
	for _, n := range names {
		if pid := before[n].MainPID; pid != 0 && !alive(pid) {
			t.Errorf("%s ended with the supervisor", n)
		}
	}
	if err := os.WriteFile(work+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFile(t, work+"/said")
	if err := syscall.Kill(before["again.service"].MainPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	c = ensure(t, dir, o)
	wantMessage(t, c, "talk.service", "meanwhile")
	for _, n := range []string{"talk.service", "stay.service", "group.service"} {
		was, is := before[n], status(t, c, n)
		if was.MainPID != is.MainPID || was.Sub != is.Sub || !was.Since.Equal(is.Since) {
			t.Errorf("%s was %+v, is %+v", n, was, is)
		}
	}
	// What ended meanwhile is treated as if it ended now.
	if err := unittest.Eventually(t.Context(), func() error {
		if st := status(t, c, "again.service"); st.Active != "active" || st.MainPID == before["again.service"].MainPID {
			return fmt.Errorf("again.service: %+v", st)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// Adopted units can be stopped, with all their processes.
	run(t, c, unit.Job{Kind: unit.Stop, Unit: "stay.service"}, unit.Job{Kind: unit.Stop, Unit: "group.service"})
	waitFile(t, work+"/stopped")
	if alive(child) {
		t.Error("a process of group.service outlived its stop")
	}
	// The end of an adopted process is seen.
	if err := syscall.Kill(before["talk.service"].MainPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, "talk.service", "failed/failed")
}

// Shutdown leaves no process behind, whatever the units did to get away.
func TestShutdownLeavesNothing(t *testing.T) {
	for name, o := range map[string]Options{"Cgroup": {}, "NoCgroup": {NoCgroup: true}} {
		t.Run(name, func(t *testing.T) {
			c, dir := process(t, o)
			work := shortTempDir(t)
			install(t, c, "plain.service", "[Service]", "ExecStart=/bin/sleep 1000")
			install(t, c, "left.service", "[Service]", "KillMode=process",
				"ExecStart=/bin/sh -c 'sleep 1000 & echo $$! >"+work+"/left; exec sleep 1000'")
			flee := "sleep 1000 & echo $! >" + work + "/fled\n"
			if err := os.WriteFile(work+"/flee", []byte(flee), 0o600); err != nil {
				t.Fatal(err)
			}
			install(t, c, "fled.service", "[Service]",
				"ExecStart=/bin/sh -c 'env -i setsid /bin/sh "+work+"/flee; exec sleep 1000'")
			install(t, c, "stubborn.service", "[Service]", "TimeoutStopSec=200ms",
				"ExecStart=/bin/sh -c 'trap \"\" TERM; echo $$$$ >"+work+"/stubborn; while :; do sleep 0.05; done'")
			var pids []int
			for _, n := range []string{"plain", "left", "fled", "stubborn"} {
				run(t, c, unit.Job{Kind: unit.Start, Unit: n + ".service"})
				pids = append(pids, status(t, c, n+".service").MainPID)
			}
			for _, n := range []string{"left", "fled", "stubborn"} {
				pid, _ := strconv.Atoi(waitFile(t, work+"/"+n))
				pids = append(pids, pid)
			}
			if err := c.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				if pid == 0 || alive(pid) {
					t.Errorf("process %d is left: %s", pid, proc.Cmdline(pid))
				}
			}
			for _, pattern := range []string{"run/out/*", "run/notify/*", "run/supervisor.sock", "state/*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			}
			if _, err := c.Self(t.Context()); err == nil {
				t.Error("the supervisor still answers")
			}
		})
	}
}

// Kill is a power loss: the units are gone at once, and dead after the next boot.
func TestKillIsAPowerLoss(t *testing.T) {
	c, dir := process(t, Options{})
	install(t, c, "run.service", "[Service]", "Restart=always", "ExecStart=/bin/sleep 1000",
		"ExecStop=/bin/sh -c 'exit 1'")
	run(t, c, unit.Job{Kind: unit.Start, Unit: "run.service"})
	pid := status(t, c, "run.service").MainPID
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("the unit's process is left")
	}
	c = ensure(t, dir, Options{})
	if st := status(t, c, "run.service"); st.Active != "inactive" || st.Load != "loaded" {
		t.Errorf("after the next start: %+v", st)
	}
}

// Serve's end by its context leaves the units running.
func TestCancelledServeStopsNothing(t *testing.T) {
	dir := shortTempDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Config{Dir: dir})
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Serve(ctx, func() { close(ready) }) }()
	<-ready
	install(t, s, "run.service", "[Service]", "ExecStart=/bin/sleep 1000")
	run(t, s, unit.Job{Kind: unit.Start, Unit: "run.service"})
	pid := status(t, s, "run.service").MainPID
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Status(t.Context(), "run.service"); !errors.Is(err, ErrEnded) {
		t.Errorf("a call after the end: %v", err)
	}
	next := inProcess(t, Config{Dir: dir})
	if st := status(t, next, "run.service"); st.MainPID != pid || !alive(pid) {
		t.Errorf("process %d was adopted as %+v", pid, st)
	}
}

func TestOneSupervisorADirectory(t *testing.T) {
	dir := shortTempDir(t)
	inProcess(t, Config{Dir: dir})
	err := New(Config{Dir: dir}).Serve(t.Context(), func() { t.Error("ready") })
	if !errors.Is(err, ErrRunning) {
		t.Errorf("got %v", err)
	}
}

// Ten thousand lines come through whole and in order, and the newest can be had
// alone.
func TestManyLines(t *testing.T) {
	const n = 10000
	s := inProcess(t, Config{Dir: shortTempDir(t)})
	install(t, s, "many.service", "[Service]", "Type=oneshot", "SyslogIdentifier=counter",
		"ExecStart=/bin/sh -c 'i=0; while [ $$i -lt "+strconv.Itoa(n)+" ]; do i=$$((i+1)); echo \"<4>line $$i\"; done'")
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	followed := make(chan string, 1)
	go func() {
		i := 0
		err := s.ReadLog(ctx, unit.LogQuery{Units: []string{"many.service"}, Follow: true}, func(e unit.LogEntry) error {
			if e.Ident != "counter" {
				return nil
			}
			if i++; e.Message != "line "+strconv.Itoa(i) || e.Priority != 4 || e.PID == 0 {
				return fmt.Errorf("entry %d is %+v", i, e)
			}
			if i == n {
				cancel()
			}
			return nil
		})
		followed <- fmt.Sprint(i, err)
	}()
	run(t, s, unit.Job{Kind: unit.Start, Unit: "many.service"})
	if got := <-followed; got != fmt.Sprint(n, nil) {
		t.Errorf("followed: %s", got)
	}
	var last []string
	err := s.ReadLog(t.Context(), unit.LogQuery{Units: []string{"many.service"}, Lines: 4}, func(e unit.LogEntry) error {
		last = append(last, e.Message)
		return nil
	})
	want := []string{"line 9999", "line 10000", "many.service: Deactivated successfully.", "Finished many.service."}
	if err != nil || !slices.Equal(last, want) {
		t.Errorf("the last lines are %q, %v", last, err)
	}
}

// Everything that cannot be honoured is named at once, with its line, and nothing
// is written.
func TestRefusalNamesEveryDirective(t *testing.T) {
	s := inProcess(t, Config{Dir: shortTempDir(t)})
	err := s.Install(t.Context(), "a.service", strings.Join([]string{
		"[Unit]", "Description=A", "Upholds=b.service",
		"[Service]", "ExecStart=/bin/true", "PrivateTmp=yes", "Restrat=always", "TimeoutSec=soon", "X-Ours=1",
		"[X-Fleet]", "Global=true", "[Install]", "WantedBy=multi-user.target", "",
	}, "\n"))
	want := `install a.service: the supervisor cannot run it:
a.service: line 3: Upholds= needs systemd: the supervisor cannot do it
a.service: line 6: PrivateTmp= needs systemd: the supervisor cannot do it
a.service: line 7: Restrat= is no directive of [Service] that the supervisor knows; did you mean Restart=?
a.service: line 8: TimeoutSec= "soon" is no time span: want a number and a unit such as s, min or h at "soon"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if !errors.Is(err, unit.ErrRefused) {
		t.Error("it is not a unit.ErrRefused")
	}
	if have, _ := s.Installed(t.Context()); len(have) != 0 {
		t.Errorf("installed: %v", have)
	}
	if err := s.Install(t.Context(), "a.timer", "[Timer]\nOnCalendar=daily\n"); err == nil || !strings.Contains(err.Error(), ".timer") {
		t.Errorf("a timer: %v", err)
	}
}

// A refusal is one for a client too, and what may pass is none.
func TestRefusalOverTheSocket(t *testing.T) {
	dir := shortTempDir(t)
	s := inProcess(t, Config{Dir: dir})
	l, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Answer(l) }()
	c := Dial(dir)
	defer c.Close()
	for _, bad := range []struct{ name, text string }{
		{"a.service", "[Service]\nExecStart=/bin/true\nPrivateTmp=yes\n"},
		{"a.service", "no section\n"},
		{"a b.service", "[Service]\nExecStart=/bin/true\n"},
	} {
		here, there := s.Install(t.Context(), bad.name, bad.text), c.Install(t.Context(), bad.name, bad.text)
		if !errors.Is(here, unit.ErrRefused) || !errors.Is(there, unit.ErrRefused) || here.Error() != there.Error() {
			t.Errorf("%s %q: %v here, %v there", bad.name, bad.text, here, there)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "units")); err != nil {
		t.Fatal(err)
	}
	if err := c.Install(t.Context(), "a.service", "[Service]\nExecStart=/bin/true\n"); err == nil || errors.Is(err, unit.ErrRefused) {
		t.Errorf("without a directory: %v", err)
	}
}

// As in systemd's journal a simple service is first started and then prints.
func TestStartedComesBeforeOutput(t *testing.T) {
	s := inProcess(t, Config{Dir: shortTempDir(t)})
	for i := range 20 {
		name := fmt.Sprintf("talk%d.service", i)
		install(t, s, name, "[Service]", "ExecStart=/bin/echo hello")
		run(t, s, unit.Job{Kind: unit.Start, Unit: name})
		wantMessage(t, s, name, "hello")
		got := messages(t, s, name)
		if want := "Started " + name + "."; got[0] != want {
			t.Fatalf("the log is %q, want %q first", got, want)
		}
	}
}

// A unit that is through is unloaded as soon as nobody names it.
func TestUnload(t *testing.T) {
	s := inProcess(t, Config{Dir: shortTempDir(t)})
	install(t, s, "keep.service", "[Unit]", "After=named.service", "[Service]", "ExecStart=/bin/sleep 1000")
	run(t, s, unit.Job{Kind: unit.Start, Unit: "keep.service"})
	for _, name := range []string{"named.service", "alone.service"} {
		install(t, s, name, "[Service]", "Type=oneshot", "SuccessExitStatus=7", "ExecStart=/bin/sh -c 'exit 7'")
		run(t, s, unit.Job{Kind: unit.Start, Unit: name})
	}
	if st := status(t, s, "named.service"); st.ExitCode != 7 || st.Since.IsZero() {
		t.Errorf("a unit that is named: %+v", st)
	}
	if st := status(t, s, "alone.service"); st.ExitCode != 0 || !st.Since.IsZero() || st.Active != "inactive" {
		t.Errorf("a unit that nobody names: %+v", st)
	}
	run(t, s, unit.Job{Kind: unit.Stop, Unit: "keep.service"})
	if st := status(t, s, "named.service"); st.ExitCode != 0 || !st.Since.IsZero() {
		t.Errorf("a unit that nobody names any more: %+v", st)
	}
}

// What the starter has open, such as a lock, is not held by the supervisor nor by its
// services.
func TestInheritedFilesAreClosed(t *testing.T) {
	stray := filepath.Join(t.TempDir(), "stray")
	fd, err := unix.Open(stray, unix.O_RDWR|unix.O_CREAT, 0o600) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c, _ := process(t, Options{})
	install(t, c, "run.service", "[Service]", "ExecStart=/bin/sleep 1000")
	run(t, c, unit.Job{Kind: unit.Start, Unit: "run.service"})
	self, err := c.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{self.PID, status(t, c, "run.service").MainPID} {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(links) == 0 {
			t.Fatalf("files of process %d: %q, %v", pid, links, err)
		}
		for _, l := range links {
			if target, _ := os.Readlink(l); target == stray {
				t.Errorf("process %d (%s) has %s open", pid, proc.Cmdline(pid), stray)
			}
		}
	}
}
