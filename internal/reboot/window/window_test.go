package window_test

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/reboot/window"
)

// zone makes a zone whose clocks change, from the tables that come with Go.
func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func parse(t testing.TB, text string, l *time.Location) window.Window {
	t.Helper()
	start, length, _ := strings.Cut(text, " for ")
	w, err := window.Parse(start, length, l)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const layout = "2006-01-02 15:04:05"

// Negative is how long it has been open.
func TestUntilStart(t *testing.T) {
	for _, c := range []struct{ window, now, want string }{
		// A daily one, and the instant at which it closes. 28 May 2015 is a Thursday.
		{"00:15 for 10s", "2015-05-28 00:00:00", "15m"},
		{"02:33 for 10h", "2015-05-28 12:33:00", "-10h"},
		{"02:33 for 10h", "2015-05-28 12:33:01", "13h59m59s"},
		{"23:05 for 11h", "2015-05-28 09:33:01", "-10h28m1s"},
		{"23:05 for 11h", "2015-05-28 23:05:00", "0s"},
		{"0:00 for 0s", "2015-05-28 00:00:00", "0s"},
		{"0:00 for 0s", "2015-05-28 00:00:01", "23h59m59s"},
		{"0:00 for 23h59m59s", "2015-05-28 23:59:59", "-23h59m59s"},
		// Weekly ones, over the ends of day, week, month and year.
		{"Sat 23:05 for 11h", "2015-05-31 09:33:01", "-10h28m1s"},
		{"Mon 9:00 for 1h", "2015-05-30 23:00:00", "34h"},
		{"Sun 23:00 for 4h", "2015-06-01 01:00:00", "-2h"},
		{"thu 0:00 for 1s", "2015-05-28 00:00:02", "167h59m58s"},
		{"Thursday 4:00 for 1h", "2015-05-28 03:00:00", "1h"},
		{"WED 1:00 for 167h", "2015-05-27 00:00:00", "-167h"},
		{"Fri 1:00 for 1h", "2016-12-31 23:00:00", "122h"},
		{"Mon 0:00 for 1h", "2016-02-28 00:00:00", "24h"},
	} {
		now, err := time.ParseInLocation(layout, c.now, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		want, err := time.ParseDuration(c.want)
		if err != nil {
			t.Fatal(err)
		}
		w := parse(t, c.window, nil)
		if got := w.UntilStart(now); got != want {
			t.Errorf("%s, at %s: got %v, want %v", c.window, c.now, got, want)
		}
		if w.Contains(now) != (want <= 0) {
			t.Errorf("%s contains %s: %t", c.window, c.now, want > 0)
		}
	}
}

// In zones whose clocks change. Now is in UTC; what comes out is the next start in
// the zone's own time.
func TestClocksChange(t *testing.T) {
	for _, c := range []struct{ name, zone, window, now, want string }{
		{"summer time begins: that hour does not exist, an hour later it is", "Europe/Berlin", "2:30 for 1h", "2026-03-29 00:00:00", "2026-03-29 03:30:00 CEST"},
		{"summer time begins: the day has 23 hours", "Europe/Berlin", "4:00 for 1h", "2026-03-28 04:00:01", "2026-03-29 04:00:00 CEST"},
		{"summer time ends: of the two, the first", "Europe/Berlin", "2:30 for 10m", "2026-10-24 23:00:00", "2026-10-25 02:30:00 CEST"},
		{"summer time ends: at the second, it has been", "Europe/Berlin", "2:30 for 10m", "2026-10-25 01:30:00", "2026-10-26 02:30:00 CET"},
		{"summer time ends: a window keeps its length", "Europe/Berlin", "1:30 for 2h", "2026-10-25 01:30:00", "2026-10-25 01:30:00 CEST"},
		{"summer time ends: and closes an hour earlier on the wall", "Europe/Berlin", "1:30 for 2h", "2026-10-25 01:30:01", "2026-10-26 01:30:00 CET"},
		{"weekly, over the change", "America/New_York", "Sun 12:00 for 1h", "2026-03-08 06:59:00", "2026-03-08 12:00:00 EDT"},
		{"half an hour back on Lord Howe", "Australia/Lord_Howe", "1:45 for 5m", "2026-04-04 14:00:00", "2026-04-05 01:45:00 +11"},
		{"a midnight that does not exist", "America/Santiago", "0:00 for 10m", "2026-09-05 16:00:00", "2026-09-06 01:00:00 -03"},
		{"a day that does not exist", "Pacific/Apia", "Fri 12:00 for 1h", "2011-12-30 09:00:00", "2012-01-06 12:00:00 +14"},
		{"the day of the week is the zone's", "Asia/Tokyo", "Mon 1:00 for 1h", "2026-05-03 15:30:00", "2026-05-04 01:00:00 JST"},
	} {
		l := zone(t, c.zone)
		now, err := time.ParseInLocation(layout, c.now, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		w := parse(t, c.window, l)
		if got := w.Next(now).In(l).Format(layout + " MST"); got != c.want {
			t.Errorf("%s: %v at %s: got %s, want %s", c.name, w, now.In(l), got, c.want)
		}
	}
}

// At every half hour of a year, in zones of all kinds: the start that is told shows
// the window's time on the wall, unless that time does not exist on the day; a closed
// window opens within its period; an open one has not been open for longer than it
// is.
func TestEveryHalfHour(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Santiago"} {
		l := zone(t, name)
		for _, c := range []struct {
			window       string
			hour, minute int
			period       time.Duration
		}{
			{"2:30 for 1h", 2, 30, 24 * time.Hour},
			{"23:45 for 10h", 23, 45, 24 * time.Hour},
			{"Sun 0:00 for 30m", 0, 0, 7 * 24 * time.Hour},
			{"Sat 23:30 for 50h", 23, 30, 7 * 24 * time.Hour},
		} {
			w := parse(t, c.window, l)
			for now := time.Date(2026, 1, 1, 0, 0, 0, 0, l); now.Year() < 2027; now = now.Add(30 * time.Minute) {
				until := w.UntilStart(now)
				if until < -w.Length() || until > c.period+time.Hour {
					t.Fatalf("%v at %v: %v until it starts", w, now, until)
				}
				start := w.Next(now).In(l)
				y, m, d := start.Date()
				asked := time.Date(y, m, d, c.hour, c.minute, 0, 0, l)
				exists := asked.Hour() == c.hour && asked.Minute() == c.minute
				if exists && (start.Hour() != c.hour || start.Minute() != c.minute) {
					t.Fatalf("%v at %v: starts at %v", w, now, start)
				}
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ start, length, want string }{
		{"", "1h", `window start "": want H:M or DAY H:M, such as 4:00 or Thu 23:30`},
		{"Thu", "1h", `window start "Thu": "Thu" is no time of day: 0:00 to 23:59`},
		{"Donnerstag 4:00", "1h", `window start "Donnerstag 4:00": "Donnerstag" is no day: Sun, Mon, Tue, Wed, Thu, Fri or Sat`},
		{"Thu 4:00 UTC", "1h", `window start "Thu 4:00 UTC": want H:M or DAY H:M, such as 4:00 or Thu 23:30`},
		{"24:00", "1h", `window start "24:00": "24:00" is no time of day: 0:00 to 23:59`},
		{"4:60", "1h", `window start "4:60": "4:60" is no time of day: 0:00 to 23:59`},
		{"-4:00", "1h", `window start "-4:00": "-4:00" is no time of day: 0:00 to 23:59`},
		{"+4:00", "1h", `window start "+4:00": "+4:00" is no time of day: 0:00 to 23:59`},
		{"4pm", "1h", `window start "4pm": "4pm" is no time of day: 0:00 to 23:59`},
		{"4:00", "", `window length "": want numbers with units h, m and s, such as 1h30m`},
		{"4:00", "90", `window length "90": want numbers with units h, m and s, such as 1h30m`},
		{"4:00", "1d", `window length "1d": want numbers with units h, m and s, such as 1h30m`},
		{"4:00", "-1h", `window length "-1h": less than nothing`},
		{"4:00", "24h", `window length "24h": a daily window is shorter than 24h`},
		{"Sun 4:00", "168h", `window length "168h": a weekly window is shorter than 168h (7 days)`},
		{"4 Uhr", "lang", "window start \"4 Uhr\": \"4\" is no day: Sun, Mon, Tue, Wed, Thu, Fri or Sat\nwindow length \"lang\": want numbers with units h, m and s, such as 1h30m"},
	} {
		if _, err := window.Parse(c.start, c.length, nil); err == nil || err.Error() != c.want {
			t.Errorf("%q for %q: %v\nwant %s", c.start, c.length, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Thu 23:30", "1h30m", int64(1_777_000_000))
	f.Add("4:00", "23h59m59.999999999s", int64(-62135596800))
	f.Add("sunday 00:00", "0", int64(253402300799))
	berlin := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, start, length string, sec int64) {
		w, err := window.Parse(start, length, berlin)
		if err != nil {
			return
		}
		if until := w.UntilStart(time.Unix(sec%(1<<36), 0)); until < -w.Length() || until > 8*24*time.Hour {
			t.Fatalf("%v: %v until it starts", w, until)
		}
	})
}
