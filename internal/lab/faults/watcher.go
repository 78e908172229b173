package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"flotilla/api/keys"
)

// watcher follows a directory over cuts and crashes: it goes on after the last change
// that it was told of, at the same member or the next.
type watcher struct {
	name    string
	members []Member
	dir     string
	stream  bool          // one connection, many changes; else one change a request
	quiet   time.Duration // without a change: go on at the next member; 0: wait for ever

	mu      sync.Mutex
	next    uint64 // waitIndex
	events  []Event
	refused []string // the store refused to go on: that is a violation
	resumed int      // connections after the first
}

// errHeard ends a watch of one change.
var errHeard = errors.New("one change was asked for")

func (w *watcher) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if err := w.once(ctx, w.members[n%len(w.members)]); err != nil && err != errHeard {
			w.mu.Lock()
			w.resumed++
			w.mu.Unlock()
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// once makes one request and takes the changes that it brings.
func (w *watcher) once(ctx context.Context, m Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alarm := func() {}
	if w.quiet > 0 {
		t := time.AfterFunc(w.quiet, cancel)
		defer t.Stop()
		alarm = func() { t.Reset(w.quiet) }
	}
	resp, err := w.open(ctx, m)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return w.refuse(m, resp.StatusCode, dec)
	}
	for {
		var e keys.Event
		if err := dec.Decode(&e); err != nil {
			return err
		}
		w.hear(eventOf(e))
		if !w.stream {
			return errHeard
		}
		alarm()
	}
}

func (w *watcher) open(ctx context.Context, m Member) (*http.Response, error) {
	w.mu.Lock()
	from := w.next
	w.mu.Unlock()
	u := m.URL + "/v2/keys" + w.dir + "?wait=true&recursive=true&waitIndex=" + strconv.FormatUint(from, 10)
	if w.stream {
		u += "&stream=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	return m.HTTP.Do(req)
}

// refuse notes an answer that is no watch. Below 500 the store says that the watch
// cannot go on; from there on that it cannot answer now.
func (w *watcher) refuse(m Member, status int, dec *json.Decoder) error {
	var text json.RawMessage
	_ = dec.Decode(&text) // the status says enough
	err := fmt.Errorf("%d %s", status, text)
	if status < 500 {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.refused) < maxComplaints {
			w.refused = append(w.refused, fmt.Sprintf("%s: %s: cannot go on after [%d]: %v", w.name, m.Name, w.next-1, err))
		}
	}
	return err
}

func (w *watcher) hear(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	w.next = max(w.next, e.Index+1)
}

// upTo is the index that the watcher wants to be told of next.
func (w *watcher) upTo() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

func (w *watcher) result() (Watched, []string, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Watched{Name: w.name, Events: w.events}, w.refused, w.resumed
}
