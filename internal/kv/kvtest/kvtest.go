// Package kvtest starts real etcd stores for tests and benchmarks.
package kvtest

import (
	"context"
	"net/url"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// Start runs an etcd of one member on loopback ports that the system picks, with its data
// below the test's directory and without fsync unless a change of the configuration
// says otherwise, until the test ends.
func Start(t testing.TB, change ...func(*embed.Config)) *embed.Etcd {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	cfg.MaxTxnOps = 10_000
	cfg.MaxRequestBytes = 12 << 20
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{any}, []url.URL{any}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{any}, []url.URL{any}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	for _, f := range change {
		f(cfg)
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready after 30 s")
	}
	return e
}

// Run runs what blocks in its Run until the test ends, and returns when it is ready.
func Run(t testing.TB, daemon interface {
	Run(ctx context.Context, ready func()) error
}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- daemon.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("not ready after 30 s")
	}
}

// InProcess is a client that calls the store without a network.
func InProcess(t testing.TB, e *embed.Etcd) *clientv3.Client {
	t.Helper()
	c := v3client.New(e.Server)
	t.Cleanup(func() { c.Close() })
	return c
}

// Dial is a client over gRPC.
func Dial(t testing.TB, e *embed.Etcd) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{e.Clients[0].Addr().String()},
		DialTimeout: 10 * time.Second,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		t.Fatalf("dial etcd: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
