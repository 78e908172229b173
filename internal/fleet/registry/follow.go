package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Scopes of a registry: the prefix of the keys that a reader is interested in.
const (
	Everything  = ""
	EngineNotes = "engine/" // what an engine says of itself: Hold
	machines    = "machines/"
	states      = "states/"
)

// ScheduleOf is the scope of one machine's schedule.
func ScheduleOf(machine string) string { return "schedule/" + machine + "/" }

// Read returns a view of what the scope holds now; the read is linearizable.
func (r *Registry) Read(ctx context.Context, scope string) (*View, error) {
	v := r.NewView()
	_, err := r.load(ctx, r.all(scope), v)
	return v, err
}

// reading reads records, all as they were at one moment, and says where the store was
// then.
type reading func(ctx context.Context) ([]record, position, error)

// load makes the view what is read.
func (r *Registry) load(ctx context.Context, read reading, v *View) ([]Change, error) {
	for {
		life, before := r.passage.now(), r.past.known()
		all, at, err := read(ctx)
		if err != nil {
			return nil, err
		}
		if again, err := r.recognize(ctx, life, before, at); err != nil {
			return nil, err
		} else if !again {
			r.past.hear(life, at.rev, newest(all))
			return v.reset(all, at.cluster, at.rev), nil
		}
	}
}

// all reads what the scope holds.
func (r *Registry) all(scope string) reading {
	ops := []clientv3.Op{clientv3.OpGet(r.key(Key{Kind: KindMark}))}
	for _, span := range r.spans(scope) {
		ops = append(ops, clientv3.OpGet(span[0], clientv3.WithRange(span[1])))
	}
	return func(ctx context.Context) ([]record, position, error) {
		resp, err := r.txn(ctx, "read the registry", nil, ops, nil)
		if err != nil {
			return nil, position{}, err
		}
		var all []record
		for _, part := range resp.Responses {
			all = append(all, records(part.GetResponseRange().Kvs)...)
		}
		return all, whereabouts(resp), nil
	}
}

// whereabouts is where the store was that has answered with the mark first.
func whereabouts(resp *clientv3.TxnResponse) position {
	at := position{cluster: resp.Header.ClusterId, rev: resp.Header.Revision}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		at.mark = string(kv.Value)
	}
	return at
}

// spans is the ranges of keys, from and up to, that a view of the scope is made of:
// of Everything all but events and history, which only grow and which views do not
// hold.
func (r *Registry) spans(scope string) [][2]string {
	from, end := r.prefix+scope, clientv3.GetPrefixRangeEnd(r.prefix+scope)
	if scope != Everything {
		return [][2]string{{from, end}}
	}
	var out [][2]string
	for _, prefix := range []string{eventsPrefix, historyPrefix} { // in order
		out = append(out, [2]string{from, r.prefix + prefix})
		from = clientv3.GetPrefixRangeEnd(r.prefix + prefix)
	}
	return append(out, [2]string{from, end})
}

// loadMarked is load from a registry that has a mark: it gets one if it is new.
func (r *Registry) loadMarked(ctx context.Context, read reading, v *View) ([]Change, error) {
	changes, err := r.load(ctx, read, v)
	if err != nil || v.marked() {
		return changes, err
	}
	key := r.key(Key{Kind: KindMark})
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	if _, err := r.txn(ctx, "mark the registry", []clientv3.Cmp{absent}, []clientv3.Op{clientv3.OpPut(key, rand.Text())}, nil); err != nil {
		return nil, err
	}
	return r.load(ctx, read, v)
}

// Follow keeps a view of the scope current until ctx is done. It calls changed
// after every change to the view, and when the view has only come to a later revision:
// with loaded set when the view was read as a
// whole, first of all and again whenever changes may have been missed. While the
// store is away the view stays as it was.
func (r *Registry) Follow(ctx context.Context, scope string, v *View, changed func(changes []Change, loaded bool)) {
	r.follow(ctx, followed{
		scope: scope,
		load:  func(ctx context.Context) ([]Change, error) { return r.loadMarked(ctx, r.all(scope), v) },
	}, v, changed)
}

// FollowKept is Follow of Everything that begins with what is kept, if it is.
func (r *Registry) FollowKept(ctx context.Context, k *Kept, v *View, changed func(changes []Change, loaded bool)) {
	r.follow(ctx, followed{
		load: func(ctx context.Context) ([]Change, error) {
			now, err := k.Read(ctx)
			if err == nil {
				v.become(now)
			}
			return nil, err
		},
	}, v, changed)
}

// followed is what is followed.
type followed struct {
	scope string
	load  func(context.Context) ([]Change, error) // makes the view what there is
	wants func(Key) bool                          // nil: all of the scope is wanted
}

// wanted are the records that are.
func (f followed) wanted(r *Registry, all []record) []record {
	if f.wants == nil {
		return all
	}
	return slices.DeleteFunc(all, func(rec record) bool {
		k, ok := ParsePath(strings.TrimPrefix(rec.key, r.prefix))
		return !ok || !f.wants(k)
	})
}

func (r *Registry) follow(ctx context.Context, f followed, v *View, changed func(changes []Change, loaded bool)) {
	bad := badRecords{r: r}
	retry := Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		err := r.followOnce(ctx, f, v, func(c []Change, loaded bool) {
			if !loaded { // a watch that ends as soon as it has begun is not to have all read again at once
				retry.Reset()
			}
			bad.report(c)
			changed(c, loaded)
		})
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, ErrAway) {
			r.log.Debug("registry watch ended, reading again", "scope", f.scope, "err", err)
		}
		retry.Wait(ctx)
	}
}

func (r *Registry) followOnce(ctx context.Context, f followed, v *View, changed func([]Change, bool)) error {
	life := r.passage.now()
	changes, err := f.load(ctx)
	if err != nil {
		return err
	}
	changed(changes, true)
	// A member that has lost its cluster must end the watch, or we would wait for
	// events there while the others go on.
	watch, cancel := within(clientv3.WithRequireLeader(ctx), life)
	defer cancel()
	for w := range r.client.Watch(watch, r.prefix+f.scope, clientv3.WithPrefix(), clientv3.WithRev(v.Rev()+1)) {
		if err := w.Err(); err != nil {
			return fmt.Errorf("watch the registry: %w", err)
		}
		told := events(w.Events)
		r.past.hear(life, w.Header.Revision, newest(told))
		changed(v.apply(f.wanted(r, told), reached(w)), false)
	}
	return errors.New("watch the registry: closed")
}

// badRecords reports a record that cannot be read once, not at every reading.
type badRecords struct {
	r    *Registry
	said map[string]string
}

func (b *badRecords) report(changes []Change) {
	for _, c := range changes {
		path := c.Path()
		if c.Bad == nil {
			delete(b.said, path)
			continue
		}
		if b.said[path] == c.Bad.Error() {
			continue
		}
		if b.said == nil {
			b.said = map[string]string{}
		}
		b.said[path] = c.Bad.Error()
		b.r.log.Warn("bad record in the registry, left aside", "err", c.Bad)
	}
}

func records(kvs []*mvccpb.KeyValue) []record {
	out := make([]record, 0, len(kvs))
	for _, kv := range kvs {
		out = append(out, record{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision})
	}
	return out
}

func events(evs []*clientv3.Event) []record {
	out := make([]record, 0, len(evs))
	for _, ev := range evs {
		out = append(out, record{
			key: string(ev.Kv.Key), value: ev.Kv.Value, rev: ev.Kv.ModRevision,
			deleted: ev.Type == clientv3.EventTypeDelete,
		})
	}
	return out
}

// ReadMachines returns a view that holds the machines alone.
func (r *Registry) ReadMachines(ctx context.Context) (*View, error) { return r.Read(ctx, machines) }

// ReadStates returns a view that holds the states alone.
func (r *Registry) ReadStates(ctx context.Context) (*View, error) { return r.Read(ctx, states) }

// ReadUnit returns a view that holds all there is of one unit, whether it exists
// or not. It costs two requests, since schedules and states are kept by machine: the
// first finds out where the unit is, and which machines there are.
func (r *Registry) ReadUnit(ctx context.Context, name string) (*View, error) {
	doing := "read unit " + name
	resp, err := r.txn(ctx, doing, nil, []clientv3.Op{
		clientv3.OpGet(r.prefix+"job/"+name+"/", clientv3.WithPrefix()),
		clientv3.OpGet(r.key(Key{Kind: KindUnplaced, Unit: name})),
		clientv3.OpGet(r.prefix+"schedule/", clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(r.prefix+machines, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
	}, nil)
	if err != nil {
		return nil, err
	}
	v := r.NewView()
	var gets []clientv3.Op
	for i, part := range resp.Responses {
		kvs := part.GetResponseRange().Kvs
		if i < 2 {
			v.apply(records(kvs), resp.Header.Revision)
			continue
		}
		for _, kv := range kvs {
			k, ok := ParsePath(string(kv.Key)[len(r.prefix):])
			switch {
			case ok && k.Kind == KindPlacement && k.Unit == name:
				gets = append(gets, clientv3.OpGet(string(kv.Key)))
			case ok && k.Kind == KindMachine:
				gets = append(gets, clientv3.OpGet(r.state(name, k.Machine)))
			}
		}
	}
	return v, r.gather(ctx, doing, v, gets)
}

// state is the key of what a machine says of a unit.
func (r *Registry) state(unit, machine string) string {
	return r.key(Key{Kind: KindState, Unit: unit, Machine: machine})
}

// gather puts what it gets into a view.
func (r *Registry) gather(ctx context.Context, doing string, v *View, gets []clientv3.Op) error {
	return inParts(r, gets, opSize, func(batch []clientv3.Op) error {
		resp, err := r.txn(ctx, doing, nil, batch, nil)
		if err != nil {
			return err
		}
		for _, part := range resp.Responses {
			v.apply(records(part.GetResponseRange().Kvs), resp.Header.Revision)
		}
		return nil
	})
}

// ReadJob returns a view that holds what users have said of one unit alone.
func (r *Registry) ReadJob(ctx context.Context, name string) (*View, error) {
	return r.Read(ctx, "job/"+name+"/")
}

// ReadStatesOf returns a view that holds the states of one unit alone.
func (r *Registry) ReadStatesOf(ctx context.Context, name string) (*View, error) {
	doing := "read the states of unit " + name
	resp, err := r.get(ctx, doing, r.prefix+machines, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var gets []clientv3.Op
	for _, kv := range resp.Kvs {
		if k, ok := ParsePath(string(kv.Key)[len(r.prefix):]); ok && k.Kind == KindMachine {
			gets = append(gets, clientv3.OpGet(r.state(name, k.Machine)))
		}
	}
	v := r.NewView()
	return v, r.gather(ctx, doing, v, gets)
}
