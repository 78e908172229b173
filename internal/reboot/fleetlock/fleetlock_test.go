package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

// memory is locks without a store. A group that is not in it has no lock.
type memory map[string]*lock.State

func (m memory) open(group string) (Locker, error) {
	if m[group] == nil {
		m[group] = &lock.State{Semaphore: sema.New()}
	}
	return one{m[group]}, nil
}

type one struct{ *lock.State }

func (o one) Read(context.Context) (lock.State, error) { return *o.State, nil }

func (o one) Change(_ context.Context, f func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	next, err := f(o.Semaphore)
	if err == nil {
		*o.State = lock.State{Semaphore: next, Index: o.Index + 1}
	}
	return *o.State, err
}

// ask makes a request and returns the status and the answer's kind.
func ask(t *testing.T, h http.Handler, path, body string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Fleet-Lock-Protocol", "true")
	return answer(t, h, r)
}

func answer(t *testing.T, h http.Handler, r *http.Request) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusOK {
		return "200"
	}
	var no struct{ Kind, Value string }
	if err := json.Unmarshal(w.Body.Bytes(), &no); err != nil || no.Value == "" {
		return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
	}
	return fmt.Sprint(w.Code, " ", no.Kind, ": ", no.Value)
}

func body(id, group string) string {
	return fmt.Sprintf(`{"client_params":{"id":%q,"group":%q}}`, id, group)
}

// Two machines take their turn; each step may be asked twice.
func TestTurns(t *testing.T) {
	m := memory{}
	h := New(Config{Open: m.open})
	for _, c := range []struct{ path, id, want string }{
		{"/v1/steady-state", "a", "200"},
		{"/v1/pre-reboot", "a", "200"},
		{"/v1/pre-reboot", "a", "200"},
		{"/v1/pre-reboot", "b", "409 failed_lock: semaphore is at 0: max is 1, held by a, rebooting"},
		{"/v1/steady-state", "b", "200"},
		{"/fleetlock/v1/steady-state", "a", "200"},
		{"/fleetlock/v1/steady-state", "a", "200"},
		{"/v1/pre-reboot", "b", "200"},
	} {
		if got := ask(t, h, c.path, body(c.id, "default")); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.path, c.id, got, c.want)
		}
	}
	if s := m[""]; !s.Holds("b") || s.Details["b"].Phase != sema.Rebooting {
		t.Errorf("the default group is the lock without a group: %s", s.Encode())
	}
}

func TestStoppedAndGivenUp(t *testing.T) {
	m := memory{}
	h := New(Config{Open: m.open})
	ask(t, h, "/v1/pre-reboot", body("a", "default"))
	s, err := m[""].Lose("a", m[""].Mark("a"), "silent", m[""].Details["a"].Since)
	if err != nil {
		t.Fatal(err)
	}
	m[""].Semaphore = s
	for _, c := range []struct{ path, id, want string }{
		{"/v1/pre-reboot", "b", "409 failed_lock: stopped: a: silent"},
		{"/v1/pre-reboot", "a", "409 failed_lock: a has been given up: a client asks steady-state after its start"},
		{"/v1/steady-state", "a", "200"}, // it has come back late
		{"/v1/pre-reboot", "b", "200"},
	} {
		if got := ask(t, h, c.path, body(c.id, "default")); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.path, c.id, got, c.want)
		}
	}
}

// What a person holds for a machine is nobody's to take or give back by protocol.
func TestByHand(t *testing.T) {
	m := memory{}
	h := New(Config{Open: m.open})
	s, err := sema.New().Take("a", sema.Detail{Phase: sema.ByHand})
	if err != nil {
		t.Fatal(err)
	}
	m[""] = &lock.State{Semaphore: s, Index: 1}
	if got := ask(t, h, "/v1/pre-reboot", body("a", "default")); got != "409 failed_lock: holder exists" {
		t.Error(got)
	}
	if got := ask(t, h, "/v1/steady-state", body("a", "default")); got != "200" || !m[""].Holds("a") {
		t.Error(got)
	}
}

// What a machine of ours holds is nobody's to take or give back by protocol either.
func TestNotOurs(t *testing.T) {
	m := memory{}
	h := New(Config{Open: m.open})
	s, err := sema.New().Take("a", sema.Detail{Boot: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	m[""] = &lock.State{Semaphore: s, Index: 1}
	for _, path := range []string{"/v1/pre-reboot", "/v1/steady-state"} {
		if got := ask(t, h, path, body("a", "default")); got != "409 failed_lock: the machine's own locksmithd holds the slot" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := m[""].Details["a"]; got.Phase != sema.Draining {
		t.Errorf("it is %s", m[""].Encode())
	}
}

// A client says nothing while it reboots, for 20 minutes here: longer than others may be
// silent, and not as long as it may.
func TestSlowReboot(t *testing.T) {
	for after, want := range map[time.Duration]bool{20 * time.Minute: false, 30 * time.Minute: true} {
		m := memory{}
		h := New(Config{Open: m.open})
		ask(t, h, "/v1/pre-reboot", body("a", "default"))
		var eye sema.Observer
		var dead []sema.Suspect
		for now := time.Duration(0); now <= after; now += sema.RefreshEvery {
			dead = eye.Look(m[""].Semaphore, m[""].Index, now)
		}
		if got := len(dead) > 0; got != want {
			t.Errorf("after %v: %v", after, dead)
		}
	}
}

// Names with letters that mean something elsewhere are names.
func TestOddNames(t *testing.T) {
	m := memory{"..a": {Semaphore: sema.New(), Index: 1}, "-": {Semaphore: sema.New(), Index: 1}}
	h := New(Config{Open: m.open})
	for _, id := range []string{"a/b", "../x", `q"uote`, "<b>", "ünï", "a b", "%2e%2e", "-", "null"} {
		for _, path := range []string{"/v1/pre-reboot", "/v1/pre-reboot", "/v1/steady-state"} {
			if got := ask(t, h, path, body(id, "default")); got != "200" {
				t.Errorf("%s of %q: %s", path, id, got)
			}
		}
	}
	for group, want := range map[string]string{
		"..a": "200", "-": "200", "a%2fb": "400", "a_b": "400", "a b": "400", "ä": "400", "": "400",
	} {
		if got := ask(t, h, "/v1/pre-reboot", body("a", group)); !strings.HasPrefix(got, want) {
			t.Errorf("group %q: %s, want %s", group, got, want)
		}
	}
}

func TestGroups(t *testing.T) {
	m := memory{"db": {Semaphore: sema.New(), Index: 7}}
	h := New(Config{Open: m.open})
	for group, want := range map[string]string{
		"db":  "200",
		"web": `400 unknown_group: no lock for group "web": 'locksmithctl -group web set-max 1' makes one`,
		"..":  `400 invalid_client_identity: client_params.group "..": want letters, digits, dots and dashes`,
		"a/b": `400 invalid_client_identity: client_params.group "a/b": want letters, digits, dots and dashes`,
	} {
		if got := ask(t, h, "/v1/pre-reboot", body("a", group)); got != want {
			t.Errorf("group %s: %s, want %s", group, got, want)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := New(Config{Open: memory{}.open})
	for in, want := range map[string]string{
		"":                                  `400 invalid_client_identity: the body is not`,
		"{}":                                `400 invalid_client_identity: client_params.id is empty`,
		`{"client_params":{"id":"a"}}`:      `400 invalid_client_identity: client_params.group is empty`,
		`{"client_params":{"id":1}}`:        `400 invalid_client_identity: the body is not`,
		body("a\nb", "default"):             `400 invalid_client_identity: client_params.id "a\nb"`,
		body(strings.Repeat("a", 257), "d"): `400 invalid_client_identity: client_params.id "aaaa`,
		body(strings.Repeat("a", 20_000), "default"): `413 request_too_large`,
	} {
		if got := ask(t, h, "/v1/pre-reboot", in); !strings.HasPrefix(got, want) {
			t.Errorf("%.40s: %s, want %s", in, got, want)
		}
	}
	for _, c := range []struct {
		method, path, header, want string
	}{
		{http.MethodGet, "/v1/pre-reboot", "true", "405 invalid_method"},
		{http.MethodPost, "/v1/pre-reboot", "", "400 invalid_protocol"},
		{http.MethodPost, "/v1/pre-reboot", "false", "400 invalid_protocol"},
		{http.MethodPost, "/v1/reboot", "true", "404 unknown_path: the protocol has"},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(body("a", "default")))
		r.Header.Set("fleet-lock-protocol", c.header)
		if got := answer(t, h, r); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s %q: %s, want %s", c.method, c.path, c.header, got, c.want)
		}
	}
}

// away is a lock whose store does not answer.
type away struct{ readable bool }

func (a away) Read(context.Context) (lock.State, error) {
	if a.readable {
		return lock.State{Semaphore: sema.New()}, nil
	}
	return lock.State{}, errors.New("no endpoint answered")
}

func (away) Change(context.Context, func(sema.Semaphore) (sema.Semaphore, error)) (lock.State, error) {
	return lock.State{}, errors.New("no endpoint answered")
}

func TestStoreAway(t *testing.T) {
	for readable, want := range map[bool]string{
		false: "500 failed_sem_init: no endpoint answered",
		true:  "500 failed_lock: no endpoint answered",
	} {
		h := New(Config{Open: func(string) (Locker, error) { return away{readable}, nil }})
		if got := ask(t, h, "/v1/pre-reboot", body("a", "default")); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Over a real store, with the keys where everybody else has them.
func TestStore(t *testing.T) {
	url := membertest.Start(t)
	c, err := keys.New(keys.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := httptest.NewServer(New(Config{Open: func(group string) (Locker, error) { return lock.New(c, group) }}))
	defer h.Close()
	post := func(path, id string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL+path, strings.NewReader(body(id, "default")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("fleet-lock-protocol", "true")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := []int{post("/v1/pre-reboot", "a"), post("/v1/pre-reboot", "b")}; !slices.Equal(got, []int{200, 409}) {
		t.Errorf("pre-reboot: %v", got)
	}
	r, err := c.Get(t.Context(), "/coreos.com/updateengine/rebootlock/semaphore", keys.GetOptions{})
	if err != nil || !strings.HasPrefix(*r.Node.Value, `{"semaphore":0,"max":1,"holders":["a"],`) {
		t.Errorf("%+v, %v", r, err)
	}
	if got := []int{post("/v1/steady-state", "a"), post("/v1/pre-reboot", "b")}; !slices.Equal(got, []int{200, 200}) {
		t.Errorf("steady-state: %v", got)
	}
}

// Whatever is sent: an answer of the protocol, and no holder that cannot be named.
func FuzzBody(f *testing.F) {
	for _, in := range []string{body("a", "default"), "{}", `{"client_params":{"id":"\ud800","group":".."}}`, `{"client_params":null}`} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parse(in)
		if err != nil {
			return
		}
		if c.ID == "" || strings.ContainsAny(c.Group, "/ ") || strings.Contains(lock.Key(c.lockName()), "//") {
			t.Fatalf("%q of %q passes", c.ID, c.Group)
		}
		if !strings.HasPrefix(lock.Key(c.lockName()), "/coreos.com/updateengine/rebootlock/") {
			t.Fatalf("group %q leads to %s", c.Group, lock.Key(c.lockName()))
		}
		s, err := sema.New().Acquire(c.ID, sema.Detail{})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := sema.Decode(s.Encode()); err != nil || !again.Holds(c.ID) {
			t.Fatalf("%q is stored as %s, %v", c.ID, s.Encode(), err)
		}
	})
}
