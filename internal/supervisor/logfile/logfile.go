// Package logfile keeps the log of a machine's units in files of bounded size and
// reads it back, also while it grows.
//
// A log is a directory of segments. A segment is named after the number of its
// first entry, 20 decimal digits and ".jsonl", and holds one entry a line as JSON,
// so the number of every entry follows from its place. The oldest segments are
// deleted when the log is over its bound.
package logfile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"flotilla/internal/unit"
)

// Sizes of a log unless told otherwise.
const (
	DefaultSegment = 1 << 20
	DefaultTotal   = 64 << 20
)

// Log is an open log. All methods are safe for concurrent use; one process has it
// open at a time.
type Log struct {
	dir            string
	id             string // in cursors: tells a log from another that took its place
	segment, total int64

	mu    sync.Mutex
	file  *os.File
	segs  []segment // oldest first; the last one grows
	next  uint64    // number of the next entry
	grown chan struct{}
}

type segment struct {
	first uint64
	size  int64
}

func (l *Log) path(first uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%020d.jsonl", first))
}

// Open opens the log in dir, which it creates. A segment has at most about segment
// bytes, all together at most about total; 0 means the defaults. A last line that
// a crash cut short is dropped.
func Open(dir string, segmentSize, total int64) (*Log, error) {
	if segmentSize == 0 {
		segmentSize = DefaultSegment
	}
	if total == 0 {
		total = DefaultTotal
	}
	l := &Log{dir: dir, segment: segmentSize, total: total, next: 1, grown: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) load() error {
	if err := l.loadID(); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), ".jsonl")
		first, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		l.segs = append(l.segs, segment{first: first, size: info.Size()})
	}
	slices.SortFunc(l.segs, func(a, b segment) int { return int(int64(a.first) - int64(b.first)) })
	if len(l.segs) == 0 {
		return l.begin()
	}
	return l.resume(&l.segs[len(l.segs)-1])
}

func (l *Log) loadID() error {
	name := filepath.Join(l.dir, "id")
	data, err := os.ReadFile(name)
	if err == nil && len(data) > 0 {
		l.id = string(data)
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var b [4]byte
	_, _ = rand.Read(b[:])
	l.id = hex.EncodeToString(b[:])
	return os.WriteFile(name, []byte(l.id), 0o600)
}

// resume goes on in the last segment, behind its last whole line.
func (l *Log) resume(s *segment) error {
	data, err := os.ReadFile(l.path(s.first))
	if err != nil {
		return err
	}
	whole := int64(bytes.LastIndexByte(data, '\n') + 1)
	l.next = s.first + uint64(bytes.Count(data, []byte{'\n'}))
	if l.file, err = os.OpenFile(l.path(s.first), os.O_WRONLY, 0); err != nil {
		return err
	}
	if err := l.file.Truncate(whole); err != nil {
		return err
	}
	s.size = whole
	_, err = l.file.Seek(whole, io.SeekStart)
	return err
}

// begin starts a new segment.
func (l *Log) begin() error {
	f, err := os.OpenFile(l.path(l.next), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	l.segs = append(l.segs, segment{first: l.next})
	l.trim()
	return nil
}

// trim deletes the oldest segments while the log is over its bound.
func (l *Log) trim() {
	var sum int64
	for _, s := range l.segs {
		sum += s.size
	}
	for len(l.segs) > 1 && sum+l.segment > l.total {
		_ = os.Remove(l.path(l.segs[0].first)) // a reader may still have it open
		sum -= l.segs[0].size
		l.segs = l.segs[1:]
	}
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// Append adds entries; their Cursor does not count. It fails if the disk does.
func (l *Log) Append(entries ...unit.LogEntry) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range entries {
		e.Cursor = ""
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last := &l.segs[len(l.segs)-1]
	if last.size >= l.segment {
		if err := l.begin(); err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
		last = &l.segs[len(l.segs)-1]
	}
	if _, err := l.file.WriteAt(b.Bytes(), last.size); err != nil {
		// What was written of it is written over by the next entry.
		return fmt.Errorf("append to log: %w", err)
	}
	last.size += int64(b.Len())
	l.next += uint64(len(entries))
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

// view is the log at one moment.
type view struct {
	segs  []segment
	next  uint64
	grown <-chan struct{} // closed when there is more
}

func (l *Log) view() view {
	l.mu.Lock()
	defer l.mu.Unlock()
	return view{slices.Clone(l.segs), l.next, l.grown}
}

func (l *Log) cursor(n uint64) string { return fmt.Sprintf("%s;%x", l.id, n) }

// after is the number of the entry that a cursor names; 0 for none, and for a
// cursor of another log.
func (l *Log) after(cursor string) uint64 {
	id, digits, ok := strings.Cut(cursor, ";")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil || id != l.id {
		return 0
	}
	return n
}

// place is where an entry begins: in a segment, at an offset, with a number.
type place struct {
	first  uint64
	offset int64
	n      uint64
}

func (v view) end() place {
	last := v.segs[len(v.segs)-1]
	return place{last.first, last.size, v.next}
}

// ReadLog implements unit.LogReader.
func (l *Log) ReadLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	err := l.readLog(ctx, q, emit)
	if q.Follow && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (l *Log) readLog(ctx context.Context, q unit.LogQuery, emit func(unit.LogEntry) error) error {
	f := newFilter(q, l.after(q.After))
	v := l.view()
	if err := l.history(ctx, q.Lines, f, v, emit); err != nil {
		return err
	}
	for q.Follow {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.grown:
		}
		from := v.end()
		v = l.view()
		if err := l.forward(ctx, f, v, from, emit); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// history emits what is there: all of it, or the newest lines.
func (l *Log) history(ctx context.Context, lines int, f *filter, v view, emit func(unit.LogEntry) error) error {
	switch {
	case lines == 0:
		return nil
	case lines < 0:
		return l.forward(ctx, f, v, place{}, emit)
	}
	var parts [][]unit.LogEntry // newest segment first
	for _, s := range slices.Backward(v.segs) {
		if lines == 0 {
			break
		}
		var part []unit.LogEntry
		err := l.read(ctx, s, place{first: s.first, n: s.first}, f, func(e unit.LogEntry) error {
			part = append(part, e)
			if len(part) > 2*lines {
				part = append(part[:0], part[len(part)-lines:]...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		part = part[max(0, len(part)-lines):]
		lines -= len(part)
		parts = append(parts, part)
	}
	for _, part := range slices.Backward(parts) {
		for _, e := range part {
			if err := emit(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// forward emits all entries from a place on that the filter lets through, oldest
// first.
func (l *Log) forward(ctx context.Context, f *filter, v view, from place, emit func(unit.LogEntry) error) error {
	for i, s := range v.segs {
		known := i+1 < len(v.segs) && v.segs[i+1].first <= f.after+1
		if known || s.first < from.first {
			continue
		}
		at := place{first: s.first, n: s.first}
		if s.first == from.first {
			at = from
		}
		if err := l.read(ctx, s, at, f, emit); err != nil {
			return err
		}
	}
	return nil
}

// read emits the matching entries of one segment. A segment that was deleted
// meanwhile has none.
func (l *Log) read(ctx context.Context, s segment, at place, f *filter, emit func(unit.LogEntry) error) error {
	file, err := os.Open(l.path(s.first))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer file.Close()
	left := s.size - at.offset
	r := bufio.NewReaderSize(io.NewSectionReader(file, at.offset, left), int(min(left, 64<<10)))
	for n := at.n; ctx.Err() == nil; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if n <= f.after || !f.mayMatch(line) {
			continue
		}
		var e unit.LogEntry
		if json.Unmarshal(line, &e) != nil || !f.match(e) {
			continue
		}
		e.Cursor = l.cursor(n)
		if err := emit(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// filter is a query without its number of lines.
type filter struct {
	q       unit.LogQuery
	after   uint64
	needles [][]byte // what a line of one of the units contains
}

func newFilter(q unit.LogQuery, after uint64) *filter {
	f := &filter{q: q, after: after}
	for _, u := range q.Units {
		name, _ := json.Marshal(u)
		f.needles = append(f.needles, append([]byte(`"unit":`), name...))
	}
	return f
}

// mayMatch looks at the text alone, which is much cheaper than reading it.
func (f *filter) mayMatch(line []byte) bool {
	if len(f.needles) == 0 {
		return true
	}
	for _, n := range f.needles {
		if bytes.Contains(line, n) {
			return true
		}
	}
	return false
}

func (f *filter) match(e unit.LogEntry) bool {
	if len(f.q.Units) > 0 && !slices.Contains(f.q.Units, e.Unit) {
		return false
	}
	return f.q.Since.IsZero() || !e.Time.Before(f.q.Since)
}

var _ unit.LogReader = (*Log)(nil)
