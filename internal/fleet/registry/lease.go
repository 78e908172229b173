package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"flotilla/internal/fleet/model"
)

// Lease is a promise to the store to come back: what is written with it goes when
// it has not been renewed for its time to live.
type Lease struct {
	id  clientv3.LeaseID
	era int // of the store, when it was granted
	// Pulse tells when the lease was surely alive.
	Pulse *Pulse
}

// Pulse is when a lease was last surely alive, on the clock of BootTime. A lease that
// was asked for or renewed lives for its whole time from some moment after the
// request was sent: that of the last request which was answered counts.
type Pulse struct{ last atomic.Int64 }

// Beat notes a request, sent at a time, that was answered.
func (p *Pulse) Beat(sent time.Duration) {
	for {
		last := p.last.Load()
		if int64(sent) <= last || p.last.CompareAndSwap(last, int64(sent)) {
			return
		}
	}
}

// Last is when the last request was sent that was answered; 0: none was.
func (p *Pulse) Last() time.Duration { return time.Duration(p.last.Load()) }

// BootTime is the time since the machine has booted, which nobody sets and which
// goes on while the machine sleeps.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(ts.Nano())
}

// ErrLeaseLost means that what was written with a lease is gone, or is another
// daemon's now.
var ErrLeaseLost = errors.New("the lease is lost")

// Hold keeps a lease of ttl (at least 1 s, in whole seconds) until ctx is done. It
// calls run with each lease that it is granted; the context of run ends when that
// lease is lost. The next lease is granted when run has returned. With resign the
// last lease is revoked at the end; otherwise it runs out by itself, so that a
// daemon that comes back within ttl was never away.
func (r *Registry) Hold(ctx context.Context, ttl time.Duration, resign bool, run func(context.Context, Lease)) {
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		life := r.passage.now()
		lease, err := r.grant(ctx, ttl)
		if err != nil {
			retry.Wait(ctx)
			continue
		}
		retry.Reset()
		r.holdOne(ctx, life, ttl, lease, run)
		if ctx.Err() != nil && resign {
			r.revoke(lease)
		}
	}
}

func (r *Registry) grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	start, sent, era := time.Now(), BootTime(), r.past.known().era
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.client.Grant(limited, max(1, int64(ttl/time.Second)))
	if err != nil {
		return Lease{}, r.failed(ctx, "ask for a lease", start, err)
	}
	r.link.up()
	lease := Lease{id: resp.ID, era: era, Pulse: &Pulse{}}
	lease.Pulse.Beat(sent)
	return lease, nil
}

func (r *Registry) holdOne(ctx, life context.Context, ttl time.Duration, lease Lease, run func(context.Context, Lease)) {
	held, lost := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer lost()
		r.renew(held, life, ttl, lease)
	}()
	run(held, lease)
	lost()
	<-done
}

// renew renews the lease three times in its life until ctx is done or the store
// says that it is no more. A store that is away says nothing: leases live on in
// it and count anew from its return. One that was set back may have the lease, and not
// what was written with it since: that lease is lost as well. life is the passage that
// it was granted in.
func (r *Registry) renew(ctx, life context.Context, ttl time.Duration, lease Lease) {
	every := max(ttl/3, 300*time.Millisecond)
	limit, soon := min(r.timeout, every), min(every, time.Second)
	wait, ended := every, life.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			ended = nil // and look whether the store is the same, after the lease is safe
		case <-time.After(wait):
		}
		start := time.Now()
		err := r.renewOnce(ctx, limit, life, lease)
		if err == nil && ended == nil {
			life = r.passage.now()
			if err = r.look(ctx, limit); err == nil {
				ended = life.Done()
			}
		}
		switch {
		case r.past.known().era != lease.era:
			r.log.Info("lease of a store that is no more, asking for another")
			return
		case err == nil:
			wait = every
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			r.log.Info("lease lost, asking for another")
			return
		case ctx.Err() != nil:
			return
		default:
			_ = r.failed(ctx, "renew the lease", start, err) // says so once
			wait = soon
		}
	}
}

// renewOnce renews the lease, within a limit.
func (r *Registry) renewOnce(ctx context.Context, limit time.Duration, life context.Context, lease Lease) error {
	sent := BootTime()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := r.client.KeepAliveOnce(ctx, lease.id)
	if err != nil {
		return err
	}
	lease.Pulse.Beat(sent)
	r.link.up()
	r.past.hear(life, resp.GetRevision(), witness{})
	return nil
}

// revoke gives a lease back, so that nobody has to wait for its end. It is a
// courtesy: a failure costs the others the lease's time to live.
func (r *Registry) revoke(lease Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := r.client.Revoke(ctx, lease.id); err != nil {
		r.log.Debug("lease not given back", "err", err)
	}
}

// Candidate is an engine that would lead: one run (Boot) of the daemon whose state
// directory has the token Instance, on a machine.
type Candidate struct{ Machine, Instance, Boot string }

// succeeds reports whether the leader that a record tells of was an earlier run of
// this candidate. Two runs do not share a state directory: that one is dead.
func (c Candidate) succeeds(record []byte) bool {
	var rec leaderRecord
	return json.Unmarshal(record, &rec) == nil && rec.Instance != "" &&
		rec.Instance == c.Instance && rec.MachineID == c.Machine && rec.Boot != c.Boot
}

// ErrLed means that another engine leads.
var ErrLed = errors.New("another engine leads")

// AwaitVacancy returns when no engine leads, or with ctx's error. It takes no lease:
// whoever waits costs the store nothing. With fresh, in a run that has not led yet, the
// lead that an earlier run of the candidate has left behind ends at once; without, two
// daemons that share a state directory against all rules would take the lead from each
// other for ever.
func (r *Registry) AwaitVacancy(ctx context.Context, c Candidate, fresh bool) error {
	key := r.key(Key{Kind: KindLeader})
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for {
		life := r.passage.now()
		resp, err := r.get(ctx, "look whether an engine leads", key)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			retry.Wait(ctx)
			continue
		case len(resp.Kvs) == 0:
			return nil
		}
		switch kv := resp.Kvs[0]; {
		case fresh && c.succeeds(kv.Value):
			r.endTerm(ctx, kv.CreateRevision)
			fresh = false
		case r.abandoned(ctx, kv):
			if r.endTerm(ctx, kv.CreateRevision) {
				r.log.Warn("the engine's lead had no lease that could end, as in a copy of the keys: it is ended")
			}
			retry.Wait(ctx)
		default:
			r.awaitChange(ctx, life, key, resp.Header.Revision+1, &retry)
		}
	}
}

// abandoned reports whether a key has been left behind: it has no lease, or one that is
// no more, with which it would have gone. What the store does not say now it is asked
// for at the next change.
func (r *Registry) abandoned(ctx context.Context, kv *mvccpb.KeyValue) bool {
	if kv.Lease == 0 {
		return true
	}
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.client.TimeToLive(limited, clientv3.LeaseID(kv.Lease))
	return err == nil && resp.TTL < 0
}

// Campaign makes this machine's engine the leader for as long as the lease lives. The
// error is ErrLed if another was first, ErrLeaseLost if the lease is no more, what the
// store says if it says no, or ctx's: a store that is away is waited for.
func (r *Registry) Campaign(ctx context.Context, lease Lease, c Candidate) (Leadership, error) {
	key := r.key(Key{Kind: KindLeader})
	const doing = "ask for the engine's lead"
	rec := leaderRecord{MachineID: c.Machine, Version: 1, Instance: c.Instance, Boot: c.Boot}
	put := clientv3.OpPut(key, string(encode(rec)), clientv3.WithLease(lease.id))
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for {
		resp, err := r.txn(ctx, doing, []clientv3.Cmp{absent}, []clientv3.Op{put}, []clientv3.Op{clientv3.OpGet(key)})
		switch {
		case ctx.Err() != nil:
			return Leadership{}, ctx.Err()
		case errors.Is(err, ErrAway):
			retry.Wait(ctx)
			continue
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return Leadership{}, fmt.Errorf("%s: %w", doing, ErrLeaseLost)
		case err != nil:
			return Leadership{}, err
		case resp.Succeeded:
			return Leadership{createRev: resp.Header.Revision}, nil
		}
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if len(kvs) > 0 && kvs[0].Lease == int64(lease.id) {
			// Our own put, whose answer got lost.
			return Leadership{createRev: kvs[0].CreateRevision}, nil
		}
		return Leadership{}, ErrLed
	}
}

// endTerm takes the lead from the engine that got it at a revision, and reports whether
// it did. Whoever leads by now leads on, and who campaigns looks again.
func (r *Registry) endTerm(ctx context.Context, createRev int64) bool {
	key := r.key(Key{Kind: KindLeader})
	same := clientv3.Compare(clientv3.CreateRevision(key), "=", createRev)
	resp, err := r.txn(ctx, "end the lead of an earlier run", []clientv3.Cmp{same}, []clientv3.Op{clientv3.OpDelete(key)}, nil)
	if err != nil {
		r.log.Debug("lead of an earlier run not ended, waiting for its lease", "err", err)
		return false
	}
	return resp.Succeeded
}

// awaitChange returns at the first event of a key from a revision on, or a while after
// the watch has ended for whatever reason: the caller looks again. A member that has lost
// its cluster ends watches at once, while another one may answer what is read. life is
// the passage before the revision was read.
func (r *Registry) awaitChange(ctx, life context.Context, key string, from int64, retry *Backoff) {
	watch, cancel := within(clientv3.WithRequireLeader(ctx), life)
	defer cancel()
	for w := range r.client.Watch(watch, key, clientv3.WithRev(from)) {
		if len(w.Events) > 0 {
			retry.Reset()
			return
		}
		if w.Err() != nil {
			break
		}
	}
	retry.Wait(ctx)
}

// TakenError means that another machine is present under the same id.
type TakenError struct{ By Presence }

// Error names the other by name and address.
func (e *TakenError) Error() string {
	return fmt.Sprintf("machine id %s is in use by %s (%s), whose fleetd runs",
		e.By.ID, orUnknown(e.By.Hostname, "a machine without a name"), orUnknown(e.By.IP, "address unknown"))
}

func orUnknown(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Join publishes a machine's presence with its lease. A record that this same
// instance left behind is taken over; *TakenError if it is another's, or that of
// the run yieldTo (a Boot token), which is known to be alive.
func (r *Registry) Join(ctx context.Context, lease Lease, p Presence, yieldTo string) error {
	k := Key{Kind: KindMachine, Machine: p.ID}
	key, doing := r.key(k), "join as machine "+p.ID
	resp, err := r.get(ctx, doing, key)
	if err != nil {
		return err
	}
	var seen int64
	if len(resp.Kvs) > 0 {
		seen = resp.Kvs[0].ModRevision
		// A record nobody can read is nobody's.
		if old, err := decodePresence(k, resp.Kvs[0].Value); err == nil && (old.Instance != p.Instance || old.Boot == yieldTo) {
			return fmt.Errorf("%s: %w", doing, &TakenError{By: old})
		}
	}
	same := clientv3.Compare(clientv3.ModRevision(key), "=", seen)
	put := clientv3.OpPut(key, string(encodePresence(p)), clientv3.WithLease(lease.id))
	done, err := r.txn(ctx, doing, []clientv3.Cmp{same}, []clientv3.Op{put}, nil)
	if err != nil {
		return err
	}
	if !done.Succeeded {
		return fmt.Errorf("%s: the record changed meanwhile", doing)
	}
	return nil
}

// Displaced blocks until the machine's record is not the one written with this
// lease any more, and returns whose it is now: nil if it is gone. It returns ctx's
// error when ctx is done first.
func (r *Registry) Displaced(ctx context.Context, lease Lease, machine string) (*Presence, error) {
	k := Key{Kind: KindMachine, Machine: machine}
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for {
		life := r.passage.now()
		resp, err := r.get(ctx, "look after the machine's record", r.key(k))
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			retry.Wait(ctx)
			continue
		case len(resp.Kvs) == 0:
			return nil, nil
		case resp.Kvs[0].Lease != int64(lease.id):
			p, err := decodePresence(k, resp.Kvs[0].Value)
			if err != nil {
				return nil, nil
			}
			return &p, nil
		}
		r.awaitChange(ctx, life, r.key(k), resp.Header.Revision+1, &retry)
	}
}

// Publish writes unit states of a machine with its lease, and removes those of the
// units named. It fails with ErrLeaseLost when the machine's record is not this
// lease's any more.
func (r *Registry) Publish(ctx context.Context, lease Lease, machine string, put []model.UnitState, remove []string) error {
	var ops []clientv3.Op
	for _, s := range put {
		ops = append(ops, clientv3.OpPut(r.key(Key{Kind: KindState, Unit: s.Unit, Machine: machine}), string(encodeState(s)), clientv3.WithLease(lease.id)))
	}
	for _, unit := range remove {
		ops = append(ops, clientv3.OpDelete(r.key(Key{Kind: KindState, Unit: unit, Machine: machine})))
	}
	present := clientv3.Compare(clientv3.LeaseValue(r.key(Key{Kind: KindMachine, Machine: machine})), "=", int64(lease.id))
	return inParts(r, ops, opSize, func(batch []clientv3.Op) error {
		resp, err := r.txn(ctx, "publish unit states", []clientv3.Cmp{present}, batch, nil)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("publish unit states: %w", ErrLeaseLost)
		}
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			return fmt.Errorf("publish unit states: %w", ErrLeaseLost)
		}
		return nil
	})
}

// Claim publishes a unit's state, before a start that must not happen elsewhere as
// well, if the unit's entry is still the one of revision rev. It reports false if it
// is not, and fails with ErrLeaseLost when the machine's record is not this lease's
// any more. Whoever has taken an entry away and then finds no claim knows that there
// will be none.
func (r *Registry) Claim(ctx context.Context, lease Lease, s model.UnitState, rev int64) (bool, error) {
	doing := "claim " + s.Unit
	entry := r.key(Key{Kind: KindPlacement, Machine: s.Machine, Unit: s.Unit})
	when := []clientv3.Cmp{
		clientv3.Compare(clientv3.LeaseValue(r.key(Key{Kind: KindMachine, Machine: s.Machine})), "=", int64(lease.id)),
		clientv3.Compare(clientv3.ModRevision(entry), "=", rev),
	}
	put := clientv3.OpPut(r.key(Key{Kind: KindState, Unit: s.Unit, Machine: s.Machine}), string(encodeState(s)), clientv3.WithLease(lease.id))
	resp, err := r.txn(ctx, doing, when, []clientv3.Op{put}, []clientv3.Op{clientv3.OpGet(entry, clientv3.WithKeysOnly())})
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return false, fmt.Errorf("%s: %w", doing, ErrLeaseLost)
	case err != nil:
		return false, err
	case resp.Succeeded:
		return true, nil
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) > 0 && kvs[0].ModRevision == rev {
		return false, fmt.Errorf("%s: %w", doing, ErrLeaseLost)
	}
	return false, nil
}
