package fleetctl

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"flotilla/internal/unitfile"
)

// sinceHelp is what --since takes.
const sinceHelp = "a span before now (1h30m, 2 days), a time (15:04, 2006-01-02 15:04:05), today or yesterday"

// instant is a flag that takes a point of time, as journalctl does. The zero value is
// none.
type instant struct {
	time.Time
	text string
}

func (i *instant) String() string { return i.text }
func (i *instant) Type() string   { return "TIME" }

func (i *instant) Set(v string) error {
	t, err := parseSince(v, time.Now())
	if err != nil {
		return err
	}
	i.Time, i.text = t, v
	return nil
}

// timeLayouts are those of systemd.time(7) that people type; a time of day is today's.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02"}

// parseSince reads a point of time not after now, in now's time zone.
func parseSince(v string, now time.Time) (time.Time, error) {
	v = strings.TrimSpace(v)
	year, month, day := now.Date()
	midnight := time.Date(year, month, day, 0, 0, 0, 0, now.Location())
	switch v {
	case "today":
		return midnight, nil
	case "yesterday":
		return midnight.AddDate(0, 0, -1), nil
	case "now":
		return now, nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return notAfter(t, now)
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, v); err == nil {
			return notAfter(midnight.Add(t.Sub(t.Truncate(24*time.Hour))), now)
		}
	}
	span := strings.TrimSuffix(strings.TrimPrefix(v, "-"), " ago")
	d, err := unitfile.ParseSpan(span)
	if err != nil || d == unitfile.Infinity || strings.Trim(span, "0123456789") == "" {
		return time.Time{}, fmt.Errorf("want %s", sinceHelp)
	}
	return now.Add(-d), nil
}

func notAfter(t, now time.Time) (time.Time, error) {
	if t.After(now) {
		return time.Time{}, errors.New("that is still to come")
	}
	return t, nil
}
