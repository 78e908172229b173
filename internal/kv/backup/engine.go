package backup

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// replay starts the engine on a directory, alone, lets it take over what of the log
// is not in the database yet, counts, and stops it. The directory is for nothing
// else: it is written without care for power cuts.
func replay(ctx context.Context, d Dir) (Info, error) {
	e, err := startAlone(d)
	if err != nil {
		return Info{}, err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		return Info{}, errors.New("the engine stopped by itself")
	case err := <-e.Err():
		return Info{}, err
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	c := v3client.New(e.Server)
	defer c.Close()
	all, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return Info{}, fmt.Errorf("count the keys: %w", err)
	}
	return Info{Keys: all.Count, Revision: all.Header.Revision}, nil
}

// startAlone starts the engine as the only member, reachable for nobody: it serves
// no clients, and its port for other members is any of loopback.
func startAlone(d Dir) (e *embed.Etcd, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case string: // zap panics with the message, for what the engine considers fatal, too
			err = errors.New(p)
		default:
			panic(p)
		}
	}()
	nowhere := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.WalDir = d.Data, d.WAL
	cfg.ForceNewCluster = true
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 10, 100 // nobody to wait for
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nowhere, nowhere
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, []url.URL{}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapcore.NewNopCore(), zap.WithFatalHook(panicHook{})))
	return embed.StartEtcd(cfg)
}

// panicHook makes a panic of what would end the process.
type panicHook struct{}

func (panicHook) OnWrite(e *zapcore.CheckedEntry, _ []zapcore.Field) { panic(e.Message) }
