package unitfake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
	"flotilla/internal/unit/unittest"
)

func TestConformance(t *testing.T) {
	unittest.Run(t, func(t *testing.T) unittest.Subject {
		m := unitfake.New()
		return unittest.Subject{Manager: m, Log: m, Dir: t.TempDir(), Virtual: true}
	})
}

func start(t *testing.T, m *unitfake.Manager, name string) unit.Outcome {
	t.Helper()
	if err := m.Install(t.Context(), name, "[Service]\nExecStart=/bin/true\n"); err != nil {
		t.Fatal(err)
	}
	return <-m.Run(t.Context(), []unit.Job{{Kind: unit.Start, Unit: name}})
}

func status(t *testing.T, m *unitfake.Manager, name string) unit.Status {
	t.Helper()
	all, err := m.Status(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestScriptedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := unitfake.New()
		m.Script("slow.service", unitfake.Script{StartTakes: time.Hour})
		m.Script("bad.service", unitfake.Script{Start: unit.Failed})
		begin := time.Now()
		if o := start(t, m, "slow.service"); o.Result != unit.Done || time.Since(begin) != time.Hour {
			t.Errorf("slow: %+v after %v", o, time.Since(begin))
		}
		if o := start(t, m, "bad.service"); o.Result != unit.Failed || status(t, m, "bad.service").Active != "failed" {
			t.Errorf("bad: %+v, then %+v", o, status(t, m, "bad.service"))
		}
	})
}

func TestStopReplacesStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := unitfake.New()
		m.Script("slow.service", unitfake.Script{StartTakes: time.Hour})
		if err := m.Install(t.Context(), "slow.service", "[Service]\n"); err != nil {
			t.Fatal(err)
		}
		begun := m.Run(t.Context(), []unit.Job{{Kind: unit.Start, Unit: "slow.service"}})
		stopped := <-m.Run(t.Context(), []unit.Job{{Kind: unit.Stop, Unit: "slow.service"}})
		if o := <-begun; o.Result != unit.Canceled || stopped.Result != unit.Done {
			t.Errorf("start ended in %s, stop in %s", o.Result, stopped.Result)
		}
	})
}

func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := unitfake.New()
		start(t, m, "web.service")
		watch, err := m.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.Disconnect()
		if _, open := <-watch; open {
			t.Error("the watch goes on without a connection")
		}
		if _, err := m.Status(t.Context(), "web.service"); !errors.Is(err, unitfake.ErrLost) {
			t.Errorf("status without a connection: %v", err)
		}
		m.Connect()
		if st := status(t, m, "web.service"); st.Active != "active" || m.Starts("web.service") != 1 {
			t.Errorf("after the connection came back: %+v", st)
		}
	})
}

func TestCrashAndReboot(t *testing.T) {
	m := unitfake.New()
	start(t, m, "web.service")
	m.Crash("web.service")
	if st := status(t, m, "web.service"); st.Active != "failed" || st.ExitCode != 1 {
		t.Errorf("after the crash: %+v", st)
	}
	m.Reboot()
	if have, err := m.Installed(t.Context()); err != nil || len(have) != 0 {
		t.Errorf("after the reboot: %v, error %v", have, err)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := unitfake.New()
		start(t, m, "web.service")
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error)
		go func() {
			ended <- m.ReadLog(ctx, unit.LogQuery{Units: []string{"web.service"}, Follow: true, Lines: -1},
				func(e unit.LogEntry) error {
					got = append(got, e.Message)
					return nil
				})
		}()
		synctest.Wait()
		m.Print("other.service", "not mine")
		m.Print("web.service", "hello")
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || len(got) != 2 || got[1] != "hello" {
			t.Errorf("followed %q, error %v", got, err)
		}
	})
}
