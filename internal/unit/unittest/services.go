package unittest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/unit"
)

// serviceCases are the cases about services that a script cannot say.
var serviceCases = []Case{
	{Name: "restart-table", Needs: []string{"processes"}, Run: restartTable},
	{Name: "notify-status", Needs: []string{"processes"}, Run: notifyStatus},
}

// endings are the ways in which a service ends, as the columns of the table in
// systemd.service(5), "Restart=".
var endings = map[string]string{
	"clean":    "ExecStart=/bin/true\n",
	"term":     "ExecStart=/bin/sh -c 'kill -TERM $$$$'\n",
	"code":     "ExecStart=/bin/sh -c 'exit 1'\n",
	"signal":   "ExecStart=/bin/sh -c 'kill -KILL $$$$'\n",
	"timeout":  "RuntimeMaxSec=100ms\nExecStart=/bin/sleep 1000\n",
	"watchdog": "WatchdogSec=100ms\nExecStart=/bin/sleep 1000\n",
}

// restartsAfter says for each value of Restart= which endings are followed by a
// restart.
var restartsAfter = map[string][]string{
	"no":          nil,
	"always":      {"clean", "term", "code", "signal", "timeout", "watchdog"},
	"on-success":  {"clean", "term"},
	"on-failure":  {"code", "signal", "timeout", "watchdog"},
	"on-abnormal": {"signal", "timeout", "watchdog"},
	"on-abort":    {"signal"},
	"on-watchdog": {"watchdog"},
}

// Every value of Restart= meets every ending. The delay is so long that a restart
// which is due can be seen and never comes.
func restartTable(t *testing.T, s Subject) {
	want := map[string]string{}
	for value, again := range restartsAfter {
		for ending, lines := range endings {
			name := value + "-" + ending + ".service"
			install(t, s.Manager, "[Service]\nRestart="+value+"\nRestartSec=1h\n"+lines, name)
			switch {
			case slices.Contains(again, ending):
				want[name] = "activating/auto-restart"
			case ending == "clean" || ending == "term":
				want[name] = "inactive/dead"
			default:
				want[name] = "failed/failed"
			}
		}
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	run(t, s.Manager, unit.Start, names...)
	if err := Eventually(t.Context(), func() error { return allAre(t.Context(), s.Manager, want) }); err != nil {
		t.Error(err)
	}
}

// allAre says which units are not in the state that is wanted of them.
func allAre(ctx context.Context, m unit.Manager, want map[string]string) error {
	var names []string
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	all, err := m.Status(ctx, names...)
	if err != nil {
		return err
	}
	var wrong []string
	for _, st := range all {
		if got := st.Active + "/" + st.Sub; got != want[st.Name] {
			wrong = append(wrong, fmt.Sprintf("%s is %s (%s), want %s", st.Name, got, st.Result, want[st.Name]))
		}
	}
	if wrong != nil {
		return fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// What a service says of itself with STATUS= is what Show tells, the last of it.
func notifyStatus(t *testing.T, s Subject) {
	install(t, s.Manager, "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c '"+
		`systemd-notify --status="loading"; systemd-notify --ready --status="3 of 4 done"; exec sleep 1000'`+"\n", "talk.service")
	run(t, s.Manager, unit.Start, "talk.service")
	var out bytes.Buffer
	code, err := s.Manager.Show(t.Context(), &out, "talk.service")
	if err != nil || code != 0 || !strings.Contains(out.String(), "\"3 of 4 done\"") {
		t.Errorf("code %d, error %v, and this text:\n%s", code, err, &out)
	}
}
