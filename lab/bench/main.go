// Command bench measures the cluster on lab machines and prints each figure as a
// ratio to what ran beside it, round by round in the same run: systemd alone on one
// machine, which is the limit, and Docker Swarm on the same machines. "make bench" calls
// it; it needs root.
//
//	start one unit     fleetctl start UNIT until active, against writing the file
//	                   and systemctl start UNIT
//	start 50, 100      fleetctl start web@{1..N}, against systemctl start of as many
//	containers         the same with a unit that runs a container, against as many
//	                   docker service create until their tasks run
//	idle               writes to the store a minute, CPU and memory of each daemon,
//	                   against members of Debian's etcd 3.4 in the same machines
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	exe := flag.String("flotilla", "bin/flotilla", "the binary to measure")
	sizes := flag.String("machines", "1,3", "cluster sizes, comma separated")
	rounds := flag.Int("rounds", 50, "how many single starts")
	pairs := flag.Int("pairs", 5, "how many rounds of everything else")
	swarm := flag.Bool("swarm", true, "with Docker Swarm, where there is more than one machine")
	name := flag.String("name", "bench", "the lab's name: its machines are called NAME1, NAME2...")
	idle := flag.Duration("idle", time.Minute, "how long to watch the idle cluster")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, exe: *exe, name: *name, rounds: *rounds, pairs: *pairs, swarm: *swarm, idle: *idle}
	if err := b.run(strings.Split(*sizes, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	ctx    context.Context
	exe    string
	name   string
	rounds int // of single starts
	pairs  int // of the rest
	swarm  bool
	idle   time.Duration
}

// run measures each cluster size on machines of its own.
func (b *bench) run(sizes []string) error {
	fmt.Printf("%s, %s\n", host(), time.Now().Format(time.DateOnly))
	for _, size := range sizes {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			return fmt.Errorf("-machines %q: not a number of machines", size)
		}
		if err := b.cluster(n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) cluster(n int) (err error) {
	if out, err := b.lab("up", strconv.Itoa(n), "--cluster", "--name", b.name); err != nil {
		return fmt.Errorf("boot the lab: %w\n%s", err, out)
	}
	defer func() {
		// The lab goes down also when the run was interrupted.
		out, downErr := exec.Command(b.exe, "lab", "down", "--name", b.name).CombinedOutput()
		if err == nil && downErr != nil {
			err = fmt.Errorf("take the lab down: %w\n%s", downErr, out)
		}
	}()
	fmt.Printf("\n%d machine(s)\n", n)
	fmt.Printf("%-44s %10s   %-10s %10s   %5s\n", "", "flotilla", "beside it", "", "ratio")
	if err := b.starts(n); err != nil {
		return err
	}
	return b.quiet(n)
}

func (b *bench) lab(args ...string) (string, error) {
	out, err := exec.CommandContext(b.ctx, b.exe, append([]string{"lab"}, args...)...).CombinedOutput()
	return string(out), err
}

// sh runs a script on the first machine.
func (b *bench) sh(script string) (string, error) { return b.on(1, script) }

func (b *bench) on(number int, script string) (string, error) { return b.fed(number, nil, script) }

// fed runs a script on a machine that reads what in has.
func (b *bench) fed(number int, in io.Reader, script string) (string, error) {
	machine := fmt.Sprintf("%s%d", b.name, number)
	cmd := exec.CommandContext(b.ctx, b.exe, "lab", "exec", machine, "bash", "-c", script)
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("on %s: %s: %w\n%s", machine, script, err, out)
	}
	return string(out), nil
}

// quantile of a copy, by nearest rank.
func quantile[T cmp.Ordered](d []T, q float64) T {
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
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
	out, err := exec.Command("nproc").Output()
	if err != nil {
		return cpu
	}
	return cpu + ", " + strings.TrimSpace(string(out)) + " cores"
}
