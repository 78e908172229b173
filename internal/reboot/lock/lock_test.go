package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/client/keys"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member/membertest"
	"flotilla/internal/reboot/lock"
	"flotilla/internal/reboot/sema"
)

func client(t testing.TB, cfg keys.Config) *keys.Client {
	t.Helper()
	c, err := keys.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func group(t testing.TB, c *keys.Client, name string) *lock.Lock {
	t.Helper()
	l, err := lock.New(c, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type change = func(sema.Semaphore) (sema.Semaphore, error)

func take(machine string, d sema.Detail) change {
	return func(s sema.Semaphore) (sema.Semaphore, error) { return s.Take(machine, d) }
}

func release(machine string) change {
	return func(s sema.Semaphore) (sema.Semaphore, error) { return s.Release(machine) }
}

func phase(machine string, p sema.Phase) change {
	return func(s sema.Semaphore) (sema.Semaphore, error) { return s.Refresh(machine, sema.Detail{Phase: p}) }
}

func setMax(n int) change {
	return func(s sema.Semaphore) (sema.Semaphore, error) { return s.SetMax(n) }
}

func stopAfter(n int) change {
	return func(s sema.Semaphore) (sema.Semaphore, error) { return s.SetStopAfter(n) }
}

func must(t testing.TB, l *lock.Lock, what change) lock.State {
	t.Helper()
	s, err := l.Change(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeys(t *testing.T) {
	for group, want := range map[string]string{
		"":        "/coreos.com/updateengine/rebootlock/semaphore",
		"web":     "/coreos.com/updateengine/rebootlock/groups/web/semaphore",
		"prod/db": "/coreos.com/updateengine/rebootlock/groups/prod%2Fdb/semaphore",
		"a b":     "/coreos.com/updateengine/rebootlock/groups/a+b/semaphore",
	} {
		if got := lock.Key(group); got != want {
			t.Errorf("%q: got %s, want %s", group, got, want)
		}
	}
	for _, bad := range []string{".", ".."} {
		if _, err := lock.New(nil, bad); err == nil {
			t.Errorf("group %q leads to %s", bad, lock.Key(bad))
		}
	}
}

func TestLock(t *testing.T) {
	c := client(t, keys.Config{Endpoints: []string{membertest.Start(t)}})
	t.Run("life", func(t *testing.T) { life(t, c) })
	t.Run("groups", func(t *testing.T) { groups(t, c) })
	t.Run("history", func(t *testing.T) { history(t, c) })
	t.Run("watch", func(t *testing.T) { watch(t, c) })
	t.Run("crowd", func(t *testing.T) { crowd(t, c) })
	t.Run("bad value", func(t *testing.T) { badValue(t, c) })
}

func life(t *testing.T, c *keys.Client) {
	l := group(t, c, "")
	if s, err := l.Read(t.Context()); err != nil || s.Index != 0 || s.Free() != 1 {
		t.Fatalf("before anything: %+v, %v", s, err)
	}
	for range 2 { // that it is there already is no failure
		if err := l.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.Get(t.Context(), "/coreos.com/updateengine/rebootlock/semaphore", keys.GetOptions{})
	if err != nil || *r.Node.Value != `{"semaphore":1,"max":1,"holders":null}` {
		t.Fatalf("%+v, %v", r, err)
	}
	took := must(t, l, take("a", sema.Detail{}))
	if s, err := l.Change(t.Context(), take("b", sema.Detail{})); !errors.Is(err, sema.ErrFull) || !s.Holds("a") {
		t.Errorf("second: %+v, %v", s, err)
	}
	same := must(t, l, func(s sema.Semaphore) (sema.Semaphore, error) { return s, nil })
	if same.Index != took.Index {
		t.Errorf("a change that changes nothing was written: index %d, was %d", same.Index, took.Index)
	}
	if s := must(t, l, release("a")); s.Free() != 1 || s.Index <= took.Index {
		t.Errorf("released: %+v", s)
	}
}

func groups(t *testing.T, c *keys.Client) {
	for _, name := range []string{"web", "prod/db"} {
		must(t, group(t, c, name), take(name+"-1", sema.Detail{}))
	}
	names, err := lock.Groups(t.Context(), c)
	if err != nil || !slices.Equal(names, []string{"prod/db", "web"}) {
		t.Errorf("groups %q, %v", names, err)
	}
	if s, err := group(t, c, "prod/db").Read(t.Context()); err != nil || !s.Holds("prod/db-1") || s.Holds("web-1") {
		t.Errorf("%+v, %v", s, err)
	}
}

func history(t *testing.T, c *keys.Client) {
	l := group(t, c, "history")
	l.Now = func() time.Time { return time.Date(2026, 5, 1, 12, 30, 0, 0, time.UTC) }
	if h, err := l.History(t.Context()); err != nil || len(h) != 0 {
		t.Fatalf("before anything: %v, %v", h, err)
	}
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	must(t, l, take("a", sema.Detail{Hostname: "web-1", Since: noon, Why: "update"}))
	must(t, l, release("a"))
	must(t, l, take("b", sema.Detail{}))
	must(t, l, func(s sema.Semaphore) (sema.Semaphore, error) { return s.Fail("b", "no disk", noon) })
	must(t, l, sema.Semaphore.Resume)
	h, err := l.History(t.Context())
	if err != nil || len(h) != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	want := sema.Record{Machine: "a", Hostname: "web-1", Taken: noon, Released: l.Now(), Why: "update", Result: "good"}
	if h[1] != want || h[0].Machine != "b" || h[0].Result != "bad: no disk" {
		t.Errorf("newest first: %+v", h)
	}
	lock.SetHistoryKept(t, 3)
	for range 3 {
		must(t, l, take("c", sema.Detail{}))
		must(t, l, release("c"))
	}
	if h, err := l.History(t.Context()); err != nil || len(h) != 3 || h[2].Machine != "c" {
		t.Errorf("the oldest go: %+v, %v", h, err)
	}
}

func watch(t *testing.T, c *keys.Client) {
	l := group(t, c, "watch")
	ctx, cancel := context.WithCancel(t.Context())
	updates := l.Watch(ctx)
	until := func(what string, ok func(lock.Update) bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case u := <-updates:
				if ok(u) {
					return
				}
			case <-deadline:
				t.Fatalf("%s is not seen", what)
			}
		}
	}
	until("that there is no lock", func(u lock.Update) bool { return u.Err == nil && u.Index == 0 })
	must(t, l, take("a", sema.Detail{}))
	until("the holder", func(u lock.Update) bool { return u.Holds("a") })
	if _, err := c.Set(ctx, lock.Key("watch"), "nonsense", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	until("the nonsense", func(u lock.Update) bool { return u.Err != nil })
	if _, err := c.Delete(ctx, lock.Key("watch"), keys.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("that it is gone", func(u lock.Update) bool { return u.Err == nil && u.Index == 0 })
	cancel()
	for range updates {
	}
}

// Twelve writers at once: each gets through, none twice.
func crowd(t *testing.T, c *keys.Client) {
	l := group(t, c, "crowd")
	must(t, l, setMax(12))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := l.Change(t.Context(), take(fmt.Sprint("m", i), sema.Detail{})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, err := l.Read(t.Context()); err != nil || s.Free() != 0 || len(s.Holders) != 12 {
		t.Errorf("%+v, %v", s, err)
	}
}

func badValue(t *testing.T, c *keys.Client) {
	l := group(t, c, "bad")
	if _, err := c.Set(t.Context(), lock.Key("bad"), `{"max":"one"}`, keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := l.Change(t.Context(), take("a", sema.Detail{}))
	if err == nil || !strings.Contains(err.Error(), "groups/bad/semaphore") || len(fault.Hints(err)) != 1 {
		t.Errorf("%v, hints %q", err, fault.Hints(err))
	}
	if _, err := c.Set(t.Context(), "/coreos.com/updateengine/rebootlock/groups/dir/semaphore/x", "", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := group(t, c, "dir").Read(t.Context()); err == nil || !strings.Contains(err.Error(), "the key has no value") {
		t.Errorf("a directory: %v", err)
	}
}

func TestNoStore(t *testing.T) {
	l := group(t, client(t, keys.Config{Endpoints: []string{"127.0.0.1:1"}}), "")
	_, err := l.Change(t.Context(), take("a", sema.Detail{}))
	var away *keys.UnreachableError
	if !errors.As(err, &away) || !strings.Contains(err.Error(), "read reboot lock /coreos.com") {
		t.Errorf("error %v", err)
	}
}
