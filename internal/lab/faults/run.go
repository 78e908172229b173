package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"flotilla/internal/lab/machines"
)

// Config says what to run.
type Config struct {
	// Lab is up and every machine of it runs a member of the store.
	Lab *machines.Lab
	// Seed makes the plan and the clients' requests. The same seed plans the same
	// faults; what the clients meet depends on the hour.
	Seed uint64
	// For is how long faults are injected.
	For time.Duration
	// Kinds are the faults to choose from; nil: all of them.
	Kinds []Kind
	// Think is the longest pause of a client between two requests; 0 means 100 ms.
	Think time.Duration
	// Dir is where the history goes if it is found wrong. It has to exist.
	Dir string
	// Scratch is where the machines' disks lie while the run lasts, if any fault is
	// SlowDisk: a directory on a disk. "" means that of temporary files.
	Scratch string
	// Say hears what is being done, a line each; nil is silence.
	Say func(format string, args ...any)
}

const (
	clientsEach = 2                // pinned to each member; as many go round as there are members
	filesAtOnce = 5                // small, so that clients meet
	round       = 20 * time.Second // then other files
	quietLimit  = 5 * time.Second  // a watcher that goes round has heard nothing
	judgeLimit  = 20 * time.Second // for the history of one file
	settleLimit = 60 * time.Second // until every member answers and every watcher has seen all
	stuckLimit  = 20 * time.Second // without a change that is there
)

// run is one run.
type run struct {
	Config
	site     *site
	dir      string // of the run's files in the store
	began    time.Time
	history  *history
	watchers []*watcher
}

// Run injects faults for the time given and judges what clients and watchers saw. The
// error says why there was no run; that the store did wrong is in the report.
func Run(ctx context.Context, cfg Config) (rep Report, err error) {
	r := &run{Config: cfg, history: &history{}}
	if r.Kinds == nil {
		r.Kinds = Kinds()
	}
	if r.Say == nil {
		r.Say = func(string, ...any) {}
	}
	if r.Scratch == "" {
		r.Scratch = os.TempDir()
	}
	if r.Think == 0 {
		r.Think = 100 * time.Millisecond
	}
	if r.site, err = openSite(ctx, cfg.Lab); err != nil {
		return rep, err
	}
	if slices.Contains(r.Kinds, SlowDisk) {
		r.Say("the store's data moves to disks that can be slowed down")
		defer func() { err = errors.Join(err, r.site.takeDisks(context.WithoutCancel(ctx))) }()
		if err := r.site.giveDisks(ctx, r.Scratch); err != nil {
			return rep, err
		}
	}
	return r.inject(ctx)
}

// inject lets clients, watchers and the nemesis loose on each other.
func (r *run) inject(ctx context.Context) (Report, error) {
	rep := Report{Seed: r.Seed, For: r.For}
	r.dir = fmt.Sprintf("/faults/%d-%d", r.Seed, time.Now().Unix())
	r.began = time.Now()
	start, _, err := r.mark(ctx, "first")
	if err != nil {
		return rep, err
	}
	r.began = time.Now()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers, clients sync.WaitGroup
	r.watchers = r.makeWatchers(start)
	for _, w := range r.watchers {
		watchers.Go(func() { w.run(watching) })
	}
	asking, stopAsking := context.WithTimeout(ctx, r.For)
	defer stopAsking()
	for _, c := range r.makeClients() {
		clients.Go(func() { c.run(asking) })
	}
	n := &nemesis{site: r.site, began: r.began, say: r.Say}
	rep.Injected = n.run(ctx, Plan(r.Seed, r.For, r.Kinds), r.For)
	clients.Wait()
	if ctx.Err() != nil {
		return rep, ctx.Err()
	}
	err = r.settle(ctx, &rep)
	rep.Took = time.Since(r.began)
	stopWatching()
	watchers.Wait()
	if err != nil {
		rep.Violations = append(rep.Violations, err.Error())
	}
	return r.judge(rep)
}

// makeClients makes clients that are pinned to a member on their own machine and
// clients from outside that ask the members in turn.
func (r *run) makeClients() []*client {
	b := &board{files: map[string]Version{}}
	var out []*client
	add := func(members []Member) {
		out = append(out, &client{
			id: len(out), members: members, rng: rand.New(rand.NewPCG(r.Seed, uint64(len(out)+2))),
			dir: r.dir, files: filesAtOnce, round: round, think: r.Think, began: r.began, board: b, history: r.history,
		})
	}
	for _, m := range r.site.machines {
		for range clientsEach {
			add([]Member{r.site.here(m)})
		}
		add(r.site.allThere())
	}
	return out
}

// makeWatchers makes for each member one watcher that keeps a connection and one that
// asks for one change at a time, and two of each sort that go round.
func (r *run) makeWatchers(start uint64) []*watcher {
	var out []*watcher
	for _, stream := range []bool{true, false} {
		sort := map[bool]string{true: "stream", false: "one at a time"}[stream]
		for _, m := range r.site.machines {
			out = append(out, &watcher{name: m.Name + " " + sort, members: []Member{r.site.here(m)}, dir: r.dir, stream: stream, next: start + 1})
		}
		out = append(out, &watcher{name: "going round " + sort, members: r.site.allThere(), dir: r.dir, stream: stream, quiet: quietLimit, next: start + 1})
	}
	return out
}

// mark writes a file through any member and returns the write's index. It is no
// compare and may be tried more than once: the calls are returned too.
func (r *run) mark(ctx context.Context, name string) (index uint64, calls []Call, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	req := Request{Verb: Set, Key: r.dir + "/" + name, Value: name}
	why := "no member answers"
	for n := 0; ctx.Err() == nil; n++ {
		m := r.site.here(r.site.machines[n%len(r.site.machines)])
		c := Call{Client: -1, Member: m.Name, Begin: time.Since(r.began), Request: req}
		limited, done := context.WithTimeout(ctx, requestLimit)
		c.Answer, err = Ask(limited, m, req)
		done()
		m.HTTP.CloseIdleConnections()
		c.End = time.Since(r.began)
		if err == nil {
			calls = append(calls, c)
			if c.acked() {
				return c.Answer.Node.Modified, calls, nil
			}
		}
		why = fmt.Sprint(c.Answer.Why, err)
		pause(ctx, 200*time.Millisecond)
	}
	return 0, calls, fmt.Errorf("write %s: %s", req.Key, why)
}

// settle waits, when all is whole again, until every member answers, writes the last
// change, and waits for the watchers.
func (r *run) settle(ctx context.Context, rep *Report) error {
	limited, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for _, m := range r.site.machines {
		if !answers(limited, r.site.here(m)) {
			return fmt.Errorf("%s does not answer a quorum read within %v after the last fault", m.Name, settleLimit)
		}
	}
	last, calls, err := r.mark(limited, "last")
	for _, c := range calls {
		r.history.add(c)
	}
	if err != nil {
		return err
	}
	for _, w := range r.watchers {
		r.await(limited, w, last, rep)
	}
	return nil
}

// await waits until the watcher has seen the last change. One that is told of nothing
// more for stuckLimit before that is stuck, which is a violation; one that is told
// until ctx is done is behind.
func (r *run) await(ctx context.Context, w *watcher, last uint64, rep *Report) {
	came, since := w.upTo(), time.Now()
	for came <= last {
		pause(ctx, 50*time.Millisecond)
		if now := w.upTo(); now != came {
			came, since = now, time.Now()
		}
		switch {
		case came > last:
		case time.Since(since) > stuckLimit:
			rep.Violations = append(rep.Violations, fmt.Sprintf("watcher %s: told of nothing for %v after [%d], the last change is [%d]", w.name, stuckLimit, came-1, last))
			return
		case ctx.Err() != nil:
			rep.Behind = append(rep.Behind, fmt.Sprintf("%s by %d", w.name, last+1-came))
			return
		}
	}
}

// judge checks what was seen. On a violation all of it goes to files.
func (r *run) judge(rep Report) (Report, error) {
	calls, unsent, odd := r.history.all()
	rep.count(calls, unsent)
	rep.Violations = append(rep.Violations, odd...)
	var watched []Watched
	for _, w := range r.watchers {
		seen, refused, resumed := w.result()
		watched = append(watched, seen)
		rep.Violations = append(rep.Violations, refused...)
		rep.Resumed += resumed
	}
	err := rep.Judge(calls, watched, r.Dir)
	if len(rep.Violations) == 0 {
		return rep, err
	}
	path := filepath.Join(r.Dir, fmt.Sprintf("history-%d.jsonl", r.Seed))
	rep.Files = append(rep.Files, path)
	f, createErr := os.Create(path)
	if createErr != nil {
		return rep, errors.Join(err, fmt.Errorf("write the history: %w", createErr))
	}
	return rep, errors.Join(err, WriteHistory(f, calls, watched), f.Close())
}
