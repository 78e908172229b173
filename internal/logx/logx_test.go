package logx

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestJournalLinesCarryNoTime(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1")
	var b strings.Builder
	New(&b, slog.LevelInfo).Info("peer reachable again", "after", 1500*time.Millisecond)
	if want := "level=info msg=\"peer reachable again\" after=1.5s\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestLevelHidesLowerLines(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	os.Unsetenv("JOURNAL_STREAM")
	var b strings.Builder
	log := New(&b, slog.LevelWarn)
	log.Info("hidden")
	log.Warn("shown")
	if s := b.String(); strings.Contains(s, "hidden") || !strings.HasPrefix(s, "time=") {
		t.Errorf("got %q", s)
	}
}

func TestLevelNames(t *testing.T) {
	if l, err := Level("WARN"); err != nil || l != slog.LevelWarn {
		t.Errorf("WARN: %v, %v", l, err)
	}
	if _, err := Level("loud"); err == nil {
		t.Error("loud is no level")
	}
}
