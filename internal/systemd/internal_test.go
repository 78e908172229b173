package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/unit"
)

// What became of a job whose end was missed, by the state its unit is in, what that did
// after the job was sent, and the job that it has now.
func TestFate(t *testing.T) {
	for _, tt := range []struct {
		kind   unit.Kind
		state  string // active state, then: "began" and "changed" after the job was sent, the job's type
		result string
		want   string // "" send it again
	}{
		{unit.Start, "active", "success", "done"},
		{unit.Start, "active began changed", "success", "done"},
		{unit.Start, "activating began changed", "success", ""},
		{unit.Start, "activating began changed start", "success", "under way"},
		{unit.Start, "inactive restart", "success", "under way"},
		{unit.Start, "deactivating stop", "success", ""}, // another's: ours counts
		{unit.Start, "failed began changed", "exit-code", "failed"},
		{unit.Start, "failed", "exit-code", ""},
		{unit.Start, "inactive began changed", "success", "done"},
		{unit.Start, "inactive", "success", ""},

		{unit.Restart, "active began changed", "success", "done"},
		{unit.Restart, "active", "success", ""},
		{unit.Restart, "active restart", "success", "under way"}, // queued behind others
		{unit.Restart, "active start", "success", ""},            // which does nothing
		{unit.Restart, "deactivating changed restart", "success", "under way"},
		{unit.Restart, "inactive changed start", "success", "under way"}, // between its halves
		{unit.Restart, "failed changed start", "timeout", "under way"},
		{unit.Restart, "activating began changed start", "success", "under way"}, // sent again it would stop what starts
		{unit.Restart, "activating start", "success", ""},                        // an older start: ours never came
		{unit.Restart, "failed began changed", "exit-code", "failed"},
		{unit.Restart, "activating began changed", "exit-code", "done"}, // has been up, fell, and systemd starts it
		{unit.Restart, "deactivating began changed", "success", "done"}, // has been up, and ends
		{unit.Restart, "deactivating changed", "success", ""},           // the old one ends
		{unit.Restart, "reloading began", "success", "done"},            // has been up
		{unit.Restart, "inactive changed", "success", ""},               // has been stopped alone
		{unit.Restart, "inactive began changed stop", "success", ""},    // another's
		{unit.Restart, "inactive began changed", "success", "done"},     // a oneshot
		{unit.Restart, "active began changed start", "success", "under way"},

		{unit.Stop, "inactive", "success", "done"},
		{unit.Stop, "failed began changed", "timeout", "done"},
		{unit.Stop, "deactivating changed", "success", ""},
		{unit.Stop, "deactivating changed stop", "success", "under way"},
		{unit.Stop, "active", "success", ""},
		{unit.Stop, "active restart", "success", ""},
	} {
		words := strings.Fields(tt.state)
		s := seen{Status: unit.Status{Active: words[0], Result: tt.result}}
		for _, w := range words[1:] {
			switch w {
			case "began":
				s.began = true
			case "changed":
				s.changed = true
			default:
				s.job, s.Status.Job = w, true
			}
		}
		result, next := fate(tt.kind, s)
		got := map[bool]string{true: "under way"}[next == underWay]
		if next == settled {
			got = string(result)
		}
		if got != tt.want {
			t.Errorf("%s, unit %s: %q, want %q", tt.kind, tt.state, got, tt.want)
		}
	}
}

// When a unit changed is told by a clock that nobody sets: here the time of day was
// put back to 1970 while the job ran.
func TestChangedAt(t *testing.T) {
	begin := monotonic()
	props := map[string]dbus.Variant{
		"ActiveState":                     dbus.MakeVariant("failed"),
		"InactiveEnterTimestamp":          dbus.MakeVariant(uint64(1)),
		"InactiveEnterTimestampMonotonic": dbus.MakeVariant(uint64((begin + time.Second).Microseconds())),
		"ActiveEnterTimestampMonotonic":   dbus.MakeVariant(uint64(1)),
	}
	if at := changedAt(props); at < begin {
		t.Errorf("it changed at %v, the job was sent at %v", at, begin)
	}
	if at := changedAt(nil); at != 0 {
		t.Errorf("a unit that nobody knows changed at %v", at)
	}
}

// A unit that systemd has no answer for hides no other one; a connection that is
// lost is lost for all.
func TestAskAll(t *testing.T) {
	names := []string{"a.service", "bad.service", "c.service"}
	ask := func(bad error) func(string) (unit.Status, error) {
		return func(name string) (unit.Status, error) {
			if name == "bad.service" {
				return unit.Status{}, bad
			}
			return unit.Status{Name: name, Active: "active"}, nil
		}
	}
	got, err := askAll(names, ask(errors.New("out of memory")))
	want := []unit.Status{{Name: "a.service", Active: "active"}, {Name: "c.service", Active: "active"}}
	if diff := cmp.Diff(want, got); err == nil || err.Error() != "bad.service: out of memory" || diff != "" {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
	if got, err := askAll(names, ask(ErrLost)); !errors.Is(err, ErrLost) || got != nil {
		t.Errorf("%v, error %v", got, err)
	}
}

// What a watch could not learn of it asks for again.
func TestPutBack(t *testing.T) {
	w := (&watchers{}).add()
	w.putBack([]string{"a.service", "b.service"}, []unit.Status{{Name: "a.service"}})
	if got := w.take([]string{"a.service", "b.service"}); len(got) != 1 || got[0] != "b.service" {
		t.Errorf("dirty are %q", got)
	}
}

func TestStatusOf(t *testing.T) {
	props := map[string]dbus.Variant{
		"Description": dbus.MakeVariant("Hello"), "LoadState": dbus.MakeVariant("loaded"),
		"ActiveState": dbus.MakeVariant("failed"), "SubState": dbus.MakeVariant("failed"),
		"FragmentPath": dbus.MakeVariant("/f"), "NeedDaemonReload": dbus.MakeVariant(true),
		"ActiveEnterTimestamp": dbus.MakeVariant(uint64(1)), "InactiveEnterTimestamp": dbus.MakeVariant(uint64(2000001)),
		"Result": dbus.MakeVariant("exit-code"), "MainPID": dbus.MakeVariant(uint32(7)),
		"ExecMainStatus": dbus.MakeVariant(int32(3)), "NRestarts": dbus.MakeVariant(uint32(2)),
	}
	want := unit.Status{
		Name: "a.service", Description: "Hello", Load: "loaded", Active: "failed", Sub: "failed", Result: "exit-code",
		MainPID: 7, ExitCode: 3, Since: time.UnixMicro(2000001), Fragment: "/f", NeedReload: true, Restarts: 2,
	}
	if diff := cmp.Diff(want, statusOf("a.service", props)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want = unit.Status{Name: "b.service", Load: "not-found", Active: "inactive", Sub: "dead"}
	if diff := cmp.Diff(want, statusOf("b.service", nil)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMerge(t *testing.T) {
	st := func(name, active string) unit.Status { return unit.Status{Name: name, Active: active} }
	told := map[string]unit.Status{"c": st("c", "active")}
	queue := []unit.Status{st("a", "active"), st("b", "active")}
	fresh := []unit.Status{st("b", "failed"), st("c", "active"), st("d", "active")}
	want := []unit.Status{st("a", "active"), st("b", "failed"), st("d", "active")}
	if diff := cmp.Diff(want, merge(queue, fresh, told)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A result that comes before the reply that names its job is not lost, and nothing
// is kept for jobs that nobody waits for.
func TestJobTable(t *testing.T) {
	table := newJobTable()
	table.sent()
	table.sent()
	table.removed("/job/1", "done")
	table.removed("/job/9", "failed")
	if got := <-table.named("/job/1"); got != "done" {
		t.Errorf("job 1 ended in %q", got)
	}
	two := table.named("/job/2")
	table.removed("/job/2", "canceled")
	if got := <-two; got != "canceled" {
		t.Errorf("job 2 ended in %q", got)
	}
	table.sent()
	table.forget("/job/3", table.named("/job/3"))
	if len(table.early) != 0 || len(table.waiting) != 0 {
		t.Errorf("left are %v and %v", table.early, table.waiting)
	}
}

// A temporary file that a crash left is no unit.
func TestInstalledIgnoresOthers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.service", ".a.service.tmp-1", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := New(Config{UnitsDir: dir}).Installed(t.Context())
	if diff := cmp.Diff(map[string]string{"a.service": "a.service"}, got); err != nil || diff != "" {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
}
