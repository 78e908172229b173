package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/kv/raftlog"
)

// movable is a cluster of three whose members live at addresses of their own, and
// move.
type movable struct {
	t       *testing.T
	cfgs    []Config
	members []*runningMember
}

// founded starts the cluster at 127.0.X.1 to 127.0.X.3.
func founded(t *testing.T, x int, change func(*Config)) *movable {
	t.Helper()
	c := &movable{t: t}
	t.Cleanup(c.logs)
	var entries []string
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		cfg := alone(t, name, filepath.Join(t.TempDir(), name))
		cfg.Engine.TickMs, cfg.Engine.ElectionMs = 50, 500
		if change != nil {
			change(&cfg)
		}
		c.cfgs = append(c.cfgs, cfg)
		c.place(i, x)
		entries = append(entries, name+"="+c.peer(i))
	}
	for i := range c.cfgs {
		c.cfgs[i].Engine.InitialCluster = strings.Join(entries, ",")
	}
	c.run(0, 1, 2)
	c.put("/founded")
	return c
}

// place gives a member an address, as a new lease of its machine would.
func (c *movable) place(i, x int) {
	e := c.cfgs[i].Engine
	e.ListenPeerUrls = mustURLs(fmt.Sprintf("http://127.0.%d.%d:23800", x, i+1))
	e.ListenClientUrls = mustURLs(fmt.Sprintf("http://127.0.%d.%d:23790", x, i+1))
}

func (c *movable) peer(i int) string { return c.cfgs[i].Engine.ListenPeerUrls[0].String() }

// run starts members and waits until they are ready.
func (c *movable) run(which ...int) {
	c.t.Helper()
	if c.members == nil {
		c.members = make([]*runningMember, 3)
	}
	readies := map[int]chan struct{}{}
	for _, i := range which {
		c.members[i], readies[i], _ = launch(c.t, c.cfgs[i])
	}
	for _, i := range which {
		select {
		case <-readies[i]:
		case <-time.After(30 * time.Second):
			c.t.Fatalf("n%d is not ready", i+1)
		}
	}
}

// logs shows what the members said, if that is of interest.
func (c *movable) logs() {
	for i, m := range c.members {
		if c.t.Failed() && m != nil {
			c.t.Logf("n%d:\n%s", i+1, m.log)
		}
	}
}

func (c *movable) stop(which ...int) {
	c.t.Helper()
	for _, i := range which {
		if err := c.members[i].stop(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// cutPower ends all members with no more left of each than is on its disk, at a
// moment when what each has applied has come to its database. As a rule that is ahead
// of what its log says is committed: the log notes that with the next entry.
func (c *movable) cutPower() {
	c.t.Helper()
	left := make([]string, len(c.cfgs))
	c.put("/quiet") // an entry that changes nothing does not bring the database up to date
	for i, cfg := range c.cfgs {
		eventually(c.t, 20*time.Second, "the database has all that is committed", func() bool {
			left[i] = filepath.Join(c.t.TempDir(), "disk")
			if err := copyDisk(cfg.Engine.Dir, left[i]); err != nil {
				c.t.Fatal(err)
			}
			return ahead(c.t, left[i])
		})
	}
	c.stop(0, 1, 2)
	for i, cfg := range c.cfgs {
		if err := errors.Join(os.RemoveAll(cfg.Engine.Dir), os.Rename(left[i], cfg.Engine.Dir)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// copyDisk copies a data directory, without the emptiness at the end of its files.
func copyDisk(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, bytes.TrimRight(raw, "\x00"), 0o600); err != nil {
			return err
		}
		return os.Truncate(target, int64(len(raw)))
	})
}

// ahead tells whether a data directory has applied all that its log says is
// committed, and most often what it does not say yet.
func ahead(t *testing.T, dir string) bool {
	t.Helper()
	var h Holding
	if err := h.readDatabase(dbPath(dir)); err != nil {
		t.Logf("copied while it was written: %v", err)
		return false
	}
	state, last, err := raftlog.End(walDir(dir, ""))
	return err == nil && state.GetCommit() <= h.Applied && h.Applied <= last
}

func (c *movable) put(key string) {
	c.t.Helper()
	if err := putAt(c.t, c.members[0], key); err != nil {
		c.t.Fatalf("put %s: %v", key, err)
	}
}

func putAt(t *testing.T, m *runningMember, key string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := v3(t, m).Put(ctx, key, "1")
	return err
}

// whole checks that every member has every member on record where it is, and every
// key.
func (c *movable) whole(keys ...string) {
	c.t.Helper()
	want := map[string]bool{}
	for i := range c.cfgs {
		want[c.peer(i)] = true
	}
	for i, m := range c.members {
		client := v3(c.t, m)
		eventually(c.t, 15*time.Second, fmt.Sprintf("the addresses in the list of n%d", i+1), func() bool {
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			defer cancel()
			list, err := client.MemberList(ctx)
			if err != nil {
				return false
			}
			n := 0
			for _, m := range list.Members {
				if len(m.PeerURLs) == 1 && want[m.PeerURLs[0]] {
					n++
				}
			}
			return n == 3
		})
		for _, key := range keys {
			got, err := client.Get(c.t.Context(), key, clientv3.WithSerializable())
			if err != nil || len(got.Kvs) != 1 {
				c.t.Errorf("n%d: %s: %v, %v", i+1, key, got, err)
			}
		}
	}
}

func TestOneMoves(t *testing.T) {
	t.Parallel()
	c := founded(t, 10, nil)
	c.stop(2)
	c.place(2, 11)
	c.put("/meanwhile")
	c.run(2)
	c.put("/after")
	c.whole("/founded", "/meanwhile", "/after")
}

func TestTwoMove(t *testing.T) {
	t.Parallel()
	c := founded(t, 20, nil)
	c.stop(1, 2)
	c.place(1, 21)
	c.place(2, 21)
	c.run(1, 2)
	c.put("/after")
	c.whole("/founded", "/after")
}

// All members come back at other addresses, again and again, and each knows but one
// place where another may be.
func TestAllMove(t *testing.T) {
	t.Parallel()
	c := founded(t, 30, nil)
	for _, x := range []int{31, 32} {
		c.stop(0, 1, 2)
		for i := range c.cfgs {
			c.place(i, x)
		}
		for i := range c.cfgs {
			c.cfgs[i].PeerHints = []string{c.peer((i + 1) % 3)}
		}
		c.run(0, 1, 2)
		key := fmt.Sprintf("/after/%d", x)
		c.put(key)
		c.whole("/founded", key)
	}
}

// The power fails, and two machines come back before the third, each time at other
// addresses: there, and back again.
func TestAllMoveAfterPowerCuts(t *testing.T) {
	t.Parallel()
	c := founded(t, 70, nil)
	for _, x := range []int{71, 70, 71} {
		c.cutPower()
		for i := range c.cfgs {
			c.place(i, x)
		}
		for i := range c.cfgs {
			c.cfgs[i].PeerHints = []string{c.peer((i + 1) % 3)}
		}
		c.run(0, 1)
		c.run(2)
		key := fmt.Sprintf("/after/%d", x)
		c.put(key)
		c.whole("/founded", key)
	}
}

// The same with a service that the members tell where they are, as the discovery
// service is.
func TestAllMoveAndTell(t *testing.T) {
	t.Parallel()
	told := newBoard()
	c := founded(t, 40, func(cfg *Config) { cfg.Hints = []Hints{told.hints()} })
	c.stop(0, 1, 2)
	for i := range c.cfgs {
		c.place(i, 41)
	}
	c.run(0, 1, 2)
	c.put("/after")
	c.whole("/founded", "/after")
}

// The members' addresses go round: each comes back where another was.
func TestAddressesGoRound(t *testing.T) {
	t.Parallel()
	c := founded(t, 50, nil)
	c.stop(0, 1, 2)
	e0, e1, e2 := c.cfgs[0].Engine, c.cfgs[1].Engine, c.cfgs[2].Engine
	e0.ListenPeerUrls, e1.ListenPeerUrls, e2.ListenPeerUrls = e1.ListenPeerUrls, e2.ListenPeerUrls, e0.ListenPeerUrls
	c.run(0, 1, 2)
	c.put("/after")
	c.whole("/founded", "/after")
}
