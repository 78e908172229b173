package member

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestDecideDefrag: each row changes one thing of a file that is defragmented.
func TestDecideDefrag(t *testing.T) {
	ready := fileState{size: 150 << 20, inUse: 50 << 20, free: 1 << 30, rate: 3, members: 3, reachable: 3}
	for _, c := range []struct {
		what   string
		change func(*fileState)
		now    bool
		why    string
	}{
		{"as it is", func(*fileState) {}, true, ""},
		{"alone", func(s *fileState) { s.members, s.reachable, s.leads = 1, 1, true }, true, ""},
		{"half is in use", func(s *fileState) { s.inUse = 75 << 20 }, false, ""},
		{"small", func(s *fileState) { s.size, s.inUse = 63<<20, 1<<20 }, false, ""},
		{"too much to copy", func(s *fileState) { s.size, s.inUse = 1<<30, 65<<20 }, false, "65 MiB are in use, and to copy more than 64 MiB takes too long to go unnoticed"},
		{"no room", func(s *fileState) { s.free = 100 << 20 }, false, "there is no room for a copy: 100 MiB free"},
		{"one away", func(s *fileState) { s.reachable = 2 }, false, "2 of 3 members are reachable"},
		{"busy", func(s *fileState) { s.rate = 700 }, false, "700 changes in a second"},
		{"busy for long", func(s *fileState) { s.rate, s.due = 700, time.Hour }, true, ""},
		{"leads", func(s *fileState) { s.leads = true }, false, "the others come first, this member leads"},
		{"leads, others had their turns", func(s *fileState) { s.leads, s.due = true, 2*time.Minute }, true, ""},
	} {
		s := ready
		c.change(&s)
		if now, why := ownDefrag.decide(s); now != c.now || why != c.why {
			t.Errorf("%s: %t %q, want %t %q", c.what, now, why, c.now, c.why)
		}
	}
	if now, _ := (defragRules{}).decide(ready); now {
		t.Error("switched off, and yet")
	}
}

// TestFileShrinks: three members whose history was compacted make their files smaller
// one after the other, the leader last, while clients of each write and read and see
// no error.
func TestFileShrinks(t *testing.T) {
	t.Parallel()
	rules := ownDefrag
	rules.every, rules.least, rules.turn, rules.calm = 200*time.Millisecond, 8<<20, time.Second, 1e6
	members, readies := make([]*runningMember, 3), make([]chan struct{}, 3)
	for i, cfg := range clusterConfigs(t, 3) {
		cfg.Engine.UnsafeNoFsync = true
		members[i], readies[i], _ = launchWith(t, cfg, func(m *Member) { m.defrag = rules })
	}
	for _, ready := range readies {
		<-ready
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	revision := fillStore(ctx, t, v3(t, members[0]), 24)
	if _, err := v3(t, members[0]).Delete(ctx, "/fill/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	seen := clientsOf(ctx, t, members)
	if _, err := v3(t, members[0]).Compact(ctx, revision+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		eventually(t, 40*time.Second, fmt.Sprintf("the file of member %d shrinks\n", i+1), func() bool {
			status, err := v3(t, m).Status(ctx, m.ClientURLs()[0])
			return err == nil && status.DbSize < 8<<20 && strings.Contains(m.log.String(), "the store's file was made smaller")
		})
	}
	requests, slowest := seen()
	t.Logf("%d requests meanwhile, the slowest took %s", requests, slowest)
	if requests == 0 {
		t.Error("nobody asked anything meanwhile")
	}
}

// fillStore writes so many MiB below /fill and returns the revision after it.
func fillStore(ctx context.Context, t testing.TB, c *clientv3.Client, mib int) int64 {
	t.Helper()
	var wg sync.WaitGroup
	var revision atomic.Int64
	value := strings.Repeat("x", 64<<10)
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < mib*16; i += 4 {
				resp, err := c.Put(ctx, fmt.Sprintf("/fill/%d", i), value)
				if err != nil {
					t.Error(err)
					return
				}
				revision.Store(max(revision.Load(), resp.Header.Revision))
			}
		})
	}
	wg.Wait()
	return revision.Load()
}

// clientsOf has a client at each member write and read in turn. The function that it
// returns ends them, and tells how many requests there were and how long the slowest
// took; each that failed has failed the test.
func clientsOf(ctx context.Context, t testing.TB, members []*runningMember) func() (int64, time.Duration) {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var n, slowest atomic.Int64
	for i, m := range members {
		base := fmt.Sprintf("%s/v2/keys/loop/%d", m.ClientURLs()[0], i)
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				began := time.Now()
				err := writeAndRead(base, fmt.Sprint(k))
				if err != nil {
					t.Errorf("member %d: %v", i+1, err)
					return
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
				n.Add(2)
				_ = sleep(ctx, 20*time.Millisecond) // ended by stop
			}
		})
	}
	return func() (int64, time.Duration) {
		stop()
		wg.Wait()
		return n.Load(), time.Duration(slowest.Load())
	}
}

// writeAndRead sets the key and reads it with a quorum. The limit is beyond the store's
// own, so that a machine with other work fails nothing.
func writeAndRead(url, value string) error {
	client := http.Client{Timeout: 10 * time.Second}
	req, err := http.NewRequest(http.MethodPut, url+"?value="+value, nil)
	if err != nil {
		return err
	}
	for _, do := range []func() (*http.Response, error){
		func() (*http.Response, error) { return client.Do(req) },
		func() (*http.Response, error) { return client.Get(url + "?quorum=true") },
	} {
		resp, err := do()
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode >= 300 || !strings.Contains(string(body), `"value":"`+value+`"`) {
			return fmt.Errorf("%s %s", resp.Status, body)
		}
	}
	return nil
}

// BenchmarkDefrag is how long a member with 100 MB in use applies nothing.
func BenchmarkDefrag(b *testing.B) {
	cfg := alone(b, "n1", b.TempDir()+"/data")
	cfg.Engine.UnsafeNoFsync = true
	m := start(b, cfg)
	fillStore(b.Context(), b, v3(b, m), 96)
	for b.Loop() {
		if _, err := v3(b, m).Defragment(b.Context(), m.ClientURLs()[0]); err != nil {
			b.Fatal(err)
		}
	}
}
