package lifecycle

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"log/slog"
)

type recorder struct{ lines []string }

func (r *recorder) part(name string) Part {
	return Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		r.lines = append(r.lines, "start "+name)
		ready()
		<-ctx.Done()
		r.lines = append(r.lines, "stop "+name)
		return ctx.Err()
	}}
}

func TestStartsInOrderStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := Run(ctx, slog.New(slog.DiscardHandler), r.part("store"), r.part("fleet")); err != nil {
			t.Fatal(err)
		}
		want := "start store, start fleet, stop fleet, stop store"
		if got := strings.Join(r.lines, ", "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestFirstToEndStopsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		broken := errors.New("disk full")
		bad := Part{Name: "fleet", Run: func(_ context.Context, ready func()) error {
			ready()
			return broken
		}}
		err := Run(t.Context(), slog.New(slog.DiscardHandler), r.part("store"), bad)
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "fleet: ") {
			t.Errorf("got %v", err)
		}
		if got := strings.Join(r.lines, ", "); got != "start store, stop store" {
			t.Errorf("got %q", got)
		}
	})
}

func TestEndingWithoutErrorIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quiet := Part{Name: "quiet", Run: func(context.Context, func()) error { return nil }}
		if err := Run(t.Context(), slog.New(slog.DiscardHandler), quiet); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestStopHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		deaf := Part{Name: "deaf", StopTimeout: 3 * time.Second, Run: func(_ context.Context, ready func()) error {
			ready()
			<-release
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := Run(ctx, slog.New(slog.DiscardHandler), deaf)
		close(release)
		if err == nil || err.Error() != "stop deaf: still running after 3s" {
			t.Errorf("got %v", err)
		}
	})
}
