package registry

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/kv/member/membertest"
)

// unreliable is a way to the store on which a test decides what becomes of transactions.
type unreliable struct {
	clientv3.KV
	asked atomic.Int64
	// sent is asked before each transaction, answered after it; an error of theirs is
	// what the caller hears. nil: all is well.
	sent, answered func() error
}

// on makes the way of a registry unreliable.
func (u *unreliable) on(r *Registry) *unreliable {
	u.KV, r.client.KV = r.client.KV, u
	return u
}

func (u *unreliable) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	u.asked.Add(1)
	return u.KV.Get(ctx, key, opts...)
}

func (u *unreliable) Txn(ctx context.Context) clientv3.Txn {
	u.asked.Add(1)
	return &unreliableTxn{way: u, txn: u.KV.Txn(ctx)}
}

type unreliableTxn struct {
	way *unreliable
	txn clientv3.Txn
}

func (t *unreliableTxn) If(cs ...clientv3.Cmp) clientv3.Txn { t.txn = t.txn.If(cs...); return t }
func (t *unreliableTxn) Then(o ...clientv3.Op) clientv3.Txn { t.txn = t.txn.Then(o...); return t }
func (t *unreliableTxn) Else(o ...clientv3.Op) clientv3.Txn { t.txn = t.txn.Else(o...); return t }

func (t *unreliableTxn) Commit() (*clientv3.TxnResponse, error) {
	if f := t.way.sent; f != nil {
		if err := f(); err != nil {
			return nil, err
		}
	}
	resp, err := t.txn.Commit()
	if f := t.way.answered; err == nil && f != nil {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return resp, err
}

// times is a failure that happens so often.
func times(n int, err error) func() error {
	return func() error {
		if n--; n >= 0 {
			return err
		}
		return nil
	}
}

// Whatever becomes of the requests of a candidate, it knows in the end whether it leads.
func TestCampaign(t *testing.T) {
	const me, other = "me", "other"
	url := membertest.Start(t)
	for _, c := range []struct {
		name           string
		sent, answered func() error
		leads          string // whoever leads before
		lost           bool   // the lease is
		want           error
	}{
		{name: "nobody leads"},
		{name: "another leads", leads: other, want: ErrLed},
		{name: "the answer to its own record is lost", answered: times(2, rpctypes.ErrTimeoutDueToConnectionLost)},
		{name: "the store is away for a while", sent: times(3, rpctypes.ErrNoLeader)},
		{name: "the store is away for a while, and then another leads", sent: times(2, rpctypes.ErrNoLeader), leads: other, want: ErrLed},
		{name: "its lease is lost", lost: true, want: ErrLeaseLost},
		{name: "its lease is lost while the store is away", lost: true, sent: times(2, rpctypes.ErrNoLeader), want: ErrLeaseLost},
		{name: "it may not", sent: times(1, rpctypes.ErrPermissionDenied), want: ErrDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := connect(t, url)
			r.prefix = "/" + t.Name() + "/"
			if c.leads != "" {
				lease, err := r.grant(t.Context(), time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Campaign(t.Context(), lease, Candidate{Machine: c.leads}); err != nil {
					t.Fatal(err)
				}
			}
			lease, err := r.grant(t.Context(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if c.lost {
				r.revoke(lease)
			}
			way := (&unreliable{sent: c.sent, answered: c.answered}).on(r)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			l, err := r.Campaign(ctx, lease, Candidate{Machine: me})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			way.sent, way.answered = nil, nil
			if _, err := r.DeleteAsks(t.Context(), l, []string{"x"}); c.want == nil && err != nil {
				t.Errorf("it leads and writes: %v", err)
			}
		})
	}
}

// deafWatcher ends every watch as soon as it has begun, as a member does that has lost
// its cluster while another one answers what is read.
type deafWatcher struct{ clientv3.Watcher }

func (deafWatcher) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	c := make(chan clientv3.WatchResponse)
	close(c)
	return c
}

// Whoever waits for the lead, for the engine or for changes does not besiege a store in which
// nothing can be watched.
func TestWaitingIsNotBusy(t *testing.T) {
	r := open(t)
	lead(t, r)
	id, err := r.Ask(t.Context(), model.Ask{Kind: model.Rebalance})
	if err != nil {
		t.Fatal(err)
	}
	r.client.Watcher = deafWatcher{r.client.Watcher}
	for _, c := range []struct {
		name string
		wait func(context.Context) error
	}{
		{"for the lead", func(ctx context.Context) error { return r.AwaitVacancy(ctx, Candidate{Machine: "n"}, true) }},
		{"for the engine", func(ctx context.Context) error { return r.AwaitAsk(ctx, id) }},
		{"for changes", func(ctx context.Context) error {
			r.Follow(ctx, Everything, r.NewView(), func([]Change, bool) {})
			return ctx.Err()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			way := (&unreliable{}).on(r)
			defer func() { r.client.KV = way.KV }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if n := way.asked.Load(); n < 2 || n > 10 {
				t.Errorf("asked %d times in a second", n)
			}
		})
	}
}

// Of many candidates one leads at a time, and when it gives the lead back another has it
// at once. Those that do not lead leave no lease behind.
func TestManyCandidates(t *testing.T) {
	url := membertest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var leading, terms atomic.Int64
	var all sync.WaitGroup
	for _, name := range strings.Split("abcde", "") {
		r, me := connect(t, url), Candidate{Machine: name, Instance: name, Boot: name}
		all.Go(func() {
			for r.AwaitVacancy(ctx, me, true) == nil {
				r.campaignOnce(ctx, me, func(held context.Context) {
					if n := leading.Add(1); n != 1 {
						t.Errorf("%d lead", n)
					}
					if err := r.rival(held); !errors.Is(err, ErrLed) {
						t.Errorf("who comes while one leads is told %v", err)
					}
					leading.Add(-1)
					if terms.Add(1) >= 40 {
						cancel()
					}
				})
			}
		})
	}
	all.Wait()
	if n := terms.Load(); n < 40 {
		t.Errorf("the lead was taken %d times in 20 s", n)
	}
	r := connect(t, url)
	leases, err := r.client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 0 {
		t.Errorf("left are %v, %v", leases, err)
	}
}

// campaignOnce is what an engine does that finds no leader.
func (r *Registry) campaignOnce(ctx context.Context, me Candidate, led func(context.Context)) {
	ctx, over := context.WithCancel(ctx)
	defer over()
	r.Hold(ctx, 5*time.Second, true, func(held context.Context, lease Lease) {
		defer over()
		if _, err := r.Campaign(held, lease, me); err == nil {
			led(held)
		}
	})
}

// rival is what somebody is told who asks for the lead now.
func (r *Registry) rival(ctx context.Context) error {
	lease, err := r.grant(ctx, 5*time.Second)
	if err != nil {
		return err
	}
	defer r.revoke(lease)
	_, err = r.Campaign(ctx, lease, Candidate{Machine: "rival", Instance: "rival", Boot: "rival"})
	return err
}

// A write that has changed nothing has no revision: whoever waits for its event would
// wait for ever if others have written to the store since the last one of ours.
func TestWriteWithoutEffectHasNoRevision(t *testing.T) {
	r := open(t)
	l := lead(t, r)
	id, err := r.Ask(t.Context(), model.Ask{Kind: model.Rebalance})
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := r.DeleteAsks(t.Context(), l, []string{id}); err != nil || rev == 0 {
		t.Errorf("it was there: %d, %v", rev, err)
	}
	if _, err := r.client.Put(t.Context(), "/another/program", "x"); err != nil {
		t.Fatal(err)
	}
	if rev, err := r.DeleteAsks(t.Context(), l, []string{id, "never"}); err != nil || rev != 0 {
		t.Errorf("it was gone: %d, %v", rev, err)
	}
}
