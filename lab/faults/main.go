// Command faults breaks lab machines in every way it knows while clients and watchers
// use the store, and judges what they saw: a soak test of any length.
//
//	go run ./lab/faults -for 10m -seed 1
//
// It boots machines of its own, needs root, and ends with exit code 1 on a violation.
// The same seed plans the same faults. docs/reliability.md has what it has found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"flotilla/internal/fault"
	"flotilla/internal/lab/faults"
	"flotilla/internal/lab/machines"
)

func main() {
	var o options
	flag.DurationVar(&o.length, "for", 10*time.Minute, "how long faults are injected")
	flag.Uint64Var(&o.seed, "seed", 1, "makes the plan")
	flag.StringVar(&o.prefix, "name", "faults", "the lab, and how its machines' names begin")
	flag.StringVar(&o.program, "flotilla", "", "the binary to judge; built from this source tree if empty")
	flag.StringVar(&o.dir, "dir", ".", "where the history of a violation goes")
	flag.StringVar(&o.kinds, "kinds", "", "faults to choose from, comma separated; all if empty")
	flag.DurationVar(&o.think, "think", 0, "the longest pause of a client between two requests; 100ms if 0")
	again := flag.String("judge", "", "judge this history file and run nothing")
	plan := flag.Bool("plan", false, "print the plan and do nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := o.check()
	switch {
	case err != nil:
	case *plan:
		o.print()
	case *again != "":
		err = o.judgeFile(*again)
	default:
		err = o.run(ctx)
	}
	if err != nil {
		fault.Print(os.Stderr, "faults", err)
		os.Exit(1)
	}
}

type options struct {
	length, think               time.Duration
	seed                        uint64
	prefix, program, dir, kinds string
	chosen                      []faults.Kind
}

func (o *options) check() error {
	o.chosen = faults.Kinds()
	if o.kinds == "" {
		return nil
	}
	o.chosen = nil
	for name := range strings.SplitSeq(o.kinds, ",") {
		k := faults.Kind(strings.TrimSpace(name))
		if !slices.Contains(faults.Kinds(), k) {
			return fault.Hint(fmt.Errorf("-kinds: no fault %q", k), "there are %v", faults.Kinds())
		}
		o.chosen = append(o.chosen, k)
	}
	return nil
}

func (o *options) print() {
	for _, s := range faults.Plan(o.seed, o.length, o.chosen) {
		fmt.Printf("%7s for %5s  %s\n", s.At, s.For, s)
	}
}

var errUnsound = errors.New("the store was found wanting: see above")

// run boots a lab, runs, and takes the lab away.
func (o *options) run(ctx context.Context) (err error) {
	scratch, err := os.MkdirTemp("", "flotilla-faults-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if o.program == "" {
		if o.program, err = build(ctx, scratch); err != nil {
			return err
		}
	}
	host, err := machines.Inspect()
	if err != nil {
		return err
	}
	lab, err := machines.New(o.prefix, host, say)
	if err != nil {
		return err
	}
	if err := lab.Up(ctx, 3); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx))) }()
	if err := lab.Cluster(ctx, o.program); err != nil {
		return err
	}
	return o.judge(ctx, lab, scratch)
}

func (o *options) judge(ctx context.Context, lab *machines.Lab, scratch string) error {
	report, err := faults.Run(ctx, faults.Config{
		Lab: lab, Seed: o.seed, For: o.length, Kinds: o.chosen, Think: o.think,
		Dir: o.dir, Scratch: scratch, Say: say,
	})
	report.Print(os.Stdout)
	if err == nil && !report.Sound() {
		err = errUnsound
	}
	return err
}

// judgeFile judges what an earlier run has written.
func (o *options) judgeFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	calls, watched, err := faults.ReadHistory(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var report faults.Report
	err = report.Judge(calls, watched, o.dir)
	report.Print(os.Stdout)
	if err == nil && !report.Sound() {
		err = errUnsound
	}
	return err
}

func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "flotilla")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "flotilla/cmd/flotilla")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
