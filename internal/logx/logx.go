// Package logx makes the loggers of our programs: one line an event, level first,
// the way a person reads a journal.
//
// Levels: error is for what an operator must act on, warn for what may become
// that, info for what an operator would want to know has changed, debug for the
// rest. A repeated failure is one line when it begins and one when it ends.
package logx

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// New makes a logger that writes to w. Where w is the journal (JOURNAL_STREAM is
// set, systemd.exec(5)) lines carry no time, since the journal stamps them.
func New(w io.Writer, level slog.Leveler) *slog.Logger {
	_, journal := os.LookupEnv("JOURNAL_STREAM")
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level:       level,
		ReplaceAttr: replacer(journal),
	}))
}

func replacer(dropTime bool) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return a
		}
		switch {
		case a.Key == slog.TimeKey && dropTime:
			return slog.Attr{}
		case a.Key == slog.TimeKey:
			a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
		case a.Key == slog.LevelKey:
			a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
		case a.Value.Kind() == slog.KindDuration:
			a.Value = slog.StringValue(a.Value.Duration().Round(time.Millisecond).String())
		}
		return a
	}
}

// Discard is a logger that writes nothing.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Level reads a level's name (debug, info, warn, error, any case).
func Level(name string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(name))
	return l, err
}
