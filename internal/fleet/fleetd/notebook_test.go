package fleetd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/registry"
)

// Events wait for a store that is away, and for a moment at the end; one that the
// store does not want is left out.
func TestNotebook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		answer := registry.ErrAway
		set := func(err error) { mu.Lock(); defer mu.Unlock(); answer = err }
		told := func() string { mu.Lock(); defer mu.Unlock(); return fmt.Sprint(got) }
		n := newNotebook(func(_ context.Context, es []model.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if answer == nil {
				for _, e := range es {
					got = append(got, e.What)
				}
			}
			return answer
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.run(ctx, func() {}) }()
		for i := range 3 {
			n.tell(model.Event{What: fmt.Sprint(i)})
		}
		time.Sleep(time.Minute)
		set(nil)
		time.Sleep(2 * time.Second)
		if told() != "[0 1 2]" {
			t.Errorf("after the store is back: %v", told())
		}
		set(errors.New("no"))
		n.tell(model.Event{What: "unwanted"})
		synctest.Wait()
		set(registry.ErrAway)
		n.tell(model.Event{What: "last"})
		synctest.Wait()
		cancel()
		time.Sleep(time.Millisecond)
		set(nil)
		if err := <-done; err != nil || told() != "[0 1 2 last]" {
			t.Errorf("at the end: %v, %v", told(), err)
		}
		for range notesKept + 1 {
			n.tell(model.Event{What: "nobody reads them"}) // does not block
		}
	})
}
