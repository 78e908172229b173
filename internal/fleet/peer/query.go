package peer

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"flotilla/internal/unit"
)

// LeastUrgent is the priority of debug messages, of syslog(3): everything is at
// least as urgent.
const LeastUrgent = 7

// Query chooses log entries by what they say, too.
type Query struct {
	unit.LogQuery
	Priority int            // the least urgent that is wanted; LeastUrgent: any
	Grep     *regexp.Regexp // what the message has to match; nil: anything
}

// Wants reports whether an entry is as urgent, and says what, was asked for.
func (q Query) Wants(e unit.LogEntry) bool {
	return e.Priority <= q.Priority && (q.Grep == nil || q.Grep.MatchString(e.Message))
}

func (q Query) picky() bool { return q.Priority < LeastUrgent || q.Grep != nil }

// Read reads a log through the query: Lines counts the entries that are wanted.
func Read(ctx context.Context, r unit.LogReader, q Query, emit func(unit.LogEntry) error) error {
	if !q.picky() {
		return r.ReadLog(ctx, q.LogQuery, emit)
	}
	all := q.LogQuery
	all.Lines, all.Follow = -1, false
	began := time.Now()
	last := NewTail[unit.LogEntry](q.Lines)
	err := r.ReadLog(ctx, all, func(e unit.LogEntry) error {
		all.After = e.Cursor
		if !q.Wants(e) {
			return nil
		}
		if q.Lines < 0 {
			return emit(e)
		}
		last.Add(e)
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range last.Entries() {
		if err := emit(e); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	if all.Follow = true; all.After == "" {
		all.Since = began
	}
	return r.ReadLog(ctx, all, func(e unit.LogEntry) error {
		if !q.Wants(e) {
			return nil
		}
		return emit(e)
	})
}

// Tail keeps the newest of entries. Make it with NewTail.
type Tail[T any] struct {
	room    int
	entries []T
}

// NewTail makes a Tail of so many entries.
func NewTail[T any](room int) *Tail[T] { return &Tail[T]{room: max(0, room)} }

// Add adds an entry that is newer than all before.
func (t *Tail[T]) Add(e T) {
	if t.room == 0 {
		return
	}
	if len(t.entries) == 2*t.room { // seldom, so that little is moved
		t.entries = append(t.entries[:0], t.entries[t.room:]...)
	}
	t.entries = append(t.entries, e)
}

// Entries are the newest, oldest first.
func (t *Tail[T]) Entries() []T { return t.entries[max(0, len(t.entries)-t.room):] }

func encodeQuery(q Query) url.Values {
	v := url.Values{"unit": q.Units, "lines": {strconv.Itoa(q.Lines)}, "follow": {strconv.FormatBool(q.Follow)}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.After != "" {
		v.Set("after", q.After)
	}
	if q.Priority < LeastUrgent {
		v.Set("priority", strconv.Itoa(q.Priority))
	}
	if q.Grep != nil {
		v.Set("grep", q.Grep.String())
	}
	return v
}

func decodeQuery(v url.Values) (q Query, err error) {
	q.Units, q.After, q.Priority = v["unit"], v.Get("after"), LeastUrgent
	if q.Lines, err = strconv.Atoi(v.Get("lines")); err != nil {
		return q, fmt.Errorf("lines: %w", err)
	}
	if q.Follow, err = strconv.ParseBool(v.Get("follow")); err != nil {
		return q, fmt.Errorf("follow: %w", err)
	}
	if since := v.Get("since"); since != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, since); err != nil {
			return q, fmt.Errorf("since: %w", err)
		}
	}
	if priority := v.Get("priority"); priority != "" {
		if q.Priority, err = strconv.Atoi(priority); err != nil {
			return q, fmt.Errorf("priority: %w", err)
		}
	}
	if grep := v.Get("grep"); grep != "" {
		if q.Grep, err = regexp.Compile(grep); err != nil {
			return q, fmt.Errorf("grep: %w", err)
		}
	}
	return q, nil
}
