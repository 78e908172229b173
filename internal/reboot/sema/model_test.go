package sema_test

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/reboot/sema"
)

// This file looks at every state that three machines can get into, and every order
// of what can happen: each begins a write, the write arrives or does not, its answer
// arrives or does not, it arrives after its sender has given it up or died; a machine
// dies anywhere and returns or never does; an observer takes holders for dead;
// somebody goes on after a stop; a classic client writes. The values and what becomes of them are those of
// package sema itself.
//
// A machine keeps nothing in mind but where it stands: after a lost answer it begins
// the step again. So what is shown holds without any memory of what was written.

// pc is where a machine stands.
type pc uint16

const (
	idle     pc = iota // up, and wants to reboot
	starting           // up, has not yet looked whether it holds a slot
	gating             // up after a reboot, looks whether it is healthy
	draining           // holds a slot, as far as it knows
	ready              // its last write before the reboot has succeeded
	down
	dead // and never returns
	// Writing: the value has been read, the write is on its way.
	wAcquire
	wArrive
	wClear
	wBeatGate
	wRelease
	wFail
	wBeatDrain
	wGo
	pcs
)

func (p pc) String() string {
	return [...]string{"idle", "starting", "gating", "draining", "ready", "down", "dead", "writes acquire", "writes arrive", "writes clear", "writes beat", "writes release", "writes fail", "writes beat", "writes go"}[p]
}

// around is where a machine comes from to a write, and where it goes on once it
// knows that the write was carried out.
var around = [pcs]struct{ from, to pc }{
	wAcquire:   {idle, draining},
	wArrive:    {starting, gating},
	wClear:     {starting, idle},
	wBeatGate:  {gating, gating},
	wRelease:   {gating, idle},
	wFail:      {gating, idle},
	wBeatDrain: {draining, draining},
	wGo:        {draining, ready},
}

// sight is what the observer knows of a holder's entry.
type sight uint8

const (
	unseen  sight = iota
	still         // it is as the observer first saw it, and nothing has happened
	changed       // it is another by now
	fooled        // the holder has given a sign of life, and the entry is the same: a fault
)

// node is one machine in a state of the world.
type node struct {
	pc    pc
	late  uint16 // writes given up by their sender that may yet arrive, a bit each
	sight sight
	// What an onlooker knows who sees all: that the machine took a slot and has
	// neither given it back nor been taken for dead; that it has been.
	active, lost bool
	snap         value // blind writers alone: what the write on its way will write
}

// value is a semaphore of three machines in 13 bits: for each its phase and whether
// it is a casualty, and whether all is stopped. Times, reasons and numbers of signs
// of life are left out; no decision depends on them but "is it the same entry", which
// sight keeps.
type value uint16

type world struct {
	nodes [3]node
	value value
}

var phases = []sema.Phase{"", sema.Draining, sema.Rebooting, sema.Checking, sema.Lost, sema.Bad, ""}

// bare is the index in phases of a holder without details, as a classic client leaves it.
const bare = 6

var names = [3]string{"a", "b", "c"}

// holdersAndStop is the bits that are 0 when all is free.
const holdersAndStop value = 0x1777

func (v value) stopped() bool    { return v>>12 != 0 }
func (v value) holds(i int) bool { return v>>(4*i)&7 != 0 }
func (v value) bad(i int) bool   { return v>>(4*i)&8 != 0 }
func (v value) phase(i int) sema.Phase {
	return phases[v>>(4*i)&7]
}

// semaphore is the value as package sema has it.
func (v value) semaphore(max, stopAfter int) sema.Semaphore {
	s := sema.Semaphore{Max: max, StopAfter: stopAfter, Details: map[string]sema.Detail{}}
	for i, name := range names {
		if v.holds(i) {
			s.Holders = append(s.Holders, name)
			if v>>(4*i)&7 != bare {
				s.Details[name] = sema.Detail{Phase: v.phase(i), Seq: 1}
			}
		}
		if v.bad(i) {
			s.Bad = append(s.Bad, sema.Casualty{Machine: name})
		}
	}
	if v.stopped() {
		s.Stopped = &sema.Stop{}
	}
	return s
}

func valueOf(s sema.Semaphore) value {
	var v value
	for i, name := range names {
		if d, known := s.Details[name]; known {
			v |= value(slices.Index(phases, d.Phase)) << (4 * i)
		} else if s.Holds(name) {
			v |= bare << (4 * i)
		}
		if slices.ContainsFunc(s.Bad, func(c sema.Casualty) bool { return c.Machine == name }) {
			v |= 8 << (4 * i)
		}
	}
	if s.Stopped != nil {
		v |= 1 << 12
	}
	return v
}

// protocol is what the machines do, or a broken variant of it.
type protocol struct {
	acquire, refresh func(sema.Semaphore, string, sema.Detail) (sema.Semaphore, error)
	release          func(sema.Semaphore, string) (sema.Semaphore, error)
	lose             func(sema.Semaphore, string, sema.Mark) (sema.Semaphore, error)
	resume           func(sema.Semaphore) (sema.Semaphore, error)
	blind            bool // writes do not compare
	trusting         bool // a lost answer is taken for a good one, and taking the slot is the last write
	nobodyLooks      bool // no observer
	classic          bool // a classic client writes at any time
	oldMarks         bool // the observer also tries with what it saw long ago
	delayed          int  // how many writes may be under way whose senders have given up
	max, stopAfter   int
}

func sound(max, stopAfter, delayed int) protocol {
	return protocol{
		acquire: sema.Semaphore.Acquire,
		refresh: sema.Semaphore.Refresh,
		release: sema.Semaphore.Release,
		lose: func(s sema.Semaphore, m string, seen sema.Mark) (sema.Semaphore, error) {
			return s.Lose(m, seen, "silent", time.Time{})
		},
		resume: sema.Semaphore.Resume,
		max:    max, stopAfter: stopAfter, delayed: delayed,
	}
}

// The operations besides the machines' writes.
const (
	opLose     pc = pcs + iota // of an entry that is as it was seen
	opLoseLate                 // of one that is another by now
	opResume
	opClassic // a client that knows the classic fields alone writes them back
	ops
)

// effect is what an operation makes of a value: cached, since there are few values.
type effect struct {
	value   value
	refused bool
	differs [3]bool // whose entries are others than before
}

type explorer struct {
	protocol
	effects map[[3]uint16]effect
	index   map[world]int32
	worlds  []world
	from    []int32 // how a world was first reached, for the tale of a violation
	edges   [][]int32
	fault   string // a violation met on the way to the world that is being made
}

func (x *explorer) effect(v value, i int, op pc) effect {
	key := [3]uint16{uint16(v), uint16(i), uint16(op)}
	if e, ok := x.effects[key]; ok {
		return e
	}
	before := v.semaphore(x.max, x.stopAfter)
	after, err := x.operate(before, names[i], op)
	e := effect{value: v, refused: err != nil}
	if err == nil {
		e.value = valueOf(after)
		for j, name := range names {
			e.differs[j] = before.Mark(name) != after.Mark(name)
		}
	}
	x.effects[key] = e
	return e
}

func (x *explorer) operate(s sema.Semaphore, name string, op pc) (sema.Semaphore, error) {
	switch op {
	case wAcquire:
		return x.acquire(s, name, sema.Detail{Phase: sema.Draining})
	case wArrive, wBeatGate:
		return x.refresh(s, name, sema.Detail{Phase: sema.Checking})
	case wBeatDrain:
		return x.refresh(s, name, sema.Detail{Phase: sema.Draining})
	case wGo:
		return x.refresh(s, name, sema.Detail{Phase: sema.Rebooting})
	case wClear, wRelease:
		return x.release(s, name)
	case wFail:
		return s.Fail(name, "unhealthy", time.Time{})
	case opLose:
		return x.lose(s, name, s.Mark(name))
	case opLoseLate:
		return x.lose(s, name, "an older entry")
	case opResume:
		return x.resume(s)
	case opClassic:
		return sema.Semaphore{Max: s.Max, StopAfter: s.StopAfter, Holders: s.Holders}, nil
	}
	panic("no such operation")
}

// begin is the machine in pc p reading the value and beginning a write. What is
// refused leads where no write is needed.
func (x *explorer) begin(w world, i int, op, refused pc) world {
	e := x.effect(w.value, i, op)
	if e.refused {
		w.nodes[i].pc = refused
		return w
	}
	w.nodes[i].pc = op
	if x.blind {
		w.nodes[i].snap = e.value
	}
	return w
}

// arrive is a write of machine i reaching the store in time: all others that are on
// their way will find another index and fail, so that they need not be told apart
// from writes that never were.
func (x *explorer) arrive(w world, i int, op pc) world {
	e := x.effect(w.value, i, op)
	if x.blind && op < pcs {
		e = effect{value: w.nodes[i].snap, differs: [3]bool{true, true, true}}
	}
	before := w.value
	w.value = e.value
	for j := range w.nodes {
		n := &w.nodes[j]
		n.late = 0
		if j != i && n.pc >= wAcquire && !x.blind {
			n.pc = around[n.pc].from
		}
		switch {
		case e.differs[j] && n.sight != unseen:
			n.sight = changed
		case j == i && op < pcs && n.sight == still:
			n.sight = fooled
		}
		if !w.value.holds(j) && n.sight != unseen {
			n.sight = changed // its next entry is another
		}
	}
	x.judge(&w, before, i, op)
	return w
}

// judge keeps the onlooker's knowledge after an operation and says what is wrong.
func (x *explorer) judge(w *world, before value, i int, op pc) {
	n := &w.nodes[i]
	switch {
	case op == opResume, op == opClassic:
	case op == opLose || op == opLoseLate:
		n.active, n.lost = false, true
	case op == wRelease || op == wFail || op == wClear:
		n.active, n.lost = false, false
	case !before.holds(i) && w.value.holds(i):
		if before.stopped() {
			x.fault = names[i] + " takes a slot while all is stopped"
		}
		n.active, n.lost = true, false
	case w.value.holds(i) && w.value.phase(i) != sema.Lost && w.value.phase(i) != sema.Bad:
		n.active, n.lost = true, false // also if it had been given up, and a classic client knows nothing of it
	}
	active := 0
	for j, n := range w.nodes {
		if !n.active {
			continue
		}
		if active++; !w.value.holds(j) {
			x.fault = names[j] + " has a slot that the store knows nothing of"
		}
	}
	if active > x.max {
		x.fault = fmt.Sprintf("%d machines have a slot", active)
	}
}

// steps calls next with every world that can follow.
func (x *explorer) steps(w world, next func(world)) {
	for i := range w.nodes {
		x.machine(w, i, next)
		x.network(w, i, next)
		x.observer(w, i, next)
	}
	if e := x.effect(w.value, 0, opResume); w.value.stopped() && !e.refused {
		next(x.arrive(w, 0, opResume))
	}
	if x.classic && x.effect(w.value, 0, opClassic).value != w.value {
		next(x.arrive(w, 0, opClassic))
	}
}

// machine is what machine i may do by itself, or suffer.
func (x *explorer) machine(w world, i int, next func(world)) {
	move := func(to pc) {
		n := w
		n.nodes[i].pc = to
		next(n)
	}
	p := w.nodes[i].pc
	switch p {
	case idle:
		next(x.begin(w, i, wAcquire, idle))
	case starting:
		switch {
		case w.value.holds(i):
			next(x.begin(w, i, wArrive, gating)) // refused: it has been given up, and looks first
		case w.value.bad(i):
			next(x.begin(w, i, wClear, idle))
		default:
			move(idle)
		}
	case gating:
		next(x.begin(w, i, wBeatGate, gating))
		next(x.begin(w, i, wRelease, idle))
		next(x.begin(w, i, wFail, idle))
	case draining:
		next(x.begin(w, i, wBeatDrain, starting))
		next(x.begin(w, i, wGo, starting))
		if x.trusting {
			move(ready)
		}
	case ready:
		if !w.nodes[i].active && !w.nodes[i].lost {
			x.fault = names[i] + " reboots without a slot"
		}
		move(down)
	case down:
		move(starting)
		move(dead)
	}
	if p != down && p != dead {
		n := w
		n.nodes[i].pc = down
		x.leave(&n, i, p)
		next(n)
	}
}

// leave is machine i giving up its write, which may yet arrive; as long as not more
// than delayed of them are under way, else it is lost.
func (x *explorer) leave(w *world, i int, p pc) {
	w.nodes[i].snap = 0
	if p < wAcquire || x.blind {
		return
	}
	under := 0
	for _, n := range w.nodes {
		under += bits.OnesCount16(n.late)
	}
	if under < x.delayed {
		w.nodes[i].late |= 1 << (p - wAcquire)
	}
}

// network is what becomes of machine i's writes.
func (x *explorer) network(w world, i int, next func(world)) {
	p := w.nodes[i].pc
	if p >= wAcquire {
		n := x.arrive(w, i, p) // and so does its answer
		n.nodes[i].pc, n.nodes[i].snap = around[p].to, 0
		next(n)
		n.nodes[i].pc = around[p].from // its answer does not
		if x.trusting {
			n.nodes[i].pc = around[p].to
		}
		next(n)
		n = w // it does not arrive, or not yet
		x.leave(&n, i, p)
		n.nodes[i].pc = around[p].from
		if x.trusting {
			n.nodes[i].pc = around[p].to
		}
		next(n)
	}
	for op := wAcquire; op < pcs; op++ {
		if w.nodes[i].late&(1<<(op-wAcquire)) == 0 {
			continue
		}
		n := x.arrive(w, i, op)
		if p >= wAcquire {
			n.nodes[i].pc = around[p].from // that one was made on the same index
		}
		next(n)
	}
}

// observer is somebody looking at machine i's entry, and taking it for dead.
func (x *explorer) observer(w world, i int, next func(world)) {
	if x.nobodyLooks {
		return
	}
	s := w.nodes[i].sight
	if w.value.holds(i) && s != still && s != fooled {
		n := w
		n.nodes[i].sight = still
		next(n)
	}
	op := opLose
	if s == changed {
		op = opLoseLate
	}
	if s != unseen && !x.effect(w.value, i, op).refused {
		if s != still {
			x.fault = names[i] + " is taken for dead in spite of a sign of life"
		}
		next(x.arrive(w, i, op))
	}
}

// canonical is one world for all that differ in the names of machines only, and in
// what makes no difference any more.
func (x *explorer) canonical(w world) world {
	for i := range w.nodes {
		n := &w.nodes[i]
		if p := n.pc; p != draining && p != wBeatDrain && p != wGo && p != ready {
			n.lost = false // it reboots only from these
		}
		if p := w.value.phase(i); p == sema.Lost || p == sema.Bad {
			n.sight = unseen // it has been judged
		}
		if n.sight == changed && !x.oldMarks {
			n.sight = unseen // Lose refuses both; with oldMarks that is looked at
		}
	}
	best := w
	for k, order := range [...][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		if x.blind && k > 0 {
			break // the values on their way have names in them
		}
		n := world{value: w.value &^ 0xfff}
		for to, from := range order {
			n.nodes[to] = w.nodes[from]
			n.value |= w.value >> (4 * from) & 15 << (4 * to)
		}
		if k == 0 || less(n, best) {
			best = n
		}
	}
	return best
}

func less(a, b world) bool {
	for i := range a.nodes {
		if x, y := a.nodes[i].key(), b.nodes[i].key(); x != y {
			return x < y
		}
	}
	return a.value < b.value
}

func (n node) key() uint32 {
	k := uint32(n.pc)<<12 | uint32(n.late)<<4 | uint32(n.sight)<<2
	if n.active {
		k |= 2
	}
	if n.lost {
		k |= 1
	}
	return k
}

// explore looks at every world that can be reached. It returns what is wrong, and
// the way there; "" if nothing is.
func (p protocol) explore() (worlds int, wrong string) {
	x := &explorer{protocol: p, effects: map[[3]uint16]effect{}, index: map[world]int32{}}
	x.add(world{}, -1)
	for at := 0; at < len(x.worlds); at++ {
		var out []int32
		x.steps(x.worlds[at], func(w world) {
			out = append(out, x.add(w, int32(at)))
		})
		if x.fault != "" {
			return len(x.worlds), x.fault + "\n" + x.tale(int32(at))
		}
		x.edges = append(x.edges, slices.Clip(out))
	}
	return len(x.worlds), x.stuck()
}

func (x *explorer) add(w world, from int32) int32 {
	w = x.canonical(w)
	id, ok := x.index[w]
	if !ok {
		id = int32(len(x.worlds))
		x.index[w] = id
		x.worlds = append(x.worlds, w)
		x.from = append(x.from, from)
	}
	return id
}

// stuck finds a world from which no way leads to one where all is free.
func (x *explorer) stuck() string {
	back := make([][]int32, len(x.worlds))
	for from, tos := range x.edges {
		for _, to := range tos {
			back[to] = append(back[to], int32(from))
		}
	}
	good := make([]bool, len(x.worlds))
	var queue []int32
	for id, w := range x.worlds {
		if w.value&holdersAndStop == 0 {
			good[id] = true
			queue = append(queue, int32(id))
		}
	}
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, from := range back[id] {
			if !good[from] {
				good[from] = true
				queue = append(queue, from)
			}
		}
	}
	if id := slices.Index(good, false); id >= 0 {
		return "held for ever\n" + x.tale(int32(id))
	}
	return ""
}

// tale is the shortest way to a world, a line each.
func (x *explorer) tale(id int32) string {
	var lines []string
	for ; id >= 0; id = x.from[id] {
		w := x.worlds[id]
		line := brief(w.value.semaphore(x.max, x.stopAfter))
		for i, n := range w.nodes {
			line += fmt.Sprintf("; %s %v", names[i], n.pc)
		}
		lines = append(lines, line)
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

func TestEveryInterleaving(t *testing.T) {
	all := []protocol{sound(1, 1, 3), sound(2, 1, 2), sound(2, 2, 1), sound(1, 0, 1)} // a million states
	for _, p := range []protocol{sound(1, 1, 1), sound(2, 1, 0)} {
		p.classic = true
		all = append(all, p)
	}
	if testing.Short() {
		all = []protocol{sound(1, 1, 3), sound(2, 1, 0)}
	}
	for _, p := range all {
		t.Run(fmt.Sprintf("max %d, stop after %d, %d late writes, classic writes %t", p.max, p.stopAfter, p.delayed, p.classic), func(t *testing.T) {
			began := time.Now()
			n, wrong := p.explore()
			if wrong != "" {
				t.Error(wrong)
			}
			t.Logf("%d states in %v", n, time.Since(began).Round(time.Millisecond))
		})
	}
}

// A model that finds nothing may be one that looks at nothing: each of these broken
// variants has to be found out.
func TestModelFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*protocol)
		want  string
	}{
		{"slots are not counted", func(p *protocol) {
			p.acquire = func(s sema.Semaphore, m string, d sema.Detail) (sema.Semaphore, error) {
				s.Max = 3
				s, err := s.Acquire(m, d)
				s.Max = p.max
				return s, err
			}
		}, "2 machines have a slot"},
		{"a write does not compare the index", func(p *protocol) { p.blind = true }, "2 machines have a slot"},
		{"a stop is not looked at", func(p *protocol) {
			p.max = 2
			p.acquire = func(s sema.Semaphore, m string, d sema.Detail) (sema.Semaphore, error) {
				stop := s.Stopped
				s.Stopped = nil
				s, err := s.Acquire(m, d)
				s.Stopped = stop
				return s, err
			}
		}, "takes a slot while all is stopped"},
		{"the observer does not compare the entry", func(p *protocol) {
			p.oldMarks = true
			p.lose = func(s sema.Semaphore, m string, _ sema.Mark) (sema.Semaphore, error) {
				return s.Lose(m, s.Mark(m), "silent", time.Time{})
			}
		}, "in spite of a sign of life"},
		{"a sign of life changes nothing", func(p *protocol) {
			p.refresh = func(s sema.Semaphore, m string, d sema.Detail) (sema.Semaphore, error) {
				next, err := s.Refresh(m, d)
				if e, ok := next.Details[m]; ok && err == nil {
					e.Seq = s.Details[m].Seq
					next.Details[m] = e
				}
				return next, err
			}
		}, "in spite of a sign of life"},
		{"a lost answer is taken for a good one", func(p *protocol) { p.trusting = true }, "reboots without a slot"},
		{"a sign of life takes a slot", func(p *protocol) {
			p.refresh = func(s sema.Semaphore, m string, d sema.Detail) (sema.Semaphore, error) {
				if s.Holds(m) {
					return s.Refresh(m, d)
				}
				s.Max, s.Stopped = 3, nil
				s, err := s.Take(m, d)
				s.Max = p.max
				return s, err
			}
		}, "slot"},
		{"nobody looks for the dead", func(p *protocol) { p.nobodyLooks = true }, "held for ever"},
		{"going on leaves the dead in their slots", func(p *protocol) {
			p.resume = func(s sema.Semaphore) (sema.Semaphore, error) {
				s.Stopped, s.Bad = nil, nil
				return s, nil
			}
		}, "held for ever"},
		{"who was given up cannot be released, and nobody goes on", func(p *protocol) {
			p.resume = func(s sema.Semaphore) (sema.Semaphore, error) { return s, sema.ErrNotStopped }
		}, "held for ever"},
		{"releasing one releases another", func(p *protocol) {
			p.max = 2
			p.release = func(s sema.Semaphore, m string) (sema.Semaphore, error) {
				if len(s.Holders) > 0 {
					m = s.Holders[0]
				}
				return s.Release(m)
			}
		}, "the store knows nothing of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sound(1, 1, 1)
			c.fault(&p)
			n, wrong := p.explore()
			if !strings.Contains(wrong, c.want) {
				t.Errorf("not found in %d states: got %q, want %q", n, wrong, c.want)
			}
			t.Logf("%d states\n%s", n, wrong)
		})
	}
}
