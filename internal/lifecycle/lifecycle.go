// Package lifecycle starts the parts of a daemon in order and stops them in
// reverse.
//
// A part that is told to stop has a limit; a part that ends by itself is a
// failure and stops the rest. Restarting is systemd's business. What a daemon and systemd
// tell each other of its life is here too: that it is ready, that it is alive, and which
// boot it lives in.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Part is one thing that runs for the daemon's whole life.
type Part struct {
	Name string
	// Run does everything, calls ready once when others may rely on it, and
	// returns when ctx is done. An early return, also with nil, ends the daemon.
	Run func(ctx context.Context, ready func()) error
	// StopTimeout is how long Run may take to return once ctx is done. 0 means
	// 10 s.
	StopTimeout time.Duration
}

// ErrEnded is returned when a part ended though nobody asked it to.
var ErrEnded = errors.New("ended by itself")

type running struct {
	part   Part
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed
}

// Run starts the parts one after another, each when the one before is ready, and
// blocks until ctx is done or a part ends. Then it stops them in reverse order. It
// returns the first failure; nil when ctx was cancelled and every part stopped
// cleanly.
func Run(ctx context.Context, log *slog.Logger, parts ...Part) error {
	var started []*running
	ended := make(chan *running, len(parts))
	err := func() error {
		for _, p := range parts {
			r, ready := start(p, ended)
			started = append(started, r)
			select {
			case <-ready:
				log.Debug("part ready", "part", p.Name)
			case r := <-ended:
				return r.failure()
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case r := <-ended:
			return r.failure()
		case <-ctx.Done():
			return nil
		}
	}()
	for i := len(started) - 1; i >= 0; i-- {
		if stopErr := started[i].stop(log); err == nil {
			err = stopErr
		}
	}
	return err
}

// start runs a part on a context of its own: it is not the caller's, since the
// order of stopping is ours.
func start(p Part, ended chan<- *running) (*running, <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{part: p, cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	var once sync.Once
	go func() {
		r.err = p.Run(ctx, func() { once.Do(func() { close(ready) }) })
		close(r.done)
		ended <- r
	}()
	return r, ready
}

func (r *running) failure() error {
	if r.err == nil {
		return fmt.Errorf("%s: %w", r.part.Name, ErrEnded)
	}
	return fmt.Errorf("%s: %w", r.part.Name, r.err)
}

func (r *running) stop(log *slog.Logger) error {
	limit := r.part.StopTimeout
	if limit == 0 {
		limit = 10 * time.Second
	}
	select {
	case <-r.done:
		return nil // it ended before; Run has reported it
	default:
	}
	r.cancel()
	select {
	case <-r.done:
		log.Debug("part stopped", "part", r.part.Name)
		if r.err != nil && !errors.Is(r.err, context.Canceled) {
			return fmt.Errorf("stop %s: %w", r.part.Name, r.err)
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("stop %s: still running after %v", r.part.Name, limit)
	}
}

// Notify tells systemd about this process (sd_notify(3)): daemon states such as
// "READY=1". Without NOTIFY_SOCKET it does nothing.
func Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Watched is for how long this process may be silent before systemd ends it
// (WatchdogSec=); 0: it does not watch. The variables that say so are not passed on
// to what this process starts.
func Watched() time.Duration {
	limit, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return 0 // it is for another process
	}
	return limit
}

// Alive tells systemd that this process is at work and will say so again within that
// time.
func Alive(within time.Duration) error {
	return Notify(fmt.Sprintf("WATCHDOG=1\nWATCHDOG_USEC=%d", within.Microseconds()))
}
