package trigger

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"flotilla/internal/systemd/updateengine"
)

// UpdateEngine is what is asked of the update engine; *updateengine.Engine has it.
type UpdateEngine interface {
	Status(ctx context.Context) (updateengine.Status, error)
	Watch(ctx context.Context, ready func(), fn func(updateengine.Status), refused func(error)) error
}

// Config says where to look.
type Config struct {
	Engine       UpdateEngine // nil: there is none
	RequiredFile string       // reboot-required; its packages are in RequiredFile + ".pkgs"
	AskedFile    string       // what locksmithctl leaves behind
	// Command is run each CommandEvery (0: an hour), such as Find finds; nil: never.
	Command      []string
	CommandEvery time.Duration
	Log          *slog.Logger // nil: silent
}

// Find is the command that tells on this machine whether a reboot is needed; nil where
// there is none.
func Find(lookPath func(string) (string, error)) []string {
	for _, c := range [][]string{{"needs-restarting", "-r"}, {"dnf", "needs-restarting", "-r"}} {
		if path, err := lookPath(c[0]); err == nil {
			return append([]string{path}, c[1:]...)
		}
	}
	return nil
}

// Watcher learns the facts as long as it runs.
type Watcher struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	facts   Facts
	engine  bool // it has been asked, or is not there
	command bool // it has been run, or there is none
	changed chan struct{}
}

// New returns a watcher that has looked at nothing yet.
func New(cfg Config) *Watcher {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CommandEvery == 0 {
		cfg.CommandEvery = time.Hour
	}
	return &Watcher{cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1), engine: cfg.Engine == nil, command: len(cfg.Command) == 0}
}

// Need is what follows from what is known now.
func (w *Watcher) Need() Need {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Decide(w.facts)
}

// Settled says whether every source has been asked once: only then the absence of a
// need means that there is none.
func (w *Watcher) Settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.engine && w.command
}

func (w *Watcher) asked(source *bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*source = true
}

// Changed delivers a token when the need may be another.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Withdraw forgets what was asked with locksmithctl: it has been done.
func (w *Watcher) Withdraw() error {
	if err := os.Remove(w.cfg.AskedFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.readFiles()
	return nil
}

// learn changes the facts.
func (w *Watcher) learn(change func(*Facts)) {
	w.mu.Lock()
	before := Decide(w.facts)
	change(&w.facts)
	after := Decide(w.facts)
	w.mu.Unlock()
	if before != after {
		w.log.Debug("the wish to reboot is another", "source", string(after.Source), "why", after.Why)
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// Run learns until ctx is done; it calls ready when the files have been read once.
func (w *Watcher) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if w.cfg.Engine != nil {
		wg.Go(func() { w.watchEngine(ctx) })
	}
	if len(w.cfg.Command) > 0 {
		wg.Go(func() { w.runCommand(ctx) })
	}
	w.watchFiles(ctx, ready)
	return nil
}

// How long a connection to the message bus that was lost stays away at least and at
// most, and how often the files are looked at though nothing has happened.
const (
	firstPause = time.Second
	longPause  = time.Minute
	lookEvery  = 30 * time.Second
)

// watchEngine keeps a watch on the bus.
func (w *Watcher) watchEngine(ctx context.Context) {
	told := false
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := w.cfg.Engine.Watch(ctx, func() {
			pause, told = firstPause, false
			w.askEngine(ctx)
		}, func(s updateengine.Status) {
			w.engineSaid(s)
			w.keep(ctx, s)
		}, func(err error) { w.log.Warn("signal left out", "err", err) })
		if ctx.Err() != nil {
			return
		}
		w.asked(&w.engine)
		if !told {
			w.log.Warn("signals of the update engine are not heard, trying again", "err", err)
			told = true
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// askEngine asks for what was said before anybody listened.
func (w *Watcher) askEngine(ctx context.Context) {
	s, err := w.cfg.Engine.Status(ctx)
	w.asked(&w.engine)
	switch {
	case err == nil:
		w.engineSaid(s)
	case !errors.Is(err, updateengine.ErrAbsent) && ctx.Err() == nil:
		w.log.Warn("the update engine does not say what it is at", "err", err)
	}
}

func (w *Watcher) engineSaid(s updateengine.Status) {
	w.learn(func(f *Facts) { f.Engine = s })
}

// keep writes down a signal that says what the engine itself does not: locksmithctl has
// sent it, and nobody would say so again.
func (w *Watcher) keep(ctx context.Context, s updateengine.Status) {
	if s.Operation != updateengine.NeedReboot || w.cfg.AskedFile == "" {
		return
	}
	if now, err := w.cfg.Engine.Status(ctx); err == nil && now.Operation == updateengine.NeedReboot || ctx.Err() != nil {
		return
	}
	if err := os.WriteFile(w.cfg.AskedFile, []byte("asked for on the system bus\n"), 0o644); err != nil {
		w.log.Warn("a restart of locksmithd would forget what was asked", "err", err)
		return
	}
	w.learn(func(f *Facts) { f.Engine = updateengine.Status{} }) // the file counts now
	w.readFiles()
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// watchFiles reads the files when something happens beside them, and now and then.
func (w *Watcher) watchFiles(ctx context.Context, ready func()) {
	events, stop := notify(w.log, w.cfg.RequiredFile, w.cfg.AskedFile)
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	w.readFiles()
	ready()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-tick.C:
		}
		w.readFiles()
	}
}

func (w *Watcher) readFiles() {
	_, required := w.read(w.cfg.RequiredFile)
	packages, _ := w.read(w.cfg.RequiredFile + ".pkgs")
	why, asked := w.read(w.cfg.AskedFile)
	w.learn(func(f *Facts) {
		f.Required, f.Packages = required, parsePackages(packages)
		f.Asked, f.AskedWhy = asked, why
	})
}

// maxRead bounds what is read of a file that anybody with root's rights may have filled.
const maxRead = 64 << 10

// read returns the beginning of a file; false if there is none.
func (w *Watcher) read(path string) (string, bool) {
	if path == "" {
		return "", false
	}
	f, err := os.Open(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			w.log.Warn("file not read", "err", err)
		}
		return "", false
	}
	defer f.Close()
	b := make([]byte, maxRead)
	n, _ := f.Read(b)
	return string(b[:n]), true
}

// commandLimit is how long the command may take: dnf may wait for another dnf.
const commandLimit = 5 * time.Minute

// runCommand asks the command now and then.
func (w *Watcher) runCommand(ctx context.Context) {
	failing := false
	for {
		need, updated, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			w.log.Warn("whether a reboot is needed cannot be asked, trying again each "+w.cfg.CommandEvery.String(),
				"command", strings.Join(w.cfg.Command, " "), "err", err)
		case err == nil:
			w.learn(func(f *Facts) { f.Restart, f.Updated = need, updated })
		}
		w.asked(&w.command)
		failing = err != nil
		if !wait(ctx, w.cfg.CommandEvery) {
			return
		}
	}
}

func (w *Watcher) ask(ctx context.Context) (bool, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.cfg.Command[0], w.cfg.Command[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // what it has left behind may hold its output open
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return false, nil, err
	}
	if ctx.Err() != nil {
		return false, nil, ctx.Err()
	}
	return parseNeedsRestarting(cmd.ProcessState.ExitCode(), out.String())
}
