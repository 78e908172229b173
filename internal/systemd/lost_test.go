package systemd_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"flotilla/internal/systemd"
	"flotilla/internal/systemd/bustest"
	"flotilla/internal/unit"
)

// busSystemd is what a systemd with one unit and one job says on a message bus.
type busSystemd struct {
	t       *testing.T
	address string
	conn    *dbus.Conn

	mu       sync.Mutex
	unit     map[string]dbus.Variant
	job      string // its type; "" none
	requests []string
	sent     chan string // each request, when it has been answered
	asked    chan bool   // after a job has been asked for by its path
}

const (
	lostUnit = "web.service"
	unitPath = "/org/freedesktop/systemd1/unit/web_2eservice"
	jobPath  = "/org/freedesktop/systemd1/job/7"
	busName  = "org.freedesktop.systemd1"
)

func newBusSystemd(t *testing.T) *busSystemd {
	s := &busSystemd{t: t, address: bustest.Start(t), sent: make(chan string, 10), asked: make(chan bool, 10)}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", s.address)
	s.unit = map[string]dbus.Variant{"LoadState": dbus.MakeVariant("loaded")}
	s.state("active", time.Hour)
	s.appear()
	return s
}

// appear has the bus name taken, by a connection of its own.
func (s *busSystemd) appear() {
	s.conn = bustest.Connect(s.t, s.address)
	manager := map[string]any{
		"Subscribe":   func() *dbus.Error { return nil },
		"StartUnit":   func(string, string) (dbus.ObjectPath, *dbus.Error) { return s.request("start"), nil },
		"RestartUnit": func(string, string) (dbus.ObjectPath, *dbus.Error) { return s.request("restart"), nil },
	}
	props := map[string]any{"GetAll": s.getAll, "Get": s.getUnit}
	s.export(manager, "/org/freedesktop/systemd1", busName+".Manager")
	s.export(props, unitPath, "org.freedesktop.DBus.Properties")
	s.export(map[string]any{"Get": s.getJob}, jobPath, "org.freedesktop.DBus.Properties")
	bustest.Own(s.t, s.conn, busName)
}

func (s *busSystemd) export(methods map[string]any, path dbus.ObjectPath, iface string) {
	if err := s.conn.ExportMethodTable(methods, path, iface); err != nil {
		s.t.Fatal(err)
	}
}

// reappear is systemd executing itself anew: the name has another owner, and what it said
// between the two is lost.
func (s *busSystemd) reappear(between func()) {
	s.conn.Close()
	between()
	s.appear()
}

func (s *busSystemd) request(kind string) dbus.ObjectPath {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, kind)
	s.job = kind
	s.sent <- kind
	return jobPath
}

// state puts the unit into a state that it came into, and began at, some time ago.
func (s *busSystemd) state(active string, ago time.Duration) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := dbus.MakeVariant(uint64(max(1, time.Duration(now.Nano())-ago) / time.Microsecond))
	s.unit["ActiveState"] = dbus.MakeVariant(active)
	switch active {
	case "active":
		s.unit["ActiveEnterTimestampMonotonic"] = at
	case "deactivating":
		s.unit["ActiveExitTimestampMonotonic"] = at
	case "inactive":
		s.unit["InactiveEnterTimestampMonotonic"] = at
	case "activating":
		s.unit["InactiveExitTimestampMonotonic"] = at
	}
}

func (s *busSystemd) setJob(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.job = kind
}

// ends has the job end, and says so.
func (s *busSystemd) ends(result string) {
	s.setJob("")
	if err := s.conn.Emit("/org/freedesktop/systemd1", busName+".Manager.JobRemoved", uint32(7), dbus.ObjectPath(jobPath), lostUnit, result); err != nil {
		s.t.Error(err)
	}
}

func (s *busSystemd) getAll(string) (map[string]dbus.Variant, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]dbus.Variant{}
	for k, v := range s.unit {
		out[k] = v
	}
	if s.job != "" {
		out["Job"] = dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{7, jobPath})
	}
	return out, nil
}

func (s *busSystemd) getUnit(_, name string) (dbus.Variant, *dbus.Error) {
	if name == "Result" {
		return dbus.MakeVariant("success"), nil
	}
	return dbus.MakeVariant(uint32(0)), nil
}

func (s *busSystemd) getJob(_, name string) (dbus.Variant, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.job == "" {
		return dbus.Variant{}, dbus.NewError(busName+".NoSuchJob", []any{"no such job"})
	}
	if name == "JobType" {
		return dbus.MakeVariant(s.job), nil
	}
	s.asked <- true
	return dbus.MakeVariant("running"), nil
}

// A connection that is lost in the middle of a restart restarts nothing twice: what became
// of the unit and of its job is asked first.
func TestLostInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		name     string
		happens  func(s *busSystemd) // while nobody listens
		later    func(s *busSystemd) // once the job is waited for again; nil: nobody waits
		result   unit.Result
		requests []string
	}{
		{"it has come up", func(s *busSystemd) { s.state("activating", 0); s.state("active", 0); s.setJob("") }, nil, unit.Done, []string{"restart"}},
		{"it is coming up", func(s *busSystemd) { s.state("activating", 0); s.setJob("start") },
			func(s *busSystemd) { s.state("active", 0); s.ends("done") }, unit.Done, []string{"restart"}},
		{"it is going down", func(s *busSystemd) { s.state("deactivating", 0) },
			func(s *busSystemd) { s.state("active", 0); s.ends("done") }, unit.Done, []string{"restart"}},
		{"it is down, and comes up to fail", func(s *busSystemd) { s.state("inactive", 0); s.setJob("start") },
			func(s *busSystemd) { s.ends("failed") }, unit.Failed, []string{"restart"}},
		{"it came up, fell, and systemd starts it again", func(s *busSystemd) {
			s.state("active", 0)
			s.state("inactive", 0)
			s.state("activating", 0)
			s.setJob("")
		}, nil, unit.Done, []string{"restart"}},
		{"the request has come to nothing", func(s *busSystemd) { s.setJob("") }, func(s *busSystemd) { s.ends("done") }, unit.Done, []string{"restart", "restart"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newBusSystemd(t)
			m := systemd.NewOnMessageBus(systemd.Config{})
			defer m.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			out := m.Run(ctx, []unit.Job{{Kind: unit.Restart, Unit: lostUnit}})
			<-s.sent
			s.reappear(func() { c.happens(s) })
			if c.later != nil {
				select {
				case <-s.asked: // by its path
				case <-s.sent: // anew
				case <-ctx.Done():
					t.Fatal("the job is neither waited for nor sent again")
				}
				c.later(s)
			}
			o := <-out
			if o.Err != nil || o.Result != c.result {
				t.Errorf("outcome %q, error %v", o.Result, o.Err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if !slices.Equal(s.requests, c.requests) {
				t.Errorf("systemd was asked for %q", s.requests)
			}
		})
	}
}
