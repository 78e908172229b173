package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/client/keys"
	"flotilla/internal/kv/bootstrap"
	"flotilla/internal/kv/member"
	"flotilla/internal/logx"
)

// Who founds a cluster with whose discovery: ours with ours, a stock etcd 3.4 with
// ours, ours with a stock etcd's key space. (Members of 3.4 and 3.7 cannot be
// in one cluster.)
func TestClustersOfThree(t *testing.T) {
	base := start(t, storeOf(t), nil)
	t.Run("ours with ours", func(t *testing.T) {
		t.Parallel()
		wantTrio(t, ours(t, token3(t, base)))
	})
	t.Run("stock with ours", func(t *testing.T) {
		t.Parallel()
		wantTrio(t, stock(t, token3(t, base)))
	})
	t.Run("ours with stock", func(t *testing.T) {
		t.Parallel()
		registry := stockEtcd(t, "registry") + "/v2/keys/_etcd/registry/t1"
		if status, body := say(t, "PUT", registry+"/_config/size", map[string][]string{"value": {"3"}}); status != http.StatusCreated {
			t.Fatal(body)
		}
		wantTrio(t, ours(t, registry))
	})
}

func token3(t *testing.T, base string) string {
	token, err := ask(t.Context(), base, 3, defaults().TLS)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// ours starts three members of ours with the token and returns a client URL.
func ours(t *testing.T, token string) string {
	var urls []string
	readies := make(chan string, 3)
	for i := range 3 {
		urls = append(urls, ourMember(t, fmt.Sprintf("d%d", i+1), token, readies))
	}
	for range 3 {
		select {
		case <-readies:
		case <-time.After(30 * time.Second):
			t.Fatal("no cluster after 30 s")
		}
	}
	return urls[0]
}

// ourMember joins and runs a member until the test ends.
func ourMember(t *testing.T, name, token string, readies chan<- string) (clientURL string) {
	client, peer := freeURL(t), freeURL(t)
	cfg, err := member.Alone(name, filepath.Join(t.TempDir(), "data"), []string{client})
	if err != nil {
		t.Fatal(err)
	}
	e := cfg.Engine
	e.ListenPeerUrls = types.MustNewURLs([]string{peer})
	e.AdvertisePeerUrls = e.ListenPeerUrls
	e.UnsafeNoFsync = true
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cluster, err := bootstrap.Join(ctx, bootstrap.Config{URL: token, Name: name, PeerURLs: []string{peer}, Dir: e.Dir, Log: logx.Discard()})
		if err == nil {
			e.InitialCluster, e.InitialClusterToken = cluster.Initial, cluster.Token
			err = member.New(cfg, member.Deps{Log: logx.Discard()}).Run(ctx, func() { readies <- name })
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("member %s: %v", name, err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return client
}

// stock starts three of Debian's with the token and returns a client URL.
func stock(t *testing.T, token string) string {
	for i := range 2 {
		stockEtcd(t, fmt.Sprintf("d%d", i+1), "--discovery", token)
	}
	return stockEtcd(t, "d3", "--discovery", token)
}

// stockEtcd runs Debian's etcd until the test ends and returns its client URL.
func stockEtcd(t *testing.T, name string, args ...string) string {
	t.Helper()
	client, peer := freeURL(t), freeURL(t)
	cmd := exec.Command("/usr/bin/etcd", append([]string{
		"--enable-v2", "--name", name, "--data-dir", t.TempDir(), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
	}, args...)...)
	if len(args) == 0 {
		cmd.Args = append(cmd.Args, "--initial-cluster", name+"="+peer)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr, cmd.Stdout = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("Debian's etcd 3.4 (package etcd-server) is needed: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s:\n%s", name, text)
		}
	})
	if len(args) == 0 {
		untilServed(t, client)
	}
	return client
}

// freeURL is an address of loopback that nobody uses now.
func freeURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// untilServed waits until a store answers with what a majority confirms.
func untilServed(t *testing.T, url string) *keys.Client {
	t.Helper()
	c, err := keys.New(keys.Config{Endpoints: []string{url}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		_, err := c.Get(t.Context(), "/", keys.GetOptions{Quorum: true})
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// wantTrio wants a cluster of d1, d2 and d3 that takes writes.
func wantTrio(t *testing.T, url string) {
	t.Helper()
	c := untilServed(t, url)
	if _, err := c.Set(t.Context(), "/a", "1", keys.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	members, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	if text := strings.Join(names, " "); len(names) != 3 || !strings.Contains(text, "d1") || !strings.Contains(text, "d2") || !strings.Contains(text, "d3") {
		t.Errorf("members %s", text)
	}
}
