package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"flotilla/internal/kv/kvtest"
	"flotilla/internal/kv/v2"
)

// call is one request on one key, and what came back.
type call struct {
	r     v2.Request
	value string // of the node, and of the node before
	prev  string
	index uint64
	code  int // of the error
}

// oneKey is a file on its own, as a model: its value and its modifiedIndex, which
// a client learns only from answers.
var oneKey = porcupine.Model{
	Init: func() any { return file{} },
	Step: func(state, in, out any) (bool, any) {
		s, r, o := state.(file), in.(v2.Request), out.(call)
		switch r.Op {
		case v2.Get:
			return s.explains(o), s
		case v2.Set:
			return o.code == 0 && o.prev == s.value && o.index > s.index, file{r.Value, o.index}
		case v2.CompareAndSwap, v2.CompareAndDelete:
			if s.value == "" || s.value != r.PrevValue {
				return s.refuses(o), s
			}
			after := file{index: o.index}
			if r.Op == v2.CompareAndSwap {
				after.value = r.Value
			}
			return o.code == 0 && o.prev == s.value && o.index > s.index, after
		case v2.Delete:
			if s.value == "" {
				return o.code == 100, s
			}
			return o.code == 0 && o.prev == s.value && o.index > s.index, file{index: o.index}
		}
		return false, s
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// file is the state: no value is no file.
type file struct {
	value string
	index uint64
}

func (f file) explains(o call) bool {
	if f.value == "" {
		return o.code == 100
	}
	return o.code == 0 && o.value == f.value && o.index == f.index
}

func (f file) refuses(o call) bool {
	if f.value == "" {
		return o.code == 100
	}
	return o.code == 101
}

// TestLinearizable: clients at two gateways set, compare, delete and read one
// key, and the history is one that a single key could have had.
func TestLinearizable(t *testing.T) {
	engine := kvtest.Start(t)
	gateways := []*Store{
		start(t, inProcess(t, engine)),
		start(t, Config{Client: kvtest.Dial(t, engine)}),
	}
	const clients, each = 8, 100
	var mu sync.Mutex
	var history []porcupine.Operation
	begin := time.Now()
	var wg sync.WaitGroup
	for id := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(id), 7))
			for range each {
				r := oneRequest(rng)
				from := time.Since(begin)
				out := ask(t, gateways[id%2], r)
				op := porcupine.Operation{ClientId: id, Input: r, Call: int64(from), Output: out, Return: int64(time.Since(begin))}
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := porcupine.CheckOperationsTimeout(oneKey, history, time.Minute); got != porcupine.Ok {
		t.Fatalf("history of %d operations is %s", len(history), got)
	}
}

func oneRequest(rng *rand.Rand) v2.Request {
	value := func() string { return string(rune('a' + rng.IntN(3))) }
	r := v2.Request{Path: "/dir/key"}
	switch rng.IntN(6) {
	case 0:
		r.Op, r.Value = v2.Set, value()
	case 1, 2:
		r.Op, r.Value, r.PrevValue = v2.CompareAndSwap, value(), value()
	case 3:
		r.Op, r.PrevValue = v2.CompareAndDelete, value()
	case 4:
		r.Op = v2.Delete
	case 5:
		r.Op, r.Quorum = v2.Get, true
	}
	return r
}

func ask(t *testing.T, s *Store, r v2.Request) call {
	e, kerr := do(t, s, r)
	if kerr != nil {
		return call{r: r, code: kerr.ErrorCode}
	}
	out := call{r: r, index: e.Node.ModifiedIndex}
	if e.Node.Value != nil {
		out.value = *e.Node.Value
	}
	if e.PrevNode != nil {
		out.prev = *e.PrevNode.Value
	}
	return out
}

// TestWatchHasNoGap: a client that watches one event after the other, each from
// the index after the last, sees all that many writers do, in order.
func TestWatchHasNoGap(t *testing.T) {
	engine := kvtest.Start(t)
	a := start(t, inProcess(t, engine))
	b := start(t, Config{Client: kvtest.Dial(t, engine)})
	const writers, each = 6, 150
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() {
			for i := range each {
				must(t, []*Store{a, b}[id%2], set(fmt.Sprintf("/w/%d", id), fmt.Sprint(i)))
			}
		})
	}
	seen := map[string]int{}
	last := uint64(1)
	for range writers * each {
		w := watch(t, b, v2.Request{Path: "/w", Recursive: true, WaitIndex: last + 1})
		e := next(t, w)
		w.Close()
		if e.Node.ModifiedIndex <= last {
			t.Fatalf("event %d after %d", e.Node.ModifiedIndex, last)
		}
		last = e.Node.ModifiedIndex
		if want := fmt.Sprint(seen[e.Node.Key]); *e.Node.Value != want {
			t.Fatalf("%s: value %s, want %s", e.Node.Key, *e.Node.Value, want)
		}
		seen[e.Node.Key]++
	}
	wg.Wait()
}

// TestPostOrder: names made at two gateways at once are unique and in the order of
// the indexes.
func TestPostOrder(t *testing.T) {
	engine := kvtest.Start(t)
	gateways := []*Store{
		start(t, inProcess(t, engine)),
		start(t, Config{Client: kvtest.Dial(t, engine)}),
	}
	type made struct {
		index uint64
		name  string
	}
	var mu sync.Mutex
	var all []made
	var wg sync.WaitGroup
	for id := range 6 {
		wg.Go(func() {
			for i := range 30 {
				e := must(t, gateways[id%2], v2.Request{Op: v2.Post, Path: "/q", Value: fmt.Sprint(i)})
				mu.Lock()
				all = append(all, made{e.Node.ModifiedIndex, e.Node.Key})
				mu.Unlock()
				must(t, gateways[id%2], set("/other", "x"))
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b made) int { return int(a.index) - int(b.index) })
	if !slices.IsSortedFunc(all, func(a, b made) int { return strings.Compare(a.name, b.name) }) {
		t.Errorf("names are not in order: %v", all)
	}
	if len(slices.Compact(all)) != 6*30 {
		t.Errorf("names are not unique")
	}
}

// TestPostNameIsItsIndex at one gateway, whatever else is written there.
func TestPostNameIsItsIndex(t *testing.T) {
	s := start(t, inProcess(t, kvtest.Start(t)))
	var wg sync.WaitGroup
	for id := range 6 {
		wg.Go(func() {
			for range 30 {
				e := must(t, s, v2.Request{Op: v2.Post, Path: "/q"})
				if want := fmt.Sprintf("/q/%020d", e.Node.ModifiedIndex); e.Node.Key != want {
					t.Errorf("name %s, want %s", e.Node.Key, want)
				}
				must(t, s, set(fmt.Sprint("/other/", id), "x"))
			}
		})
	}
	wg.Wait()
}

// TestHistoryTogether: several clients that are behind read the history one event after
// the other at the same time, and none of them misses one.
func TestHistoryTogether(t *testing.T) {
	engine := kvtest.Start(t)
	writer := start(t, Config{Client: kvtest.InProcess(t, engine)})
	const events, clients = 25, 4
	first := must(t, writer, set("/w/0", "")).Node.ModifiedIndex
	for i := 1; i < events; i++ {
		must(t, writer, set(fmt.Sprint("/w/", i), ""))
	}
	fresh := start(t, Config{Client: kvtest.InProcess(t, engine)}) // has none of it in memory
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range uint64(events - 1) {
				w := watch(t, fresh, v2.Request{Path: "/w", Recursive: true, WaitIndex: first + i})
				got := next(t, w).Node.ModifiedIndex
				w.Close()
				if got != first+i {
					t.Errorf("after %d came %d", first+i-1, got)
					return
				}
			}
		})
	}
	wg.Wait()
}
