package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"

	"flotilla/internal/kv/auth"
	"flotilla/internal/kv/kvtest"
)

// door is a gate and the v3 API behind it.
type door struct {
	*Gate
	engine  *embed.Etcd
	address string
	inside  *clientv3.Client // past the gate
	clock   *clock
}

// clock is the wall's, moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// open makes a gate to the engine, and serves the v3 API behind it.
func open(t *testing.T, e *embed.Etcd) *door {
	t.Helper()
	d := &door{engine: e, inside: kvtest.InProcess(t, e), clock: &clock{}}
	d.Gate = New(Config{
		Client: kvtest.InProcess(t, e), Log: slog.New(slog.DiscardHandler), Cost: bcrypt.MinCost,
		EngineAuth: e.Server.AuthStore().IsAuthEnabled, Now: d.clock.now,
	})
	kvtest.Run(t, d.Gate)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	server := v3rpc.Server(e.Server, nil, nil, grpc.ChainUnaryInterceptor(d.Unary), grpc.ChainStreamInterceptor(d.Stream))
	in := v3client.New(e.Server)
	v3lockpb.RegisterLockServer(server, v3lock.NewLockServer(in))
	v3electionpb.RegisterElectionServer(server, v3election.NewElectionServer(in))
	go server.Serve(l)
	t.Cleanup(func() {
		server.Stop()
		in.Close()
	})
	return d
}

// as is a v3 client with a user's name and password; "" is a guest.
func (d *door) as(t *testing.T, user string, more ...string) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{Endpoints: append(more, d.address), DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
	if user != "" {
		cfg.Username, cfg.Password = user, user+"pw"
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		t.Fatalf("log in as %q: %v", user, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// root is the user root's credentials.
var root = auth.Credentials{Sent: true, User: "root", Password: "rootpw"}

// admin carries out requests such as PUT /users/alice BODY.
func (d *door) admin(t *testing.T, method, path, body string) auth.Answer {
	t.Helper()
	target, ok := auth.ParseTarget(path)
	if !ok {
		t.Fatalf("no such path: %s", path)
	}
	a, err := d.Administer(t.Context(), root, auth.Request{Method: method, Target: target, Body: []byte(body)})
	if err != nil {
		t.Fatalf("%s %s %s: %v", method, path, body, err)
	}
	return a
}

// must is admin, and fails unless the answer is a success.
func (d *door) must(t *testing.T, method, path, body string) {
	t.Helper()
	if a := d.admin(t, method, path, body); a.Status > 201 {
		t.Fatalf("%s %s %s: %d %s", method, path, body, a.Status, a.Body)
	}
}

// users is alice, who has /a/* and may read /shared, bob, who has /b/*, root, and
// guests who may read /open/*. Authentication is on.
func (d *door) users(t *testing.T) {
	t.Helper()
	for _, r := range [][2]string{
		{"/users/root", `{"user":"root","password":"rootpw"}`},
		{"/users/alice", `{"user":"alice","password":"alicepw","roles":["a"]}`},
		{"/users/bob", `{"user":"bob","password":"bobpw","roles":["b"]}`},
		{"/roles/a", `{"role":"a","permissions":{"kv":{"read":["/a/*","/shared"],"write":["/a/*","/blind"]}}}`},
		{"/roles/b", `{"role":"b","permissions":{"kv":{"read":["/b/*"],"write":["/b/*"]}}}`},
		{"/roles/guest", `{"role":"guest","permissions":{"kv":{"read":["/open/*"]}}}`},
		{"/enable", ""},
	} {
		d.must(t, http.MethodPut, r[0], r[1])
	}
}

// A gate that has not read the state lets nobody in, at either door.
func TestClosedUntilRead(t *testing.T) {
	g := New(Config{Log: slog.New(slog.DiscardHandler)})
	if v, err := g.Keys(t.Context(), root, auth.Need{Path: "/"}); v != auth.Refused || !errors.Is(err, ErrNotRead) {
		t.Errorf("keys: %v, %v", v, err)
	}
	if _, _, v, err := g.Hold(t.Context(), root, auth.Need{Path: "/"}); v != auth.Refused || !errors.Is(err, ErrNotRead) {
		t.Errorf("watch: %v, %v", v, err)
	}
	if ok, err := g.Root(t.Context(), root); ok || !errors.Is(err, ErrNotRead) {
		t.Errorf("root: %v, %v", ok, err)
	}
	if _, err := g.Administer(t.Context(), root, auth.Request{Method: "GET"}); !errors.Is(err, ErrNotRead) {
		t.Errorf("administer: %v", err)
	}
	passed := func(context.Context, any) (any, error) { t.Error("a call has passed"); return nil, nil }
	if _, err := g.Unary(t.Context(), nil, nil, passed); err == nil {
		t.Error("a call is not refused")
	}
	if err := g.Stream(nil, nil, nil, func(any, grpc.ServerStream) error { t.Error("a stream has passed"); return nil }); err == nil {
		t.Error("a stream is not refused")
	}
}

// Changes made at the same time at two members all happen, one after the other, and
// each member goes by its own changes at once.
func TestChangesAtOnce(t *testing.T) {
	e := kvtest.Start(t)
	doors := []*door{open(t, e), open(t, e)}
	doors[0].users(t)
	var wg sync.WaitGroup
	for i := range 16 {
		d := doors[i%2]
		wg.Go(func() {
			grant := fmt.Sprintf(`{"role":"a","grant":{"kv":{"read":["/k%d"]}}}`, i)
			if a := d.admin(t, http.MethodPut, "/roles/a", grant); a.Status != 200 {
				t.Errorf("grant %d: %d %s", i, a.Status, a.Body)
			}
			v, err := d.Keys(t.Context(), auth.Credentials{Sent: true, User: "alice", Password: "alicepw"}, auth.Need{Path: fmt.Sprintf("/k%d", i)})
			if v != auth.Granted || err != nil {
				t.Errorf("own change %d is not in force: %v, %v", i, v, err)
			}
		})
	}
	wg.Wait()
}

// The switch is on after a restart, without anybody asking for it.
func TestOnAfterRestart(t *testing.T) {
	e := kvtest.Start(t)
	open(t, e).users(t)
	again := open(t, e)
	if v, err := again.Keys(t.Context(), auth.Credentials{}, auth.Need{Path: "/a/x"}); v != auth.Refused || err != nil {
		t.Errorf("a guest is let in: %v, %v", v, err)
	}
}

// A change that is written past the gates counts, too, and so does the end of all
// records.
func TestFollowsTheStore(t *testing.T) {
	d := open(t, kvtest.Start(t))
	d.users(t)
	if _, err := d.inside.Delete(t.Context(), auth.RecordsStart, clientv3.WithRange(auth.RecordsEnd)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "authentication is off", func() bool {
		ok, err := d.Root(t.Context(), auth.Credentials{})
		return ok && err == nil
	})
	d.users(t)
	if ok, err := d.Root(t.Context(), auth.Credentials{}); ok || err != nil {
		t.Errorf("authentication is not on: %v", err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLogins(t *testing.T) {
	l := newLogins(bcrypt.MinCost)
	ctx := t.Context()
	long := fmt.Sprintf("%072d", 0)
	hash, err := l.hash(ctx, long)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		{hash, long, true}, {hash, long, true}, {hash, long + "x", false}, {hash, long[1:], false}, {hash, "", false},
		{"", "", false}, {"", long, false}, {"no hash", long, false},
	} {
		if got, err := l.verify(ctx, c.hash, c.password); got != c.want || err != nil {
			t.Errorf("verify %q with %q: %v, %v", c.hash, c.password, got, err)
		}
	}
	if len(l.known) != 1 || l.recent.Len() != 1 {
		t.Errorf("%d logins are remembered, want the one that was right", len(l.known))
	}
	for i := range 2 * maxRemembered {
		l.remember(l.fingerprint(fmt.Sprint(i), ""))
	}
	if len(l.known) != maxRemembered || l.recent.Len() != maxRemembered {
		t.Errorf("%d logins are remembered", len(l.known))
	}
	if !l.waiting.TryAcquire(maxWaiting) {
		t.Fatal("somebody waits")
	}
	if _, err := l.verify(ctx, hash, "another"); !errors.Is(err, ErrBusy) {
		t.Errorf("too many logins: %v", err)
	}
}

// BenchmarkLogin is what a request with a password costs after the first.
func BenchmarkLogin(b *testing.B) {
	l := newLogins(10)
	hash, err := l.hash(b.Context(), "secret")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, _ := l.verify(b.Context(), hash, "secret"); !ok {
			b.Fatal("refused")
		}
	}
}
