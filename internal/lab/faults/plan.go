package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what is done to a machine.
type Kind string

// The kinds of faults.
const (
	Crash    Kind = "crash"          // etcd is killed with signal 9; systemd starts it again
	Down     Kind = "down"           // etcd is killed and stays away
	Pause    Kind = "pause"          // etcd is stopped where it is (SIGSTOP)
	Freeze   Kind = "freeze"         // every process of the machine is
	Power    Kind = "power"          // the machine loses its power and boots again
	Cut      Kind = "cut"            // the machine's cable is out
	Split    Kind = "split"          // the machine and the next one do not hear each other
	Deaf     Kind = "deaf"           // the machine's packets arrive, it gets none
	Mute     Kind = "mute"           // the machine gets packets, its own do not arrive
	Loss     Kind = "loss"           // a fifth of the packets is lost, both ways
	SlowNet  Kind = "slow network"   // the machine's packets leave through a narrow pipe
	SlowCPU  Kind = "slow processor" // the machine has a twentieth of a processor
	SlowDisk Kind = "slow disk"      // the disk of the store's data writes ten times a second
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{Crash, Down, Pause, Freeze, Power, Cut, Split, Deaf, Mute, Loss, SlowNet, SlowCPU, SlowDisk}
}

// Who says which machines a fault is for. Who leads is known only when it happens.
type Who string

// The machines that a fault may be for.
const (
	Leader   Who = "leader"
	Follower Who = "follower"
	Majority Who = "majority"
	All      Who = "all"
)

// Fault is one fault of a step.
type Fault struct {
	Kind Kind
	Who  Who
	// Pick chooses among several: the followers, or where a majority begins.
	Pick int
}

func (f Fault) String() string { return fmt.Sprintf("%s of %s", f.Kind, f.Who) }

// Step is faults that begin and end together.
type Step struct {
	At, For time.Duration // since the start of the run; how long
	Faults  []Fault
}

func (s Step) String() string {
	var names []string
	for _, f := range s.Faults {
		names = append(names, f.String())
	}
	return strings.Join(names, " and ")
}

const (
	firstFault = 4 * time.Second // there is something to lose
	lastRest   = 8 * time.Second // after the last fault
	shortest   = 2 * time.Second // a fault: longer than an election takes
	longest    = 12 * time.Second
	leastRest  = 5 * time.Second // between faults
	mostRest   = 12 * time.Second
)

// Plan returns the faults of a run of the given length, in order. It depends on its
// arguments alone. Every kind comes once before one comes twice; one step in four
// has two faults.
func Plan(seed uint64, length time.Duration, kinds []Kind) []Step {
	if len(kinds) == 0 {
		return nil
	}
	p := planner{rng: rand.New(rand.NewPCG(seed, 1)), kinds: kinds}
	var steps []Step
	for at := firstFault; ; {
		s := p.step(at)
		if at+s.For+lastRest > length {
			return steps
		}
		steps = append(steps, s)
		at += s.For + p.between(leastRest, mostRest)
	}
}

type planner struct {
	rng   *rand.Rand
	kinds []Kind
	deck  []Kind // what is left of this round
}

func (p *planner) step(at time.Duration) Step {
	s := Step{At: at, For: p.between(shortest, longest), Faults: []Fault{p.fault()}}
	if p.rng.IntN(4) == 0 {
		s.Faults = append(s.Faults, p.fault())
	}
	return s
}

func (p *planner) fault() Fault {
	if len(p.deck) == 0 {
		p.deck = slices.Clone(p.kinds)
		p.rng.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
	}
	f := Fault{Kind: p.deck[0], Who: p.who(), Pick: p.rng.IntN(1 << 16)}
	p.deck = p.deck[1:]
	return f
}

// who is the leader or one follower in eight of ten cases: there the store has to go
// on.
func (p *planner) who() Who {
	switch n := p.rng.IntN(20); {
	case n < 9:
		return Leader
	case n < 16:
		return Follower
	case n < 19:
		return Majority
	}
	return All
}

// between is a whole number of tenths of a second.
func (p *planner) between(least, most time.Duration) time.Duration {
	const tenth = time.Second / 10
	return least + tenth*time.Duration(p.rng.Int64N(int64((most-least)/tenth)+1))
}

// targets returns the machines (by number) that each fault of a step is for, where n
// machines are led by number leader (-1: by none). No machine gets two faults: what is
// left for the second may be nothing.
func targets(s Step, leader, n int) [][]int {
	out := make([][]int, len(s.Faults))
	taken := map[int]bool{}
	for i, f := range s.Faults {
		for _, m := range candidates(f, leader, n) {
			if !taken[m] {
				out[i] = append(out[i], m)
			}
		}
		if len(out[i]) == 0 && len(taken) < n {
			m := f.Pick % n
			for taken[m] {
				m = (m + 1) % n
			}
			out[i] = []int{m}
		}
		for _, m := range out[i] {
			taken[m] = true
		}
	}
	return out
}

func candidates(f Fault, leader, n int) []int {
	count, first := 1, f.Pick%n
	switch {
	case f.Who == Leader && leader >= 0:
		first = leader
	case f.Who == Follower && leader >= 0 && n > 1:
		first = (leader + 1 + f.Pick%(n-1)) % n
	case f.Who == Majority:
		count = n/2 + 1
	case f.Who == All:
		count = n
	}
	var out []int
	for i := range count {
		out = append(out, (first+i)%n)
	}
	return out
}
