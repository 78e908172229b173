package unitshttp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// following is one reader of the logs of units on all machines. It reads each
// machine's log through one connection, made anew when a unit comes to the machine
// and when the machine has been away: it goes on after the last entry that it had.
type following struct {
	*Server
	sel  selection
	q    peer.Query
	out  *lines
	view *registry.View

	lines chan fleet.LogLine // from the machines
	wake  chan struct{}      // holds a token when units or machines have changed
	began time.Time
	tails map[string]*tail // by machine
	wg    sync.WaitGroup
}

// tail is the reading of one machine's log.
type tail struct {
	units  []string // in order; those that have gone away stay, for their last words
	boot   string   // the run of the machine's fleetd that is asked
	cursor string   // of the last entry; while the log is being read, the reader's
	cancel context.CancelFunc
	done   chan struct{} // closed when cancel has ended the reading; nil: there was none yet
}

func newFollowing(s *Server, sel selection, q peer.Query, out *lines) *following {
	return &following{
		Server: s, sel: sel, q: q, out: out, view: s.Store.NewView(),
		lines: make(chan fleet.LogLine, sourceRoom), wake: make(chan struct{}, 1),
		began: time.Now(), tails: map[string]*tail{},
	}
}

// settle is how long entries wait for older ones of other machines.
const settle = 100 * time.Millisecond

// run tells what was there before, and goes on until ctx is done or the reader has
// gone away.
func (f *following) run(ctx context.Context, v *registry.View) {
	ctx, cancel := context.WithCancel(ctx)
	defer f.wg.Wait()
	defer cancel()
	f.out.begin()
	if f.out.flush() != nil || f.before(ctx, v) != nil {
		return
	}
	f.wg.Go(func() {
		f.Store.FollowKept(ctx, f.all, f.view, func([]registry.Change, bool) {
			select {
			case f.wake <- struct{}{}:
			default:
			}
		})
	})
	var waiting []fleet.LogLine
	due := time.NewTimer(settle)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			f.look(ctx)
		case line := <-f.lines:
			if len(waiting) == 0 {
				due.Reset(settle)
			}
			waiting = append(waiting, line)
		case <-due.C:
			slices.SortStableFunc(waiting, func(a, b fleet.LogLine) int { return a.Time.Compare(b.Time) })
			for _, line := range waiting {
				if f.out.write(line) != nil {
					return
				}
			}
			waiting = waiting[:0]
		}
	}
}

// before tells the newest entries that there are. A machine that does not answer is
// heard of when it is followed.
func (f *following) before(ctx context.Context, v *registry.View) error {
	q := f.q
	q.Follow = false
	places := f.sel.places(v)
	last := peer.NewTail[fleet.LogLine](q.Lines)
	err := f.collect(ctx, v, places, q, func(src *source) error {
		t := f.tails[src.machine.ID]
		if t == nil {
			t = &tail{}
			f.tails[src.machine.ID] = t
		}
		t.cursor = src.next.Cursor
		line := logLine(src.machine, src.next)
		if q.Lines < 0 {
			return f.out.write(line)
		}
		last.Add(line)
		return nil
	}, func(*source) error { return nil })
	for _, line := range last.Entries() {
		if err == nil {
			err = f.out.write(line)
		}
	}
	return err
}

// look reads the logs of machines that units have come to, and of those whose fleetd
// is another one than was asked: the connection to a machine that lost its power may
// look alive for long.
func (f *following) look(ctx context.Context) {
	for id, units := range f.sel.places(f.view) {
		t := f.tails[id]
		if t == nil {
			t = &tail{}
			f.tails[id] = t
		}
		all := slices.Compact(slices.Sorted(slices.Values(append(units, t.units...))))
		boot := cmp.Or(known(f.view, id).Boot, t.boot)
		if len(all) == len(t.units) && boot == t.boot {
			continue
		}
		if t.done != nil {
			t.cancel()
			<-t.done
		}
		t.units, t.boot = all, boot
		f.start(ctx, id, t)
	}
}

// start reads a machine's log from where it has come to.
func (f *following) start(ctx context.Context, id string, t *tail) {
	q := f.q
	q.Units, q.Lines = t.units, -1
	if q.Since.Before(f.began) {
		q.Since = f.began // for a log of which nothing has been read
	}
	ctx, t.cancel = context.WithCancel(ctx)
	t.done = make(chan struct{})
	f.wg.Go(func() {
		defer close(t.done)
		f.read(ctx, id, q, t)
	})
}

// read reads a machine's log until ctx is done, anew when the machine has been away.
func (f *following) read(ctx context.Context, id string, q peer.Query, t *tail) {
	retry := registry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	silent := false // it was said that the machine does not answer
	for ctx.Err() == nil {
		m := known(f.view, id)
		if t.cursor != "" {
			q.After, q.Since = t.cursor, f.q.Since
		}
		err := f.readLog(ctx, m, q, func(e unit.LogEntry) error {
			t.cursor = e.Cursor
			if silent {
				silent = false
				retry.Reset()
				f.send(ctx, fleet.LogLine{Time: e.Time, Machine: m.Hostname, Notice: title(m) + " answers again"})
			}
			return f.send(ctx, logLine(m, e))
		})
		if ctx.Err() != nil {
			return
		}
		if !silent {
			silent = true
			f.send(ctx, fleet.LogLine{Time: time.Now(), Machine: m.Hostname, Notice: broken(m, err)})
		}
		retry.Wait(ctx)
	}
}

func broken(m model.Machine, err error) string {
	why := "the connection has ended"
	if err != nil {
		why = strings.TrimSuffix(err.Error(), ".")
	}
	return fmt.Sprintf("%s does not answer, its log goes on when it does: %s", title(m), why)
}

func (f *following) send(ctx context.Context, line fleet.LogLine) error {
	select {
	case f.lines <- line:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
