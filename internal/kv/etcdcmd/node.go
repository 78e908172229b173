package etcdcmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"flotilla/internal/fault"
	"flotilla/internal/kv/bootstrap"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/member"
	"flotilla/internal/lifecycle"
)

// role is what this process is.
type role int

const (
	asMember role = iota
	asProxy
)

func (r role) String() string { return [...]string{"member", "proxy"}[r] }

// contents is what a data directory holds.
type contents struct{ member, proxy bool }

// inspect looks into the data directory of the options.
func (o *options) inspect() (contents, error) {
	e := o.cfg.Engine
	walDir := e.WalDir
	if walDir == "" {
		walDir = filepath.Join(e.Dir, "member", "wal")
	}
	_, err := os.Stat(filepath.Join(e.Dir, "proxy"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return contents{}, fmt.Errorf("data directory: %w", err)
	}
	return contents{member: wal.Exist(walDir), proxy: err == nil}, nil
}

// choose says what to be, and why if that is not what the flags say. A data
// directory stays what it was first used for.
func choose(has contents, dir, proxyFlag string) (r role, why string, err error) {
	wanted := asMember
	if proxyFlag != "off" {
		wanted = asProxy
	}
	switch {
	case has.member && has.proxy:
		return 0, "", fault.Hint(fmt.Errorf("data directory %s is a member's and a proxy's", dir),
			"remove %s if it is to be the member's", filepath.Join(dir, "proxy"))
	case has.member:
		r = asMember
	case has.proxy:
		r = asProxy
	default:
		return wanted, "", nil
	}
	if r != wanted {
		why = fmt.Sprintf("the data directory is a %s's", r)
	}
	return r, why, nil
}

// run is what the process does: it finds its cluster and takes part in it, as a
// member or as a proxy.
func (o *options) run(ctx context.Context, log *slog.Logger, ready func()) error {
	has, err := o.inspect()
	if err != nil {
		return err
	}
	dir := o.cfg.Engine.Dir
	r, why, err := choose(has, dir, o.proxy)
	if err != nil {
		return err
	}
	if why != "" {
		log.Warn("starting as a "+r.String()+", whatever --proxy says", "because", why, "data", dir)
	}
	for _, n := range o.notices {
		log.Warn(n)
	}
	if err := o.secure(log); err != nil {
		return err
	}
	if r == asMember {
		err := o.runMember(ctx, log, !has.member, ready)
		if !errors.Is(err, bootstrap.ErrFull) {
			return err
		}
		if o.fallback == fallbackExit {
			return fault.Hint(fmt.Errorf("failed to join discovery cluster (%w)", bootstrap.ErrFull),
				"with --discovery-fallback proxy it would serve clients as a proxy")
		}
		log.Warn("discovery cluster full, falling back to proxy", "at", o.discovery)
	}
	return o.runProxy(ctx, log, ready)
}

// runMember joins the cluster of a discovery token, if there is one and no data yet,
// and is a member.
func (o *options) runMember(ctx context.Context, log *slog.Logger, fresh bool, ready func()) error {
	e := o.cfg.Engine
	switch {
	case o.discovery == "":
	case !fresh:
		log.Info("the data directory has a member already: discovery only tells where the others are", "at", o.discovery, "data", e.Dir)
		if err := bootstrap.Forget(e.Dir); err != nil {
			return err
		}
	default:
		if err := o.join(ctx, log); err != nil {
			return err
		}
	}
	if o.discovery != "" {
		hints, err := o.hints(log)
		if err != nil {
			return err
		}
		o.cfg.Hints = append(o.cfg.Hints, hints)
	}
	m := member.New(o.cfg, member.Deps{Log: log})
	return m.Run(ctx, func() {
		if err := bootstrap.Forget(e.Dir); err != nil {
			log.Warn("cannot remove the note that this member waits for others", "err", err)
		}
		announce(log, m.ClientURLs())
		ready()
	})
}

// join makes a discovery token's cluster the initial cluster.
func (o *options) join(ctx context.Context, log *slog.Logger) error {
	e := o.cfg.Engine
	if len(e.AdvertisePeerUrls) == 0 {
		e.AdvertisePeerUrls = e.ListenPeerUrls
	}
	if err := reachable(e.AdvertisePeerUrls); err != nil {
		return err
	}
	// Before the others count on us.
	if err := front.CheckExposure(front.Audiences(e), front.Allowed{PlainHTTP: o.cfg.AllowPlainHTTP, AnonymousTLS: o.cfg.AllowAnonymousTLS}); err != nil {
		return err
	}
	cfg, err := o.bootstrap(log)
	if err != nil {
		return err
	}
	cfg.Name, cfg.Dir, cfg.PeerURLs = e.Name, e.Dir, types.URLs(e.AdvertisePeerUrls).StringSlice()
	cluster, err := bootstrap.Join(ctx, cfg)
	if errors.Is(err, bootstrap.ErrFull) {
		return errors.Join(err, bootstrap.Forget(e.Dir))
	}
	if err != nil {
		return err
	}
	e.InitialCluster, e.InitialClusterToken = cluster.Initial, cluster.Token
	return nil
}

// hints lets a member whose cluster has moved look for the others at its discovery
// token, and keeps its own entry there true.
func (o *options) hints(log *slog.Logger) (member.Hints, error) {
	cfg, err := o.bootstrap(log)
	if err != nil {
		return member.Hints{}, err
	}
	token, err := bootstrap.Open(cfg.URL, cfg.Proxy, cfg.TLS)
	if err != nil {
		return member.Hints{}, err
	}
	return member.Hints{
		Name: "--discovery",
		Find: func(ctx context.Context) ([]string, error) {
			found, err := token.Hints(ctx)
			var urls []string
			for _, h := range found {
				urls = append(urls, h.PeerURLs...)
			}
			return urls, err
		},
		Tell: func(ctx context.Context, id uint64, name string, peerURLs []string) error {
			return token.Renew(ctx, strconv.FormatUint(id, 16), name, peerURLs)
		},
	}, nil
}

// bootstrap is what a member and a proxy have in common in front of a token.
func (o *options) bootstrap(log *slog.Logger) (bootstrap.Config, error) {
	d := o.cfg.Engine.DiscoveryCfg.Secure
	info := transport.TLSInfo{CertFile: d.Cert, KeyFile: d.Key, TrustedCAFile: d.Cacert, InsecureSkipVerify: d.InsecureSkipVerify}
	var config *tls.Config
	if !info.Empty() || info.TrustedCAFile != "" || info.InsecureSkipVerify {
		var err error
		if config, err = info.ClientConfig(); err != nil {
			return bootstrap.Config{}, fmt.Errorf("TLS towards the discovery service: %w", err)
		}
	}
	return bootstrap.Config{URL: o.discovery, Proxy: o.discoveryProxy, TLS: config, Log: log}, nil
}

// reachable refuses peer addresses that are of no use to other members.
func reachable(urls []url.URL) error {
	for _, u := range urls {
		ip := net.ParseIP(u.Hostname())
		if u.Port() == "0" || ip != nil && ip.IsUnspecified() {
			return fault.Code(fault.ExitUsage, fault.Hint(
				fmt.Errorf("%s is no address at which other members could reach this one", u.String()),
				"give --initial-advertise-peer-urls"))
		}
	}
	return nil
}

// announce tells systemd that clients are served.
func announce(log *slog.Logger, urls []string) {
	if err := lifecycle.Notify("READY=1\nSTATUS=clients at " + strings.Join(urls, " ")); err != nil {
		log.Warn("cannot tell systemd that the store is ready", "err", err)
	}
}
