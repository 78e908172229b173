package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"flotilla/internal/fleet/registry"
	"flotilla/internal/unit"
)

// inbox is where the goroutines that listen leave what they hear for the loop.
// News of one kind replaces older news: the loop never lags behind.
type inbox struct {
	wake chan struct{} // holds one token when there is news
	jobs *sync.WaitGroup

	mu       sync.Mutex
	statuses map[string]unit.Status
	news     news
	loaded   bool
}

type news struct {
	statuses map[string]unit.Status
	// connected: there is a new connection to the init system, and what it has of
	// ours must be asked for. The loop asks, since it is the one that changes it.
	connected bool
	ends      []jobEnd
	all       bool     // ask for everything again
	found     []func() // what others have found out for the loop, which runs it
}

// jobEnd is how a job ended. Another may have taken its place meanwhile.
type jobEnd struct {
	unit.Outcome
	of *job
}

func (in *inbox) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *inbox) leave(change func(*news)) {
	in.mu.Lock()
	change(&in.news)
	in.mu.Unlock()
	in.poke()
}

func (in *inbox) status(s unit.Status) {
	in.leave(func(*news) { in.statuses[s.Name] = s })
}

func (in *inbox) askAll() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.news.all = true
}

func (in *inbox) scheduleChanged() {
	in.mu.Lock()
	in.loaded = true
	in.mu.Unlock()
	in.poke()
}

func (in *inbox) scheduleLoaded() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.loaded
}

// take empties the inbox.
func (in *inbox) take() news {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.news
	n.statuses = maps.Clone(in.statuses)
	clear(in.statuses)
	in.news = news{}
	return n
}

// listen follows the init system until ctx is done, across losses of the
// connection: after each it asks for everything once.
func (a *Agent) listen(ctx context.Context) {
	retry := registry.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	lost := false
	for ctx.Err() == nil {
		err := a.listenOnce(ctx, func() {
			if lost {
				a.log.Info("init system answers again")
			}
			lost = false
			retry.Reset()
		})
		if ctx.Err() != nil {
			return
		}
		if !lost {
			a.log.Warn("init system lost, trying again", "err", err)
			lost = true
		}
		retry.Wait(ctx)
	}
}

func (a *Agent) listenOnce(ctx context.Context, connected func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := a.manager.Watch(ctx)
	if err != nil {
		return err
	}
	a.inbox.leave(func(n *news) { n.connected = true })
	connected()
	for s := range changes {
		a.inbox.status(s)
	}
	return errUnfinished
}

// send starts jobs and has their ends come in as news.
func (a *Agent) send(ctx context.Context, jobs []unit.Job) {
	if len(jobs) == 0 {
		return
	}
	open := make(map[string]*job, len(jobs))
	for _, j := range jobs {
		open[j.Unit] = a.local(j.Unit).job
	}
	outcomes := a.manager.Run(ctx, jobs)
	a.inbox.jobs.Go(func() {
		for o := range outcomes {
			of := open[o.Job.Unit]
			delete(open, o.Job.Unit)
			a.inbox.leave(func(n *news) { n.ends = append(n.ends, jobEnd{o, of}) })
		}
		for name, j := range open {
			o := unit.Outcome{Job: unit.Job{Kind: j.kind, Unit: name}, Err: errUnfinished}
			a.inbox.leave(func(n *news) { n.ends = append(n.ends, jobEnd{o, j}) })
		}
	})
}
