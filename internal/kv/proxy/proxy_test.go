package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flotilla/client/keys"
	"flotilla/internal/kv/proxy"
)

// dialV3 is a v3 client of the URL.
func dialV3(t *testing.T, to string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{to}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// load is clients that do not stop, and what became of their requests.
type load struct {
	reads, quorum, writes, v3       atomic.Int64 // that succeeded
	lostReads, lostQuorum           atomic.Int64
	lostWrites, lostV3, readOldOnes atomic.Int64
	why                             sync.Map // texts of failures

	stop context.CancelFunc
	wg   sync.WaitGroup
}

const writers = 4

// startLoad begins to read and write through the proxy. Each writer reads back what
// it wrote.
func startLoad(t *testing.T, to string) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop}
	run := func(ok, lost *atomic.Int64, do func(n int) error) {
		l.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := do(n); err == nil {
					ok.Add(1)
				} else if ctx.Err() == nil {
					lost.Add(1)
					l.why.Store(err.Error(), true)
				}
			}
		})
	}
	for range 2 {
		c := clientOf(t, to)
		run(&l.reads, &l.lostReads, func(int) error {
			_, err := c.Get(ctx, "/load", keys.GetOptions{Recursive: true})
			return err
		})
		run(&l.quorum, &l.lostQuorum, func(int) error {
			_, err := c.Get(ctx, "/load/0", keys.GetOptions{Quorum: true})
			return err
		})
	}
	for i := range writers {
		c := clientOf(t, to)
		key := fmt.Sprintf("/load/%d", i)
		run(&l.writes, &l.lostWrites, func(n int) error {
			// CreateInOrder and the like are not sent again by the client, so nor is this.
			resp, err := c.CreateInOrder(ctx, key, fmt.Sprint(n), 0)
			if err != nil {
				return err
			}
			back, err := c.Get(ctx, resp.Node.Key, keys.GetOptions{})
			if ctx.Err() == nil && (err != nil || *back.Node.Value != fmt.Sprint(n)) {
				l.readOldOnes.Add(1)
				l.why.Store(fmt.Sprintf("not read back: %v", err), true)
			}
			return nil
		})
	}
	v3 := dialV3(t, to)
	run(&l.v3, &l.lostV3, func(n int) error {
		_, err := v3.Put(ctx, "/v3load", fmt.Sprint(n))
		return err
	})
	return l
}

// end stops the load and says what became of it.
func (l *load) end() string {
	l.stop()
	l.wg.Wait()
	var why []string
	l.why.Range(func(k, _ any) bool { why = append(why, k.(string)); return true })
	slices.Sort(why)
	return fmt.Sprintf("reads %d (%d lost), quorum reads %d (%d lost), writes %d (%d lost), v3 puts %d (%d lost), not read back %d\n%s",
		l.reads.Load(), l.lostReads.Load(), l.quorum.Load(), l.lostQuorum.Load(), l.writes.Load(), l.lostWrites.Load(),
		l.v3.Load(), l.lostV3.Load(), l.readOldOnes.Load(), strings.Join(why, "\n"))
}

// Members are killed one by one and come back. No read is lost. A write is lost at
// most where it was under way at a kill, and once more where one was under way when
// the leader changed for that: two for each writer and kill, v3 as v2: no
// call is handed to a member that is only starting. Watches, v2 and v3, hear of every write once and in order.
func TestMembersDie(t *testing.T) {
	cluster := startTrio(t, 3)
	p := startProxy(t, nil, cluster.peers()...)
	c := clientOf(t, p.url)
	if _, err := c.Set(t.Context(), "/load", "", keys.SetOptions{Dir: true}); err != nil {
		t.Fatal(err)
	}
	until(t, "reads work", func() bool { _, err := c.Get(t.Context(), "/load", keys.GetOptions{}); return err == nil })
	if _, err := c.Set(t.Context(), "/load/0", "", keys.SetOptions{Dir: true}); err != nil {
		t.Fatal(err)
	}
	v2, v3 := watchV2(t, c), watchV3(t, dialV3(t, p.url))
	l := startLoad(t, p.url)
	for _, m := range cluster.nodes {
		before := l.writes.Load()
		m.kill()
		until(t, "writes go on without "+m.name, func() bool { return l.writes.Load() > before+20 })
		m.start(t, "--initial-cluster", cluster.initial)
		until(t, m.name+" is back", func() bool { return healthy(m.client) && slices.Contains(endpoints(t, p.url), m.client) })
	}
	report := l.end()
	t.Log(report)
	if l.lostReads.Load()+l.lostQuorum.Load()+l.readOldOnes.Load() > 0 {
		t.Error("reads were lost")
	}
	if kills := int64(len(cluster.nodes)); l.lostWrites.Load() > 2*writers*kills || l.lostV3.Load() > 2*kills {
		t.Error("more writes were lost than were under way")
	}
	end, err := c.Set(t.Context(), "/load/end", "", keys.SetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := history(t, cluster.nodes[0].client, end.Node.ModifiedIndex)
	for what, heard := range map[string][]uint64{"v2": v2(end.Node.ModifiedIndex), "v3": v3(end.Node.ModifiedIndex)} {
		if !slices.Equal(heard, all) {
			t.Errorf("the %s watch has heard %d events, there were %d", what, len(heard), len(all))
		}
	}
}

// watchV2 watches /load from now on. What it returns gives the indexes of the
// events until one.
func watchV2(t *testing.T, c *keys.Client) func(until uint64) []uint64 {
	now, err := c.Get(t.Context(), "/load", keys.GetOptions{Quorum: true})
	if err != nil {
		t.Fatal(err)
	}
	w := c.Watch("/load", keys.WatchOptions{After: now.Index, Recursive: true})
	return func(until uint64) (heard []uint64) {
		for len(heard) == 0 || heard[len(heard)-1] < until {
			e, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			heard = append(heard, e.Node.ModifiedIndex)
		}
		return heard
	}
}

// watchV3 is watchV2 over v3, and listens from the beginning.
func watchV3(t *testing.T, c *clientv3.Client) func(until uint64) []uint64 {
	now, err := c.Get(t.Context(), "/load")
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan uint64, 1<<20)
	w := c.Watch(t.Context(), "/load/", clientv3.WithPrefix(), clientv3.WithRev(now.Header.Revision+1))
	go func() {
		for resp := range w {
			for _, e := range resp.Events {
				events <- uint64(e.Kv.ModRevision)
			}
		}
	}()
	return func(until uint64) (heard []uint64) {
		for len(heard) == 0 || heard[len(heard)-1] < until {
			select {
			case i := <-events:
				heard = append(heard, i)
			case <-time.After(20 * time.Second):
				t.Fatalf("the v3 watch has heard %d events and is silent", len(heard))
			}
		}
		return heard
	}
}

// history is the indexes of the entries below /load, until one, as a member has them.
func history(t *testing.T, member string, until uint64) (all []uint64) {
	t.Helper()
	resp, err := dialV3(t, member).Get(t.Context(), "/load/", clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend), clientv3.WithRev(int64(until)))
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		all = append(all, uint64(kv.ModRevision))
	}
	return all
}

// endpoints is what the proxy says about itself.
func endpoints(t *testing.T, to string) []string {
	t.Helper()
	_, body, err := get(to + "/v2/config/local/proxy")
	var answer struct{ Endpoints []string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &answer)
	}
	if err != nil || !strings.HasSuffix(body, "\n") {
		t.Fatalf("%q: %v", body, err)
	}
	return answer.Endpoints
}

// With all members away reads go on and writes are refused in plain words; when a
// member is back, also after a restart of the proxy that is given no peers, all works.
func TestAllAway(t *testing.T) {
	t.Parallel()
	cluster := startTrio(t, 1)
	m := cluster.nodes[0]
	var dir string
	p := startProxy(t, func(c *proxy.Config) { dir = c.Dir }, cluster.peers()...)
	c := clientOf(t, p.url)
	if _, err := c.Set(t.Context(), "/a", "1", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the proxy reads by itself", func() bool { return local(p.url+"/v2/keys/a", m) })
	m.kill()
	for _, test := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/v2/keys/a", 200, `"value":"1"`},
		{"GET", "/v2/keys/a?quorum=false", 200, `"value":"1"`},
		{"GET", "/v2/keys/none", 404, `"errorCode":100`},
		{"PUT", "/v2/keys/a", 502, `{"message":"httpproxy: unable to get response from 1 endpoint(s)"}`},
		{"PUT", "/v2/keys/a", 503, `{"message":"httpproxy: zero endpoints currently available"}`},
		{"GET", "/v2/keys/a?quorum=true", 503, `zero endpoints`},
		{"GET", "/v2/members", 503, `zero endpoints`},
		{"GET", "/v2/config/local/proxy", 200, `{"endpoints":[]}`},
		{"GET", "/v2/keys/a", 200, `"value":"1"`},
	} {
		status, body, err := do(test.method, p.url+test.path, url.Values{"value": {"2"}})
		if test.status == 503 && test.want == "zero endpoints" {
			test.want = "endpoint"
		}
		if err != nil || status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d %s %v, want %d %s", test.method, test.path, status, body, err, test.status, test.want)
		}
	}
	p.stop()
	kept, err := os.ReadFile(filepath.Join(dir, "proxy", "cluster"))
	if want := fmt.Sprintf(`{"PeerURLs":[%q]}`, m.peer); err != nil || string(kept) != want {
		t.Errorf("kept %s %v, want %s", kept, err, want)
	}
	p = startProxy(t, func(c *proxy.Config) { c.Dir = dir }, "http://127.0.0.1:1")
	if status, body, _ := get(p.url + "/v2/keys/a"); status != 503 {
		t.Errorf("a proxy that knows nothing answers %d %s", status, body)
	}
	m.start(t, "--initial-cluster", cluster.initial)
	until(t, "the member is found by what was kept", func() bool { s, _, err := get(p.url + "/v2/keys/a"); return err == nil && s == 200 })
}

// local says whether a read is answered without the member, which is stopped
// meanwhile.
func local(at string, m *node) bool {
	m.cmd.Process.Signal(syscall.SIGSTOP)
	defer m.cmd.Process.Signal(syscall.SIGCONT)
	if !stopped(m.cmd.Process.Pid) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stopped waits until no thread of a process runs any more: a signal is sent before
// it counts. False if that takes longer than a second.
func stopped(pid int) bool {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(stat string) bool {
			line, err := os.ReadFile(stat)
			_, state, _ := strings.Cut(string(line), ") ")
			return err == nil && !strings.HasPrefix(state, "T")
		}) {
			return true
		}
	}
	return false
}

// Members that are added and removed are followed.
func TestMembershipIsFollowed(t *testing.T) {
	t.Parallel()
	cluster := startTrio(t, 1, "--strict-reconfig-check=false")
	one := cluster.nodes[0]
	var dir string
	p := startProxy(t, func(c *proxy.Config) { c.Refresh = 200 * time.Millisecond; dir = c.Dir }, cluster.peers()...)
	v3 := dialV3(t, p.url)
	two := &node{name: "m2", client: freeURL(t), peer: freeURL(t), dir: filepath.Join(t.TempDir(), "data"), args: one.args}
	if _, err := v3.MemberAdd(t.Context(), []string{two.peer}); err != nil {
		t.Fatal(err)
	}
	two.start(t, "--initial-cluster", cluster.initial+",m2="+two.peer, "--initial-cluster-state", "existing")
	t.Cleanup(two.kill)
	until(t, "the new member is used", func() bool { return slices.Contains(endpoints(t, p.url), two.client) })
	until(t, "the new member is kept in mind", func() bool {
		kept, _ := os.ReadFile(filepath.Join(dir, "proxy", "cluster"))
		return strings.Contains(string(kept), two.peer) && strings.Contains(string(kept), one.peer)
	})
	list, err := v3.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Members {
		if m.PeerURLs[0] == two.peer {
			if _, err := v3.MemberRemove(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "the member that left is forgotten", func() bool { return slices.Equal(endpoints(t, p.url), []string{one.client}) })
	until(t, "and out of mind", func() bool {
		kept, err := os.ReadFile(filepath.Join(dir, "proxy", "cluster"))
		return err == nil && strings.Contains(string(kept), one.peer) && !strings.Contains(string(kept), two.peer)
	})
	c := clientOf(t, p.url)
	if _, err := c.Set(t.Context(), "/a", "1", keys.SetOptions{}); err != nil {
		t.Error(err)
	}
	if members, err := c.Members(t.Context()); err != nil || len(members) != 1 || members[0].Name != "m1" {
		t.Errorf("%v %v", members, err)
	}
}

func TestReadonly(t *testing.T) {
	t.Parallel()
	cluster := startTrio(t, 1)
	p := startProxy(t, func(c *proxy.Config) { c.ReadOnly = true }, cluster.peers()...)
	until(t, "reads work", func() bool { s, _, err := get(p.url + "/v2/keys/"); return err == nil && s == 200 })
	for _, method := range []string{"PUT", "POST", "DELETE", "HEAD", "OPTIONS"} {
		if status, body, err := do(method, p.url+"/v2/keys/a", nil); err != nil || status != 501 || body != "" {
			t.Errorf("%s: %d %q %v, want 501 and nothing", method, status, body, err)
		}
	}
	v3 := dialV3(t, p.url)
	if _, err := v3.Get(t.Context(), "/a"); err != nil {
		t.Error(err)
	}
	if _, err := v3.Put(t.Context(), "/a", "1"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("v3 put: %v", err)
	}
}
