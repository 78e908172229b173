package gate

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"flotilla/internal/kv/auth"
	"flotilla/internal/kv/kvtest"
)

// call is one thing to do through the v3 API.
type call func(context.Context, *clientv3.Client) error

func get(key string, opts ...clientv3.OpOption) call { return do(clientv3.OpGet(key, opts...)) }
func put(key string, opts ...clientv3.OpOption) call { return do(clientv3.OpPut(key, "v", opts...)) }
func del(key string, opts ...clientv3.OpOption) call { return do(clientv3.OpDelete(key, opts...)) }

func do(op clientv3.Op) call {
	return func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Do(ctx, op)
		return err
	}
}

// txn compares one key and does the operations, if or if not.
func txn(compared string, then, otherwise []clientv3.Op) call {
	return do(clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(compared), ">", -1)}, then, otherwise))
}

// watch opens a watch and returns what it is answered with.
func watch(key string, opts ...clientv3.OpOption) call {
	return func(ctx context.Context, c *clientv3.Client) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		resp := <-c.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)
		return resp.Err()
	}
}

// raw is a call that clientv3 has no method for.
func raw(f func(context.Context, *grpc.ClientConn) error) call {
	return func(ctx context.Context, c *clientv3.Client) error {
		return rpctypes.Error(f(withToken(ctx, c), c.ActiveConnection()))
	}
}

// withToken says who the client is, on a bare connection.
func withToken(ctx context.Context, c *clientv3.Client) context.Context {
	if c.Username == "" {
		return ctx
	}
	resp, err := c.Authenticate(ctx, c.Username, c.Password)
	if err != nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "token", resp.Token)
}

func lock(name string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		resp, err := v3lockpb.NewLockClient(cc).Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name)})
		if err == nil {
			_, err = v3lockpb.NewLockClient(cc).Unlock(ctx, &v3lockpb.UnlockRequest{Key: resp.Key})
		}
		return err
	})
}

func unlock(key string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := v3lockpb.NewLockClient(cc).Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte(key)})
		return err
	})
}

func campaign(name string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := v3electionpb.NewElectionClient(cc).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte(name), Value: []byte("v")})
		return err
	})
}

func leader(name string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := v3electionpb.NewElectionClient(cc).Leader(ctx, &v3electionpb.LeaderRequest{Name: []byte(name)})
		return err
	})
}

func observe(name string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := v3electionpb.NewElectionClient(cc).Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte(name)})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	})
}

// resign is by a leader key of which the name is alice's own.
func resign(key string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := v3electionpb.NewElectionClient(cc).Resign(ctx, &v3electionpb.ResignRequest{Leader: &v3electionpb.LeaderKey{Name: []byte("/a/e"), Key: []byte(key)}})
		return err
	})
}

func rangeStream(key, end string) call {
	return raw(func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := pb.NewKVClient(cc).RangeStream(ctx, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	})
}

func snapshot(ctx context.Context, c *clientv3.Client) error {
	r, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Read(make([]byte, 1))
	return err
}

// alike compares by the text, since a watch tells its reason as that alone.
func alike(got, want error) bool {
	if got == nil || want == nil {
		return got == want
	}
	return strings.Contains(got.Error(), want.Error())
}

func denied(err error) bool { return alike(err, rpctypes.ErrPermissionDenied) }

// The way round is closed: nothing is to be had through v3 that v2 refuses.
func TestV3Access(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	for _, key := range []string{"/a/x", "/b/y", "/shared", "/open/o", ".v2/n/b", "plain", "/a/e/1", "/b/e/1"} {
		if _, err := d.inside.Put(t.Context(), key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	bobs, err := d.inside.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := d.inside.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.inside.Put(t.Context(), "/b/leased", "1", clientv3.WithLease(bobs.ID)); err != nil {
		t.Fatal(err)
	}
	all := clientv3.WithRange("\x00")
	end := clientv3.WithRange
	getOp, putOp, delOp := clientv3.OpGet("/b/y"), clientv3.OpPut("/b/y", "alice's"), clientv3.OpDelete("/b/y")
	mine := clientv3.OpPut("/a/x", "2")

	type row struct {
		what string
		call call
	}
	run := func(t *testing.T, who string, rows []row, want error) {
		c := d.as(t, who)
		for _, r := range rows {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := r.call(ctx, c)
			cancel()
			if !alike(err, want) {
				t.Errorf("%s: %s: %v, want %v", who, r.what, err, want)
			}
		}
	}

	allowed := []row{
		{"own key", get("/a/x")},
		{"own directory", get("/a/", clientv3.WithPrefix())},
		{"part of it", get("/a/b", end("/a/z"))},
		{"shared key", get("/shared")},
		{"streamed", rangeStream("/a/", "/a0")},
		{"put", put("/a/x", clientv3.WithPrevKV())},
		{"put unseen", put("/blind")},
		{"put below", put("/a/b/c/_d")},
		{"delete", del("/a/b/", clientv3.WithPrefix(), clientv3.WithPrevKV())},
		{"txn", txn("/a/x", []clientv3.Op{mine, clientv3.OpGet("/shared")}, []clientv3.Op{clientv3.OpDelete("/a/none")})},
		{"nested txn", txn("/a/x", []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{mine}, nil)}, nil)},
		{"watch", watch("/a/", clientv3.WithPrefix())},
		{"watch a key", watch("/shared")},
		{"lease", func(ctx context.Context, c *clientv3.Client) error {
			l, err := c.Grant(ctx, 60)
			if err != nil {
				return err
			}
			if err := put("/a/leased", clientv3.WithLease(l.ID))(ctx, c); err != nil {
				return err
			}
			if _, err := c.KeepAliveOnce(ctx, l.ID); err != nil {
				return err
			}
			if _, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys()); err != nil {
				return err
			}
			_, err = c.Revoke(ctx, l.ID)
			return err
		}},
		{"lock", lock("/a/lock")},
		{"campaign", campaign("/a/election")},
		{"leader", leader("/a/election")},
		{"observe", observe("/a/election")},
		{"members", func(ctx context.Context, c *clientv3.Client) error { _, err := c.MemberList(ctx); return err }},
		{"status", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Status(ctx, d.address); return err }},
	}
	forbidden := []row{
		{"another's key", get("/b/y")},
		{"whether it is there", get("/b/y", clientv3.WithCountOnly())},
		{"its old value", get("/b/y", clientv3.WithRev(2))},
		{"the directory as a key", get("/a")},
		{"the whole key space", get("\x00", all)},
		{"all of it from the empty key", get("", clientv3.WithFromKey())},
		{"all of it as a prefix of nothing", get("", clientv3.WithPrefix())},
		{"the v2 key space", get("/", end("0"))},
		{"from the own key on", get("/a/x", clientv3.WithFromKey())},
		{"a zero byte as the end", get("/a/", all)},
		{"one byte too far", get("/a/", end("/a0\x00"))},
		{"one byte before", get("/a.", end("/a0"))},
		{"the end before the start", get("/b/y", end("/a/"))},
		{"a hole between own keys", get("/a/", end("/shared"))},
		{"hidden records", get(".v2/n/b")},
		{"users", get(auth.RecordsStart, clientv3.WithPrefix())},
		{"no path", get("plain")},
		{"streamed", rangeStream("/a/", "/b0")},
		{"streamed whole", rangeStream("\x00", "\x00")},
		{"put", put("/b/y")},
		{"put a value to be read", put("/blind", clientv3.WithPrevKV())},
		{"put a value nobody sees", put("/b/y", clientv3.WithIgnoreLease())},
		{"put where one may only read", put("/shared")},
		{"put the switch", put(auth.RecordsStart + "enabled")},
		{"put under a v2 record", put(".v2/e")},
		{"delete", del("/b/y")},
		{"delete the switch", del(auth.RecordsStart, clientv3.WithPrefix())},
		{"delete everything", del("\x00", all)},
		{"delete to see", del("/blind", clientv3.WithPrevKV())},
		{"txn with one get too many", txn("/a/x", []clientv3.Op{mine, getOp}, nil)},
		{"txn with one put too many", txn("/a/x", []clientv3.Op{mine, putOp}, nil)},
		{"txn with a branch that is not taken", txn("/a/x", []clientv3.Op{mine}, []clientv3.Op{delOp})},
		{"txn that compares a secret", txn("/b/y", nil, nil)},
		{"txn that compares a range", do(clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("/a/x"), "=", "1").WithRange("/b0")}, nil, nil))},
		{"txn in a txn", txn("/a/x", []clientv3.Op{clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{putOp}, nil)})}, nil)},
		{"watch", watch("/b/y")},
		{"watch nothing, which is everything", watch("", clientv3.WithPrefix())},
		{"watch the empty key", watch("")},
		{"watch everything", watch("\x00", all)},
		{"watch from the own key on", watch("/a/x", clientv3.WithFromKey())},
		{"watch the past", watch("/b/y", clientv3.WithRev(1))},
		{"watch users", watch(auth.RecordsStart, clientv3.WithPrefix())},
		{"a lease with another's key", put("/a/x", clientv3.WithLease(bobs.ID))},
		{"the same in a txn", txn("/a/x", []clientv3.Op{clientv3.OpPut("/a/x", "", clientv3.WithLease(bobs.ID))}, nil)},
		{"revoke it", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Revoke(ctx, bobs.ID); return err }},
		{"see its keys", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.TimeToLive(ctx, bobs.ID, clientv3.WithAttachedKeys())
			return err
		}},
		{"see all leases", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Leases(ctx); return err }},
		{"lock elsewhere", lock("/b/lock")},
		{"lock everything", lock("")},
		{"unlock a key", unlock("/b/y")},
		{"campaign elsewhere", campaign("/b/e")},
		{"leader elsewhere", leader("/b/e")},
		{"observe elsewhere", observe("/b/e")},
		{"resign for another", resign("/b/e/1")},
		{"compact", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Compact(ctx, 1); return err }},
		{"snapshot", snapshot},
		{"hash", func(ctx context.Context, c *clientv3.Client) error { _, err := c.HashKV(ctx, d.address, 0); return err }},
		{"defragment", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Defragment(ctx, d.address)
			return err
		}},
		{"alarms", func(ctx context.Context, c *clientv3.Client) error { _, err := c.AlarmList(ctx); return err }},
		{"move the leader", func(ctx context.Context, c *clientv3.Client) error { _, err := c.MoveLeader(ctx, 1); return err }},
		{"add a member", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberAdd(ctx, []string{"http://127.0.0.1:1"})
			return err
		}},
		{"remove a member", func(ctx context.Context, c *clientv3.Client) error { _, err := c.MemberRemove(ctx, 1); return err }},
		{"add a v3 user", func(ctx context.Context, c *clientv3.Client) error { _, err := c.UserAdd(ctx, "m", "m"); return err }},
		{"list v3 users", func(ctx context.Context, c *clientv3.Client) error { _, err := c.UserList(ctx); return err }},
	}
	t.Run("alice", func(t *testing.T) { run(t, "alice", allowed, nil) })
	t.Run("alice elsewhere", func(t *testing.T) {
		run(t, "alice", forbidden, rpctypes.ErrPermissionDenied)
	})
	t.Run("guest", func(t *testing.T) {
		run(t, "", []row{{"open key", get("/open/o")}, {"watch", watch("/open/", clientv3.WithPrefix())}}, nil)
		run(t, "", forbidden, rpctypes.ErrUserEmpty)
		run(t, "", []row{{"alice's", get("/a/x")}, {"watch", watch("/a/x")}, {"lease", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Grant(ctx, 60)
			return err
		}}, {"revoke", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Revoke(ctx, empty.ID); return err }},
			{"status", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Status(ctx, d.address); return err }}}, rpctypes.ErrUserEmpty)
	})
	t.Run("root", func(t *testing.T) {
		run(t, "root", []row{{"everything", get("\x00", all)}, {"users", get(auth.RecordsStart, clientv3.WithPrefix())},
			{"snapshot", snapshot}, {"watch everything", watch("", clientv3.WithPrefix())}, {"a lease", put("/c", clientv3.WithLease(bobs.ID))},
			{"compact", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Compact(ctx, 3); return err }}}, nil)
	})
	if resp, err := d.inside.Get(t.Context(), "/b/y"); err != nil || string(resp.Kvs[0].Value) != "1" {
		t.Errorf("/b/y has been changed: %v, %v", resp, err)
	}
}

// A wrong password, a made-up token: refused, and no guest.
func TestV3WrongCredentials(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	guest := d.as(t, "")
	for _, c := range [][2]string{{"alice", "wrong"}, {"nobody", "x"}, {"", ""}, {"alice", ""}, {"root", "alicepw"}} {
		if _, err := guest.Authenticate(t.Context(), c[0], c[1]); !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Errorf("%q with %q: %v", c[0], c[1], err)
		}
	}
	bare, err := grpc.NewClient(d.address, grpc.WithTransportCredentials(insecure.NewCredentials())) // it does not try again
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	for header, token := range map[string]string{"token": "made.up.token", "authorization": "Bearer x"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), header, token)
		_, err := pb.NewKVClient(bare).Range(ctx, &pb.RangeRequest{Key: []byte("/open/o")})
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrInvalidAuthToken) {
			t.Errorf("%s %s: %v", header, token, err)
		}
	}
	for login, want := range map[string]codes.Code{"YWxpY2U6YWxpY2Vwdw==": codes.OK, "YWxpY2U6d3Jvbmc=": codes.InvalidArgument} { // alice:alicepw, alice:wrong
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+login)
		_, err := pb.NewKVClient(bare).Range(ctx, &pb.RangeRequest{Key: []byte("/a/x")})
		if status.Code(err) != want {
			t.Errorf("Basic %s: %v", login, err)
		}
	}
}

// A client's token is good at every member, ends, and is renewed by the client
// without a word.
func TestV3Tokens(t *testing.T) {
	e := kvtest.Start(t)
	one, two := open(t, e), open(t, e)
	one.users(t)
	eventually(t, "the other gate knows alice", func() bool {
		v, err := two.Keys(t.Context(), auth.Credentials{Sent: true, User: "alice", Password: "alicepw"}, auth.Need{Path: "/a/x"})
		return v == auth.Granted && err == nil
	})
	alice := one.as(t, "alice", two.address)
	for range 6 {
		if err := put("/a/x")(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
	}
	one.clock.ahead.Add(int64(time.Hour))
	two.clock.ahead.Add(int64(time.Hour))
	for range 6 {
		if err := put("/a/x")(t.Context(), alice); err != nil {
			t.Fatalf("after the token's end: %v", err)
		}
	}
	one.must(t, http.MethodPut, "/users/alice", `{"user":"alice","password":"new"}`)
	eventually(t, "the old password is refused", func() bool {
		return errors.Is(get("/a/x")(t.Context(), alice), rpctypes.ErrAuthFailed)
	})
}

// A client that was there before authentication was on logs in when it is.
func TestV3SwitchedOnMeanwhile(t *testing.T) {
	d := open(t, kvtest.Start(t))
	alice := d.as(t, "alice")
	if err := put("/b/y")(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	watching := alice.Watch(t.Context(), "/a/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	forbidden := alice.Watch(t.Context(), "/b/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watching
	<-forbidden
	d.users(t)
	if err := put("/a/x")(t.Context(), alice); err != nil {
		t.Errorf("own key: %v", err)
	}
	if err := put("/b/y")(t.Context(), alice); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("another's key: %v", err)
	}
	if err := next(t, forbidden); err == nil {
		t.Error("the watch of another's keys goes on")
	}
}

// next is what the watch brings next: nil for events, else why it has ended.
func next(t *testing.T, w clientv3.WatchChan) error {
	t.Helper()
	select {
	case resp, ok := <-w:
		if !ok {
			return errors.New("ended")
		}
		return resp.Err()
	case <-time.After(10 * time.Second):
		t.Fatal("the watch brings nothing for 10 s")
		return nil
	}
}

// Who loses a right loses the watches that stand on it, and no others; a watch that
// is refused does not disturb its neighbours.
func TestV3RevokedWhileWatching(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	alice := d.as(t, "alice")
	kept := alice.Watch(t.Context(), "/a/", clientv3.WithPrefix())
	lost := alice.Watch(t.Context(), "/shared", clientv3.WithCreatedNotify())
	if err := next(t, lost); err != nil {
		t.Fatal(err)
	}
	if err := watch("/b/y")(t.Context(), alice); !denied(err) {
		t.Errorf("a watch that is refused: %v", err)
	}
	if _, err := d.inside.Put(t.Context(), "/a/x", "1"); err != nil {
		t.Fatal(err)
	}
	if err := next(t, kept); err != nil {
		t.Fatalf("the neighbour of a refused watch: %v", err)
	}
	d.must(t, http.MethodPut, "/roles/a", `{"role":"a","revoke":{"kv":{"read":["/shared"]}}}`)
	for _, key := range []string{"/shared", "/a/x"} {
		if _, err := d.inside.Put(t.Context(), key, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if err := next(t, lost); err == nil {
		t.Error("a watch goes on without the right")
	}
	if err := next(t, kept); err != nil {
		t.Errorf("a watch with the right has ended: %v", err)
	}
	d.must(t, http.MethodDelete, "/users/alice", "")
	if err := next(t, kept); err == nil {
		t.Error("the watch of a user who is gone goes on")
	}
}

// Raw clients may open watches without waiting: answers come in the order of the
// requests.
func TestV3WatchAnswersInOrder(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	alice := d.as(t, "alice")
	s, err := pb.NewWatchClient(alice.ActiveConnection()).Watch(withToken(t.Context(), alice))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/a/1", "/b/1", "/a/2", "", "/a/3", "/b/2", "/b/3", "/a/4"}
	for _, key := range want {
		r := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}}}
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range want {
		resp, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if refused := !strings.HasPrefix(key, "/a/"); !resp.Created || resp.Canceled != refused {
			t.Errorf("watch %q: created %v, canceled %v (%s)", key, resp.Created, resp.Canceled, resp.CancelReason)
		}
	}
}

// The engine's own authentication and ours exclude each other.
func TestEngineAuth(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	r := d.as(t, "root")
	if _, err := r.AuthEnable(t.Context()); err == nil || !strings.Contains(err.Error(), "disable it first") {
		t.Errorf("enable v3 beside v2: %v", err)
	}
	d.must(t, http.MethodDelete, "/enable", "")

	// The engine's, as a v3 client turns it on.
	for _, err := range []error{
		second(r.UserAdd(t.Context(), "root", "v3pw")), second(r.UserGrantRole(t.Context(), "root", "root")), second(r.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if a := d.admin(t, http.MethodPut, "/enable", ""); a.Status != http.StatusConflict || !strings.Contains(a.Body, "v3 authentication is enabled") {
		t.Errorf("enable v2 beside v3: %d %s", a.Status, a.Body)
	}
	if _, err := d.Keys(t.Context(), root, auth.Need{Path: "/"}); !errors.Is(err, ErrEngineAuth) {
		t.Errorf("v2 keys while v3 has users of its own: %v", err)
	}
	guest := d.as(t, "")
	if err := get("/a/x")(t.Context(), guest); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("v3 without a user: %v", err)
	}
	engines, err := clientv3.New(clientv3.Config{Endpoints: []string{d.address}, Username: "root", Password: "v3pw"})
	if err != nil {
		t.Fatal(err)
	}
	defer engines.Close()
	if err := watch("/a/x")(t.Context(), engines); err != nil {
		t.Errorf("watch with a v3 user: %v", err)
	}
	if _, err := engines.AuthDisable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Keys(t.Context(), root, auth.Need{Path: "/"}); err != nil {
		t.Errorf("v2 keys afterwards: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
