package fleetctl

import (
	"context"
	"errors"
	"time"

	api "flotilla/api/fleet"
	"flotilla/client/fleet"
)

const (
	// pollEvery is how often a server without a watch is asked, as the original
	// client did.
	pollEvery = 250 * time.Millisecond
	// retryEvery is how soon a watch that broke is tried again.
	retryEvery = 250 * time.Millisecond
)

// update is one piece of news about the cluster.
type update struct {
	change api.Change
	reset  bool  // forget all: what is there follows
	lost   error // the API is away; the observer goes on trying
}

// observer tells what happens in the cluster, until its context is done.
type observer struct {
	client *fleet.Client
	only   []string // units to watch; none: all
	out    chan update
	// follow is the units to ask about where there is no watch.
	follow chan []string
}

func newObserver(c *fleet.Client, only ...string) *observer {
	return &observer{client: c, only: only, out: make(chan update, 256), follow: make(chan []string, 1)}
}

// attend says which units are waited for from now on.
func (o *observer) attend(names []string) {
	select {
	case <-o.follow: // a wait before, of which nobody has taken note
	default:
	}
	o.follow <- names
}

// run watches, and watches again when that breaks; it polls a server that has no
// watch. It closes out when ctx is done.
func (o *observer) run(ctx context.Context) {
	defer close(o.out)
	for ctx.Err() == nil {
		err := o.watch(ctx)
		if errors.Is(err, fleet.ErrNotExist) {
			err = o.poll(ctx)
		}
		o.send(ctx, update{lost: err})
		pause(ctx, retryEvery)
	}
}

func (o *observer) watch(ctx context.Context) error {
	o.send(ctx, update{reset: true})
	for change, err := range o.client.Watch(ctx, o.only...) {
		if err != nil {
			return err
		}
		o.send(ctx, update{change: change})
	}
	return ctx.Err()
}

// poll tells what is there and then asks again and again about the units to
// follow.
func (o *observer) poll(ctx context.Context) error {
	o.send(ctx, update{reset: true})
	p := &poller{observer: o, states: map[[2]string]api.UnitState{}}
	if err := p.everything(ctx); err != nil {
		return err
	}
	o.send(ctx, update{change: api.Change{Synced: true}})
	var names []string
	for {
		select {
		case names = <-o.follow:
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.again(ctx, names); err != nil {
			return err
		}
	}
}

// send hands an update over, unless nobody wants it any more.
func (o *observer) send(ctx context.Context, u update) {
	select {
	case o.out <- u:
	case <-ctx.Done():
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// poller remembers which states it told, to tell which are gone.
type poller struct {
	*observer
	states map[[2]string]api.UnitState // by unit and machine
}

func (p *poller) everything(ctx context.Context) error {
	units, err := p.client.Units(ctx)
	if err != nil {
		return err
	}
	for _, u := range units {
		p.unit(ctx, u)
	}
	states, err := p.client.States(ctx, fleet.StateFilter{})
	if err != nil {
		return err
	}
	for _, st := range states {
		p.state(ctx, st)
	}
	return p.machines(ctx)
}

func (p *poller) again(ctx context.Context, names []string) error {
	for _, name := range names {
		u, err := p.client.Unit(ctx, name)
		switch {
		case errors.Is(err, fleet.ErrNotExist):
			p.send(ctx, update{change: api.Change{Deleted: true, Unit: &api.Unit{Name: name}}})
		case err != nil:
			return err
		default:
			p.unit(ctx, u)
		}
		if err := p.statesOf(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *poller) unit(ctx context.Context, u api.Unit) {
	u.Options = nil // as in a watch
	p.send(ctx, update{change: api.Change{Unit: &u}})
}

func (p *poller) state(ctx context.Context, st api.UnitState) {
	p.states[[2]string{st.Name, st.MachineID}] = st
	p.send(ctx, update{change: api.Change{State: &st}})
}

// statesOf asks for a unit's states and tells those that are gone as well.
func (p *poller) statesOf(ctx context.Context, name string) error {
	states, err := p.client.States(ctx, fleet.StateFilter{Unit: name})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, st := range states {
		there[st.MachineID] = true
		p.state(ctx, st)
	}
	for key, st := range p.states {
		if key[0] == name && !there[key[1]] {
			delete(p.states, key)
			p.send(ctx, update{change: api.Change{Deleted: true, State: &st}})
		}
	}
	return nil
}

func (p *poller) machines(ctx context.Context) error {
	machines, err := p.client.Machines(ctx)
	for _, m := range machines {
		p.send(ctx, update{change: api.Change{Machine: &m}})
	}
	return err
}
