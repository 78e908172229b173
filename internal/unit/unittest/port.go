package unittest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"flotilla/internal/unit"
)

// portCases are what the ports promise and a script cannot say.
var portCases = []Case{
	{Name: "many-together", Run: manyTogether},
	{Name: "concurrent-callers", Run: concurrentCallers},
	{Name: "no-jobs", Run: noJobs},
	{Name: "cancelled-wait", Needs: []string{"processes"}, Run: cancelledWait},
	{Name: "status-order", Run: statusOrder},
	{Name: "bad-names", Run: badNames},
	{Name: "watch", Run: watchTells},
	{Name: "watch-crash", Needs: []string{"processes"}, Run: watchCrash},
	{Name: "watch-unread", Run: watchUnread},
	{Name: "kill", Run: killEnds},
	{Name: "guard", Run: guardStops},
	{Name: "watch-ends", Run: watchEnds},
	{Name: "log-queries", Needs: []string{"processes"}, Run: logQueries},
	{Name: "log-follow", Needs: []string{"processes"}, Run: logFollow},
	{Name: "log-emit-error", Needs: []string{"processes"}, Run: logEmitError},
}

const sleeper = "[Service]\nExecStart=/bin/sleep 1000\n"

func install(t *testing.T, m unit.Manager, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := m.Install(t.Context(), name, text); err != nil {
			t.Fatal(err)
		}
	}
}

// run sends jobs and wants all of them done.
func run(t *testing.T, m unit.Manager, kind unit.Kind, names ...string) {
	t.Helper()
	for _, o := range outcomes(t, m, kind, names...) {
		if o.Err != nil || o.Result != unit.Done {
			t.Fatalf("%s %s: %s, error %v", kind, o.Job.Unit, o.Result, o.Err)
		}
	}
}

func outcomes(t *testing.T, m unit.Manager, kind unit.Kind, names ...string) []unit.Outcome {
	t.Helper()
	var jobs []unit.Job
	for _, name := range names {
		jobs = append(jobs, unit.Job{Kind: kind, Unit: name})
	}
	var out []unit.Outcome
	for o := range m.Run(t.Context(), jobs) {
		out = append(out, o)
	}
	if len(out) != len(jobs) {
		t.Fatalf("%d jobs had %d outcomes", len(jobs), len(out))
	}
	return out
}

func numbered(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("many-%02d.service", i))
	}
	return out
}

// Fifty units start and stop with one call each, every job has its outcome.
func manyTogether(t *testing.T, s Subject) {
	names := numbered(50)
	install(t, s.Manager, sleeper, names...)
	run(t, s.Manager, unit.Start, names...)
	all, err := s.Manager.Status(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.Active != "active" || st.Sub != "running" {
			t.Errorf("%s is %s/%s after its start job", st.Name, st.Active, st.Sub)
		}
	}
	run(t, s.Manager, unit.Stop, names...)
}

// All methods may be called from many goroutines at once.
func concurrentCallers(t *testing.T, s Subject) {
	var wg sync.WaitGroup
	for _, name := range numbered(8) {
		wg.Go(func() {
			if err := lifeOfUnit(t.Context(), s.Manager, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
}

func lifeOfUnit(ctx context.Context, m unit.Manager, name string) error {
	if err := m.Install(ctx, name, sleeper); err != nil {
		return err
	}
	for _, kind := range []unit.Kind{unit.Start, unit.Restart, unit.Stop} {
		o := <-m.Run(ctx, []unit.Job{{Kind: kind, Unit: name}})
		if o.Err != nil || o.Result != unit.Done {
			return fmt.Errorf("%s: %s, error %v", kind, o.Result, o.Err)
		}
		if _, err := m.Status(ctx, name); err != nil {
			return err
		}
	}
	return m.Remove(ctx, name)
}

// No jobs: the channel is closed at once.
func noJobs(t *testing.T, s Subject) {
	if _, open := <-s.Manager.Run(t.Context(), nil); open {
		t.Error("an outcome without a job")
	}
}

// Cancelling ends the wait and not the job.
func cancelledWait(t *testing.T, s Subject) {
	slow := "[Service]\nType=oneshot\nRemainAfterExit=yes\n" +
		"ExecStart=/bin/sh -c 'while ! test -e " + s.Dir + "/go; do sleep 0.01; done'\n"
	install(t, s.Manager, slow, "slow.service")
	ctx, cancel := context.WithCancel(t.Context())
	out := s.Manager.Run(ctx, []unit.Job{{Kind: unit.Start, Unit: "slow.service"}})
	await(t, s, "slow.service", "activating/start")
	cancel()
	for o := range out {
		if !errors.Is(o.Err, context.Canceled) {
			t.Errorf("outcome after cancelling: %s, error %v", o.Result, o.Err)
		}
	}
	p := &player{Subject: s, ctx: t.Context()}
	if err := p.write([]string{"go", "now"}); err != nil {
		t.Fatal(err)
	}
	await(t, s, "slow.service", "active/exited")
}

func await(t *testing.T, s Subject, name, state string) {
	t.Helper()
	p := &player{Subject: s, ctx: t.Context()}
	if err := p.wait([]string{name, state}); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Status answers in the order asked, for known and unknown units alike; asked for
// nothing it says nothing.
func statusOrder(t *testing.T, s Subject) {
	install(t, s.Manager, sleeper, "b.service", "a.service")
	names := []string{"b.service", "nothere.service", "a.service", "b.service"}
	all, err := s.Manager.Status(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, st := range all {
		got = append(got, st.Name)
	}
	if !slices.Equal(got, names) {
		t.Errorf("asked for %q, got %q", names, got)
	}
	if all, err := s.Manager.Status(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("asked for nothing: %v, error %v", all, err)
	}
}

// A name that is no unit's, or that would leave the units directory, is refused.
func badNames(t *testing.T, s Subject) {
	for _, name := range []string{"", "web", "../web.service", "a/b.service", "a b.service", ".", "web.nonsense"} {
		if err := s.Manager.Install(t.Context(), name, sleeper); err == nil {
			t.Errorf("Install of %q was not refused", name)
		}
	}
	have, err := s.Manager.Installed(t.Context())
	if err != nil || len(have) != 0 {
		t.Errorf("installed are %q, error %v", have, err)
	}
}

// sees reads the watch until name's state is the wanted one.
func sees(t *testing.T, watch <-chan unit.Status, name, state string) unit.Status {
	t.Helper()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	var seen []string
	for {
		select {
		case st, open := <-watch:
			if !open {
				t.Fatalf("the watch ended before %s was %s; seen: %q", name, state, seen)
			}
			seen = append(seen, st.Name+" "+st.Active+"/"+st.Sub)
			if st.Name == name && st.Active+"/"+st.Sub == state {
				return st
			}
		case <-timeout.C:
			t.Fatalf("the watch did not say that %s is %s; seen: %q", name, state, seen)
		}
	}
}

// Watch tells when an installed unit changes, also one installed after Watch began,
// and when its file is no longer the one that is loaded.
func watchTells(t *testing.T, s Subject) {
	install(t, s.Manager, sleeper, "early.service")
	watch, err := s.Manager.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	install(t, s.Manager, sleeper, "late.service")
	for _, name := range []string{"early.service", "late.service"} {
		run(t, s.Manager, unit.Start, name)
		sees(t, watch, name, "active/running")
	}
	install(t, s.Manager, sleeper+"# changed\n", "early.service")
	for !sees(t, watch, "early.service", "active/running").NeedReload {
		continue
	}
	if err := s.Manager.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for sees(t, watch, "early.service", "active/running").NeedReload {
		continue
	}
	run(t, s.Manager, unit.Stop, "early.service", "late.service")
	sees(t, watch, "late.service", "inactive/dead")
}

// Watch tells what nobody asked for: a main process that died.
func watchCrash(t *testing.T, s Subject) {
	install(t, s.Manager, sleeper, "crash.service")
	run(t, s.Manager, unit.Start, "crash.service")
	watch, err := s.Manager.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &player{Subject: s, ctx: t.Context()}
	if err := p.kill([]string{"crash.service", "SIGKILL"}); err != nil {
		t.Fatal(err)
	}
	if st := sees(t, watch, "crash.service", "failed/failed"); st.Result != "signal" {
		t.Errorf("the result is %s, want signal", st.Result)
	}
}

// A consumer that does not read blocks nobody, and the last state of every unit is
// still there when it does.
func watchUnread(t *testing.T, s Subject) {
	watch, err := s.Manager.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := numbered(20)
	install(t, s.Manager, sleeper, names...)
	for range 3 {
		run(t, s.Manager, unit.Start, names...)
		run(t, s.Manager, unit.Stop, names...)
	}
	run(t, s.Manager, unit.Start, names...)
	last := map[string]string{}
	for !allRun(last, names) {
		select {
		case st, open := <-watch:
			if !open {
				t.Fatal("the watch ended")
			}
			last[st.Name] = st.Active
		case <-time.After(limit):
			t.Fatalf("the last states are %v", last)
		}
	}
}

func allRun(states map[string]string, names []string) bool {
	for _, name := range names {
		if states[name] != "active" {
			return false
		}
	}
	return true
}

// The channel is closed when the context is done.
func watchEnds(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := s.Manager.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	timeout := time.After(limit)
	for {
		select {
		case _, open := <-watch:
			if !open {
				return
			}
		case <-timeout:
			t.Fatal("the watch goes on after its context was cancelled")
		}
	}
}

// talker installs and restarts a service that prints n numbered lines. It stays: the
// journal asks the kernel who wrote a line, which fails for a process that is gone.
func talker(t *testing.T, s Subject, name string, n int) {
	t.Helper()
	text := fmt.Sprintf("[Service]\nSyslogIdentifier=talker\nExecStart=/bin/sh -c "+
		"'i=1; while test $$i -le %d; do echo %s line $$i; i=$$((i+1)); done; exec sleep 1000'\n", n, name)
	install(t, s.Manager, text, name)
	run(t, s.Manager, unit.Restart, name)
}

// logged waits until the unit's own lines of the log are n and returns them.
func logged(t *testing.T, s Subject, q unit.LogQuery, n int) []unit.LogEntry {
	t.Helper()
	var own []unit.LogEntry
	err := Eventually(t.Context(), func() error {
		all, err := readAll(t.Context(), s.Log, q)
		own = slices.DeleteFunc(all, func(e unit.LogEntry) bool { return e.Ident != "talker" })
		if err == nil && len(own) != n {
			err = fmt.Errorf("%d lines are in the log, want %d: %q", len(own), n, messages(own))
		}
		return err
	})
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return own
}

// Lines, Since, After and several units choose entries; an entry says when, where,
// who and which unit.
func logQueries(t *testing.T, s Subject) {
	begin := time.Now()
	talker(t, s, "talk-a.service", 6)
	talker(t, s, "talk-b.service", 2)
	a := unit.LogQuery{Units: []string{"talk-a.service"}, Lines: -1, Since: begin}
	all := logged(t, s, a, 6)
	checkEntry(t, all[2], "talk-a.service", "talk-a.service line 3", begin)

	a.After = all[3].Cursor
	rest := logged(t, s, a, 2)
	if rest[0].Message != "talk-a.service line 5" {
		t.Errorf("after the cursor of line 4 comes %q", rest[0].Message)
	}
	both := unit.LogQuery{Units: []string{"talk-a.service", "talk-b.service"}, Lines: -1, Since: begin}
	logged(t, s, both, 8)
	both.Since = time.Now().Add(time.Hour)
	logged(t, s, both, 0)

	a.After = ""
	for _, q := range []unit.LogQuery{
		{Units: a.Units, Lines: 0},
		{Units: a.Units, Lines: 3},
		{Units: a.Units, Lines: 3, Since: begin},
		{Units: a.Units, Lines: 2, After: all[0].Cursor},
	} {
		if err := Eventually(t.Context(), func() error { return newest(t.Context(), s.Log, q, a) }); err != nil {
			t.Error(err)
		}
	}
}

// newest says what is wrong when q does not give the newest entries of all.
func newest(ctx context.Context, r unit.LogReader, q, all unit.LogQuery) error {
	want, err := readAll(ctx, r, all)
	if err != nil {
		return err
	}
	got, err := readAll(ctx, r, q)
	if err != nil {
		return err
	}
	want = want[max(0, len(want)-q.Lines):]
	if !slices.Equal(messages(got), messages(want)) {
		return fmt.Errorf("%+v: the newest are %q, want %q", q, messages(got), messages(want))
	}
	return nil
}

func checkEntry(t *testing.T, e unit.LogEntry, name, message string, begin time.Time) {
	t.Helper()
	if e.Unit != name || e.Message != message || e.Ident != "talker" {
		t.Errorf("the entry is %+v, want unit %s, message %q", e, name, message)
	}
	if e.PID == 0 || e.Machine == "" || e.Cursor == "" || e.Priority != 6 {
		t.Errorf("the entry lacks something: %+v", e)
	}
	if e.Time.Before(begin.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
		t.Errorf("the entry's time is %v, the test began at %v", e.Time, begin)
	}
}

// Follow gives what there is, then what comes, and ends with nil when the context
// is done.
func logFollow(t *testing.T, s Subject) {
	q := unit.LogQuery{Units: []string{"talk-f.service"}, Lines: -1, Since: time.Now()}
	talker(t, s, "talk-f.service", 2)
	old := logged(t, s, q, 2)

	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	q.Follow, q.After = true, old[0].Cursor
	var got []string
	started := false
	err := s.Log.ReadLog(ctx, q, func(e unit.LogEntry) error {
		if e.Ident != "talker" {
			return nil
		}
		got = append(got, e.Message)
		if !started {
			started = true
			run(t, s.Manager, unit.Restart, "talk-f.service")
		}
		if len(got) == 3 {
			cancel()
		}
		return nil
	})
	want := []string{"talk-f.service line 2", "talk-f.service line 1", "talk-f.service line 2"}
	if err != nil || len(got) < 3 || !slices.Equal(got[:3], want) {
		t.Errorf("followed %q, error %v; want %q", got, err, want)
	}
}

// What emit returns ends the reading and is what ReadLog returns.
func logEmitError(t *testing.T, s Subject) {
	q := unit.LogQuery{Units: []string{"talk-e.service"}, Lines: -1, Since: time.Now()}
	talker(t, s, "talk-e.service", 3)
	logged(t, s, q, 3)
	enough := errors.New("enough")
	for _, follow := range []bool{false, true} {
		q.Follow = follow
		n := 0
		err := s.Log.ReadLog(t.Context(), q, func(unit.LogEntry) error {
			n++
			return enough
		})
		if !errors.Is(err, enough) || n != 1 {
			t.Errorf("follow %t: %d entries, error %v", follow, n, err)
		}
	}
}

// stubborn does not end when it is asked to: the signal means nothing to it.
const stubborn = "[Service]\nTimeoutStopSec=1h\nKillSignal=SIGCONT\nExecStart=/bin/sleep 1000\n"

func fencer(t *testing.T, s Subject) unit.Fencer {
	t.Helper()
	f, ok := s.Manager.(unit.Fencer)
	if !ok {
		t.Fatal("it is no unit.Fencer")
	}
	return f
}

// KillUnit ends what a stop job waits for. A unit that does not run, or is not there, is
// as dead as it gets.
func killEnds(t *testing.T, s Subject) {
	f := fencer(t, s)
	install(t, s.Manager, stubborn, "stub.service")
	run(t, s.Manager, unit.Start, "stub.service")
	stop := s.Manager.Run(t.Context(), []unit.Job{{Kind: unit.Stop, Unit: "stub.service"}})
	if !s.Virtual {
		await(t, s, "stub.service", "deactivating")
	}
	if err := f.KillUnit(t.Context(), "stub.service"); err != nil {
		t.Fatal(err)
	}
	if o := <-stop; o.Err != nil || o.Result != unit.Done {
		t.Errorf("the stop job ended in %s, error %v", o.Result, o.Err)
	}
	p := &player{Subject: s, ctx: t.Context()}
	if err := p.wait([]string{"stub.service", "failed|inactive"}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"stub.service", "nothere.service"} {
		if err := f.KillUnit(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// Guard stops units by itself, and kills one that does not end; a later call counts
// in place of an earlier one.
func guardStops(t *testing.T, s Subject) {
	f := fencer(t, s)
	install(t, s.Manager, sleeper, "one.service", "two.service")
	install(t, s.Manager, stubborn, "stub.service")
	run(t, s.Manager, unit.Start, "one.service", "two.service", "stub.service")
	for _, names := range [][]string{{"two.service"}, nil, {"one.service", "stub.service"}} {
		after := time.Hour
		if len(names) == 2 {
			after = 50 * time.Millisecond
		}
		if err := f.Guard(t.Context(), after, 100*time.Millisecond, names...); err != nil {
			t.Fatal(err)
		}
	}
	p := &player{Subject: s, ctx: t.Context()}
	for _, want := range [][]string{{"one.service", "inactive"}, {"stub.service", "failed|inactive"}} {
		if err := p.wait(want); err != nil {
			t.Error(err)
		}
	}
	if err := p.is([]string{"two.service", "active"}); err != nil {
		t.Error(err)
	}
	if err := f.Guard(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
}
