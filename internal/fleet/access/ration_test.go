package access

import (
	"fmt"
	"testing"
	"time"
)

func TestRation(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000, 0).Add(time.Duration(s) * time.Second) }
	r := &Ration{Burst: 3, Every: 10 * time.Second, Callers: 2}
	for i, c := range []struct {
		caller string
		at     int
		ok     bool
		held   int
	}{
		{"mallory", 0, true, 0},
		{"mallory", 0, true, 0},
		{"mallory", 1, true, 0},
		{"mallory", 2, false, 1},
		{"mallory", 3, false, 2},
		{"anna", 3, true, 0}, // has her own
		{"mallory", 10, true, 2},
		{"mallory", 11, false, 1},
		{"mallory", 5, false, 2}, // a clock that was set
		{"mallory", 1000, true, 2},
		{"mallory", 1000, true, 0},
		{"mallory", 1000, true, 0},
		{"mallory", 1000, false, 1},
	} {
		if ok, held := r.Take(c.caller, at(c.at)); ok != c.ok || held != c.held {
			t.Errorf("%d: %s at %d: %v, %d held, want %v, %d", i, c.caller, c.at, ok, held, c.ok, c.held)
		}
	}
}

// However many names somebody makes up, what is kept is bounded, and what is written in
// a time: here 51 callers for 10 s each, ten times.
func TestRationIsBounded(t *testing.T) {
	r := &Ration{Burst: 20, Every: 10 * time.Second, Callers: 50}
	written := 0
	for i := range 100_000 {
		if ok, _ := r.Take(fmt.Sprint("caller", i), time.Unix(1000, int64(i)*1e6)); ok {
			written++
		}
	}
	if written > 600 || len(r.of) > 51 {
		t.Errorf("%d written, %d callers kept", written, len(r.of))
	}
}
