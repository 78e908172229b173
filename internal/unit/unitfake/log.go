package unitfake

import (
	"context"
	"slices"
	"strconv"
	"time"

	"flotilla/internal/unit"
)

// Print adds a line to the unit's log, as if its process had printed it.
func (m *Manager) Print(name, line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pid := 0
	if u := m.units[name]; u != nil {
		pid = u.st.MainPID
	}
	m.add(unit.LogEntry{Unit: name, Ident: "fake", PID: pid, Message: line})
}

// say is the init system's own line about a unit.
func (m *Manager) say(name, line string) {
	m.add(unit.LogEntry{Unit: name, Ident: "systemd", PID: 1, Message: line})
}

func (m *Manager) add(e unit.LogEntry) {
	e.Time, e.Machine, e.Priority = time.Now(), "fake", 6
	e.Cursor = strconv.Itoa(len(m.log) + 1)
	m.log = append(m.log, e)
	close(m.newLine)
	m.newLine = make(chan struct{})
}

// ReadLog implements unit.LogReader.
func (m *Manager) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	batch, next, more := m.entries(q, 0)
	if q.Lines >= 0 && len(batch) > q.Lines {
		batch = batch[len(batch)-q.Lines:]
	}
	for {
		for _, e := range batch {
			if ctx.Err() != nil {
				break
			}
			if err := emit(e); err != nil {
				return err
			}
		}
		if !q.Follow {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
		batch, next, more = m.entries(q, next)
	}
}

// entries returns what the query chooses from the from-th line on, where to go on,
// and what is closed when there is more.
func (m *Manager) entries(q unit.LogQuery, from int) ([]unit.LogEntry, int, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after, _ := strconv.Atoi(q.After) // a cursor of ours, or the beginning
	var out []unit.LogEntry
	for i, e := range m.log {
		if i >= from && i >= after && slices.Contains(q.Units, e.Unit) && !e.Time.Before(q.Since) {
			out = append(out, e)
		}
	}
	return out, len(m.log), m.newLine
}
