// Package window says when machines may reboot: each day or each week from a time of
// day for a while, in a time zone.
//
// A start is found by the calendar: on the day the clocks change, a window still
// opens when the clock on the wall shows its time, and lasts as long as it always
// does. A time that a day does not have (the clocks go forward over it) is that much
// later on that day; of a time that a day has twice, the first counts.
package window

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Window is a span of time that comes again. The zero value is no window: Next and
// Contains must not be called on it. Make one with Parse.
type Window struct {
	weekly       bool
	day          time.Weekday // counts if weekly
	hour, minute int
	length       time.Duration
	zone         *time.Location
}

const (
	daily  = 24 * time.Hour
	weekly = 7 * daily
)

// What Parse finds wrong is wrong with one of these.
var (
	ErrStart  = errors.New("window start")
	ErrLength = errors.New("window length")
)

// Parse reads a start, "[DAY] H:M" by the clock of 24 hours, and a length, such as
// "1h30m". The day is Sun to Sat, in capital letters or small ones, or the day's
// whole name; without one the window is daily. A nil zone is UTC. The error names
// everything that is wrong, and what is allowed.
func Parse(start, length string, zone *time.Location) (Window, error) {
	if zone == nil {
		zone = time.UTC
	}
	w := Window{zone: zone}
	err := w.parseStart(start)
	if lerr := w.parseLength(length); lerr != nil {
		err = errors.Join(err, lerr)
	}
	if err != nil {
		return Window{}, err
	}
	return w, nil
}

func (w *Window) parseStart(text string) error {
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return fmt.Errorf("%w %q: want H:M or DAY H:M, such as 4:00 or Thu 23:30", ErrStart, text)
	}
	if len(fields) == 2 {
		day, ok := parseDay(fields[0])
		if !ok {
			return fmt.Errorf("%w %q: %q is no day: Sun, Mon, Tue, Wed, Thu, Fri or Sat", ErrStart, text, fields[0])
		}
		w.weekly, w.day = true, day
	}
	h, m, ok := strings.Cut(fields[len(fields)-1], ":")
	hour, herr := number(h, 23)
	minute, merr := number(m, 59)
	if !ok || herr != nil || merr != nil {
		return fmt.Errorf("%w %q: %q is no time of day: 0:00 to 23:59", ErrStart, text, fields[len(fields)-1])
	}
	w.hour, w.minute = hour, minute
	return nil
}

// number reads one or two digits and nothing else: Atoi would take signs.
func number(text string, most int) (int, error) {
	if len(text) == 0 || len(text) > 2 || strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.Atoi(text)
	if err == nil && n > most {
		err = strconv.ErrRange
	}
	return n, err
}

func parseDay(text string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(text, d.String()) || strings.EqualFold(text, d.String()[:3]) {
			return d, true
		}
	}
	return 0, false
}

func (w *Window) parseLength(text string) error {
	d, err := time.ParseDuration(strings.TrimSpace(text))
	switch {
	case err != nil:
		return fmt.Errorf("%w %q: want numbers with units h, m and s, such as 1h30m", ErrLength, text)
	case d < 0:
		return fmt.Errorf("%w %q: less than nothing", ErrLength, text)
	case !w.weekly && d >= daily:
		return fmt.Errorf("%w %q: a daily window is shorter than 24h", ErrLength, text)
	case d >= weekly:
		return fmt.Errorf("%w %q: a weekly window is shorter than %gh (7 days)", ErrLength, text, weekly.Hours())
	}
	w.length = d
	return nil
}

// String is the window as Parse reads it, and its zone: "Thu 23:30 for 1h30m0s
// (Europe/Berlin)".
func (w Window) String() string {
	day := ""
	if w.weekly {
		day = w.day.String()[:3] + " "
	}
	return fmt.Sprintf("%s%02d:%02d for %v (%v)", day, w.hour, w.minute, w.length, w.zone)
}

// Length is how long the window is.
func (w Window) Length() time.Duration { return w.length }

// UntilStart is how long it is from now to the window's next start. Inside a window
// it is 0 or negative: how long it has been open. The instant at which it closes is
// inside.
func (w Window) UntilStart(now time.Time) time.Duration {
	now = now.In(w.zone)
	var next time.Time
	// Backwards day by day from a day behind the next start: the latest start that
	// is not yet over is the one that counts. A day more on either side reaches over
	// days that begin or end late because the clocks change.
	reach := 2
	if w.weekly {
		reach = 8
	}
	for ahead := reach; ahead >= -reach; ahead-- {
		start, ok := w.startOn(now, ahead)
		switch {
		case !ok:
		case start.After(now):
			next = start
		case !now.After(start.Add(w.length)):
			return start.Sub(now)
		}
	}
	return next.Sub(now)
}

// startOn is the start on the day that is so many days ahead of now, if the window
// opens on that day.
func (w Window) startOn(now time.Time, ahead int) (time.Time, bool) {
	y, m, d := now.Date()
	// The day of the week is that of the calendar, not of an instant: noon exists on
	// every day, midnight does not.
	if w.weekly && time.Date(y, m, d+ahead, 12, 0, 0, 0, w.zone).Weekday() != w.day {
		return time.Time{}, false
	}
	return w.onWall(time.Date(y, m, d+ahead, w.hour, w.minute, 0, 0, time.UTC)), true
}

// onWall is the instant at which the clock on the wall shows what t shows in UTC.
// Where the clocks change there are two such instants or none, and which one
// time.Date then returns it does not promise. With the zone's offset of the day
// before it is the first of two, and of none the instant as much later as the clocks
// were put forward.
func (w Window) onWall(t time.Time) time.Time {
	before := t.Add(-offset(t.Add(-day), w.zone)).In(w.zone)
	after := t.Add(-offset(t.Add(day), w.zone)).In(w.zone)
	if !sameWall(before, t) && sameWall(after, t) {
		return after
	}
	return before
}

// day is further than any change of the clocks from what is shown to the instant.
const day = 26 * time.Hour

func offset(at time.Time, zone *time.Location) time.Duration {
	_, sec := at.In(zone).Zone()
	return time.Duration(sec) * time.Second
}

func sameWall(a, b time.Time) bool {
	return a.Hour() == b.Hour() && a.Minute() == b.Minute() && a.YearDay() == b.YearDay()
}

// Contains tells whether the window is open.
func (w Window) Contains(now time.Time) bool { return w.UntilStart(now) <= 0 }

// Next is the start of the window that is open, else of the one that opens next.
func (w Window) Next(now time.Time) time.Time { return now.Add(w.UntilStart(now)) }
