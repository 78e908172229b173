package supervisor

import (
	"context"
	"slices"
	"sync"

	"flotilla/internal/supervisor/service"
	"flotilla/internal/unit"
)

// Status implements unit.Manager.
func (s *Supervisor) Status(ctx context.Context, names ...string) ([]unit.Status, error) {
	var out []unit.Status
	err := s.do(ctx, func() error {
		for _, name := range names {
			out = append(out, s.status(name))
		}
		return nil
	})
	return out, err
}

func (s *Supervisor) status(name string) unit.Status {
	u := s.find(name)
	if u == nil {
		st := unit.Status{Name: name, Load: "not-found", Active: "inactive", Sub: string(service.Dead)}
		if s.provided(name) {
			st.Load, st.Active, st.Sub = "loaded", "active", "active"
		}
		return st
	}
	return u.status()
}

func (u *svc) status() unit.Status {
	m := u.m
	st := unit.Status{
		Name: u.name, Description: m.Config().Description, Load: "loaded",
		Active: m.State.Active(), Sub: string(m.State), MainPID: max(0, m.MainPID),
		Since: m.Changed, Restarts: m.Restarts,
	}
	if st.Description == "" {
		st.Description = u.name
	}
	if !m.Config().Target {
		st.Result = string(m.Result)
	}
	if m.MainEnd && m.MainPID == 0 {
		st.ExitCode = m.MainExit.Code
	}
	if u.bad != nil {
		st.Load = "bad-setting"
	}
	_, _, st.Job = u.s.queue.Job(u.name)
	text, path := u.s.file(u.name)
	st.Fragment = path
	st.NeedReload = m.State != service.Dead && text != u.text
	return st
}

// Watch implements unit.Manager. A watcher that is slow misses states in between,
// never the last one.
func (s *Supervisor) Watch(ctx context.Context) (<-chan unit.Status, error) {
	w := &watcher{changed: map[string]unit.Status{}, wake: make(chan struct{}, 1)}
	err := s.do(ctx, func() error {
		s.watchers[w] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make(chan unit.Status)
	go func() {
		defer close(out)
		defer s.post(func() { delete(s.watchers, w) })
		w.carry(ctx, s.done, out)
	}()
	return out, nil
}

// watcher holds what one caller of Watch has not seen yet.
type watcher struct {
	mu      sync.Mutex
	order   []string
	changed map[string]unit.Status
	wake    chan struct{}
}

func (w *watcher) add(st unit.Status) {
	w.mu.Lock()
	if _, ok := w.changed[st.Name]; !ok {
		w.order = append(w.order, st.Name)
	}
	w.changed[st.Name] = st
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) next() (unit.Status, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return unit.Status{}, false
	}
	name := w.order[0]
	w.order = slices.Delete(w.order, 0, 1)
	st := w.changed[name]
	delete(w.changed, name)
	return st, true
}

// carry sends what changes until ctx is done or the supervisor has ended.
func (w *watcher) carry(ctx context.Context, done <-chan struct{}, out chan<- unit.Status) {
	for {
		st, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- st:
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// publish tells watchers of a unit if there is something new.
func (s *Supervisor) publish(u *svc) {
	st := u.status()
	if s.units[u.name] != u {
		st = s.status(u.name)
	}
	if st == u.reported {
		return
	}
	u.reported = st
	for w := range s.watchers {
		w.add(st)
	}
}
