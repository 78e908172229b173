package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/sched"
)

// Errors of Apply, Create, Replace, SetDesired and Destroy.
var (
	ErrUnitExists  = errors.New("unit exists")         // Create
	ErrNoUnit      = errors.New("unit does not exist") // Replace, SetDesired, Destroy
	errUnknownKind = errors.New("unknown decision")
)

// Text is a unit's canonical text and its hash, 40 hex digits.
type Text struct{ Canonical, Hash string }

func (r *Registry) object(name string) string { return r.key(Key{Kind: KindObject, Unit: name}) }

func (r *Registry) putDesired(name string, want model.State) clientv3.Op {
	return clientv3.OpPut(r.key(Key{Kind: KindDesired, Unit: name}), want.String())
}

// Create adds a unit; ErrUnitExists if there is one of that name. By and why go into
// its history.
func (r *Registry) Create(ctx context.Context, name string, t Text, want model.State, by, why string) error {
	w := UnitWrite{Name: name, Text: t, Want: want, SetState: true}
	return r.apply(ctx, "create unit "+name, []UnitWrite{w}, by, why)
}

// Replace gives a unit another text and desired state; ErrNoUnit if it is not there.
// By and why go into its history.
func (r *Registry) Replace(ctx context.Context, name string, t Text, want model.State, by, why string) error {
	w := UnitWrite{Name: name, Text: t, Want: want, SetState: true, Rev: AnyRev, mustExist: true}
	return r.apply(ctx, "replace unit "+name, []UnitWrite{w}, by, why)
}

// SetDesired sets what is wanted of a unit, also when it is that already: the
// request is a new generation. ErrNoUnit if the unit is not there.
func (r *Registry) SetDesired(ctx context.Context, name string, want model.State) error {
	return r.unitTxn(ctx, "set desired state of unit "+name, r.exists(name), ErrNoUnit, r.putDesired(name, want))
}

// Restart asks for a unit to be started anew also if it runs. ErrNoUnit if the unit
// is not there.
func (r *Registry) Restart(ctx context.Context, name string) error {
	mark := clientv3.OpPut(r.key(Key{Kind: KindRestart, Unit: name}), "")
	return r.unitTxn(ctx, "restart unit "+name, r.exists(name), ErrNoUnit, r.putDesired(name, model.Launched), mark)
}

// Destroy removes a unit; ErrNoUnit if it is not there. The machines that run it
// stop it as soon as the engine has released it. Its history stays for a day.
func (r *Registry) Destroy(ctx context.Context, name string) error {
	all := clientv3.OpDelete(r.prefix+"job/"+name+"/", clientv3.WithPrefix())
	when := destroyedRecord{At: time.Now().UTC()}
	gone := clientv3.OpPut(r.key(Key{Kind: KindDestroyed, Unit: name}), string(encode(when)))
	return r.unitTxn(ctx, "destroy unit "+name, r.exists(name), ErrNoUnit, all, gone)
}

func (r *Registry) exists(name string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(r.object(name)), ">", 0)
}

func (r *Registry) unitTxn(ctx context.Context, doing string, when clientv3.Cmp, otherwise error, ops ...clientv3.Op) error {
	resp, err := r.txn(ctx, doing, []clientv3.Cmp{when}, ops, nil)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("%s: %w", doing, otherwise)
	}
	return nil
}

// MetadataOp sets one dynamic metadata value of a machine; the empty value masks
// the configured one. The machine need not be present.
type MetadataOp struct{ Machine, Key, Value string }

// SetMetadata carries out the operations: the last one for a value counts, and all
// of them are done at once where one transaction has room for them.
func (r *Registry) SetMetadata(ctx context.Context, ops []MetadataOp) error {
	last := map[string]int{}
	path := func(o MetadataOp) string {
		return r.key(Key{Kind: KindMetadata, Machine: o.Machine, Meta: o.Key})
	}
	for i, o := range ops {
		last[path(o)] = i
	}
	var puts []clientv3.Op
	for i, o := range ops {
		if last[path(o)] == i {
			puts = append(puts, clientv3.OpPut(path(o), o.Value))
		}
	}
	return inParts(r, puts, opSize, func(batch []clientv3.Op) error {
		_, err := r.txn(ctx, "set machine metadata", nil, batch, nil)
		return err
	})
}

// Errors of guarded writes.
var (
	ErrNotLeader = errors.New("another engine leads")
	ErrStale     = errors.New("it has changed meanwhile")
)

// Leadership proves that an engine leads: its key still has the revision at which
// this engine created it. Every write of an engine compares it. The zero value proves
// nothing: what is written with it fails with ErrNotLeader.
type Leadership struct{ createRev int64 }

func (r *Registry) leads(l Leadership) clientv3.Cmp {
	if l.createRev == 0 {
		l.createRev = -1 // 0 is the revision of a key that is not there: when nobody leads, that would hold
	}
	return clientv3.Compare(clientv3.CreateRevision(r.key(Key{Kind: KindLeader})), "=", l.createRev)
}

// WriteSchedule carries out decisions in batches and returns the revision of the
// last write; the view that the next decision is made on must have reached it. It
// fails with ErrNotLeader, and with ErrStale when an entry is not as the decision
// was made on: then the batches before have been written.
func (r *Registry) WriteSchedule(ctx context.Context, l Leadership, ds []sched.Decision, written func([]sched.Decision)) (int64, error) {
	var rev int64
	err := inParts(r, ds, decisionSize, func(batch []sched.Decision) error {
		when := []clientv3.Cmp{r.leads(l)}
		var then []clientv3.Op
		for _, d := range batch {
			guard, op, err := r.scheduleOp(d)
			if err != nil {
				return err
			}
			when, then = append(when, guard), append(then, op)
		}
		at, err := r.leaderTxn(ctx, "write the schedule", when, then)
		if err == nil {
			rev = max(rev, at)
			written(batch)
		}
		return err
	})
	return rev, err
}

// decisionSize counts the entry, its key and the compares.
func decisionSize(d sched.Decision) (ops, bytes int) { return 1, len(encodePlacement(d.Entry)) + 512 }

func (r *Registry) scheduleOp(d sched.Decision) (clientv3.Cmp, clientv3.Op, error) {
	key := r.key(Key{Kind: KindPlacement, Machine: d.Entry.Machine, Unit: d.Entry.Unit})
	guard := clientv3.Compare(clientv3.ModRevision(key), "=", d.Entry.Rev) // 0: not there
	switch d.Op {
	case sched.Release:
		return guard, clientv3.OpDelete(key), nil
	case sched.Leave, sched.Update, sched.Place:
		return guard, clientv3.OpPut(key, string(encodePlacement(d.Entry))), nil
	}
	return guard, clientv3.Op{}, fmt.Errorf("%w %q for unit %s", errUnknownKind, d.Op, d.Entry.Unit)
}

// leaderTxn commits a transaction whose first guard is the leadership. It returns the
// revision of what has changed by it, 0 if nothing has: that of the store may be one that
// others have made, of which no view of ours hears.
func (r *Registry) leaderTxn(ctx context.Context, doing string, when []clientv3.Cmp, then []clientv3.Op) (int64, error) {
	resp, err := r.txn(ctx, doing, when, then, []clientv3.Op{clientv3.OpTxn(when[:1], nil, nil)})
	if err != nil {
		return 0, err
	}
	switch {
	case resp.Succeeded && !effective(resp):
		return 0, nil
	case resp.Succeeded:
		return resp.Header.Revision, nil
	case !resp.Responses[0].GetResponseTxn().Succeeded:
		return 0, fmt.Errorf("%s: %w", doing, ErrNotLeader)
	}
	return 0, fmt.Errorf("%s: %w", doing, ErrStale)
}

// effective reports whether a transaction has put or deleted anything.
func effective(resp *clientv3.TxnResponse) bool {
	return slices.ContainsFunc(resp.Responses, func(op *etcdserverpb.ResponseOp) bool {
		return op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0
	})
}

// Notes is what an engine says of its decisions.
type Notes struct {
	Unplaced []sched.Unplaced // reasons to write
	Placed   []string         // units whose reason is to go
	Hold     *string          // nil: leave it as it is
}

// WriteNotes publishes the notes and returns the revision of the last write, 0 if
// there was nothing to write.
func (r *Registry) WriteNotes(ctx context.Context, l Leadership, n Notes) (int64, error) {
	var ops []clientv3.Op
	for _, u := range n.Unplaced {
		ops = append(ops, clientv3.OpPut(r.key(Key{Kind: KindUnplaced, Unit: u.Unit}), string(encodeUnplaced(u))))
	}
	for _, unit := range n.Placed {
		ops = append(ops, clientv3.OpDelete(r.key(Key{Kind: KindUnplaced, Unit: unit})))
	}
	switch hold := r.key(Key{Kind: KindHold}); {
	case n.Hold == nil:
	case *n.Hold == "":
		ops = append(ops, clientv3.OpDelete(hold))
	default:
		ops = append(ops, clientv3.OpPut(hold, *n.Hold))
	}
	return r.leaderBatches(ctx, "write the engine's reasons", l, ops)
}
