package member

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// clusterConfigs is n members n1, n2 ... that found a cluster.
func clusterConfigs(t *testing.T, n int) []Config {
	t.Helper()
	var entries []string
	cfgs := make([]Config, n)
	for i := range cfgs {
		name := fmt.Sprintf("n%d", i+1)
		peer := freeURL(t)
		cfgs[i] = alone(t, name, filepath.Join(t.TempDir(), name))
		cfgs[i].Engine.ListenPeerUrls = mustURLs(peer)
		entries = append(entries, name+"="+peer)
	}
	for i := range cfgs {
		cfgs[i].Engine.InitialCluster = strings.Join(entries, ",")
	}
	return cfgs
}

// cluster starts n members together.
func cluster(t *testing.T, n int) []*runningMember {
	t.Helper()
	members, readies := make([]*runningMember, n), make([]chan struct{}, n)
	for i, cfg := range clusterConfigs(t, n) {
		members[i], readies[i], _ = launch(t, cfg)
	}
	for i, ready := range readies {
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			t.Fatalf("member %d not ready\n%s", i+1, members[i].log)
		}
	}
	return members
}

func TestThreeMembers(t *testing.T) {
	members := cluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := v3(t, members[0]).Put(ctx, "/a", "1"); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		got, err := v3(t, m).Get(ctx, "/a")
		if err != nil || len(got.Kvs) != 1 {
			t.Errorf("member %d: %v, %v", i+1, got, err)
		}
		noComplaints(t, m)
	}
	// One of three may go; the rest says so once and works on.
	if err := members[0].stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	noComplaints(t, members[0])
	if _, err := v3(t, members[1]).Put(ctx, "/a", "2"); err != nil {
		t.Errorf("with two of three: %v", err)
	}
	// One alone says why it is of no use.
	if err := members[1].stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	why := regexp.MustCompile(`^\{"health":"false","reason":"no leader for [0-9]+s; 1 of 3 members reachable, this one among them"\}\n$`)
	eventually(t, 20*time.Second, "the reason in /health", func() bool {
		status, text := health(members[2].ClientURLs()[0])
		return status == http.StatusServiceUnavailable && why.MatchString(text)
	})
}

// A member that its cluster removes ends, and says why.
func TestRemovedMember(t *testing.T) {
	t.Parallel()
	members := cluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := v3(t, members[0])
	list, err := c.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var id uint64
	for _, m := range list.Members {
		if m.Name == "n3" {
			id = m.ID
		}
	}
	if err := removeWhenHealthy(ctx, c, id); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		<-members[2].ended
		ended <- members[2].stop()
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), ErrRemoved.Error()) {
			t.Errorf("the removed member ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatalf("the removed member runs on\n%s", members[2].log)
	}
}

// removeWhenHealthy tries until the cluster has been whole for long enough to let
// a member go (--strict-reconfig-check).
func removeWhenHealthy(ctx context.Context, c *clientv3.Client, id uint64) error {
	retry := time.NewTicker(200 * time.Millisecond)
	defer retry.Stop()
	for {
		_, err := c.MemberRemove(ctx, id)
		if err == nil || !strings.Contains(err.Error(), "unhealthy cluster") {
			return err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return err
		}
	}
}
