package member

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The engine logs generously: each start is some fifty lines of INFO, and a peer
// that is away is a WARN a few times a second. Through engineLog all of it can be
// had at level debug, while what an operator would want to know comes out once
// when it begins and counted when it lasts.

// repeatAfter is how long the same message of the engine stays unsaid before it
// is said again with the number of times it came.
const repeatAfter = 10 * time.Minute

// changes are the lines that tell of a change in a peer's state: each is said, as
// often as it comes.
var changes = map[string]slog.Level{
	"peer became active": slog.LevelInfo,
	"peer became inactive (message send to peer failed)": slog.LevelWarn,
}

// demoted are the WARN and ERROR lines that tell nothing here, with the reason.
var demoted = map[string]bool{
	// The clients' ports are the front's, not the engine's.
	"Running http and grpc server on single port. This is not recommended for production.": true,
	// v2 values may have 10 MiB, on purpose.
	"exceeded recommended request limit": true,
	// Names are checked against the data directory and the initial cluster.
	"it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name": true,
	// The kind of token is a flag, documented where it is set.
	"simple token is not cryptographically signed": true,
	// That a peer is away is said once, in a line of its own (see changes).
	"prober detected unhealthy status":                  true,
	"failed to reach the peer URL":                      true,
	"failed to get version":                             true,
	"failed to unmarshal response":                      true, // of a member whose engine does not run
	"lost TCP streaming connection with remote peer":    true,
	"closed TCP streaming connection with remote peer":  true,
	"stopped TCP streaming connection with remote peer": true,
	// In a new cluster, until the first snapshot of the metadata; it is tried again.
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
	// The client hears of it.
	"failed to apply request": true,
}

// belowDebug is the level of the engine's own DEBUG lines: several for each write.
const belowDebug = slog.LevelDebug - 4

// engineLog is a zapcore.Core that writes to a slog.Logger.
type engineLog struct {
	log    *slog.Logger
	fields []zapcore.Field
	*engineLogState
}

// engineLogState is shared by all loggers derived from one.
type engineLogState struct {
	log      *slog.Logger
	now      func() time.Time
	lag      *lag
	mu       sync.Mutex
	phase    phase
	ending   string // why the engine stops by itself
	repeated map[string]*repetition
}

type repetition struct {
	said  time.Time
	times int // since then
}

// phase is where in its life the engine is: what it complains of while it starts
// or stops is often only that.
type phase int

const (
	starting phase = iota // until the engine's parts run
	joining               // until it takes part in its cluster
	running
	stopping
)

var _ zapcore.Core = (*engineLog)(nil)

// newEngineLog is for an engine that keeps its log on the disk of dir.
func newEngineLog(log *slog.Logger, dir string, now func() time.Time) *engineLog {
	own := log.With("part", "engine")
	return &engineLog{
		log: own,
		engineLogState: &engineLogState{
			log: own, now: now, lag: &lag{log: log.With("dir", dir), now: now}, repeated: map[string]*repetition{},
		},
	}
}

// logger is the zap side. What the engine considers fatal while it starts becomes
// a panic that the start turns into an error. Later it ends the process, as the
// engine means it to: the goroutine that failed holds the locks of the database and
// of the log, so nobody in this process could open them again. The next process
// finds the cause, and waits for it to go away, before it starts an engine.
func (c *engineLog) logger() *zap.Logger {
	return zap.New(c, zap.WithFatalHook(fatalHook{c.engineLogState}))
}

func (s *engineLogState) enter(p phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = p
}

type fatalHook struct{ *engineLogState }

// fatalError is the panic value of a fatal message during the start.
type fatalError string

func (f fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.mu.Lock()
	p := f.phase
	f.mu.Unlock()
	reason := withError(e.Message, fields)
	if p == starting {
		panic(fatalError(reason))
	}
	f.log.Error("the engine cannot go on: the process ends, to be started again", "because", reason)
	os.Exit(1)
}

// withError is the message with the error that came with it.
func withError(message string, fields []zapcore.Field) string {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok {
			return message + ": " + err.Error()
		}
	}
	return message
}

func (c *engineLog) Enabled(l zapcore.Level) bool {
	return l > zapcore.DebugLevel || c.log.Enabled(context.Background(), belowDebug)
}

func (c *engineLog) With(fields []zapcore.Field) zapcore.Core {
	derived := *c
	derived.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return &derived
}

func (c *engineLog) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *engineLog) Sync() error { return nil }

func (c *engineLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	all := append(c.fields[:len(c.fields):len(c.fields)], fields...)
	level := c.level(e)
	if e.Message == slowFlush {
		c.lag.late(durationOf(fields, "took"))
		level = slog.LevelDebug
	}
	if e.Message == serverError {
		c.ends(withError("", fields))
	}
	if _, change := changes[e.Message]; !change && level > slog.LevelDebug {
		say, times := c.again(e.Message + peerOf(all))
		if !say {
			level = slog.LevelDebug
		} else if times > 0 {
			all = append(all, zap.Int("times_before", times))
		}
	}
	ctx := context.Background()
	if !c.log.Enabled(ctx, level) {
		return nil
	}
	c.log.LogAttrs(ctx, level, e.Message, attrs(all)...)
	return nil
}

// slowFlush is the engine's complaint, once for each flush of its log that took more
// than a second.
const slowFlush = "slow fdatasync"

// serverError is the engine's last line before it stops by itself.
const serverError = "server error"

func (s *engineLogState) ends(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = why
}

// end is why the engine stopped by itself, "" if it did not say.
func (s *engineLogState) end() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

func durationOf(fields []zapcore.Field, key string) time.Duration {
	for _, f := range fields {
		if f.Key == key && f.Type == zapcore.DurationType {
			return time.Duration(f.Integer)
		}
	}
	return 0
}

// level decides what a line of the engine is worth to an operator.
func (c *engineLog) level(e zapcore.Entry) slog.Level {
	c.mu.Lock()
	p := c.phase
	c.mu.Unlock()
	switch {
	case e.Level == zapcore.DebugLevel:
		return belowDebug
	case e.Level >= zapcore.DPanicLevel:
		return slog.LevelError
	case p == stopping:
		// Connections break and listeners close: that is what a stop is.
		return slog.LevelDebug
	case e.Level == zapcore.ErrorLevel && !demoted[e.Message]:
		return slog.LevelError
	case e.Level == zapcore.WarnLevel && p < running && !strings.Contains(e.Message, "mismatch"):
		// The others are not there yet; that it takes long is said by join.
		return slog.LevelDebug
	case e.Level == zapcore.WarnLevel && !demoted[e.Message]:
		return slog.LevelWarn
	case p == running:
		if level, ok := changes[e.Message]; ok {
			return level
		}
	}
	return slog.LevelDebug
}

// again tells whether the message is to be said (the first time, or a while after
// the last) and how often it stayed unsaid in between.
func (s *engineLogState) again(key string) (say bool, unsaid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	r := s.repeated[key]
	if r == nil {
		if len(s.repeated) > 1000 {
			clear(s.repeated) // messages with ever new texts: better say them twice than keep all
		}
		s.repeated[key] = &repetition{said: now}
		return true, 0
	}
	if now.Sub(r.said) < repeatAfter {
		r.times++
		return false, 0
	}
	unsaid = r.times
	*r = repetition{said: now}
	return true, unsaid
}

// peerOf is the peer that a message is about: the same message about another peer
// is another message.
func peerOf(fields []zapcore.Field) string {
	for _, f := range fields {
		if strings.Contains(f.Key, "peer-id") || strings.Contains(f.Key, "member-id") {
			return " " + f.String
		}
	}
	return ""
}

// attrs turns zap's fields into slog's, in their order.
func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		v, ok := enc.Fields[f.Key]
		if !ok {
			continue
		}
		key := strings.ReplaceAll(f.Key, "-", "_")
		if err, isErr := f.Interface.(error); isErr {
			v = err.Error()
		}
		if s, ok := v.([]any); ok {
			v = fmt.Sprint(s...)
		}
		out = append(out, slog.Any(key, v))
	}
	return out
}
