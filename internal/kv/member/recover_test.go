package member

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/internal/logx"
)

// losing is a cluster of three with some keys, of which two members are gone, and
// what the third holds.
func losing(t *testing.T, x int) (c *movable, h Holding) {
	t.Helper()
	// The check would have each new member wait until the cluster has been whole for 5 s.
	c = founded(t, x, func(cfg *Config) { cfg.Engine.StrictReconfigCheck = false })
	for i := range 20 {
		c.put(fmt.Sprintf("/kept/%d", i))
	}
	// The survivor is the one that was cut off last: it holds all of it.
	eventually(t, 20*time.Second, "all keys at the survivor", func() bool {
		got, err := v3(t, c.members[0]).Get(t.Context(), "/kept/19")
		return err == nil && len(got.Kvs) == 1
	})
	c.stop(1, 2, 0)
	h, err := Hold(t.Context(), c.cfgs[0].Engine.Dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return c, h
}

func (c *movable) recovered(h Holding) {
	c.t.Helper()
	aside, err := Recover(c.t.Context(), h, "", logx.Discard())
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := Hold(c.t.Context(), aside, ""); err != nil {
		c.t.Errorf("the data of before at %s: %v", aside, err)
	}
	c.cfgs[0].Engine.InitialCluster = ""
	c.run(0)
}

// keeps checks that a member has all the keys.
func (c *movable) keeps(i int) {
	c.t.Helper()
	for n := range 20 {
		got, err := v3(c.t, c.members[i]).Get(c.t.Context(), fmt.Sprintf("/kept/%d", n))
		if err != nil || len(got.Kvs) != 1 {
			c.t.Errorf("n%d: key %d: %v, %v", i+1, n, got, err)
		}
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	c, h := losing(t, 60)
	if h.Name != "n1" || h.Keys < 21 || h.Revision < 22 || h.Last < h.Committed || h.Committed < h.Applied || h.Applied == 0 || len(h.Members) != 3 || h.Quorum() {
		t.Errorf("holds %+v", h)
	}
	c.run(1, 2)
	h, err := Hold(t.Context(), c.cfgs[0].Engine.Dir, "")
	if err != nil || !h.Quorum() {
		t.Errorf("with the two others back: %+v, %v", h, err)
	}
}

// Two of three are destroyed for good: the third goes on alone with all it held, and
// two new members join it.
func TestRecoverAndNewMembers(t *testing.T) {
	t.Parallel()
	c, h := losing(t, 61)
	c.recovered(h)
	c.keeps(0)
	before, err := v3(t, c.members[0]).Get(t.Context(), "/kept/0")
	if err != nil || before.Header.Revision < h.Revision {
		t.Errorf("revision %d after %d: %v", before.Header.Revision, h.Revision, err)
	}
	entries := []string{"n1=" + c.peer(0)}
	for _, i := range []int{1, 2} {
		c.place(i, 62)
		client := v3(t, c.members[0])
		eventually(t, 20*time.Second, "a cluster that is well enough to take one in", func() bool {
			_, err := client.MemberAdd(t.Context(), []string{c.peer(i)})
			return err == nil
		})
		name := fmt.Sprintf("new%d", i)
		entries = append(entries, name+"="+c.peer(i))
		e := c.cfgs[i].Engine
		e.Name, e.Dir, e.ClusterState = name, filepath.Join(t.TempDir(), name), "existing"
		e.InitialCluster = strings.Join(entries, ",")
		c.run(i)
	}
	c.put("/after")
	c.whole("/kept/0", "/kept/19", "/after")
}

// The two come back with their old data: they put it aside and join anew.
func TestRecoverAndOldMembers(t *testing.T) {
	t.Parallel()
	c, h := losing(t, 63)
	c.recovered(h)
	c.put("/since")
	c.run(1, 2)
	c.put("/after")
	c.whole("/kept/0", "/kept/19", "/since", "/after")
	for _, i := range []int{1, 2} {
		if found, _ := filepath.Glob(filepath.Join(c.cfgs[i].Engine.Dir, "before-rejoin-*", "member", "wal")); len(found) != 1 {
			t.Errorf("n%d: old data at %v", i+1, found)
		}
		eventually(t, 10*time.Second, "a vote", func() bool {
			_, err := os.Stat(filepath.Join(c.cfgs[i].Engine.Dir, rejoinFile))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	// All three vote: any one may go.
	c.stop(0)
	if err := putAt(t, c.members[1], "/without-the-survivor"); err != nil {
		t.Error(err)
	}
}
