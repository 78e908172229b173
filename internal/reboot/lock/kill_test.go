package lock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

// cut is where a connection breaks.
type cut int

const (
	never        cut = iota
	beforeSend       // the store never hears of it
	afterSend        // the request is on its way when the sender goes: the store may have carried it out
	beforeAnswer     // the store has carried it out, and nobody is told
)

func (c cut) String() string {
	return [...]string{"never", "before sending", "after sending", "before the answer"}[c]
}

var errCut = errors.New("connection cut")

// cutter is a transport that breaks writes, as next says.
type cutter struct {
	http.RoundTripper
	next func() cut
}

func (c cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	where := never
	if r.Method == http.MethodPut {
		where = c.next()
	}
	switch where {
	case beforeSend:
		return nil, errCut
	case afterSend:
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = cutBody{r.Body, cancel}
		if resp, err := c.RoundTripper.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
		return nil, errCut
	case beforeAnswer:
		resp, err := c.RoundTripper.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, errCut
	}
	return c.RoundTripper.RoundTrip(r)
}

// cutBody cuts when the whole of it has been handed on.
type cutBody struct {
	io.ReadCloser
	cut context.CancelFunc
}

func (b cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		defer b.cut()
	}
	return n, err
}

// through is the lock as somebody has it whose connections are cut.
func through(t testing.TB, url, name string, next func() cut) *lock.Lock {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return group(t, client(t, keys.Config{Endpoints: []string{url}, HTTPClient: &http.Client{Transport: cutter{tr, next}}}), name)
}

// witness follows every value that the lock ever has and holds each against the
// rules, as a member of the audience and not of the protocol.
func witness(t *testing.T, url, name string, most int) (stop func()) {
	c := client(t, keys.Config{Endpoints: []string{url}})
	r, err := c.Get(t.Context(), lock.Key(name), keys.GetOptions{Quorum: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w := c.Watch(lock.Key(name), keys.WatchOptions{After: r.Index})
	go func() {
		defer close(done)
		for {
			r, err := w.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("witness: %v", err)
				}
				return
			}
			s, err := sema.Decode([]byte(*r.Node.Value))
			if err != nil {
				t.Errorf("witness: %v", err)
			} else if len(s.Holders) > most {
				t.Errorf("%d holders at index %d: %q", len(s.Holders), r.Node.ModifiedIndex, s.Holders)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// steps are the writes of a machine that reboots.
var steps = []struct {
	name string
	do   func(machine string) change
}{
	{"take", func(m string) change { return take(m, sema.Detail{Since: time.Now(), Boot: "1"}) }},
	{"rebooting", func(m string) change { return phase(m, sema.Rebooting) }},
	{"checking", func(m string) change { return phase(m, sema.Checking) }},
	{"release", release},
}

// A machine dies before, in or after each of its writes. It returns, or never does
// and is taken for dead; afterwards the other gets the lock, and all is free.
func TestKilledAtEveryWrite(t *testing.T) {
	url := membertest.Start(t)
	for i, step := range steps {
		for where := beforeSend; where <= beforeAnswer; where++ {
			for _, returns := range []bool{true, false} {
				name := fmt.Sprintf("%s, cut %v, returns %t", step.name, where, returns)
				t.Run(name, func(t *testing.T) { killAt(t, url, name, i, where, returns) })
			}
		}
	}
}

func killAt(t *testing.T, url, name string, at int, where cut, returns bool) {
	sound := group(t, client(t, keys.Config{Endpoints: []string{url}}), name)
	if err := sound.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer witness(t, url, name, 1)()

	// The victim: each write in turn until the one at which it dies.
	life, die := context.WithCancel(t.Context())
	writes := 0
	victim := through(t, url, name, func() cut {
		if writes++; writes <= at {
			return never
		}
		defer die()
		return where
	})
	for _, step := range steps[:at+1] {
		if _, err := victim.Change(life, step.do("victim")); (err != nil) != (life.Err() != nil) {
			t.Fatalf("%s: %v", step.name, err)
		}
	}

	if returns {
		if _, err := sound.Change(t.Context(), release("victim")); err != nil && !errors.Is(err, sema.ErrNotHolder) {
			t.Fatal(err)
		}
	} else {
		giveUp(t, sound)
	}
	for _, step := range steps {
		must(t, sound, step.do("other"))
	}
	if s, err := sound.Read(t.Context()); err != nil || s.Free() != 1 || s.Stopped != nil {
		t.Errorf("in the end: %s, %v", s.Encode(), err)
	}
}

// giveUp is an observer whose clock runs fast, and then a person who goes on.
func giveUp(t *testing.T, l *lock.Lock) {
	t.Helper()
	var o sema.Observer
	for now := time.Duration(0); now <= sema.HolderTimeout+sema.MaxGap; now += sema.MaxGap {
		s, err := l.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range o.Look(s.Semaphore, s.Index, now) {
			must(t, l, func(s sema.Semaphore) (sema.Semaphore, error) {
				return s.Lose(x.Machine, x.Mark, "silent", time.Now())
			})
			must(t, l, sema.Semaphore.Resume)
		}
	}
}

// Five machines reboot again and again, each write cut at random. What Change says
// is what happened: never more than two are in between, and in the end all is free.
func TestCutAtRandom(t *testing.T) {
	url := membertest.Start(t)
	sound := group(t, client(t, keys.Config{Endpoints: []string{url}}), "random")
	must(t, sound, setMax(2))
	must(t, sound, stopAfter(0))
	defer witness(t, url, "random", 2)()
	const rounds = 12
	var inside, cuts atomic.Int32
	var wg sync.WaitGroup
	for i := range 5 {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		l := through(t, url, "random", func() cut {
			c := cut(max(0, r.IntN(8)-4)) // every other write or so
			if c != never {
				cuts.Add(1)
			}
			return c
		})
		wg.Go(func() {
			for round := range rounds {
				rebootOnce(t, l, fmt.Sprint("m", i), round, &inside)
			}
		})
	}
	wg.Wait()
	if s, err := sound.Read(t.Context()); err != nil || s.Free() != 2 {
		t.Errorf("in the end: %s, %v", s.Encode(), err)
	}
	t.Logf("%d writes were cut", cuts.Load())
}

// rebootOnce takes the lock, is away for a moment, and gives it back.
func rebootOnce(t *testing.T, l *lock.Lock, machine string, round int, inside *atomic.Int32) {
	d := sema.Detail{Since: time.Now(), Boot: fmt.Sprint(round)}
	insist(t, l, take(machine, d))
	if n := inside.Add(1); n > 2 {
		t.Errorf("%d machines hold a slot", n)
	}
	insist(t, l, phase(machine, sema.Rebooting))
	inside.Add(-1)
	insist(t, l, release(machine))
}

// insist makes a change as the daemon does: until it is made, or for half a minute.
func insist(t *testing.T, l *lock.Lock, what change) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, err := l.Change(ctx, what)
		switch {
		case err == nil:
			return
		case errors.Is(err, sema.ErrNotHolder): // of a release: the answer to the one that did it was lost
			t.Errorf("a change that was made is told as refused: %v", err)
			return
		case ctx.Err() != nil:
			t.Errorf("not within 30 s: %v", err)
			return
		}
	}
}
