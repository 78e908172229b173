package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"

	"flotilla/internal/unit"
	"flotilla/internal/unitfile"
)

// watchers are the Watches of a Manager.
type watchers struct {
	mu  sync.Mutex
	set map[*watcher]bool
}

// watcher is one Watch. Signals mark units; the watcher's own goroutine asks for
// their states and hands them on: however slow the reader is, the connection is
// never held up and the last state is never lost.
type watcher struct {
	mu    sync.Mutex
	dirty map[dbus.ObjectPath]bool
	every bool // all installed units are dirty
	wake  chan struct{}
}

// signal marks what a signal is about. It runs on the connection's reader.
func (m *Manager) signal(sig *dbus.Signal) {
	switch sig.Name {
	case propsIface + ".PropertiesChanged":
		if strings.HasPrefix(string(sig.Path), unitRoot) && len(sig.Body) > 0 && sig.Body[0] == unitIface {
			m.watch.mark(sig.Path)
		}
	case managerIface + ".Reloading":
		// Sent with true before and with false after a reload, whoever asked for it.
		if len(sig.Body) == 1 && sig.Body[0] == false {
			m.reloaded()
		}
	}
}

// reloaded notes that systemd has read all units again: any may have another text.
func (m *Manager) reloaded() {
	m.files.unread.clear()
	m.watch.markAll()
}

func (ws *watchers) mark(path dbus.ObjectPath) {
	ws.each(func(w *watcher) { w.dirty[path] = true })
}

func (ws *watchers) markAll() {
	ws.each(func(w *watcher) { w.every = true })
}

func (ws *watchers) each(f func(*watcher)) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.set {
		w.mu.Lock()
		f(w)
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (ws *watchers) add() *watcher {
	w := &watcher{dirty: map[dbus.ObjectPath]bool{}, wake: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.set == nil {
		ws.set = map[*watcher]bool{}
	}
	ws.set[w] = true
	return w
}

func (ws *watchers) drop(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.set, w)
}

// take returns which of the installed units are dirty and makes them clean.
func (w *watcher) take(installed []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, name := range installed {
		if unitfile.IsTemplate(name) {
			continue // has no state
		}
		if w.every || w.dirty[unitPath(name)] {
			out = append(out, name)
		}
	}
	clear(w.dirty)
	w.every = false
	return out
}

// putBack makes the units dirty that were asked for and not learned of.
func (w *watcher) putBack(asked []string, learned []unit.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range asked {
		if !slices.ContainsFunc(learned, func(st unit.Status) bool { return st.Name == name }) {
			w.dirty[unitPath(name)] = true
		}
	}
}

// Watch implements unit.Manager.
func (m *Manager) Watch(ctx context.Context) (<-chan unit.Status, error) {
	// Before the connection is looked for: what happens from here on is marked.
	w := m.watch.add()
	b, err := m.connect(ctx)
	if err == nil {
		err = m.files.load()
	}
	if err != nil {
		m.watch.drop(w)
		return nil, fmt.Errorf("watch units: %w", err)
	}
	out := make(chan unit.Status)
	go func() {
		defer close(out)
		defer m.watch.drop(w)
		m.hand(ctx, b, w, out)
	}()
	return out, nil
}

// hand sends states until ctx is done or the connection is lost. New marks are
// taken while the reader makes it wait, and what it has not sent yet is replaced.
func (m *Manager) hand(ctx context.Context, b *bus, w *watcher, out chan<- unit.Status) {
	last := map[string]unit.Status{}
	var queue []unit.Status
	for {
		var to chan<- unit.Status
		var head unit.Status
		if len(queue) > 0 {
			to, head = out, queue[0]
		}
		select {
		case <-ctx.Done():
			return
		case <-b.conn.Context().Done():
			return
		case to <- head:
			queue = queue[1:]
			last[head.Name] = head
		case <-w.wake:
			fresh, err := m.fresh(ctx, b, w)
			if err != nil {
				return
			}
			queue = merge(queue, fresh, last)
		}
	}
}

// fresh asks for the states of the dirty units. Those that systemd has no answer for
// stay dirty until the next signal.
func (m *Manager) fresh(ctx context.Context, b *bus, w *watcher) ([]unit.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	names := w.take(m.files.names())
	out, err := m.ask(ctx, b, names)
	switch {
	case errors.Is(err, ErrLost), ctx.Err() != nil:
		return nil, err
	case err != nil:
		w.putBack(names, out)
	}
	for i, st := range out {
		out[i].NeedReload = st.NeedReload || m.files.unread.has(st.Name)
	}
	return out, nil
}

// merge puts fresh states into the queue, in place of older ones of the same unit,
// and leaves out what the reader was told last.
func merge(queue, fresh []unit.Status, last map[string]unit.Status) []unit.Status {
	for _, st := range fresh {
		same := func(q unit.Status) bool { return q.Name == st.Name }
		if i := slices.IndexFunc(queue, same); i >= 0 {
			queue[i] = st
			continue
		}
		if last[st.Name] != st {
			queue = append(queue, st)
		}
	}
	return queue
}
