package registry

import (
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fleet/model"
)

// unitSet is units of which all is wanted, and nothing of others but how far the rolls
// of their groups have come.
type unitSet struct {
	names  []string
	groups []string
}

func newUnitSet(names []string) unitSet {
	u := unitSet{names: slices.Compact(slices.Sorted(slices.Values(names)))}
	for _, name := range u.names {
		u.groups = append(u.groups, name, model.GroupOf(name)) // a template's own name is that of its group
	}
	u.groups = slices.Compact(slices.Sorted(slices.Values(u.groups)))
	return u
}

// wants reports whether a key is about the units, about their rolls or about machines.
func (u unitSet) wants(k Key) bool {
	switch k.Kind {
	case KindObject, KindDesired, KindRestart, KindUnplaced, KindState:
		return slices.Contains(u.names, k.Unit)
	case KindPlacement:
		return u.rolls(k.Unit)
	case KindRoll:
		return slices.Contains(u.groups, k.Group)
	case KindMachine, KindMetadata, KindCordon, KindMark:
		return true
	}
	return false
}

// rolls reports whether a unit is of one of the groups.
func (u unitSet) rolls(unit string) bool { return slices.Contains(u.groups, model.GroupOf(unit)) }

// FollowUnits is Follow for a few units: the view holds what there is of them, the rolls
// of their groups with the entries of the schedule that tell how far those have come,
// and the machines. It costs the store what there is of these, and the names of the
// entries of the schedule, since those are kept by machine.
func (r *Registry) FollowUnits(ctx context.Context, names []string, v *View, changed func(changes []Change, loaded bool)) {
	u := newUnitSet(names)
	read := func(ctx context.Context) ([]record, position, error) { return r.readUnits(ctx, u) }
	r.follow(ctx, followed{
		load:  func(ctx context.Context) ([]Change, error) { return r.loadMarked(ctx, read, v) },
		wants: u.wants,
	}, v, changed)
}

// readUnits reads what is known by name, and where the units may be; then what they are
// there, as of the same revision.
func (r *Registry) readUnits(ctx context.Context, u unitSet) ([]record, position, error) {
	const doing = "read units"
	ops := []clientv3.Op{
		clientv3.OpGet(r.key(Key{Kind: KindMark})),
		clientv3.OpGet(r.prefix+"schedule/", clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(r.prefix+machines, clientv3.WithPrefix()),
	}
	for _, name := range u.names {
		ops = append(ops, clientv3.OpGet(r.prefix+"job/"+name+"/", clientv3.WithPrefix()), clientv3.OpGet(r.key(Key{Kind: KindUnplaced, Unit: name})))
	}
	for _, group := range u.groups {
		ops = append(ops, clientv3.OpGet(r.key(Key{Kind: KindRoll, Group: group})))
	}
	resp, err := r.txn(ctx, doing, nil, ops, nil)
	if err != nil {
		return nil, position{}, err
	}
	at := whereabouts(resp)
	var all []record
	for i, part := range resp.Responses {
		if i != 1 {
			all = append(all, records(part.GetResponseRange().Kvs)...)
		}
	}
	var gets []clientv3.Op
	for _, key := range r.placed(u, resp.Responses[1].GetResponseRange().Kvs, resp.Responses[2].GetResponseRange().Kvs) {
		gets = append(gets, clientv3.OpGet(key, clientv3.WithRev(at.rev)))
	}
	err = inParts(r, gets, opSize, func(batch []clientv3.Op) error {
		resp, err := r.txn(ctx, doing, nil, batch, nil)
		if err != nil {
			return err
		}
		for _, part := range resp.Responses {
			all = append(all, records(part.GetResponseRange().Kvs)...)
		}
		return nil
	})
	return all, at, err
}

// placed is the keys of what the units are where they may be: on a machine that is there
// or that has an entry for anything.
func (r *Registry) placed(u unitSet, entries, present []*mvccpb.KeyValue) []string {
	var keys []string
	where := map[string]bool{}
	for _, kv := range slices.Concat(entries, present) {
		k, ok := ParsePath(string(kv.Key)[len(r.prefix):])
		if !ok {
			continue
		}
		where[k.Machine] = true
		if k.Kind == KindPlacement && u.rolls(k.Unit) {
			keys = append(keys, string(kv.Key))
		}
	}
	for machine := range where {
		for _, name := range u.names {
			keys = append(keys, r.state(name, machine))
		}
	}
	return keys
}
