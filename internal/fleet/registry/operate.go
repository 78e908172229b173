package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// SetCordon cordons a machine, present or not, anew if it is cordoned.
func (r *Registry) SetCordon(ctx context.Context, machine string, c model.Cordon) error {
	put := clientv3.OpPut(r.cordon(machine), string(encodeCordon(c)))
	_, err := r.txn(ctx, "cordon machine "+machine, nil, []clientv3.Op{put}, nil)
	return err
}

// Uncordon takes a machine's cordon away, if it has one.
func (r *Registry) Uncordon(ctx context.Context, machine string) error {
	_, err := r.txn(ctx, "uncordon machine "+machine, nil, []clientv3.Op{clientv3.OpDelete(r.cordon(machine))}, nil)
	return err
}

func (r *Registry) cordon(machine string) string {
	return r.key(Key{Kind: KindCordon, Machine: machine})
}

// ForgetRemoved deletes dynamic metadata values of a machine that were removed and mask
// nothing. Where one of them has been set meanwhile, some are left as they are.
func (r *Registry) ForgetRemoved(ctx context.Context, machine string, keys []string) error {
	var ops []clientv3.Op
	for _, key := range keys {
		ops = append(ops, clientv3.OpDelete(r.key(Key{Kind: KindMetadata, Machine: machine, Meta: key})))
	}
	return inParts(r, ops, opSize, func(batch []clientv3.Op) error {
		var still []clientv3.Cmp
		for _, op := range batch {
			still = append(still, clientv3.Compare(clientv3.Value(string(op.KeyBytes())), "=", ""))
		}
		_, err := r.txn(ctx, "forget removed metadata of machine "+machine, still, batch, nil)
		return err
	})
}

// ConfiguredMetadata returns what a machine that is present says of itself, without what
// was set of it from outside; false: it is not present.
func (v *View) ConfiguredMetadata(machine string) (configured map[string]string, present bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	p, present := v.machines[machine]
	return maps.Clone(p.Metadata), present
}

// ErrNoRoll means that no roll of that group is going on.
var ErrNoRoll = errors.New("no such roll is going on")

// ReadRolls returns the rolls that there are, in order of group: of each group the
// one that goes on, else the last.
func (r *Registry) ReadRolls(ctx context.Context) ([]model.Roll, error) {
	v, err := r.Read(ctx, rollsPrefix)
	if err != nil {
		return nil, err
	}
	return v.Rolls(), nil
}

// AskRoll asks the engine to pause, resume or revert (model.Pause, model.Resume,
// model.Revert) the roll of a group. ErrNoRoll if none goes on.
func (r *Registry) AskRoll(ctx context.Context, group, action, by string) error {
	doing := fmt.Sprintf("%s roll of %s", action, group)
	switch action {
	case model.Pause, model.Resume, model.Revert:
	default:
		return fmt.Errorf("roll of %s: action %q is not one of pause, resume, revert", group, action)
	}
	k := Key{Kind: KindRoll, Group: group}
	for range applyTries {
		resp, err := r.get(ctx, doing, r.key(k))
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return fmt.Errorf("%s: %w", doing, ErrNoRoll)
		}
		roll, err := decodeRoll(k, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", doing, err)
		case roll.State.Final():
			return fmt.Errorf("%s: %w: the last one is %s", doing, ErrNoRoll, roll.State)
		}
		roll.Asked, roll.AskedBy = action, by
		done, err := r.txn(ctx, doing, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.key(k)), "=", roll.Rev)},
			[]clientv3.Op{clientv3.OpPut(r.key(k), string(encodeRoll(roll)))}, nil)
		if err != nil || done.Succeeded {
			return err
		}
	}
	return fmt.Errorf("%s: the record changes all the time", doing)
}

// Ask leaves the engine something to do and returns under which id; its ID and, if
// it has none, its At are set here.
func (r *Registry) Ask(ctx context.Context, a model.Ask) (id string, err error) {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	id = string(a.Kind) + "-" + rand.Text()
	put := clientv3.OpPut(r.key(Key{Kind: KindAsk, ID: id}), string(encodeAsk(a)))
	_, err = r.txn(ctx, "ask the engine to "+string(a.Kind), nil, []clientv3.Op{put}, nil)
	return id, err
}

// AwaitAsk blocks until the engine has done what was asked of it, which is when the
// ask is gone, or returns ctx's error. While the store is away it waits.
func (r *Registry) AwaitAsk(ctx context.Context, id string) error {
	key := r.key(Key{Kind: KindAsk, ID: id})
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		life := r.passage.now()
		resp, err := r.get(ctx, "wait for the engine", key, clientv3.WithCountOnly())
		switch {
		case err != nil:
			retry.Wait(ctx)
		case resp.Count == 0:
			return nil
		default:
			r.awaitChange(ctx, life, key, resp.Header.Revision+1, &retry)
		}
	}
	return ctx.Err()
}

// WriteRolls writes and removes (by group) the records of rolls, each guarded by its
// revision. Of one that has changed meanwhile it is ErrStale. A record that the store
// will not have keeps none of the others from being written: unwritten is why, by
// group.
func (r *Registry) WriteRolls(ctx context.Context, l Leadership, put []model.Roll, remove []string) (rev int64, unwritten map[string]error, err error) {
	write := func(group string, was int64, op clientv3.Op) error {
		guard := clientv3.Compare(clientv3.ModRevision(r.key(Key{Kind: KindRoll, Group: group})), "=", was)
		at, err := r.leaderTxn(ctx, "write the roll of "+group, []clientv3.Cmp{r.leads(l), guard}, []clientv3.Op{op})
		rev = max(rev, at)
		return err
	}
	for _, roll := range put {
		key, value := r.key(Key{Kind: KindRoll, Group: roll.Group}), encodeRoll(roll)
		err := fmt.Errorf("write the roll of %s: its record is too large: %d bytes, at most %d", roll.Group, len(value), MaxRoll)
		if len(value) <= MaxRoll {
			err = write(roll.Group, roll.Rev, clientv3.OpPut(key, string(value)))
		}
		switch {
		case err == nil:
		case Passing(ctx, err):
			return rev, unwritten, err
		default:
			if unwritten == nil {
				unwritten = map[string]error{}
			}
			unwritten[roll.Group] = err
		}
	}
	var ops []clientv3.Op
	for _, group := range remove {
		ops = append(ops, clientv3.OpDelete(r.key(Key{Kind: KindRoll, Group: group})))
	}
	at, err := r.leaderBatches(ctx, "remove old rolls", l, ops)
	return max(rev, at), unwritten, err
}

// Passing reports whether a write failed for a reason that ends by itself, or with
// the lead: it is made anew.
func Passing(ctx context.Context, err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrAway) || errors.Is(err, ErrStale) || err != nil && ctx.Err() != nil
}

// DeleteAsks removes what has been done.
func (r *Registry) DeleteAsks(ctx context.Context, l Leadership, ids []string) (int64, error) {
	var ops []clientv3.Op
	for _, id := range ids {
		ops = append(ops, clientv3.OpDelete(r.key(Key{Kind: KindAsk, ID: id})))
	}
	return r.leaderBatches(ctx, "remove what was asked for", l, ops)
}

// ForgetUnits removes the history of units that were destroyed.
func (r *Registry) ForgetUnits(ctx context.Context, l Leadership, units []string) (int64, error) {
	var ops []clientv3.Op
	for _, name := range units {
		ops = append(ops, clientv3.OpDelete(r.prefix+historyPrefix+name+"/", clientv3.WithPrefix()),
			clientv3.OpDelete(r.key(Key{Kind: KindDestroyed, Unit: name})))
	}
	return r.leaderBatches(ctx, "forget destroyed units", l, ops)
}

// leaderBatches does operations that need no guard but the lead's; it returns the
// revision of the last write, 0 if there was nothing to do.
func (r *Registry) leaderBatches(ctx context.Context, doing string, l Leadership, ops []clientv3.Op) (int64, error) {
	var rev int64
	err := inParts(r, ops, opSize, func(batch []clientv3.Op) error {
		at, err := r.leaderTxn(ctx, doing, []clientv3.Cmp{r.leads(l)}, batch)
		rev = max(rev, at)
		return err
	})
	return rev, err
}
