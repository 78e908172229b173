package unitshttp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/unit"
	"flotilla/internal/unit/unitfake"
)

// others is the machines beside this one.
type others struct {
	mu    sync.Mutex
	units map[string]*unitfake.Manager // by id
	away  map[string]chan struct{}     // closed when the machine goes away
}

func (o *others) ReadLog(ctx context.Context, m model.Machine, q peer.Query, emit func(unit.LogEntry) error) error {
	o.mu.Lock()
	units, away := o.units[m.ID], o.away[m.ID]
	o.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-away:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-away:
		return fmt.Errorf("ask %s: no route", m.Hostname)
	default:
	}
	err := peer.Read(ctx, units, q, emit)
	select {
	case <-away:
		return errors.New("connection reset")
	default:
		return err
	}
}

func (o *others) Adopt(context.Context, model.Machine, string) (string, error) { return "", nil }
func (o *others) Eject(context.Context, model.Machine, string) error           { return nil }

func (o *others) Show(context.Context, model.Machine, io.Writer, string) (int, error) { return 0, nil }

func (o *others) leave(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.away[id])
}

func (o *others) comeBack(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away[id] = make(chan struct{})
}

// logCluster is an API on the first of three machines with a unit each.
type logCluster struct {
	*api
	t      *testing.T
	others *others
}

func id(n int) string { return strings.Repeat(fmt.Sprint(n), 32) }

func newLogCluster(t *testing.T) *logCluster {
	c := &logCluster{api: newAPI(t, membertest.Start(t), "/logs/"), t: t, others: &others{units: map[string]*unitfake.Manager{}, away: map[string]chan struct{}{}}}
	c.Peers = c.others
	for n := 1; n <= 3; n++ {
		c.others.units[id(n)] = unitfake.New()
		c.others.comeBack(id(n))
		c.put("machines/"+id(n)+"/object", fmt.Sprintf(`{"ID":"%s","Hostname":"m%d","PeerAddr":"m%d:1","Boot":"b"}`, id(n), n, n))
		c.place(fmt.Sprintf("web@%d.service", n), n)
	}
	c.Local = here{c.others.units[id(1)]}
	return c
}

func (c *logCluster) put(key, value string) {
	c.t.Helper()
	if _, err := c.raw.Put(c.t.Context(), c.prefix+key, value); err != nil {
		c.t.Fatal(err)
	}
}

func (c *logCluster) place(name string, machine int) {
	c.t.Helper()
	const text, hash = `[Service]\nExecStart=/bin/true\n`, "86943ac9f3754cb90f8dd38bf6da7b0cad074592"
	c.put("job/"+name+"/object", `{"Raw":"`+text+`"}`)
	c.put("job/"+name+"/target-state", "launched")
	if machine > 0 {
		c.put("schedule/"+id(machine)+"/"+name, `{"hash":"`+hash+`","text":"`+text+`","desired":"launched","gen":1}`)
	}
}

func (c *logCluster) print(n int, line string) {
	c.others.units[id(n)].Print(fmt.Sprintf("web@%d.service", n), line)
}

func brief1(l fleet.LogLine) string {
	if l.Notice != "" {
		return "NOTICE " + l.Notice
	}
	return l.Machine + " " + l.Message
}

// get reads a log that is not followed.
func (c *logCluster) get(query string) string {
	c.t.Helper()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/fleet/v1/logs?"+query, nil))
	if w.Code != 200 {
		return fmt.Sprintf("%d %s", w.Code, w.Body)
	}
	var out []string
	for dec := json.NewDecoder(w.Body); dec.More(); {
		var l fleet.LogLine
		if err := dec.Decode(&l); err != nil {
			c.t.Fatal(err)
		}
		out = append(out, brief1(l))
	}
	return strings.Join(out, "|")
}

func TestLogsOfAllMachines(t *testing.T) {
	c := newLogCluster(t)
	for i := range 4 {
		for n := 1; n <= 3; n++ {
			c.print(n, fmt.Sprintf("line %d", i))
		}
	}
	c.place("nowhere.service", 0)
	c.put("unplaced/nowhere.service", `{"why":"3 machines: 3 lack metadata disk=ssd"}`)
	for _, one := range []struct{ query, want string }{
		{"unit=web@*&lines=4", "m3 line 2|m1 line 3|m2 line 3|m3 line 3"},
		{"unit=web@*&lines=-1&grep=line+[03]", "m1 line 0|m2 line 0|m3 line 0|m1 line 3|m2 line 3|m3 line 3"},
		{"unit=web@1.service&unit=web@3.service&lines=3", "m3 line 2|m1 line 3|m3 line 3"},
		{"unit=web@*&machine=2&lines=1", "m2 line 3"},
		{"unit=*&lines=2&priority=3", "NOTICE unit nowhere.service is on no machine: 3 machines: 3 lack metadata disk=ssd"},
		{"unit=web@*&since=1h&grep=line+0", "m1 line 0|m2 line 0|m3 line 0"},
		{"unit=web@*&since=2999-01-01T00:00:00Z", ""},
		{"unit=web@*&lines=0", ""},
		{"unit=none@*", `404 {"error":{"code":404,"message":"no unit is called none@*"}}`},
		{"", `400 {"error":{"code":400,"message":"unit: name the units, 1 to 1000 names or globs such as web@*"}}`},
		{"unit=a&grep=(", "400 {\"error\":{\"code\":400,\"message\":\"grep: error parsing regexp: missing closing ): `(`\"}}"},
		{"unit=a&priority=8", `400 {"error":{"code":400,"message":"priority: \"8\" is not a number from 0 to 7"}}`},
		{"unit=a&machine=9", `404 {"error":{"code":404,"message":"no machine 9 is present"}}`},
	} {
		if got := c.get(one.query); got != one.want {
			t.Errorf("%s:\ngot  %s\nwant %s", one.query, got, one.want)
		}
	}
	c.others.leave(id(2))
	if got, want := c.get("unit=web@*&lines=2"), "NOTICE a log is missing: ask m2: no route|m1 line 3|m3 line 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := c.get("unit=web@2.service"); got != `502 {"error":{"code":502,"message":"ask m2: no route"}}` {
		t.Errorf("got %s", got)
	}
}

// follow reads lines of a log that is followed; next returns the next one.
func (c *logCluster) follow(query string) (next func() string) {
	server := httptest.NewServer(c)
	c.t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", server.URL+"/fleet/v1/logs?follow=true&"+query, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	got := make(chan string)
	go func() {
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			var l fleet.LogLine
			if json.Unmarshal(scan.Bytes(), &l) == nil {
				got <- brief1(l)
			}
		}
	}()
	return func() string {
		select {
		case line := <-got:
			return line
		case <-time.After(10 * time.Second):
			return "nothing for 10 s"
		}
	}
}

// A log that is followed goes on when a machine returns and when a unit comes to
// another machine; nothing is lost or told twice.
func TestLogsAreFollowed(t *testing.T) {
	c := newLogCluster(t)
	c.print(1, "before")
	c.print(1, "first")
	c.print(2, "second")
	next := c.follow("unit=web@*&lines=2&grep=^[a-z]")
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if got := next(); got != w && !strings.HasPrefix(w, "NOTICE") || !strings.HasPrefix(got, w) {
				t.Fatalf("got %q, want %q", got, w)
			}
		}
	}
	expect("m1 first", "m2 second")
	c.print(3, "third")
	c.print(3, "UNWANTED")
	expect("m3 third")
	c.others.leave(id(2))
	expect("NOTICE m2 does not answer, its log goes on when it does: ")
	c.print(2, "while away")
	c.print(1, "meanwhile")
	expect("m1 meanwhile")
	c.others.comeBack(id(2))
	expect("NOTICE m2 answers again", "m2 while away")
	c.print(2, "present again")
	expect("m2 present again")
	// A unit is new on a machine whose log is being read: what it said there counts.
	c.others.units[id(3)].Print("web@new.service", "starting")
	c.place("web@new.service", 3)
	expect("m3 starting")
	c.print(3, "after")
	c.others.units[id(3)].Print("web@new.service", "started")
	expect("m3 after", "m3 started")
}
