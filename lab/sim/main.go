// Sim runs a cluster of many machines in one process and prints what it costs: the
// real store, engine and agents, with a fake systemd. See internal/fleet/sim.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"time"

	"flotilla/internal/fleet/sim"
	"flotilla/internal/kv/member"
)

func main() {
	var cfg sim.Config
	flag.IntVar(&cfg.Machines, "machines", 500, "how many machines")
	flag.IntVar(&cfg.Units, "units", 10_000, "how many units are placed at once")
	flag.IntVar(&cfg.Few, "few", 1_000, "at how many units one more is measured first")
	flag.IntVar(&cfg.Samples, "samples", 200, "how often one more unit is measured")
	flag.DurationVar(&cfg.TTL, "ttl", 10*time.Second, "of a machine's lease")
	flag.DurationVar(&cfg.MoveAfter, "move-after", 10*time.Second, "how long a machine is away before its units move")
	flag.DurationVar(&cfg.Idle, "idle", 30*time.Second, "how long the cluster is watched at rest")
	dir := flag.String("dir", os.TempDir(), "where the store keeps its files")
	// Each machine has a disk of its own; hundreds that sync on one would be
	// measuring that.
	flag.StringVar(&cfg.Dir, "state", "/dev/shm", "where the machines keep their files")
	profile := flag.String("cpuprofile", "", "write a processor profile there")
	verbose := flag.Bool("v", false, "log warnings of the parts")
	flag.Parse()
	cfg.Log = slog.New(slog.DiscardHandler)
	if *verbose {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "sim: profile:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		pprof.StopCPUProfile()
		os.Exit(1)
	}
}

var errMissed = errors.New("an aim was missed")

// run simulates with a store of its own, in directories that it removes.
func run(ctx context.Context, cfg sim.Config, parent string) error {
	dir, err := os.MkdirTemp(parent, "flotilla-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if cfg.Dir, err = os.MkdirTemp(cfg.Dir, "flotilla-sim-"); err != nil {
		return err
	}
	defer os.RemoveAll(cfg.Dir)
	store, err := member.Alone("sim", filepath.Join(dir, "store"), []string{"http://127.0.0.1:0"})
	if err != nil {
		return err
	}
	m := member.New(store, member.Deps{Log: cfg.Log})
	serving, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Run(serving, func() { close(ready) }) }()
	defer func() { cancel(); <-done }()
	select {
	case <-ready:
	case err := <-done:
		done <- err
		return err
	}
	cfg.Endpoint = m.ClientURLs()[0]
	report, err := sim.Run(ctx, cfg, func(s string) { fmt.Fprintln(os.Stderr, s) })
	fmt.Fprintln(os.Stderr)
	if perr := report.Print(os.Stdout); err == nil {
		err = perr
	}
	if err == nil && report.Missed() {
		err = errMissed
	}
	return err
}
