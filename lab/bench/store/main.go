// Command store measures the store beside the etcd 3.4 that Debian packages, with
// --enable-v2, on this machine and in this run. "make bench-store" calls it.
//
//	load       100,000 keys of 100 bytes written over 64 connections
//	memory     resident set (VmRSS) of the server that holds them, after a rest
//	put        one connection, one write after the other
//	get        plain reads of those keys over 64 connections
//	quorum     reads with quorum=true over 64 connections
//	watch      from one write to the last of 10,000 watchers of its directory
//
// Both servers run, each on a fresh data directory on the same disk and with fsync; a
// figure is taken of the one while the other is idle, and then the other way round. After
// five such pairs, of which every second goes first with the other one, the median of the
// five ratios counts: what else the machine does is about the same for both of a pair.
// Either store has one member; with -members 3 it has three, all on this machine, which
// is then a third of one for each.
//
// The clients are one thread that speaks HTTP/1.1 on sockets of its own. It has
// the last processor to itself and the server has the others, so that neither takes
// time from the other; -pin=false leaves that to the system.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	b := bench{}
	var binary, theirs string
	flag.StringVar(&binary, "flotilla", "bin/flotilla", "our binary")
	flag.StringVar(&theirs, "etcd", "/usr/bin/etcd", "the etcd 3.4 to compare with")
	flag.StringVar(&b.dir, "dir", "", "where the data directories are made; empty: the system's temporary directory")
	flag.BoolVar(&b.pin, "pin", true, "keep clients and server on different processors")
	flag.BoolVar(&b.verbose, "v", false, "print each figure as it is taken")
	pairs := flag.Int("pairs", 5, "how many times each server is measured")
	only := flag.String("only", "", "which measurements, comma separated; empty: all")
	flag.StringVar(&b.profile, "profile", "", "write a processor profile of our server for each measurement into this `directory`")
	flag.IntVar(&b.keys, "keys", 100_000, "how many keys are loaded")
	flag.IntVar(&b.members, "members", 1, "how many members each store has; the connections are spread over them")
	flag.IntVar(&b.watchers, "watchers", 10_000, "how many watchers there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx, b.only = ctx, strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	abs, err := filepath.Abs(binary)
	if err == nil {
		err = b.run(*pairs, [2]program{{ours, []string{abs, "etcd"}}, {"etcd 3.4", []string{theirs, "--enable-v2=true"}}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	ctx            context.Context
	dir, profile   string
	pin, verbose   bool
	only           []string
	members        int
	keys, watchers int
}

// ours is the name of our program.
const ours = "flotilla"

// run measures both programs in turn and prints the table.
func (b *bench) run(pairs int, programs [2]program) error {
	if err := b.check(programs[1]); err != nil {
		return err
	}
	runtime.LockOSThread() // the clients, which are this thread, may be bound to a processor
	var all [][2]sample
	for i := range pairs {
		s, err := b.pair(i%2 == 1, programs)
		if err != nil {
			return fmt.Errorf("pair %d: %w", i+1, err)
		}
		all = append(all, s)
	}
	b.print(os.Stdout, all)
	return nil
}

// check makes sure that the other program is what the table will call it.
func (b *bench) check(theirs program) error {
	out, err := exec.CommandContext(b.ctx, theirs.argv[0], "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w (scripts/need installs it)", theirs.argv[0], err)
	}
	if !strings.Contains(string(out), "etcd Version: 3.4.") {
		return fmt.Errorf("%s is no etcd 3.4, the last that speaks v2: %q", theirs.argv[0], out)
	}
	return nil
}

// figure is one line of the table.
type figure struct {
	step, name, unit string
	take             func(*bench, *server) (float64, error)
	aim              float64
	more             bool // the aim is a least ratio, and more is better
}

var figures = [...]figure{
	{"load", "PUT, 64 connections", "/s", load, 1.2, true},
	{"memory", "memory with the keys (VmRSS)", "MB", memory, 1, false},
	{"put", "PUT, 1 connection", "/s", single, 1, true},
	{"get", "GET, 64 connections", "/s", reads(""), 2.5, true},
	{"quorum", "GET quorum=true, 64 connections", "/s", reads("?quorum=true"), 2, true},
	{"watch", "watchers told, the last of them", "ms", watch, 2, false},
}

// sample is what one server made of all measurements, in the order of figures; 0 is not
// measured.
type sample struct {
	value [len(figures)]float64
	busy  [len(figures)]float64 // the part of the time that the clients' thread was running
}

func (b *bench) print(w io.Writer, pairs [][2]sample) {
	fmt.Fprintf(w, "%s, %s\n", host(), time.Now().Format(time.DateOnly))
	fmt.Fprintf(w, "%s\n\n", strings.Join(os.Args, " "))
	fmt.Fprintf(w, "| medians of %d pairs | flotilla | etcd 3.4 | ratio | of single pairs | aim | clients busy |\n| --- | --- | --- | --- | --- | --- | --- |\n", len(pairs))
	for i, f := range figures {
		if pairs[0][0].value[i] == 0 {
			continue
		}
		var value, busy [2][]float64
		var ratios []float64
		for _, p := range pairs {
			for j := range p {
				value[j], busy[j] = append(value[j], p[j].value[i]), append(busy[j], 100*p[j].busy[i])
			}
			ratios = append(ratios, p[0].value[i]/p[1].value[i])
		}
		aim := "at least"
		if !f.more {
			aim = "at most"
		}
		fmt.Fprintf(w, "| %s | %.5g %s | %.5g %s | **%.2f** | %.2f to %.2f | %s %.3g | %.0f %%, %.0f %% |\n", f.name, median(value[0]), f.unit, median(value[1]), f.unit,
			median(ratios), slices.Min(ratios), slices.Max(ratios), aim, f.aim, median(busy[0]), median(busy[1]))
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// host says what the figures were taken on.
func host() string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d processors", cpu, runtime.NumCPU())
}
