package mvcc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

// TestUnreadIsBounded: a watcher whose client reads nothing keeps so many bytes of
// events, whatever their size, gets those, and is told that there were more.
func TestUnreadIsBounded(t *testing.T) {
	for _, c := range []struct{ value, most int }{
		{1 << 10, maxPending},
		{1 << 20, maxWaiting >> 21}, // each event has the value before it, too
		{9 << 20, fewWaiting},
	} {
		t.Run(fmt.Sprintf("%d KiB", c.value>>10), func(t *testing.T) {
			s := start(t, Config{Client: kvtest.InProcess(t, kvtest.Start(t))})
			must(t, s, set("/w", strings.Repeat("x", c.value)))
			w, err := s.Watch(t.Context(), v2.Request{Path: "/w", Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			for i := range c.most + 2 {
				must(t, s, set("/w", strings.Repeat(string(rune('a'+i%26)), c.value)))
			}
			if got := w.pending.bytes; got > maxWaiting+fewWaiting*2*c.value {
				t.Errorf("%d bytes wait", got)
			}
			n := 0
			for ; err == nil; n++ {
				_, err = w.Next(t.Context())
			}
			if n-1 != c.most || !errors.Is(err, ErrLagging) {
				t.Errorf("%d events and then %v, want %d and %v", n-1, err, c.most, ErrLagging)
			}
			if w.pending.bytes != 0 {
				t.Errorf("nothing waits, but %d bytes", w.pending.bytes)
			}
		})
	}
}
