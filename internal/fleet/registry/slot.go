package registry

import (
	"context"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// slotPrefix is where the slots of a unit are: slots/UNIT/NUMBER, with the machine
// that has it as the value and that machine's lease.
func (r *Registry) slotPrefix(unit string) string { return r.prefix + "slots/" + unit + "/" }

// TakeSlot gives a machine one of the n slots of a unit, unless all are taken; the
// slot is free again when the lease has ended. One that the machine has already, by
// this or by an earlier lease, it keeps, by this one.
func (r *Registry) TakeSlot(ctx context.Context, lease Lease, unit, machine string, n int) (bool, error) {
	doing := "take a slot of " + unit
	resp, err := r.get(ctx, doing, r.slotPrefix(unit), clientv3.WithPrefix())
	if err != nil {
		return false, err
	}
	taken := map[string]bool{}
	for _, kv := range resp.Kvs {
		if string(kv.Value) == machine {
			return r.putSlot(ctx, doing, string(kv.Key), machine, lease, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
		}
		taken[string(kv.Key)] = true
	}
	if len(taken) >= n {
		return false, nil
	}
	for i := range n {
		if key := r.slotPrefix(unit) + strconv.Itoa(i+1); !taken[key] {
			return r.putSlot(ctx, doing, key, machine, lease, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		}
	}
	return false, nil
}

// putSlot reports false when somebody else was faster.
func (r *Registry) putSlot(ctx context.Context, doing, key, machine string, lease Lease, same clientv3.Cmp) (bool, error) {
	put := clientv3.OpPut(key, machine, clientv3.WithLease(lease.id))
	resp, err := r.txn(ctx, doing, []clientv3.Cmp{same}, []clientv3.Op{put}, nil)
	if err != nil {
		return false, err
	}
	return resp.Succeeded, nil
}

// FreeSlot gives a machine's slot of a unit back; it is no error if it has none.
func (r *Registry) FreeSlot(ctx context.Context, unit, machine string) error {
	doing := "give back a slot of " + unit
	resp, err := r.get(ctx, doing, r.slotPrefix(unit), clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		if string(kv.Value) != machine {
			continue
		}
		same := clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision)
		if _, err := r.txn(ctx, doing, []clientv3.Cmp{same}, []clientv3.Op{clientv3.OpDelete(string(kv.Key))}, nil); err != nil {
			return err
		}
	}
	return nil
}
