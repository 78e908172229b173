package faults

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/api/keys"
)

// flawed is a small store that speaks the v2 API and keeps every promise but one, now
// and then.
type flawed struct {
	flaw string

	mu      sync.Mutex
	index   uint64
	files   map[string]*keys.Node
	before  map[string]*keys.Node // the version before
	events  []keys.Event
	changed chan struct{} // closed at the next change
	asked   int
	watched int
}

func newFlawed(flaw string) *flawed {
	return &flawed{flaw: flaw, files: map[string]*keys.Node{}, before: map[string]*keys.Node{}, changed: make(chan struct{})}
}

// ServeHTTP answers a request; with a flaw every fifteenth one is the victim.
func (f *flawed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Form.Get("wait") == "true" {
		f.watch(w, r)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	victim := f.asked%15 == 0
	if victim && f.flaw == "answers are lost" && f.asked%2 == 0 {
		panic(http.ErrAbortHandler) // and nothing was done
	}
	e, kerr := f.do(r, strings.TrimPrefix(r.URL.Path, "/v2/keys"), victim)
	if victim && f.flaw == "answers are lost" {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Etcd-Index", strconv.FormatUint(f.index, 10))
	if kerr != nil {
		w.WriteHeader(kerr.Status())
		_ = json.NewEncoder(w).Encode(kerr) // the client has gone
		return
	}
	_ = json.NewEncoder(w).Encode(e) // the same
}

func (f *flawed) do(r *http.Request, key string, victim bool) (keys.Event, *keys.Error) {
	old := f.files[key]
	verb := verbOf(r.Method, r.Form)
	if verb == keys.Get && victim && f.flaw == "a stale read" && f.before[key] != nil {
		return keys.Event{Action: keys.Get, Node: f.before[key]}, nil
	}
	if code := refusalOf(verb, r.Form, old, victim && f.flaw == "a compare is ignored"); code != 0 {
		return keys.Event{}, keys.NewError(code, key, f.index)
	}
	if verb == keys.Get {
		return keys.Event{Action: keys.Get, Node: old}, nil
	}
	f.index++
	e := keys.Event{Action: verb, Node: nodeOf(verb, key, r.Form.Get("value"), f.index, old), PrevNode: old}
	if victim && f.flaw == "a write is lost" {
		return e, nil
	}
	f.keep(e)
	return e, nil
}

// keep stores what a write has made, and tells who watches.
func (f *flawed) keep(e keys.Event) {
	key := e.Node.Key
	f.before[key] = e.PrevNode
	f.files[key] = e.Node
	if e.Node.Value == nil {
		delete(f.files, key)
	}
	f.events = append(f.events, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

func verbOf(method string, form url.Values) string {
	compares := form.Has("prevValue") || form.Has("prevIndex")
	switch {
	case method == http.MethodGet:
		return keys.Get
	case method == http.MethodDelete && compares:
		return keys.CompareAndDelete
	case method == http.MethodDelete:
		return keys.Delete
	case form.Get("prevExist") == "false":
		return keys.Create
	case compares:
		return keys.CompareAndSwap
	}
	return keys.Set
}

func refusalOf(verb string, form url.Values, old *keys.Node, anyway bool) int {
	switch {
	case verb == keys.Set, verb == keys.Create && old == nil:
		return 0
	case verb == keys.Create:
		return keys.CodeNodeExist
	case old == nil:
		return keys.CodeKeyNotFound
	case anyway:
		return 0
	case form.Has("prevValue") && form.Get("prevValue") != *old.Value,
		form.Has("prevIndex") && form.Get("prevIndex") != strconv.FormatUint(old.ModifiedIndex, 10):
		return keys.CodeTestFailed
	}
	return 0
}

func nodeOf(verb, key, value string, index uint64, old *keys.Node) *keys.Node {
	n := &keys.Node{Key: key, ModifiedIndex: index, CreatedIndex: index}
	if verb != keys.Set && verb != keys.Create {
		n.CreatedIndex = old.CreatedIndex
	}
	if verb != keys.Delete && verb != keys.CompareAndDelete {
		n.Value = &value
	}
	return n
}

func (f *flawed) watch(w http.ResponseWriter, r *http.Request) {
	since, _ := strconv.ParseUint(r.Form.Get("waitIndex"), 10, 64)
	w.WriteHeader(http.StatusOK)
	for {
		events, changed := f.since(since)
		for _, e := range events {
			if json.NewEncoder(w).Encode(e) != nil || r.Form.Get("stream") != "true" {
				return
			}
			since = max(since, e.Node.ModifiedIndex+1)
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// since returns the events from the index on, as far as the flaw lets it.
func (f *flawed) since(index uint64) ([]keys.Event, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched++
	var out []keys.Event
	for i, e := range f.events {
		switch at := e.Node.ModifiedIndex; {
		case at+1 == index && f.flaw == "a watch repeats" && f.watched%20 == 0:
			out = append(out, e)
		case at < index:
		case f.flaw == "a watch skips" && at%50 == 0:
		case f.flaw == "a watch swaps" && at%50 == 0 && i > 0:
			out = append(out, e, f.events[i-1])
		case f.flaw == "a watch garbles" && at%50 == 0 && e.Node.Value != nil:
			n, other := *e.Node, "something else"
			n.Value = &other
			out = append(out, keys.Event{Action: e.Action, Node: &n, PrevNode: e.PrevNode})
		default:
			out = append(out, e)
		}
	}
	return out, f.changed
}

// enough is how many requests bring every flaw about.
const enough = 1500

// trial lets clients and watchers loose on a store and returns the judgement.
func trial(t *testing.T, store *flawed) (Report, int) {
	t.Helper()
	server := httptest.NewServer(store)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at := []Member{{Name: "flawed", URL: server.URL, HTTP: server.Client()}}
	h := &history{}
	var asking, watching sync.WaitGroup
	watchers := []*watcher{
		{name: "stream", members: at, dir: "/t", stream: true, next: 1},
		{name: "one at a time", members: at, dir: "/t", next: 1},
	}
	for _, w := range watchers {
		watching.Go(func() { w.run(ctx) })
	}
	clientsEnd, stop := context.WithCancel(ctx)
	b := &board{files: map[string]Version{}}
	for id := range 4 {
		c := &client{
			id: id, members: at, rng: rand.New(rand.NewPCG(uint64(id), 1)), dir: "/t", files: 3,
			round: time.Hour, began: time.Now(), board: b, history: h,
		}
		asking.Go(func() { c.run(clientsEnd) })
	}
	until(ctx, func() bool { calls, _, _ := h.all(); return len(calls) > enough })
	stop()
	asking.Wait()
	caughtUp, giveUp := context.WithTimeout(ctx, 2*time.Second) // one that skips the last never does
	defer giveUp()
	store.mu.Lock()
	last := store.index
	store.mu.Unlock()
	until(caughtUp, func() bool { return watchers[0].upTo() > last && watchers[1].upTo() > last })
	cancel()
	watching.Wait()
	return judged(t, h, watchers)
}

func judged(t *testing.T, h *history, watchers []*watcher) (Report, int) {
	t.Helper()
	var watched []Watched
	for _, w := range watchers {
		seen, refused, _ := w.result()
		if len(refused) > 0 {
			t.Errorf("refused: %v", refused)
		}
		watched = append(watched, seen)
	}
	calls, _, odd := h.all()
	if len(odd) > 0 {
		t.Errorf("odd answers: %v", odd)
	}
	var r Report
	r.count(calls, 0)
	if err := r.Judge(calls, watched, t.TempDir()); err != nil {
		t.Error(err)
	}
	return r, len(calls)
}

func until(ctx context.Context, cond func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && !cond() {
		<-tick.C
	}
}

// The judge finds each thing that a store may not do, and nothing in one that is sound.
func TestFlawsAreFound(t *testing.T) {
	const disorder = "no order of the requests explains the answers: /t/0/"
	for flaw, want := range map[string][]string{
		"":                     nil,
		"answers are lost":     nil,
		"a stale read":         {disorder},
		"a write is lost":      {disorder, "was acknowledged and seen 0 times"},
		"a compare is ignored": {disorder},
		"a watch skips":        {"was acknowledged and seen 0 times", ": a gap"},
		"a watch repeats":      {"came twice"},
		"a watch swaps":        {"came after"},
		"a watch garbles":      {"and seen as"},
	} {
		t.Run(flaw, func(t *testing.T) {
			r, n := trial(t, newFlawed(flaw))
			found := strings.Join(r.Violations, "\n")
			wrong := len(want) == 0 && found != "" || len(r.Verdict.Undecided) > 0
			for _, w := range want {
				wrong = wrong || !strings.Contains(found, w)
			}
			if wrong {
				t.Errorf("of %d requests (%d without an answer): %s\nviolations:\n%s\nwant: %q", n, r.Unknown, r.Verdict, found, want)
			}
			if lost := flaw == "answers are lost"; lost != (r.Unknown > 0) {
				t.Errorf("%d requests had no answer", r.Unknown)
			}
		})
	}
}
