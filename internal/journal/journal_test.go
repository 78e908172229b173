package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/fault"
	"flotilla/internal/unit"
)

func TestParse(t *testing.T) {
	at := time.UnixMicro(1700000000000001)
	for _, tt := range []struct {
		name, line string
		want       unit.LogEntry
	}{
		{"a line of a process", `{"__REALTIME_TIMESTAMP":"1700000000000001","__CURSOR":"s=1","_HOSTNAME":"core-1",
			"_SYSTEMD_UNIT":"web.service","SYSLOG_IDENTIFIER":"nginx","_PID":"42","PRIORITY":"3","MESSAGE":"hello"}`,
			unit.LogEntry{Time: at, Machine: "core-1", Unit: "web.service", Ident: "nginx", PID: 42, Priority: 3, Message: "hello", Cursor: "s=1"}},
		{"what systemd says", `{"__REALTIME_TIMESTAMP":"1700000000000001","UNIT":"web.service","_SYSTEMD_UNIT":"init.scope",
			"_COMM":"systemd","_PID":"1","PRIORITY":"6","MESSAGE":"Started web."}`,
			unit.LogEntry{Time: at, Unit: "web.service", Ident: "systemd", PID: 1, Priority: 6, Message: "Started web."}},
		{"no text: an array of bytes", `{"__REALTIME_TIMESTAMP":"1700000000000001","_SYSTEMD_UNIT":"web.service","MESSAGE":[27,91,49,109,255]}`,
			unit.LogEntry{Time: at, Unit: "web.service", Priority: 6, Message: "\x1b[1m\xff"}},
		{"a field that occurs twice", `{"__REALTIME_TIMESTAMP":"1700000000000001","_SYSTEMD_UNIT":"web.service","MESSAGE":["one","two"]}`,
			unit.LogEntry{Time: at, Unit: "web.service", Priority: 6, Message: "one"}},
		{"a field too large to show", `{"__REALTIME_TIMESTAMP":"1700000000000001","_SYSTEMD_UNIT":"web.service","MESSAGE":null}`,
			unit.LogEntry{Time: at, Unit: "web.service", Priority: 6}},
		{"numbers that are none", `{"__REALTIME_TIMESTAMP":"1700000000000001","_SYSTEMD_UNIT":"web.service","PRIORITY":"high","_PID":"-1","MESSAGE":"x"}`,
			unit.LogEntry{Time: at, Unit: "web.service", Priority: 6, Message: "x"}},
		{"found for one unit, written by another", `{"__REALTIME_TIMESTAMP":"1700000000000001","COREDUMP_UNIT":"web.service",
			"_SYSTEMD_UNIT":"systemd-coredump@0.service","MESSAGE":"dumped core"}`,
			unit.LogEntry{Time: at, Unit: "web.service", Priority: 6, Message: "dumped core"}},
	} {
		got, err := parse([]byte(tt.line), []string{"web.service"})
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v, -want +got:\n%s", tt.name, err, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		`{"MESSAGE":"no time"}`: "an entry has no time",
		`{"MESSAGE":`:           "an entry is not JSON",
		`[]`:                    "an entry is not JSON",
	} {
		if _, err := parse([]byte(line), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", line, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":[1,2,3],"UNIT":"a.service"}`))
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":[[["x"]]],"PRIORITY":"9999999999999999999"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parse(line, []string{"a.service"})
		if err == nil && (e.Time.IsZero() || e.PID < 0 || e.Priority < 0) {
			t.Errorf("%q gave %+v", line, e)
		}
	})
}

func TestArgs(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))
	for _, tt := range []struct {
		q    unit.LogQuery
		want string
	}{
		{unit.LogQuery{Lines: 10}, "--lines=10"},
		{unit.LogQuery{Lines: -1, Follow: true}, "--lines=all --follow --boot=b1"},
		{unit.LogQuery{Follow: true, After: "s=1"}, "--lines=0 --follow --boot=b1"},
		{unit.LogQuery{Lines: -1, Since: since}, "--lines=all --since=2026-01-02 02:04:05.000006 UTC"},
		{unit.LogQuery{Lines: -1, Since: since, After: "s=1"}, "--lines=all --after-cursor=s=1"},
	} {
		tt.q.Units = []string{"a.service", "b.service"}
		want := "--output=json --all --no-pager --unit=a.service --unit=b.service " + tt.want
		if got := strings.Join(New(Config{Boot: "b1"}).args(tt.q), " "); got != want {
			t.Errorf("%+v:\n got %s\nwant %s", tt.q, got, want)
		}
	}
}

// program writes a shell script that stands for journalctl.
func program(t *testing.T, script string) Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journalctl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return Config{Program: path}
}

const fiveEntries = `for i in 1 2 3 4 5; do
	echo "{\"__REALTIME_TIMESTAMP\":\"$i\",\"_SYSTEMD_UNIT\":\"a.service\",\"MESSAGE\":\"$i\",\"__CURSOR\":\"c$i\"}"
done
`

func TestReadLog(t *testing.T) {
	a := []string{"a.service"}
	for _, tt := range []struct {
		name, script string
		q            unit.LogQuery
		want         []string
	}{
		{"everything", fiveEntries, unit.LogQuery{Units: a, Lines: -1}, []string{"1", "2", "3", "4", "5"}},
		{"remarks are no entries", "echo '-- No entries --'", unit.LogQuery{Units: a, Lines: -1}, nil},
		{"no lines", "exit 1", unit.LogQuery{Units: a}, nil},
		{"the newest after a cursor", fiveEntries, unit.LogQuery{Units: a, Lines: 2, After: "c0"}, []string{"4", "5"}},
		{"not before a time", fiveEntries, unit.LogQuery{Units: a, Lines: -1, After: "c0", Since: time.UnixMicro(4)}, []string{"4", "5"}},
		{"half a line at the end", fiveEntries + "printf '{\"MESS'", unit.LogQuery{Units: a, Lines: -1}, []string{"1", "2", "3", "4", "5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := New(program(t, tt.script)).ReadLog(t.Context(), tt.q, func(e unit.LogEntry) error {
				got = append(got, e.Message)
				return nil
			})
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, error %v; want %q", got, err, tt.want)
			}
		})
	}
}

// earlierBoot stands for a journal that has an entry of an earlier boot, which a
// journalctl that follows does not show.
const earlierBoot = `case "$*" in *--follow*) ;; *)
	echo '{"__REALTIME_TIMESTAMP":"1","_SYSTEMD_UNIT":"a.service","MESSAGE":"0","__CURSOR":"c0"}'
	exit;;
esac
`

// What is followed begins with what there was before this boot, and goes on from there.
func TestFollowBeginsWithEarlierBoots(t *testing.T) {
	enough := errors.New("enough")
	for _, lines := range []int{-1, 3} {
		cfg := program(t, earlierBoot+`case "$*" in *--after-cursor=c0) ;; *) exit 1;; esac
`+fiveEntries+"exec sleep 1000\n")
		var got []string
		err := New(cfg).ReadLog(t.Context(), unit.LogQuery{Units: []string{"a.service"}, Lines: lines, Follow: true}, func(e unit.LogEntry) error {
			got = append(got, e.Message)
			if e.Message == "5" {
				return enough
			}
			return nil
		})
		if want := []string{"0", "1", "2", "3", "4", "5"}; !errors.Is(err, enough) || !slices.Equal(got, want) {
			t.Errorf("%d lines: got %q, error %v; want %q", lines, got, err, want)
		}
	}
}

// journalctl has ended when ReadLog returns, however that came about.
func TestFollowEnds(t *testing.T) {
	dir := t.TempDir()
	cfg := program(t, earlierBoot+"echo $$ >"+dir+"/pid\n"+fiveEntries+"exec sleep 1000\n")
	q := unit.LogQuery{Units: []string{"a.service"}, Lines: -1, Follow: true}
	enough := errors.New("enough")
	for _, want := range []error{nil, enough} {
		ctx, cancel := context.WithCancel(t.Context())
		err := New(cfg).ReadLog(ctx, q, func(e unit.LogEntry) error {
			switch {
			case e.Message != "5":
				return nil
			case want == nil:
				cancel()
			}
			return want
		})
		cancel()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		pid, err := os.ReadFile(dir + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
			t.Errorf("journalctl still runs")
		}
	}
}

func TestReadLogErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		text string
		hint string
	}{
		{"no journalctl", Config{Program: "/nowhere/journalctl"}, "no such file", "comes with systemd"},
		{"no permission", program(t, "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1"),
			"read the journal of a.service: journalctl: exit status 1: No journal files were opened", "systemd-journal"},
		{"no JSON", program(t, "echo '{nonsense'"), "an entry is not JSON", ""},
	} {
		q := unit.LogQuery{Units: []string{"a.service"}, Lines: -1}
		err := New(tt.cfg).ReadLog(t.Context(), q, func(unit.LogEntry) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.text)
		}
		if hints := strings.Join(fault.Hints(err), " "); !strings.Contains(hints, tt.hint) {
			t.Errorf("%s: hints %q, want %q", tt.name, hints, tt.hint)
		}
	}
}
