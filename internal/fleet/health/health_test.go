package health

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

func TestJudge(t *testing.T) {
	begun := time.Unix(1000, 0)
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	plain := model.RollPolicy{HealthyAfter: time.Second, HealthyTimeout: time.Minute}
	checked := plain
	checked.HealthCheck = "tcp://:80"
	slow := model.RollPolicy{HealthyAfter: time.Minute, HealthyTimeout: 10 * time.Second}
	active := func(since float64) Facts {
		return Facts{Started: true, Load: "loaded", Active: "active", Result: "success", ActiveSince: at(since)}
	}
	with := func(f Facts, change func(*Facts)) Facts { change(&f); return f }
	for _, c := range []struct {
		name   string
		policy model.RollPolicy
		facts  Facts
		now    float64
		want   model.Health
		why    string
		next   float64 // 0: never
	}{
		{"its start job runs", plain, Facts{Active: "active"}, 1, model.Waiting, "it is being started", 60},
		{"just active", plain, active(3), 3, model.Waiting, "it has not been active for 1s yet", 4},
		{"active for long enough", plain, active(3), 4, model.Good, "active for 1s", 0},
		{"activating", plain, Facts{Started: true, Active: "activating"}, 5, model.Waiting, "it is activating", 60},
		{"activating for ever", plain, Facts{Started: true, Active: "activating"}, 60, model.Bad, "not good within 1m0s: it is activating", 0},
		{"failed", plain, Facts{Started: true, Active: "failed", Result: "exit-code"}, 1, model.Bad, "it failed (exit-code)", 0},
		{"the copy before had failed", plain, Facts{Active: "failed", Result: "exit-code"}, 1, model.Waiting, "it is being started", 60},
		{"start limit", plain, Facts{Started: true, Active: "failed", Result: "start-limit-hit"}, 1, model.Bad, "it failed (start-limit-hit)", 0},
		{"restarted once", plain, with(active(3), func(f *Facts) { f.Restarts = 1 }), 4, model.Good, "active for 1s", 0},
		{"a crash loop", plain, with(active(3), func(f *Facts) { f.Restarts = 3 }), 9, model.Bad, "it does not stay up: restarted 3 times", 0},
		{"ended", plain, Facts{Started: true, Active: "inactive", Result: "success"}, 1, model.Bad, "it ended by itself, or was not allowed to start", 0},
		{"a oneshot that is through", plain, Facts{Started: true, Active: "inactive", Result: "success", Oneshot: true}, 1, model.Good, "it ran and ended well", 0},
		{"refused", plain, Facts{Refused: "Type=dbus:\nneeds systemd"}, 0, model.Bad, "the init system refuses it: Type=dbus: needs systemd", 0},
		{"bad file", plain, Facts{Load: "bad-setting"}, 0, model.Bad, "its unit file cannot be loaded (bad-setting)", 0},
		{"systemd away", plain, Facts{Trouble: "start: connection lost"}, 9, model.Waiting, "start: connection lost", 60},
		{"was not running", plain, Facts{Untouched: true, Active: "failed"}, 1, model.Good, "it did not run, and is not started", 0},
		{"not asked yet", checked, active(3), 4, model.Waiting, "its health check has not answered yet", 60},
		{"does not answer", checked, with(active(3), func(f *Facts) { f.Checked = &Answer{"refused"} }), 9, model.Waiting, "health check: refused", 60},
		{"never answers", checked, with(active(3), func(f *Facts) { f.Checked = &Answer{"refused"} }), 61, model.Bad, "not good within 1m0s: health check: refused", 0},
		{"answers", checked, with(active(3), func(f *Facts) { f.Checked = &Answer{} }), 4, model.Good, "active for 1s, and its health check passes", 0},
		{"answers too early", checked, with(active(3), func(f *Facts) { f.Checked = &Answer{} }), 3.5, model.Waiting, "it has not been active for 1s yet", 4},
		{"must be active for longer than the timeout", slow, active(1), 30, model.Waiting, "it has not been active for 1m0s yet", 61},
		{"and was", slow, active(1), 61, model.Good, "active for 1m0s", 0},
	} {
		c.facts.Begun = begun
		got := Judge(c.policy, c.facts, at(c.now))
		want := Verdict{Health: c.want, Why: c.why}
		if c.next != 0 {
			want.Next = at(c.next)
		}
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, want)
		}
	}
}

// A verdict that waits says when to look again, and by then it is another one.
func TestJudgeEnds(t *testing.T) {
	p := model.RollPolicy{HealthyAfter: 3 * time.Second, HealthyTimeout: 10 * time.Second, HealthCheck: "tcp://:1"}
	f := Facts{Begun: time.Unix(0, 0), Started: true, Active: "active", ActiveSince: time.Unix(9, 0)}
	now, looks := f.Begun, 0
	for v := Judge(p, f, now); !v.Decided(); v = Judge(p, f, now) {
		if looks++; looks > 3 || !v.Next.After(now) {
			t.Fatalf("at %v: %+v", now, v)
		}
		now = v.Next
	}
}

func TestProbe(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/moved", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	ln.Close()
	for _, c := range []struct{ check, user, want string }{
		{web.URL + "/", "", ""},
		{web.URL + "/moved", "", ""},
		{web.URL + "/bad", "", "/bad: 503 Service Unavailable"},
		{secure.URL, "", "404 Not Found"},
		{"http://" + gone + "/", "", "connection refused"},
		{"tcp://" + web.Listener.Addr().String(), "", ""},
		{"tcp://" + gone, "", "connection refused"},
		{"/bin/true", "", ""},
		{"/bin/sh -c 'echo starting; echo no database >&2; exit 3'", "", "/bin/sh: exit status 3: no database"},
		{"/bin/nothere", "", "no such file"},
		{"/bin/true", "nobody-of-that-name", "health check as user nobody-of-that-name"},
	} {
		p, err := unitfile.ParseHealthCheck(c.check)
		if err != nil {
			t.Fatal(err)
		}
		err = Probe(t.Context(), p, c.user)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.check, err, c.want)
		}
	}
}

// A command runs as the unit's user, and what it has started ends with it.
func TestProbeCommand(t *testing.T) {
	if os.Geteuid() == 0 {
		p := unitfile.HealthProbe{Command: `/bin/sh -c 'test "$(id -un) $USER" = "nobody nobody"'`}
		if err := Probe(t.Context(), p, "nobody"); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	p := unitfile.HealthProbe{Command: "/bin/sh -c 'sleep 1000 & sleep 1000'"}
	if err := Probe(ctx, p, ""); err == nil || time.Since(begin) > 900*time.Millisecond {
		t.Errorf("error %v after %v", err, time.Since(begin))
	}
}
