package supervisor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"flotilla/internal/supervisor/proc"
	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// Exit codes of systemctl status.
const (
	showActive   = 0
	showInactive = 3
	showUnknown  = 4
)

// Show implements unit.Manager.
func (s *Supervisor) Show(ctx context.Context, w io.Writer, name string) (int, error) {
	var b strings.Builder
	code := showUnknown
	err := s.do(ctx, func() error {
		if u := s.find(name); u != nil {
			code = u.show(&b, s.now())
		} else {
			fmt.Fprintf(&b, "Unit %s could not be found.\n", name)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if code != showUnknown {
		if err := s.showLog(ctx, &b, name); err != nil {
			return 0, err
		}
	}
	_, err = io.WriteString(w, b.String())
	return code, err
}

// showLog adds the end of the log, in the journal's short format.
func (s *Supervisor) showLog(ctx context.Context, b *strings.Builder, name string) error {
	const tail = 10
	first := true
	return s.journal.ReadLog(ctx, unit.LogQuery{Units: []string{name}, Lines: tail}, func(e unit.LogEntry) error {
		if first {
			fmt.Fprintln(b)
			first = false
		}
		fmt.Fprintf(b, "%s %s %s[%d]: %s\n", e.Time.Format("Jan 02 15:04:05"), e.Machine, e.Ident, e.PID, e.Message)
		return nil
	})
}

// show writes the block that stands above the log and returns the exit code.
func (u *svc) show(b *strings.Builder, now time.Time) int {
	st := u.status()
	mark := map[string]string{"failed": "×", "inactive": "○"}[st.Active]
	if mark == "" {
		mark = "●"
	}
	fmt.Fprintf(b, "%s %s - %s\n", mark, st.Name, st.Description)
	load := st.Load
	if st.Fragment != "" {
		load += " (" + st.Fragment + ")"
	}
	line(b, "Loaded", load)
	line(b, "Active", activeText(st, now))
	u.showProcesses(b, st)
	if u.m.Status != "" {
		line(b, "Status", fmt.Sprintf("%q", u.m.Status))
	}
	u.showGroup(b)
	if st.NeedReload {
		fmt.Fprintf(b, "\nWarning: the unit file on disk is not the one that is loaded: reload.\n")
	}
	if u.bad != nil {
		fmt.Fprintf(b, "\n%v\n", u.bad)
	}
	if st.Active == "active" || st.Active == "reloading" {
		return showActive
	}
	return showInactive
}

func line(b *strings.Builder, label, text string) { fmt.Fprintf(b, "%11s: %s\n", label, text) }

func activeText(st unit.Status, now time.Time) string {
	s := st.Active
	if st.Sub != st.Active {
		s += " (" + st.Sub + ")"
	}
	if st.Result != "" && st.Result != string(service.Success) {
		s += " (Result: " + st.Result + ")"
	}
	if st.Since.IsZero() {
		return s
	}
	return s + " since " + st.Since.Format("Mon 2006-01-02 15:04:05 MST") + "; " + ago(now.Sub(st.Since)) + " ago"
}

// ago writes a span with its two largest units, as systemctl does.
func ago(d time.Duration) string {
	steps := []struct {
		unit string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	var parts []string
	for _, s := range steps {
		if n := d / s.d; n > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d%s", n, s.unit))
			d -= n * s.d
		}
	}
	if parts == nil {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return strings.Join(parts, " ")
}

func (u *svc) showProcesses(b *strings.Builder, st unit.Status) {
	for _, c := range u.ran {
		if c.Ended && (c.Role == service.ControlProcess || c.PID != u.lastMain()) {
			line(b, "Process", fmt.Sprintf("%d %s=%s (%v)", c.PID, c.Phase, c.Command, c.Exit))
		}
	}
	switch {
	case st.MainPID > 0:
		stat, _ := proc.Lookup(st.MainPID)
		line(b, "Main PID", fmt.Sprintf("%d (%s)", st.MainPID, stat.Comm))
	case u.m.MainEnd && u.lastMain() > 0:
		line(b, "Main PID", fmt.Sprintf("%d (%v)", u.lastMain(), u.m.MainExit))
	}
}

// lastMain is the PID of the newest main process that the run started.
func (u *svc) lastMain() int {
	pid := 0
	for _, c := range u.ran {
		if c.Role == service.MainProcess {
			pid = c.PID
		}
	}
	return pid
}

func (u *svc) showGroup(b *strings.Builder) {
	if u.m.State.Inactive() {
		return
	}
	pids := u.group.PIDs()
	if len(pids) == 0 {
		return
	}
	line(b, "Tasks", fmt.Sprint(len(pids)))
	where := "(tracked without a cgroup)"
	if u.group.Cgroup != "" {
		where = u.group.Cgroup
	}
	line(b, "CGroup", where)
	for i, pid := range pids {
		branch := "├─"
		if i == len(pids)-1 {
			branch = "└─"
		}
		fmt.Fprintf(b, "%13s%s%d %s\n", "", branch, pid, proc.Cmdline(pid))
	}
}
