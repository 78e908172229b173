package unitshttp

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"flotilla/internal/kv/member/membertest"
)

// What it costs until a watch has told what there is, with the largest cluster: of one
// unit, which is what starting one unit waits with, and of all. Who asks first for all
// waits for all of it to be read.
func BenchmarkWatch(b *testing.B) {
	url := membertest.Start(b)
	newAPI(b, url, "/bench/").fill(b, 500, 10_000)
	a := newAPI(b, url, "/bench/")
	all := b
	const one, every = "?unit=job100@2000.service", ""
	b.Run("one unit", func(b *testing.B) {
		for b.Loop() {
			a.untilSynced(b, one)
		}
	})
	b.Run("all first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			a.Store.Close()
			a = newAPI(all, url, "/bench/")
			b.StartTimer()
			a.untilSynced(b, every)
		}
	})
	b.Run("all again", func(b *testing.B) {
		for b.Loop() {
			a.untilSynced(b, every)
		}
	})
}

// untilSynced watches until what is there has been told.
func (a *api) untilSynced(b *testing.B, query string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	w := &synced{ResponseRecorder: httptest.NewRecorder(), done: cancel}
	a.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/fleet/v1/watch"+query, nil))
	if !w.seen {
		b.Fatalf("%d: it was not told that all has been", w.Code)
	}
}

// synced ends a watch when it has told what there is.
type synced struct {
	*httptest.ResponseRecorder
	done context.CancelFunc
	seen bool
}

func (s *synced) Write(p []byte) (int, error) {
	if strings.Contains(string(p[max(0, len(p)-100):]), `{"synced":true}`) {
		s.seen = true
		s.done()
	}
	return io.Discard.Write(p)
}
