package member

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v2client "go.etcd.io/etcd/client/v2"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// oldClient is the Go client of the v2 API, as programs of its time link it.
func oldClient(t *testing.T, m *runningMember) v2client.Client {
	t.Helper()
	c, err := v2client.New(v2client.Config{Endpoints: m.ClientURLs(), HeaderTimeoutPerRequest: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantCode wants an error of the store with that code.
func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	if refused := (v2client.Error{}); !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("error %v, want code %d", err, code)
	}
}

// The v2 client library works as against the etcd of its time, and a v3 client sees
// the same values.
func TestOldClientLibrary(t *testing.T) {
	t.Parallel()
	m := start(t, alone(t, "n1", filepath.Join(t.TempDir(), "data")))
	c := oldClient(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Run("cluster", func(t *testing.T) { oldCluster(ctx, t, c, m) })
	k := v2client.NewKeysAPI(c)
	t.Run("keys", func(t *testing.T) { oldKeys(ctx, t, k, v3(t, m)) })
	t.Run("directories", func(t *testing.T) { oldDirectories(ctx, t, k) })
	t.Run("watch", func(t *testing.T) { oldWatch(ctx, t, k, v3(t, m)) })
	t.Run("time to live", func(t *testing.T) { oldTTL(ctx, t, k) })
}

func oldCluster(ctx context.Context, t *testing.T, c v2client.Client, m *runningMember) {
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if !sameSet(c.Endpoints(), m.ClientURLs()) {
		t.Errorf("endpoints after a sync: %v, want %v", c.Endpoints(), m.ClientURLs())
	}
	members := v2client.NewMembersAPI(c)
	list, err := members.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "n1" || !sameSet(list[0].PeerURLs, m.PeerURLs()) {
		t.Fatalf("list %+v, %v", list, err)
	}
	leader, err := members.Leader(ctx)
	if err != nil || leader == nil || leader.ID != list[0].ID {
		t.Errorf("leader %+v, %v", leader, err)
	}
	v, err := c.GetVersion(ctx)
	if err != nil || v.Server == "" || v.Cluster == "" {
		t.Errorf("version %+v, %v", v, err)
	}
	if _, err := members.Add(ctx, list[0].PeerURLs[0]); err == nil || err.Error() != "membership: peerURL exists" {
		t.Errorf("add a member twice: %v", err)
	}
	if err := members.Remove(ctx, "abc"); err == nil || err.Error() != "unexpected status code 404" {
		t.Errorf("remove a member that is not: %v", err)
	}
	if err := members.Update(ctx, list[0].ID, list[0].PeerURLs); err != nil {
		t.Errorf("update: %v", err)
	}
}

func oldKeys(ctx context.Context, t *testing.T, k v2client.KeysAPI, c *clientv3.Client) {
	set, err := k.Set(ctx, "/app/key", "1", nil)
	if err != nil || set.Action != "set" || set.Node.Value != "1" || set.PrevNode != nil || set.ClusterID == "" {
		t.Fatalf("set %+v, %v", set, err)
	}
	got, err := k.Get(ctx, "/app/key", &v2client.GetOptions{Quorum: true})
	if err != nil || got.Node.Value != "1" || got.Node.ModifiedIndex != set.Node.ModifiedIndex || got.Index < set.Node.ModifiedIndex {
		t.Errorf("get %+v, %v", got, err)
	}
	if kv, err := c.Get(ctx, "/app/key"); err != nil || len(kv.Kvs) != 1 || string(kv.Kvs[0].Value) != "1" ||
		kv.Kvs[0].ModRevision != int64(set.Node.ModifiedIndex) {
		t.Errorf("v3 sees %v, %v", kv, err)
	}
	_, err = k.Create(ctx, "/app/key", "2")
	wantCode(t, err, v2client.ErrorCodeNodeExist)
	_, err = k.Set(ctx, "/app/key", "2", &v2client.SetOptions{PrevValue: "0"})
	wantCode(t, err, v2client.ErrorCodeTestFailed)
	_, err = k.Update(ctx, "/app/none", "2")
	wantCode(t, err, v2client.ErrorCodeKeyNotFound)
	swap, err := k.Set(ctx, "/app/key", "2", &v2client.SetOptions{PrevIndex: set.Node.ModifiedIndex})
	if err != nil || swap.Action != "compareAndSwap" || swap.PrevNode.Value != "1" || swap.Node.CreatedIndex != set.Node.CreatedIndex {
		t.Errorf("swap %+v, %v", swap, err)
	}
	if _, err := c.Put(ctx, "/app/from-v3", "3"); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Get(ctx, "/app/from-v3", &v2client.GetOptions{Quorum: true}); err != nil || got.Node.Value != "3" {
		t.Errorf("written with v3: %+v, %v", got, err)
	}
	_, err = k.Delete(ctx, "/app/key", &v2client.DeleteOptions{PrevValue: "9"})
	wantCode(t, err, v2client.ErrorCodeTestFailed)
	if gone, err := k.Delete(ctx, "/app/key", nil); err != nil || gone.Action != "delete" || gone.PrevNode.Value != "2" {
		t.Errorf("delete %+v, %v", gone, err)
	}
	if kv, err := c.Get(ctx, "/app/key"); err != nil || len(kv.Kvs) != 0 {
		t.Errorf("v3 sees after the delete: %v, %v", kv, err)
	}
}

func oldDirectories(ctx context.Context, t *testing.T, k v2client.KeysAPI) {
	for _, key := range []string{"/dir/b", "/dir/a/x", "/dir/c"} {
		if _, err := k.Set(ctx, key, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := k.Get(ctx, "/dir", &v2client.GetOptions{Recursive: true, Sort: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range list.Node.Nodes {
		names = append(names, n.Key)
	}
	if want := []string{"/dir/a", "/dir/b", "/dir/c"}; !slices.Equal(names, want) || list.Node.Nodes[0].Nodes[0].Key != "/dir/a/x" {
		t.Errorf("listed %v, want %v", names, want)
	}
	_, err = k.Delete(ctx, "/dir", nil)
	wantCode(t, err, v2client.ErrorCodeNotFile)
	_, err = k.Delete(ctx, "/dir", &v2client.DeleteOptions{Dir: true})
	wantCode(t, err, v2client.ErrorCodeDirNotEmpty)
	if _, err := k.Delete(ctx, "/dir", &v2client.DeleteOptions{Recursive: true}); err != nil {
		t.Error(err)
	}
	first, err1 := k.CreateInOrder(ctx, "/queue", "1", nil)
	second, err2 := k.CreateInOrder(ctx, "/queue", "2", nil)
	if err1 != nil || err2 != nil || first.Node.Key >= second.Node.Key {
		t.Errorf("in order: %v, %v, %v, %v", first, err1, second, err2)
	}
}

func oldWatch(ctx context.Context, t *testing.T, k v2client.KeysAPI, c *clientv3.Client) {
	before, err := k.Set(ctx, "/watched/a", "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := k.Watcher("/watched", &v2client.WatcherOptions{AfterIndex: before.Node.ModifiedIndex, Recursive: true})
	if _, err := k.Set(ctx, "/watched/a", "1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "/watched/b", "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Delete(ctx, "/watched/a", nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"set /watched/a 1", "set /watched/b 2", "delete /watched/a "} {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Action + " " + e.Node.Key + " " + e.Node.Value; got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	}
}

func oldTTL(ctx context.Context, t *testing.T, k v2client.KeysAPI) {
	set, err := k.Set(ctx, "/short", "1", &v2client.SetOptions{TTL: time.Second})
	if err != nil || set.Node.TTL != 1 || set.Node.Expiration == nil {
		t.Fatalf("set %+v, %v", set, err)
	}
	refreshed, err := k.Set(ctx, "/short", "", &v2client.SetOptions{TTL: time.Second, PrevExist: v2client.PrevExist, Refresh: true})
	if err != nil || refreshed.Node.Value != "1" {
		t.Errorf("refresh %+v, %v", refreshed, err)
	}
	e, err := k.Watcher("/short", &v2client.WatcherOptions{AfterIndex: refreshed.Node.ModifiedIndex}).Next(ctx)
	if err != nil || e.Action != "expire" || e.PrevNode.Value != "1" {
		t.Errorf("event %+v, %v", e, err)
	}
	_, err = k.Get(ctx, "/short", nil)
	wantCode(t, err, v2client.ErrorCodeKeyNotFound)
}
