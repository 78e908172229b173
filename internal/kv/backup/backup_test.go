package backup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flotilla/client/keys"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
	"flotilla/internal/kv/raftlog"
	"flotilla/internal/logx"
)

// store is a member that runs in this process.
type store struct {
	dir  string
	url  string
	stop func()
}

// start runs the member name on the directory until stop, or the end of the test.
func start(t *testing.T, name, dir string) store {
	t.Helper()
	cfg, err := member.Alone(name, dir, []string{"http://127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m := member.New(cfg, member.Deps{Log: logx.Discard()})
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- m.Run(ctx, func() { close(ready) }) }()
	stopped := false
	stop := func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-ended; err != nil {
			t.Errorf("member: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("the member is not ready")
	}
	return store{dir, m.ClientURLs()[0], stop}
}

func (s store) v3(t *testing.T) clientv3.Config {
	t.Helper()
	return clientv3.Config{Endpoints: []string{s.url}, DialTimeout: 2 * time.Second, Logger: zap.NewNop()}
}

func (s store) v2(t *testing.T) *keys.Client {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{s.url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fill writes a little of everything and returns what reading it gives.
func fill(t *testing.T, s store) string {
	t.Helper()
	c, ctx := s.v2(t), t.Context()
	must := func(_ *keys.Response, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		must(c.Set(ctx, fmt.Sprintf("/many/%02d", i), strings.Repeat("x", i), keys.SetOptions{}))
	}
	must(c.Set(ctx, "/a", "1", keys.SetOptions{TTL: time.Hour}))
	must(c.Set(ctx, "/empty", "", keys.SetOptions{Dir: true}))
	must(c.Set(ctx, "/gone", "1", keys.SetOptions{}))
	must(c.Delete(ctx, "/gone", keys.DeleteOptions{}))
	return tree(t, s)
}

// tree is all keys with values and indexes, and whether the TTL of /a still runs.
func tree(t *testing.T, s store) string {
	t.Helper()
	r, err := s.v2(t).Get(t.Context(), "/", keys.GetOptions{Recursive: true, Sorted: true})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var list func(*keys.Node)
	list = func(n *keys.Node) {
		value := ""
		if n.Value != nil {
			value = *n.Value
		}
		fmt.Fprintf(&b, "%s dir=%t %q [%d %d] ttl=%t\n", n.Key, n.Dir, value, n.CreatedIndex, n.ModifiedIndex, n.TTL > 3000)
		for _, child := range n.Nodes {
			list(child)
		}
	}
	list(r.Node)
	return b.String()
}

// A running member gives a backup, and another name starts with it: all keys, all
// indexes, the time to live, and what a watch can look back on.
func TestRunning(t *testing.T) {
	dir := t.TempDir()
	s := start(t, "n1", filepath.Join(dir, "data"))
	want := fill(t, s)
	made := Dir{Data: filepath.Join(dir, "backup", "b1")}
	info, err := Make(t.Context(), Running(s.v3(t), func(err error) { t.Errorf("warned of %v", err) }), made, true)
	if err != nil {
		t.Fatal(err)
	}
	if info.Keys < 21 || info.Revision < 24 {
		t.Errorf("info %+v", info)
	}
	if err := os.Remove(filepath.Dir(made.Data)); !strings.Contains(fmt.Sprint(err), "not empty") {
		t.Errorf("the place of the backup: %v", err)
	}
	litter, _ := filepath.Glob(filepath.Join(dir, "backup", ".*"))
	if len(litter) > 0 {
		t.Errorf("left behind: %s", litter)
	}

	restored := start(t, "other", made.Data)
	if got := tree(t, restored); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	w := restored.v2(t).Watch("/gone", keys.WatchOptions{After: 1})
	if r, err := w.Next(t.Context()); err != nil || r.Action != "set" {
		t.Errorf("history: %+v, %v", r, err)
	}
	if _, err := restored.v2(t).Set(t.Context(), "/new", "1", keys.SetOptions{}); err != nil {
		t.Error(err)
	}
	if old, fresh := clusterID(t, s), clusterID(t, restored); old == fresh {
		t.Errorf("both clusters are %x", old)
	}
}

func clusterID(t *testing.T, s store) uint64 {
	t.Helper()
	c, err := clientv3.New(s.v3(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list.Header.ClusterId
}

// The files of a member give a backup when it does not run, with what only the log
// holds; when it runs they are refused.
func TestStopped(t *testing.T) {
	dir := t.TempDir()
	from := Dir{Data: filepath.Join(dir, "data")}
	s := start(t, "n1", from.Data)
	want := fill(t, s)
	made := Dir{Data: filepath.Join(dir, "b1"), WAL: filepath.Join(dir, "b1-wal")}

	_, err := Make(t.Context(), Stopped(from), made, true)
	wantError(t, err, "in use: its member runs", "leave out --data-dir")
	s.stop()
	if _, err := Make(t.Context(), Stopped(from), made, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(made.Data, "member", "wal")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log below the data: %v", err)
	}
	if info, err := replay(t.Context(), made); err != nil || info.Keys < 21 {
		t.Errorf("replay: %+v, %v", info, err)
	}
	_, err = Make(t.Context(), Stopped(from), made, true)
	wantError(t, err, "there is something already", "")

	again := Dir{Data: filepath.Join(dir, "b2")}
	if _, err := Make(t.Context(), Stopped(from), again, false); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, start(t, "default", again.Data)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What the database lacks is taken from the log: here all of it since an older copy
// of the database.
func TestLogAheadOfDatabase(t *testing.T) {
	dir := t.TempDir()
	from := Dir{Data: filepath.Join(dir, "data")}
	s := start(t, "n1", from.Data)
	s.stop()
	older, err := os.ReadFile(from.db())
	if err != nil {
		t.Fatal(err)
	}
	s = start(t, "n1", from.Data)
	want := fill(t, s)
	s.stop()
	if err := os.WriteFile(from.db(), older, 0o600); err != nil {
		t.Fatal(err)
	}
	made := Dir{Data: filepath.Join(dir, "b1")}
	if _, err := Make(t.Context(), Stopped(from), made, true); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, start(t, "n1", made.Data)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A member that is killed leaves a log behind whose last entries were acknowledged and
// do not count as committed yet: they are in the backup.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	s := start(t, "n1", filepath.Join(dir, "data"))
	want := fill(t, s)
	// What the files hold now is what they would hold after a kill.
	left := Dir{Data: filepath.Join(dir, "left")}
	if err := os.CopyFS(left.Data, os.DirFS(filepath.Join(dir, "data"))); err != nil {
		t.Fatal(err)
	}
	state, last, err := raftlog.End(left.wal())
	if err != nil {
		t.Fatal(err)
	}
	if state.GetCommit() >= last {
		t.Fatalf("the log says that entry %d is committed, and ends with %d: this shows nothing", state.GetCommit(), last)
	}
	s.stop()
	made := Dir{Data: filepath.Join(dir, "b1")}
	if _, err := Make(t.Context(), Stopped(left), made, true); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, start(t, "n1", made.Data)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	to := Dir{Data: filepath.Join(dir, "b")}
	_, err := Make(t.Context(), Stopped(Dir{Data: filepath.Join(dir, "none")}), to, true)
	wantError(t, err, "no member's data in", "--data-dir")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := url.URL{Scheme: "http", Host: l.Addr().String()}
	l.Close()
	cfg := clientv3.Config{Endpoints: []string{away.String()}, DialTimeout: 200 * time.Millisecond}
	_, err = Make(t.Context(), Running(cfg, func(error) {}), to, true)
	wantError(t, err, "take a snapshot of the running store: "+away.String(), "--data-dir")
	if _, err := os.Stat(to.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// A snapshot that changed on its way is not made a backup of.
func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	s := start(t, "n1", filepath.Join(dir, "data"))
	fill(t, s)
	to := Dir{Data: filepath.Join(dir, "b")}
	_, err := Make(t.Context(), damaged{Running(s.v3(t), func(error) {})}, to, true)
	wantError(t, err, "snapshot", "")
	if _, err := os.Stat(to.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// damaged changes a byte in the middle of what another source took.
type damaged struct{ Source }

func (d damaged) take(ctx context.Context, path string) (bool, error) {
	hashed, err := d.Source.take(ctx, path)
	if err != nil {
		return false, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	raw[len(raw)/2] ^= 1
	return hashed, os.WriteFile(path, raw, 0o600)
}

func wantError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(strings.Join(fault.Hints(err), "\n"), hint) {
		t.Errorf("error %v, hints %q; want %q and %q", err, fault.Hints(err), text, hint)
	}
}
