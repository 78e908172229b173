package gate

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"

	"flotilla/internal/kv/auth"
	"flotilla/internal/kv/kvtest"
)

// TestWithheldWhileOff: with authentication off there is no way through v3 to the
// hashes, nor to what would tell them by and by; everything else is as ever.
func TestWithheldWhileOff(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	d.must(t, http.MethodDelete, "/enable", "")
	c, ctx := d.as(t, ""), t.Context()
	const alice = auth.RecordsStart + "users/alice"
	hash := clientv3.OpGet(alice)
	show := func(resp any, err error) (string, error) { return fmt.Sprint(resp), err }
	stub := func(f func(*grpc.ClientConn) (any, error)) func() (string, error) {
		return func() (string, error) { return show(f(c.ActiveConnection())) }
	}
	watching := c.Watch(ctx, alice, clientv3.WithRev(1), clientv3.WithPrevKV())
	for what, read := range map[string]func() (string, error){
		"the key":     func() (string, error) { return show(c.Get(ctx, alice)) },
		"the range":   func() (string, error) { return show(c.Get(ctx, auth.RecordsStart, clientv3.WithPrefix())) },
		"everything":  func() (string, error) { return show(c.Get(ctx, "", clientv3.WithPrefix())) },
		"transaction": func() (string, error) { return show(c.Txn(ctx).Then(hash).Commit()) },
		"nested": func() (string, error) {
			return show(c.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{hash}, nil)).Commit())
		},
		"previous": func() (string, error) {
			return show(c.Txn(ctx).Then(clientv3.OpDelete(auth.RecordsStart+"users/bob", clientv3.WithPrevKV())).Commit())
		},
		"watch":    func() (string, error) { return show(<-watching, nil) },
		"streamed": stub(func(cc *grpc.ClientConn) (any, error) { return streamed(ctx, cc, auth.RecordsStart, auth.RecordsEnd) }),
		"leader": stub(func(cc *grpc.ClientConn) (any, error) {
			return leaderOf(ctx, cc, strings.TrimSuffix(auth.RecordsStart, "/")+"/users")
		}),
	} {
		got, err := read()
		if err != nil || !strings.Contains(got, auth.RecordsStart) || strings.Contains(got, "$2a$") {
			t.Errorf("%s: %v, %v; want keys without hashes", what, got, err)
		}
	}
	guess := clientv3.Compare(clientv3.Value(auth.RecordsStart+"users/bob"), "<", "x")
	sorted := clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)
	for what, err := range map[string]error{
		"compare":        second(c.Txn(ctx).If(guess).Commit()),
		"compare nested": second(c.Txn(ctx).Then(clientv3.OpTxn([]clientv3.Cmp{guess}, nil, nil)).Commit()),
		"sort":           second(c.Get(ctx, auth.RecordsStart, clientv3.WithPrefix(), sorted)),
		"sort all":       second(c.Get(ctx, "", clientv3.WithPrefix(), sorted)),
		"sort within":    second(c.Txn(ctx).Then(clientv3.OpGet(auth.RecordsStart, clientv3.WithPrefix(), sorted)).Commit()),
	} {
		if !denied(err) && (err == nil || !strings.Contains(err.Error(), "withheld")) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	if _, err := c.Put(ctx, "/k", "plain"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "/", clientv3.WithPrefix(), sorted); err != nil || string(got.Kvs[0].Value) != "plain" {
		t.Errorf("any other key: %v, %v", got, err)
	}
	// Root reads them, once somebody is asked.
	d.must(t, http.MethodPut, "/enable", "")
	if got, err := show(d.as(t, "root").Get(ctx, auth.RecordsStart, clientv3.WithPrefix())); err != nil || !strings.Contains(got, "$2a$") {
		t.Errorf("root: %v, %v", got, err)
	}
}

func streamed(ctx context.Context, cc *grpc.ClientConn, key, end string) (any, error) {
	s, err := pb.NewKVClient(cc).RangeStream(ctx, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
	if err != nil {
		return nil, err
	}
	return s.Recv()
}

func leaderOf(ctx context.Context, cc *grpc.ClientConn, name string) (any, error) {
	return v3electionpb.NewElectionClient(cc).Leader(ctx, &v3electionpb.LeaderRequest{Name: []byte(name)})
}
