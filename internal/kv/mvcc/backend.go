package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"flotilla/internal/kv/v2"
)

// backend is what a gateway does with the v3 store over and over: through a client, or
// without one where the store's engine is at hand.
type backend interface {
	// commit runs a plan as one transaction. It returns whether the guards held and
	// the store's revision.
	commit(context.Context, v2.Plan) (bool, uint64, error)
	// confirm returns a revision of the store that is no older than the call.
	confirm(context.Context) (uint64, error)
	// watch hands over what happens after the revision, in order, until the watch
	// ends, which is always an error; errGap if the history begins later.
	watch(ctx context.Context, after uint64, take func(update)) error
	// askProgress makes the watch tell, soon, how far it is. It may not.
	askProgress(context.Context) error
}

// update is what happened in the range. The events of one revision are in one
// update.
type update struct {
	events   []*mvccpb.Event
	progress uint64 // nothing else has happened up to this revision; 0: unknown
}

// remote is a store behind a client.
type remote struct{ client *clientv3.Client }

func (r remote) commit(ctx context.Context, plan v2.Plan) (bool, uint64, error) {
	cmps := make([]clientv3.Cmp, len(plan.Guards))
	for i, g := range plan.Guards {
		cmps[i] = clientv3.FromCompare(compare(g))
	}
	ops := make([]clientv3.Op, len(plan.Writes))
	for i, w := range plan.Writes {
		ops[i] = operation(w)
	}
	resp, err := r.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return false, 0, err
	}
	return resp.Succeeded, uint64(resp.Header.Revision), nil
}

func operation(w v2.Write) clientv3.Op {
	switch {
	case w.Kind == v2.Put:
		return clientv3.OpPut(w.Key, w.Value)
	case w.Kind == v2.PutKeep:
		return clientv3.OpPut(w.Key, "", clientv3.WithIgnoreValue())
	case w.End != "":
		return clientv3.OpDelete(w.Key, clientv3.WithRange(w.End))
	}
	return clientv3.OpDelete(w.Key)
}

func (r remote) confirm(ctx context.Context) (uint64, error) {
	resp, err := r.client.Get(ctx, v2.RangeStart, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return uint64(resp.Header.Revision), nil
}

func (r remote) watch(ctx context.Context, after uint64, take func(update)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range r.client.Watch(ctx, v2.RangeStart, clientv3.WithRange(v2.RangeEnd),
		clientv3.WithRev(int64(after)+1), clientv3.WithFragment()) {
		if resp.CompactRevision != 0 {
			return fmt.Errorf("%w: history begins at %d", errGap, resp.CompactRevision)
		}
		if err := resp.Err(); err != nil {
			return err
		}
		take(received(resp))
	}
	return errEnded
}

var errEnded = errors.New("the watch has ended")

func received(resp clientv3.WatchResponse) update {
	u := update{events: make([]*mvccpb.Event, len(resp.Events))}
	for i, e := range resp.Events {
		u.events[i] = (*mvccpb.Event)(e)
	}
	if resp.IsProgressNotify() {
		u.progress = uint64(resp.Header.Revision)
	}
	return u
}

// askProgress asks on the stream that watches with a plain context share.
func (r remote) askProgress(ctx context.Context) error {
	return r.client.RequestProgress(context.WithoutCancel(ctx))
}

// local is the engine in this process. It spares a write the client's copies of the
// request and five goroutines on the way of the event.
type local struct {
	server *etcdserver.EtcdServer
	kv     pb.KVServer // with the quota, and with the limits of a request
	stream atomic.Pointer[mvcc.WatchStream]
}

func newLocal(server *etcdserver.EtcdServer) *local {
	return &local{server: server, kv: v3rpc.NewQuotaKVServer(server)}
}

func (l *local) commit(ctx context.Context, plan v2.Plan) (bool, uint64, error) {
	r := &pb.TxnRequest{
		Compare: make([]*pb.Compare, len(plan.Guards)),
		Success: make([]*pb.RequestOp, len(plan.Writes)),
	}
	for i, g := range plan.Guards {
		r.Compare[i] = compare(g)
	}
	for i, w := range plan.Writes {
		r.Success[i] = requestOp(w)
	}
	resp, err := l.kv.Txn(ctx, r)
	if err != nil {
		return false, 0, rpctypes.Error(err)
	}
	return resp.Succeeded, uint64(resp.Header.Revision), nil
}

func requestOp(w v2.Write) *pb.RequestOp {
	if w.Kind == v2.DeleteKey {
		r := &pb.DeleteRangeRequest{Key: []byte(w.Key), RangeEnd: []byte(w.End)}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	}
	r := &pb.PutRequest{Key: []byte(w.Key), Value: []byte(w.Value), IgnoreValue: w.Kind == v2.PutKeep}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func compare(g v2.Guard) *pb.Compare {
	c := &pb.Compare{Key: []byte(g.Key), RangeEnd: []byte(g.End)}
	switch g.Field {
	case v2.ModifiedIs:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: int64(g.Revision)}
	case v2.CreatedIs:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: int64(g.Revision)}
	case v2.ModifiedAtMost:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: int64(g.Revision) + 1}
		c.Result = pb.Compare_LESS
	}
	return c
}

// confirm asks the leader how far the log is and waits until this member has
// applied it; requests that come meanwhile share the next question.
func (l *local) confirm(ctx context.Context) (uint64, error) {
	if err := l.server.LinearizableReadNotify(ctx); err != nil {
		return 0, err
	}
	return uint64(l.server.KV().Rev()), nil
}

func (l *local) watch(ctx context.Context, after uint64, take func(update)) error {
	stream := l.server.Watchable().NewWatchStream()
	defer stream.Close()
	if _, err := stream.Watch(ctx, clientv3.AutoWatchID, []byte(v2.RangeStart), []byte(v2.RangeEnd), int64(after)+1); err != nil {
		return err
	}
	l.stream.Store(&stream)
	for {
		select {
		case resp, ok := <-stream.Chan():
			if !ok {
				return errEnded
			}
			u := update{}
			for n := len(stream.Chan()); ; n-- { // what is there already, at once
				if resp.CompactRevision != 0 {
					return fmt.Errorf("%w: history begins at %d", errGap, resp.CompactRevision)
				}
				u.add(resp)
				if n == 0 {
					break
				}
				resp = <-stream.Chan()
			}
			take(u)
		case <-l.server.StopNotify():
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *update) add(resp mvcc.WatchResponse) {
	if len(resp.Events) == 0 {
		u.progress = uint64(resp.Revision)
	}
	if u.events == nil {
		u.events = resp.Events
		return
	}
	u.events = append(u.events[:len(u.events):len(u.events)], resp.Events...)
}

func (l *local) askProgress(context.Context) error {
	if stream := l.stream.Load(); stream != nil {
		(*stream).RequestProgressAll()
	}
	return nil
}
