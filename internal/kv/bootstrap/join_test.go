package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/api/keys"
	"flotilla/internal/fault"
	"flotilla/internal/logx"
)

// service is a token in memory: what a discovery service does for one.
type service struct {
	*httptest.Server
	mu      sync.Mutex
	size    string // "" for no size key
	nodes   []*keys.Node
	index   uint64
	changed chan struct{}
	down    int // so many answers are 503
	asked   []string
}

func newService(t *testing.T, size string) *service {
	s := &service{size: size, index: 10, changed: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *service) token() string { return s.URL + "/T" }

func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	if s.down > 0 {
		s.down--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	rest := strings.TrimPrefix(r.URL.Path, "/T")
	switch {
	case r.FormValue("wait") == "true":
		s.wait(w, r)
	case rest == "/_config/size":
		s.answer(w, &keys.Node{Key: r.URL.Path, Value: &s.size}, s.size == "")
	case rest == "":
		s.answer(w, &keys.Node{Key: "/T", Dir: true, Nodes: s.nodes}, false)
	case r.Method == http.MethodPut:
		s.put(w, r, rest)
	}
}

func (s *service) wait(w http.ResponseWriter, r *http.Request) {
	changed := s.changed
	if r.FormValue("waitIndex") <= fmt.Sprint(s.index) {
		return // an empty answer: look again
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
	case <-r.Context().Done():
	}
}

func (s *service) put(w http.ResponseWriter, r *http.Request, rest string) {
	key, value := "/T"+rest, r.FormValue("value")
	i := slices.IndexFunc(s.nodes, func(n *keys.Node) bool { return n.Key == key })
	switch exist := r.FormValue("prevExist"); {
	case exist == "false" && i >= 0:
		s.fail(w, keys.CodeNodeExist, key)
		return
	case exist == "true" && i < 0:
		s.fail(w, keys.CodeKeyNotFound, key)
		return
	}
	s.index++
	n := &keys.Node{Key: key, Value: &value, CreatedIndex: s.index, ModifiedIndex: s.index}
	if i >= 0 {
		n.CreatedIndex = s.nodes[i].CreatedIndex
		s.nodes[i] = n
	} else {
		s.nodes = append(s.nodes, n)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.answer(w, n, false)
}

func (s *service) answer(w http.ResponseWriter, n *keys.Node, missing bool) {
	if missing {
		s.fail(w, keys.CodeKeyNotFound, n.Key)
		return
	}
	w.Header().Set("X-Etcd-Index", fmt.Sprint(s.index))
	json.NewEncoder(w).Encode(keys.Event{Action: keys.Get, Node: n})
}

func (s *service) fail(w http.ResponseWriter, code int, cause string) {
	err := keys.NewError(code, cause, s.index)
	w.WriteHeader(err.Status())
	json.NewEncoder(w).Encode(err)
}

// configOf is member n of the token.
func configOf(t *testing.T, s *service, n int) Config {
	return Config{
		URL: s.token(), Name: fmt.Sprintf("d%d", n), PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", n)},
		Dir: filepath.Join(t.TempDir(), "data"), Log: logx.Discard(),
		Pause: func(context.Context, time.Duration) error { return nil },
	}
}

func TestJoinTogether(t *testing.T) {
	s := newService(t, "3")
	var wg sync.WaitGroup
	got := make([]Cluster, 4)
	errs := make([]error, 4)
	for i := range 4 {
		cfg := configOf(t, s, i+1)
		wg.Go(func() { got[i], errs[i] = Join(t.Context(), cfg) })
	}
	wg.Wait()
	full := 0
	clusters := map[Cluster]int{}
	for i := range 4 {
		if errors.Is(errs[i], ErrFull) {
			full++
		} else if errs[i] != nil {
			t.Error(errs[i])
		} else {
			clusters[got[i]]++
		}
	}
	if full != 1 || len(clusters) != 1 {
		t.Fatalf("%d too many, clusters %v", full, clusters)
	}
	for c := range clusters {
		if strings.Count(c.Initial, "=") != 3 || c.Token != s.token() {
			t.Errorf("cluster %+v", c)
		}
	}
}

// A member that is stopped while it waits goes on waiting when it is started
// again; one whose data is gone is told.
func TestStartedAgain(t *testing.T) {
	s := newService(t, "2")
	one := configOf(t, s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := Join(ctx, one); ended <- err }()
	s.untilEntries(t, 1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	lost := one
	lost.Dir = t.TempDir()
	_, err := Join(t.Context(), lost)
	want := fmt.Sprintf("member \"d1\" has previously registered with discovery service token (%s).\n"+
		"But etcd could not find valid cluster configuration in the given data dir (%s).", s.token(), lost.Dir)
	if err == nil || err.Error() != want || fault.ExitCode(err) != 1 {
		t.Fatalf("%v\nwant %s", err, want)
	}

	go func() { _, err := Join(t.Context(), one); ended <- err }()
	if _, err := Join(t.Context(), configOf(t, s, 2)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := Forget(one.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), one); err == nil {
		t.Error("a member that has forgotten joins again")
	}
	if err := Forget(one.Dir); err != nil {
		t.Errorf("forget twice: %v", err)
	}
}

// untilEntries waits until so many members have registered.
func (s *service) untilEntries(t *testing.T, n int) {
	t.Helper()
	for {
		s.mu.Lock()
		have, changed := len(s.nodes), s.changed
		s.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d entries, want %d", have, n)
		}
	}
}

// While the service does not answer it is asked again, less and less often.
func TestUnreachable(t *testing.T) {
	s := newService(t, "1")
	s.down = 9
	cfg := configOf(t, s, 1)
	var pauses []string
	cfg.Pause = func(_ context.Context, d time.Duration) error {
		pauses = append(pauses, d.String())
		return nil
	}
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(pauses, " "), "2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 4m16s"; got != want {
		t.Errorf("pauses %s, want %s", got, want)
	}
}

func TestTokensThatAreWrong(t *testing.T) {
	for _, test := range []struct {
		name, size, want string
		entries          []string // peer URLs of members, registered as d1
	}{
		{name: "no size", want: "failed to join discovery cluster (100: Key not found (/T/_config/size) [10])"},
		{name: "size no number", size: "x", want: "failed to join discovery cluster (discovery: size key is bad)"},
		{name: "same name twice", size: "2", entries: []string{"http://127.0.0.1:9"}, want: "member with duplicated name has registered with discovery service token(URL)."},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, test.size)
			for i, u := range test.entries {
				value := "d1=" + u
				s.nodes = append(s.nodes, &keys.Node{Key: fmt.Sprintf("/T/%d", i), Value: &value, CreatedIndex: 1})
			}
			_, err := Join(t.Context(), configOf(t, s, 1))
			if want := strings.ReplaceAll(test.want, "URL", s.token()); err == nil || err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
		})
	}
}

// Two that have nothing to do with each other: the id that we register is the one
// that the engine is going to have.
func TestMemberID(t *testing.T) {
	// As etcd 3.4 has registered itself with this token.
	id, err := MemberID("d1", []string{"http://127.0.0.1:23801"}, "http://127.0.0.1:23790/v2/keys/_etcd/registry/t3")
	if err != nil || id != "7dfd0015bdce2377" {
		t.Errorf("%s %v", id, err)
	}
}

func TestHintsAndRenew(t *testing.T) {
	s := newService(t, "2")
	bad := "nonsense"
	s.nodes = append(s.nodes, &keys.Node{Key: "/T/x", Value: &bad})
	token, err := Open(s.token()+"/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	ctx := t.Context()
	for _, urls := range [][]string{{"http://10.0.0.1:2380"}, {"http://10.0.0.2:2380", "http://10.0.0.2:7001"}} {
		if err := token.Renew(ctx, "a1", "d1", urls); err != nil {
			t.Fatal(err)
		}
	}
	hints, err := token.Hints(ctx)
	if err != nil || len(hints) != 1 || fmt.Sprint(hints[0]) != "{d1 a1 [http://10.0.0.2:2380 http://10.0.0.2:7001]}" {
		t.Errorf("%v %v", hints, err)
	}
	if n := s.nodes[1]; n.CreatedIndex == n.ModifiedIndex {
		t.Error("a renewed entry lost its place")
	}
}

func TestOpen(t *testing.T) {
	for _, bad := range []string{"", "T", "ftp://h/T", "http://h", "http://h/", "http:///T", "http://h/%zz"} {
		if _, err := Open(bad, "", nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := Open("http://h/T", "h:3128", nil); err != nil {
		t.Error(err)
	}
}

func TestNoteUnreadable(t *testing.T) {
	s := newService(t, "1")
	cfg := configOf(t, s, 1)
	if err := os.MkdirAll(filepath.Join(cfg.Dir, noteFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), cfg); err == nil {
		t.Error("joined without knowing whether it had")
	}
}
