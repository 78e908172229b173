package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/unit"
)

func open(t *testing.T, dir string, segment, total int64) *Log {
	t.Helper()
	l, err := Open(dir, segment, total)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t *testing.T, l *Log, name string, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		err := l.Append(unit.LogEntry{Unit: name, Time: time.Unix(int64(i), 0), Message: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, l *Log, q unit.LogQuery) (text, cursor string) {
	t.Helper()
	var out []string
	err := l.ReadLog(t.Context(), q, func(e unit.LogEntry) error {
		out = append(out, e.Message)
		cursor = e.Cursor
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " "), cursor
}

func TestQueries(t *testing.T) {
	l := open(t, t.TempDir(), 300, 0) // several segments
	add(t, l, "a.service", 1, 9)
	add(t, l, `b\x2d.service`, 10, 12)
	_, at := read(t, l, unit.LogQuery{Units: []string{"a.service"}, Lines: -1, Since: time.Unix(7, 0)})
	for _, c := range []struct {
		q    unit.LogQuery
		want string
	}{
		{unit.LogQuery{Lines: -1}, "1 2 3 4 5 6 7 8 9 10 11 12"},
		{unit.LogQuery{Lines: 0}, ""},
		{unit.LogQuery{Lines: 3}, "10 11 12"},
		{unit.LogQuery{Lines: 99}, "1 2 3 4 5 6 7 8 9 10 11 12"},
		{unit.LogQuery{Lines: 5, Units: []string{"a.service"}}, "5 6 7 8 9"},
		{unit.LogQuery{Lines: -1, Units: []string{`b\x2d.service`}}, "10 11 12"},
		{unit.LogQuery{Lines: -1, Since: time.Unix(11, 0)}, "11 12"},
		{unit.LogQuery{Lines: -1, After: at}, "10 11 12"},
		{unit.LogQuery{Lines: 2, After: at}, "11 12"},
		{unit.LogQuery{Lines: 1, After: "another;9"}, "12"},
	} {
		if got, _ := read(t, l, c.q); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.q, got, c.want)
		}
	}
	stop := errors.New("stop")
	if err := l.ReadLog(t.Context(), unit.LogQuery{Lines: -1}, func(unit.LogEntry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("emit's error came back as %v", err)
	}
}

func TestFollowAcrossSegments(t *testing.T) {
	l := open(t, t.TempDir(), 200, 0)
	add(t, l, "a.service", 1, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := l.ReadLog(ctx, unit.LogQuery{Units: []string{"a.service"}, Lines: 1, Follow: true}, func(e unit.LogEntry) error {
		got = append(got, e.Message)
		switch len(got) {
		case 1:
			add(t, l, "other.service", 100, 110)
			add(t, l, "a.service", 4, 20)
		case 18:
			cancel()
		}
		return nil
	})
	if err != nil || strings.Join(got, " ") != "3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSizeIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1000, 5000)
	add(t, l, "a.service", 1, 500)
	var size int64
	files, _ := filepath.Glob(dir + "/*.jsonl")
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if size > 5000+100 || size < 3000 {
		t.Errorf("%d bytes in %d segments", size, len(files))
	}
	if got, _ := read(t, l, unit.LogQuery{Lines: 2}); got != "499 500" {
		t.Errorf("the newest are %q", got)
	}
}

// A crash can cut the last line short: it is dropped, and the log goes on.
func TestOpenAfterACrash(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 0, 0)
	add(t, l, "a.service", 1, 3)
	_, cursor := read(t, l, unit.LogQuery{Lines: -1})
	files, _ := filepath.Glob(dir + "/*.jsonl")
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], append(data, `{"unit":"a.serv`...), 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, 0, 0)
	add(t, l, "a.service", 4, 5)
	if got, _ := read(t, l, unit.LogQuery{Lines: -1, After: cursor}); got != "4 5" {
		t.Errorf("after the crash: %q", got)
	}
	if all, _ := read(t, l, unit.LogQuery{Lines: -1}); !slices.Equal(strings.Fields(all), []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("all: %q", all)
	}
}
