package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
	"flotilla/internal/kv/proxy"
)

// maxSocketPath is what fits into an address (unix(7)).
const maxSocketPath = 107

// ownStore is a store of one member in this process. Nobody else reaches it: it
// listens at a socket in its data directory.
func ownStore(dir string, log *slog.Logger) (*member.Member, http.RoundTripper, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(dir, "store.sock")
	if len(socket) > maxSocketPath {
		return nil, nil, fault.Hint(fmt.Errorf("--data-dir %s: %d bytes too long for the socket in it", dir, len(socket)-maxSocketPath),
			"choose a shorter path")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("--data-dir: %w", err)
	}
	cfg, err := member.Alone("discovery", filepath.Join(dir, "store"), []string{"unix://" + socket})
	if err != nil {
		return nil, nil, err
	}
	to := &proxy.Endpoints{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 64,
	}}
	to.Set([]string{"http://store"})
	return member.New(cfg, member.Deps{Log: log}), to, nil
}

// otherStore is a cluster that somebody else runs.
func otherStore(endpoints []string, info transport.TLSInfo) (http.RoundTripper, error) {
	t, err := proxy.NewTransport(info, 0)
	if err != nil {
		return nil, err
	}
	t.TLSHandshakeTimeout = storeTimeout / 2 // so that it is known what was in vain
	to := &proxy.Endpoints{Transport: t}
	to.Set(endpoints)
	if len(to.Usable()) != len(endpoints) {
		return nil, fault.Usage("--endpoints: each must be of the form http://HOST:PORT, and be there once")
	}
	return to, nil
}
