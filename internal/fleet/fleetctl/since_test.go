package fleetctl

import (
	"testing"
	"time"
)

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 30, 15, 0, time.FixedZone("", 3600))
	for given, want := range map[string]string{
		"1h":                        "2026-11-21T11:30:15+01:00",
		"-1h30m":                    "2026-11-21T11:00:15+01:00",
		"2 days ago":                "2026-11-19T12:30:15+01:00",
		"10min":                     "2026-11-21T12:20:15+01:00",
		"now":                       "2026-11-21T12:30:15+01:00",
		"today":                     "2026-11-21T00:00:00+01:00",
		"yesterday":                 "2026-11-20T00:00:00+01:00",
		"11:00":                     "2026-11-21T11:00:00+01:00",
		"11:00:01":                  "2026-11-21T11:00:01+01:00",
		"2026-11-20":                "2026-11-20T00:00:00+01:00",
		"2026-11-20 10:00":          "2026-11-20T10:00:00+01:00",
		"2026-11-21T11:30:00+01:00": "2026-11-21T11:30:00+01:00",
		"13:00":                     "that is still to come",
		"5":                         "want " + sinceHelp,
		"lately":                    "want " + sinceHelp,
		"infinity":                  "want " + sinceHelp,
		"":                          "want " + sinceHelp,
	} {
		at, err := parseSince(given, now)
		got := at.Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", given, got, want)
		}
	}
}

func FuzzParseSince(f *testing.F) {
	for _, s := range []string{"1h", "today", "2026-11-20 10:00", "-5min", "11:00"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 21, 12, 30, 15, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := parseSince(s, now); err == nil && at.After(now) {
			t.Errorf("%q is %s, after now", s, at)
		}
	})
}
