package systemd_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/fault"
	"flotilla/internal/journal"
	"flotilla/internal/systemd"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unittest"
)

// TestOnSystemd runs on two sides: here it boots a machine and runs itself on it,
// there it is the tests that need a systemd.
func TestOnSystemd(t *testing.T) {
	if !inside() {
		t.Log(runOnMachine(t, "-test.run="+chosen(), "-test.v", "-test.timeout=6m"))
		return
	}
	t.Run("conformance", func(t *testing.T) {
		unittest.Run(t, func(t *testing.T) unittest.Subject { return subject(t, systemd.Config{}, systemd.New) })
	})
	t.Run("conformance-message-bus", func(t *testing.T) {
		unittest.Run(t, func(t *testing.T) unittest.Subject { return subject(t, systemd.Config{}, systemd.NewOnMessageBus) })
	})
	t.Run("conformance-user", func(t *testing.T) {
		cfg := systemd.Config{User: true, RuntimeDir: "/run/user/0"}
		tell(t, "systemctl", "start", "user@0.service")
		unittest.Run(t, func(t *testing.T) unittest.Subject { return subject(t, cfg, systemd.New) })
	})
	for name, test := range map[string]func(*testing.T, *systemd.Manager){
		"native":          looksNative,
		"no-reload":       startsWithoutReload,
		"foreign":         refusesForeign,
		"asked":           asksWithoutLoading,
		"enable":          enablesInstallSections,
		"unknown-first":   findsWhatWasUnknown,
		"reexec":          survivesReexec,
		"reexec-bus":      survivesReexecBehindBus,
		"bus-restart":     survivesBusRestart,
		"no-permission":   saysWhatIsMissing,
		"reload-between":  survivesReload,
		"links-repaired":  repairsLinks,
		"restarted-agent": knowsItsUnitsAgain,
		"other-types":     runsOtherTypes,
		"drop-ins":        keepsTheMachinesDropIns,
		"timer":           firesTimers,
		"adopt-etc":       adoptsFromEtc,
		"adopt-usr":       adoptsFromUsr,
		"adopt-instance":  adoptsAnInstance,
		"adopt-refused":   refusesToAdopt,
		"odd-names":       tellsOddNames,
		"guard-relieved":  relievesTheGuard,
	} {
		t.Run(name, func(t *testing.T) {
			s := subject(t, systemd.Config{}, systemd.New)
			m := s.Manager.(*systemd.Manager)
			t.Cleanup(func() { clean(t, m) })
			test(t, m)
		})
	}
}

// chosen is what -run names, if that is a part of TestOnSystemd, and else all of it.
func chosen() string {
	if run := flag.Lookup("test.run").Value.String(); strings.Contains(run, "TestOnSystemd/") {
		return run
	}
	return "^TestOnSystemd$"
}

func subject(t *testing.T, cfg systemd.Config, open func(systemd.Config) *systemd.Manager) unittest.Subject {
	m := open(cfg)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	// Units run as other users too.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return unittest.Subject{Manager: m, Log: journal.New(journal.Config{User: cfg.User}), Dir: dir}
}

// tell runs a command that must succeed and returns what it prints. ("is-enabled"
// answers with its exit code too.)
func tell(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil && args[1] != "is-enabled" {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

const sleeper = "[Unit]\nDescription=Sleeps\n\n[Service]\nExecStart=/bin/sleep 1000\n"

func install(t testing.TB, m *systemd.Manager, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := m.Install(t.Context(), name, text); err != nil {
			t.Fatal(err)
		}
	}
}

func jobs(kind unit.Kind, names ...string) []unit.Job {
	var out []unit.Job
	for _, n := range names {
		out = append(out, unit.Job{Kind: kind, Unit: n})
	}
	return out
}

func run(t testing.TB, m *systemd.Manager, kind unit.Kind, names ...string) {
	t.Helper()
	for o := range m.Run(t.Context(), jobs(kind, names...)) {
		if o.Err != nil || o.Result != unit.Done {
			t.Fatalf("%s %s: %s, error %v", kind, o.Job.Unit, o.Result, o.Err)
		}
	}
}

func status(t testing.TB, m *systemd.Manager, name string) unit.Status {
	t.Helper()
	all, err := m.Status(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func clean(t testing.TB, m *systemd.Manager) {
	ctx := context.WithoutCancel(t.Context())
	have, err := m.Installed(ctx)
	if err != nil {
		t.Error(err)
	}
	for name := range have {
		for range m.Run(ctx, jobs(unit.Stop, name)) {
			continue
		}
		if err := m.Remove(ctx, name); err != nil {
			t.Error(err)
		}
	}
}

// The unit has its own name, its file is shown, and its log is found by the name.
func looksNative(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "hello.service")
	run(t, m, unit.Start, "hello.service")
	for args, want := range map[string]string{
		"systemctl cat hello":                        "# /run/systemd/system/hello.service\n" + sleeper,
		"systemctl status hello":                     "Active: active (running)",
		"systemctl is-enabled hello":                 "linked-runtime",
		"journalctl -u hello -o cat":                 "Started hello.service - Sleeps.",
		"readlink /run/systemd/system/hello.service": "/run/fleet/units/hello.service",
	} {
		if got := tell(t, strings.Fields(args)...); !strings.Contains(got, want) {
			t.Errorf("%s says\n%s\nwant\n%s", args, got, want)
		}
	}
	st := status(t, m, "hello.service")
	if st.Fragment != "/run/systemd/system/hello.service" || time.Since(st.Since) > time.Minute || st.Description != "Sleeps" {
		t.Errorf("status is %+v", st)
	}
}

// reloads counts systemd's reloads from now on.
func reloads(t *testing.T) *atomic.Int32 {
	t.Helper()
	var n atomic.Int32
	conn, err := dbus.Dial("unix:path=/run/systemd/private", dbus.WithSignalHandler(counter{&n}))
	if err == nil {
		err = conn.Auth(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &n
}

type counter struct{ n *atomic.Int32 }

func (c counter) DeliverSignal(_, name string, sig *dbus.Signal) {
	if name == "Reloading" && sig.Body[0] == true {
		c.n.Add(1)
	}
}

// New units, stopped units with a new text, removed and installed again: none of
// it costs a reload.
func startsWithoutReload(t *testing.T, m *systemd.Manager) {
	n := reloads(t)
	names := many(30)
	for i := range 3 {
		install(t, m, sleeper+fmt.Sprintf("# %d\n", i), names...)
		run(t, m, unit.Start, names...)
		for _, name := range names {
			if st := status(t, m, name); st.NeedReload || st.Active != "active" {
				t.Fatalf("round %d: %+v", i, st)
			}
		}
		run(t, m, unit.Stop, names...)
		if i == 1 {
			clean(t, m)
		}
	}
	if n.Load() != 0 {
		t.Errorf("%d reloads", n.Load())
	}
	if err := m.Reload(t.Context()); err != nil || n.Load() != 1 {
		t.Errorf("%d reloads after Reload, error %v", n.Load(), err)
	}
}

func many(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("many%03d.service", i))
	}
	return out
}

// A name that the machine uses is refused, whatever it uses it for, and nothing is
// written.
func refusesForeign(t *testing.T, m *systemd.Manager) {
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
	}
	write("/etc/systemd/system/theirs.service", sleeper)
	write("/run/systemd/system/theirs@.service", sleeper)
	if err := os.Symlink("/dev/null", "/etc/systemd/system/masked.service"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove("/etc/systemd/system/masked.service") })
	for name, want := range map[string]string{
		"theirs.service":   "install theirs.service: the machine has a unit file of its own at /etc/systemd/system/theirs.service",
		"theirs@1.service": "at /run/systemd/system/theirs@.service",
		"masked.service":   "at /etc/systemd/system/masked.service",
		"dbus.service":     "/lib/systemd/system/dbus.service",
		"tmp.mount":        "the machine has such a unit already, and it is active",
	} {
		err := m.Install(t.Context(), name, sleeper)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if have, err := m.Installed(t.Context()); err != nil || len(have) != 0 {
		t.Errorf("installed are %q, error %v", have, err)
	}
}

// A question about a unit that nobody has a file for does not make systemd load it, for
// which it would read all its directories again; the machine's own units are told.
func asksWithoutLoading(t *testing.T, m *systemd.Manager) {
	for _, name := range []string{"theirs.service", "theirs@.service"} {
		path := "/run/systemd/system/" + name
		if err := os.WriteFile(path, []byte(sleeper), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.AddMatchSignalContext(t.Context(), dbus.WithMatchMember("UnitNew")); err != nil {
		t.Fatal(err)
	}
	if call := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").Call("org.freedesktop.systemd1.Manager.Subscribe", 0); call.Err != nil {
		t.Fatal(call.Err)
	}
	loaded := make(chan *dbus.Signal, 100)
	conn.Signal(loaded)
	if st := status(t, m, "nobody.service"); st.Load != "not-found" || st.Active != "inactive" {
		t.Errorf("nobody's unit: %+v", st)
	}
	if st := status(t, m, "theirs.service"); st.Load != "loaded" || st.Active != "inactive" {
		t.Errorf("the machine's unit: %+v", st)
	}
	for s := range loaded {
		if s.Body[0] == "nobody.service" {
			t.Error("nobody's unit was loaded")
		}
		if s.Body[0] == "theirs.service" {
			break
		}
	}
	if st := status(t, m, "theirs@1.service"); st.Load != "loaded" {
		t.Errorf("an instance of the machine's template: %+v", st)
	}
	tell(t, "systemd-run", "--unit=passing", "sleep", "1000")
	t.Cleanup(func() { tell(t, "systemctl", "stop", "passing") })
	if st := status(t, m, "passing.service"); st.Active != "active" {
		t.Errorf("a unit of another program's: %+v", st)
	}
}

// [Install] sections count: the unit is enabled until reboot, which systemd sees
// with the next reload, and Status says so.
func enablesInstallSections(t *testing.T, m *systemd.Manager) {
	install(t, m, "[Unit]\nDescription=Group\n", "group.target")
	install(t, m, sleeper+"[Install]\nWantedBy=group.target\n", "member.service")
	if got := tell(t, "systemctl", "is-enabled", "member"); got != "enabled-runtime\n" {
		t.Errorf("is-enabled says %q", got)
	}
	if st := status(t, m, "member.service"); !st.NeedReload {
		t.Errorf("no reload is needed: %+v", st)
	}
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := status(t, m, "member.service"); st.NeedReload {
		t.Errorf("after the reload: %+v", st)
	}
	run(t, m, unit.Start, "group.target")
	if st := status(t, m, "member.service"); st.Active == "inactive" {
		t.Errorf("the target does not start it: %+v", st)
	}
	install(t, m, sleeper, "member.service")
	if got := tell(t, "systemctl", "is-enabled", "member"); got != "linked-runtime\n" {
		t.Errorf("without the section is-enabled says %q", got)
	}
	install(t, m, sleeper+"#### 10-when.conf\n[Install]\nWantedBy=group.target\n", "member.service")
	if got := tell(t, "systemctl", "is-enabled", "member"); got != "enabled-runtime\n" {
		t.Errorf("with the section in a drop-in is-enabled says %q", got)
	}
	clean(t, m)
	left, err := filepath.Glob("/run/systemd/system/*/member.service")
	if err != nil || len(left) != 0 {
		t.Errorf("left are %q", left)
	}
}

// Drop-ins that the machine has beside a unit of ours count and are left alone, also
// those of a template; ours lie among them and go with the unit.
func keepsTheMachinesDropIns(t *testing.T, m *systemd.Manager) {
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(filepath.Dir(path)) })
	}
	const theirs = "/etc/systemd/system/web@.service.d/50-theirs.conf"
	write(theirs, "[Unit]\nDescription=Theirs\n")
	write("/run/systemd/system/web@1.service.d/60-edit.conf", "[Service]\nEnvironment=EDIT=yes\n")
	text := sleeper + "#### 10-a.conf\n[Unit]\nDescription=Ours\n#### 70-b.conf\n[Service]\nEnvironment=B=yes\n"
	install(t, m, text, "web@1.service")
	if have, err := m.Installed(t.Context()); err != nil || have["web@1.service"] != text {
		t.Errorf("installed are %q, error %v", have, err)
	}
	run(t, m, unit.Start, "web@1.service")
	if st := status(t, m, "web@1.service"); st.Description != "Theirs" || st.NeedReload {
		t.Errorf("status is %+v", st)
	}
	got := tell(t, "systemctl", "show", "-P", "Environment", "web@1.service")
	if got != "EDIT=yes B=yes\n" {
		t.Errorf("the environment is %q", got)
	}
	err := m.Install(t.Context(), "web@1.service", sleeper+"#### 60-edit.conf\n[Unit]\nDescription=Same name\n")
	if err == nil || !strings.Contains(err.Error(), "drop-in of its own at /run/systemd/system/web@1.service.d/60-edit.conf") {
		t.Errorf("error %v", err)
	}
	if have, _ := m.Installed(t.Context()); have["web@1.service"] != text {
		t.Errorf("after the refusal installed are %q", have)
	}
	clean(t, m)
	left, _ := filepath.Glob("/run/*/*/web@1.service.d/*")
	if want := []string{"/run/systemd/system/web@1.service.d/60-edit.conf"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

// A timer starts its service, of the same name or another, and its delay is
// systemd's to scatter.
func firesTimers(t *testing.T, m *systemd.Manager) {
	dir := t.TempDir()
	install(t, m, "[Service]\nType=oneshot\nExecStart=/bin/touch "+dir+"/%N\n", "tick.service", "other.service", "daily.service")
	install(t, m, "[Timer]\nOnActiveSec=10ms\nAccuracySec=1ms\n", "tick.timer")
	install(t, m, "[Timer]\nOnActiveSec=10ms\nAccuracySec=1ms\nUnit=other.service\n", "late.timer")
	install(t, m, "[Timer]\nOnCalendar=daily\nRandomizedDelaySec=2h\n", "daily.timer")
	run(t, m, unit.Start, "tick.timer", "late.timer", "daily.timer")
	err := unittest.Eventually(t.Context(), func() error {
		_, err := os.Stat(dir + "/tick")
		_, err2 := os.Stat(dir + "/other")
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Error(err)
	}
	if got := tell(t, "systemctl", "show", "-P", "RandomizedDelayUSec", "daily.timer"); got != "2h\n" {
		t.Errorf("the random delay is %q", got)
	}
	run(t, m, unit.Stop, "tick.timer", "late.timer", "daily.timer")
}

// systemd remembers which files there are; one that comes right after it looked is
// found all the same.
func findsWhatWasUnknown(t *testing.T, m *systemd.Manager) {
	for _, name := range many(40) {
		if st := status(t, m, name); st.Load != "not-found" {
			t.Fatalf("before: %+v", st)
		}
		install(t, m, sleeper, name)
		run(t, m, unit.Start, name)
	}
}

// When systemd executes itself anew, units run on, watches end, jobs have their
// outcome, and the next call finds the new systemd.
func survivesReexec(t *testing.T, m *systemd.Manager) {
	slow := "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 3\n"
	install(t, m, sleeper, "runs.service")
	install(t, m, slow, "slow.service")
	run(t, m, unit.Start, "runs.service")
	before := status(t, m, "runs.service")
	watch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := m.Run(t.Context(), jobs(unit.Start, "slow.service"))
	for status(t, m, "slow.service").Active != "activating" {
		continue
	}
	tell(t, "systemctl", "daemon-reexec")
	if after := status(t, m, "runs.service"); after.MainPID != before.MainPID || after.Active != "active" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if o := <-out; o.Err != nil || o.Result != unit.Done {
		t.Errorf("the job ended in %s, error %v", o.Result, o.Err)
	}
	ends(t, watch)
}

func ends(t *testing.T, watch <-chan unit.Status) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-watch:
		case <-timeout:
			t.Fatal("the watch did not end")
		}
	}
}

// The same for those who talk to systemd over the message bus, whose connection
// stays.
func survivesReexecBehindBus(t *testing.T, _ *systemd.Manager) {
	m := systemd.NewOnMessageBus(systemd.Config{})
	defer m.Close()
	survivesReexec(t, m)
}

// A message bus that is started again is found again.
func survivesBusRestart(t *testing.T, _ *systemd.Manager) {
	m := systemd.NewOnMessageBus(systemd.Config{})
	defer m.Close()
	install(t, m, sleeper, "web.service")
	watch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tell(t, "systemctl", "restart", "dbus.service")
	run(t, m, unit.Start, "web.service")
	ends(t, watch)
}

// Who may not is told what to do. (Reading is free to all.)
func saysWhatIsMissing(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "web.service")
	test := exec.Command("/proc/self/exe", "-test.run=^TestAsNobody$", "-test.v")
	test.Env = append(os.Environ(), nobodyEnv+"=1")
	test.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	test.Dir = "/"
	out, err := test.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAsNobody") {
		t.Errorf("%v\n%s", err, out)
	}
}

// nobodyEnv is set for the copy of the test that runs as user nobody.
const nobodyEnv = "FLOTILLA_TEST_AS_NOBODY"

// TestAsNobody is a part of TestOnSystemd.
func TestAsNobody(t *testing.T) {
	if os.Getenv(nobodyEnv) == "" {
		return
	}
	m := systemd.New(systemd.Config{})
	defer m.Close()
	if st := status(t, m, "web.service"); st.Load != "loaded" {
		t.Errorf("status is %+v", st)
	}
	o := <-m.Run(t.Context(), jobs(unit.Start, "web.service"))
	if o.Err == nil || len(fault.Hints(o.Err)) == 0 {
		t.Errorf("result %s, error %v", o.Result, o.Err)
	}
	t.Log(o.Err)
}

// Reloads of other people's while jobs are under way change nothing.
func survivesReload(t *testing.T, m *systemd.Manager) {
	names := many(30)
	install(t, m, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 0.5\n", names...)
	out := m.Run(t.Context(), jobs(unit.Start, names...))
	for range 3 {
		tell(t, "systemctl", "daemon-reload")
	}
	for o := range out {
		if o.Err != nil || o.Result != unit.Done {
			t.Errorf("start %s: %s, error %v", o.Job.Unit, o.Result, o.Err)
		}
	}
}

// A link that is missing, as after a crash between the two, is made again.
func repairsLinks(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "web.service")
	if err := os.Remove("/run/systemd/system/web.service"); err != nil {
		t.Fatal(err)
	}
	if have, err := m.Installed(t.Context()); err != nil || have["web.service"] != sleeper {
		t.Errorf("installed are %q, error %v", have, err)
	}
	install(t, m, sleeper, "web.service")
	run(t, m, unit.Start, "web.service")
}

// Another Manager, as after a restart of the caller, knows what was installed and
// tells what changes.
func knowsItsUnitsAgain(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "web.service")
	run(t, m, unit.Start, "web.service")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again := systemd.New(systemd.Config{})
	defer again.Close()
	watch, err := again.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if have, err := again.Installed(t.Context()); err != nil || have["web.service"] != sleeper {
		t.Errorf("installed are %q, error %v", have, err)
	}
	tell(t, "systemctl", "kill", "-s", "KILL", "web.service")
	for st := range watch {
		if st.Active == "failed" && st.Result == "signal" {
			break
		}
	}
}

// Whatever systemd can run can be run: fleet's other types.
func runsOtherTypes(t *testing.T, m *systemd.Manager) {
	install(t, m, "[Service]\nType=oneshot\nExecStart=/bin/true\n", "tick.service", "knock@.service", "seen.service")
	for name, text := range map[string]string{
		"tick.timer":   "[Timer]\nOnActiveSec=1h\n",
		"knock.socket": "[Socket]\nListenStream=/run/knock\nAccept=yes\n",
		"seen.path":    "[Path]\nPathExists=/run/nothing\n",
		"mnt.mount":    "[Mount]\nWhat=tmpfs\nWhere=/mnt\nType=tmpfs\n",
		"own.slice":    "[Slice]\nTasksMax=10\n",
	} {
		install(t, m, text, name)
		run(t, m, unit.Start, name)
		if st := status(t, m, name); st.Active != "active" || st.Fragment == "" {
			t.Errorf("%+v", st)
		}
		run(t, m, unit.Stop, name)
		if err := m.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// Names that the cluster knows and systemd does not are units that nobody knows, and
// hide no others.
// A guard that has begun to stop units, and is told to stand down, does not kill what
// is started after that.
func relievesTheGuard(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "one.service")
	run(t, m, unit.Start, "one.service")
	watch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Guard(t.Context(), 0, time.Hour, "one.service"); err != nil {
		t.Fatal(err)
	}
	for s := range watch {
		if s.Name == "one.service" && s.Active == "inactive" {
			break
		}
	}
	if err := m.Guard(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	err = unittest.Eventually(t.Context(), func() error {
		if out := tell(t, "systemctl", "list-units", "--no-legend", "--state=active,activating,deactivating", "fleet-guard-*"); out != "" {
			return errors.New("still on guard: " + out)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func tellsOddNames(t *testing.T, m *systemd.Manager) {
	install(t, m, sleeper, "web.service")
	run(t, m, unit.Start, "web.service")
	odd := []string{".service", "old.snapshot", strings.Repeat("x", 248) + ".service"}
	all, err := m.Status(t.Context(), append(odd, "web.service")...)
	if err != nil || len(all) != 4 || all[3].Active != "active" {
		t.Fatalf("%+v, error %v", all, err)
	}
	for _, st := range all[:3] {
		if st.Load != "not-found" {
			t.Errorf("%+v", st)
		}
	}
	for _, name := range odd[1:] {
		if o := <-m.Run(t.Context(), jobs(unit.Start, name)); o.Err == nil {
			t.Errorf("start %s: %s", name, o.Result)
		}
	}
}

// Errors are systemd's own words, with what was being done before them.
func TestNoSystemd(t *testing.T) {
	m := systemd.New(systemd.Config{User: true, RuntimeDir: t.TempDir()})
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
	_, err := m.Status(t.Context(), "web.service")
	if err == nil || errors.Is(err, systemd.ErrLost) {
		t.Fatalf("error %v", err)
	}
	var out bytes.Buffer
	fault.Print(&out, "test", err)
	for _, want := range []string{"ask systemd for the state of web.service: connect to systemd: ", "hint: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the error is\n%s\nwant %q in it", &out, want)
		}
	}
}
