package etcdcmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/internal/fault"
	"flotilla/internal/kv/bootstrap"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/proxy"
)

// The values of --proxy and --discovery-fallback.
const (
	proxyOff      = "off"
	proxyReadonly = "readonly"
	proxyOn       = "on"

	fallbackProxy = "proxy"
	fallbackExit  = "exit"
)

// proxyWaits are the proxy's times, in milliseconds.
type proxyWaits struct{ failure, refresh, dial, write, read uint }

// The names of these flags and their defaults are those of etcd 2.x and 3.4.
func (o *options) discoveryFlags() {
	fs := o.flags
	fs.StringVar(&o.discovery, "discovery", "", "`URL` of a discovery token, as 'flotilla discovery new' prints it: found a cluster with the others that are given it. On a later start the members find each other there when their addresses have changed. --discovery-cert, -key and -cacert count for https.")
	fs.Var(choice(&o.fallback, fallbackProxy, fallbackExit), "discovery-fallback", "What to do when the token is full: 'proxy' to become a proxy, or 'exit'.")
	fs.StringVar(&o.discoveryProxy, "discovery-proxy", "", "`URL` of an HTTP proxy on the way to --discovery.")
}

func (o *options) proxyFlags() {
	fs := o.flags
	fs.StringVar(&o.proxyUser, "proxy-user", "", "`NAME` of a user with the role root, for a proxy to be towards the members: with it the proxy answers reads itself while authentication is on. The password is in --proxy-password-file or in $"+proxyPasswordVariable+".")
	fs.StringVar(&o.proxyPasswordFile, "proxy-password-file", "", "`FILE` with the password of --proxy-user; a newline at its end does not count.")
	fs.Var(choice(&o.proxy, proxyOff, proxyReadonly, proxyOn), "proxy", "'on' to serve clients without being a member, 'readonly' to refuse their writes, or 'off'. A data directory stays what it was first used for.")
	for _, f := range []struct {
		to    *uint
		name  string
		value uint
		usage string
	}{
		{&o.proxyWait.failure, "proxy-failure-wait", 5000, "How long a proxy leaves out a member that failed, in `ms`."},
		{&o.proxyWait.refresh, "proxy-refresh-interval", 30000, "How often a proxy asks who the members are, in `ms`."},
		{&o.proxyWait.dial, "proxy-dial-timeout", 1000, "How long a proxy tries to connect to a member, in `ms`."},
		{&o.proxyWait.write, "proxy-write-timeout", 5000, "How long a proxy tries to send something to a member, in `ms`; 0 without limit."},
		{&o.proxyWait.read, "proxy-read-timeout", 0, "How long a proxy waits for something to come from a member, in `ms`; 0 without limit. It ends idle watches that members answer."},
	} {
		fs.UintVar(f.to, f.name, f.value, f.usage)
	}
}

// proxyPasswordVariable holds the password of --proxy-user: on a command line everybody
// on the machine could read it.
const proxyPasswordVariable = "ETCD_PROXY_PASSWORD"

// proxySecret is the password of --proxy-user, "" without a user.
func (o *options) proxySecret() (string, error) {
	switch {
	case o.proxyUser == "" && o.proxyPasswordFile != "":
		return "", fault.Usage("--proxy-password-file without --proxy-user")
	case o.proxyUser == "":
		return "", nil
	case o.proxyPasswordFile == "" && o.proxyPassword == "":
		return "", fault.Code(fault.ExitUsage, fault.Hint(fmt.Errorf("--proxy-user %s has no password", o.proxyUser),
			"give --proxy-password-file, or set %s", proxyPasswordVariable))
	case o.proxyPasswordFile == "":
		return o.proxyPassword, nil
	}
	raw, err := os.ReadFile(o.proxyPasswordFile)
	if err != nil {
		return "", fmt.Errorf("read the password of --proxy-user %s: %w", o.proxyUser, err)
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

// choice is a flag with a few values, the first of them being the default.
func choice(to *string, values ...string) *chosen {
	*to = values[0]
	return &chosen{to, values}
}

type chosen struct {
	to     *string
	values []string
}

var _ flag.Value = (*chosen)(nil)

// Set takes one of the values.
func (c *chosen) Set(s string) error {
	if !slices.Contains(c.values, s) {
		return fmt.Errorf("must be one of %s", strings.Join(c.values, ", "))
	}
	*c.to = s
	return nil
}

// String is the value; the flag package also asks one that it has made itself.
func (c *chosen) String() string {
	if c.to == nil {
		return ""
	}
	return *c.to
}

// checkWays refuses more than one way to find the cluster, and a discovery URL
// that is none.
func (o *options) checkWays() error {
	given := slices.DeleteFunc([]string{"initial-cluster", "discovery", "discovery-endpoints", "discovery-srv"},
		func(name string) bool { return !o.isSet(name) || o.flags.Lookup(name).Value.String() == "" })
	if len(given) > 1 {
		return fault.Code(fault.ExitUsage, fault.Hint(
			fmt.Errorf("multiple discovery or bootstrap flags are set: --%s", strings.Join(given, ", --")),
			`choose one of "initial-cluster", "discovery" or "discovery-srv"`))
	}
	if o.discovery == "" {
		return nil
	}
	t, err := bootstrap.Open(o.discovery, o.discoveryProxy, nil)
	if err != nil {
		return fault.Code(fault.ExitUsage, err)
	}
	t.Close()
	return nil
}

// runProxy is a proxy.
func (o *options) runProxy(ctx context.Context, log *slog.Logger, ready func()) error {
	cfg, err := o.proxyConfig(log)
	if err != nil {
		return err
	}
	p := proxy.New(cfg, log)
	return p.Run(ctx, func() {
		log.Info("proxy ready", "clients", strings.Join(p.ClientURLs(), ","), "data", cfg.Dir)
		announce(log, p.ClientURLs())
		ready()
	})
}

func (o *options) proxyConfig(log *slog.Logger) (proxy.Config, error) {
	e := o.cfg.Engine
	audiences := slices.DeleteFunc(front.Audiences(e), func(a front.Audience) bool { return a.Who == "peer" })
	if err := front.CheckExposure(audiences, front.Allowed{PlainHTTP: o.cfg.AllowPlainHTTP, AnonymousTLS: o.cfg.AllowAnonymousTLS}); err != nil {
		return proxy.Config{}, err
	}
	f, err := front.Of(e)
	if err != nil {
		return proxy.Config{}, err
	}
	f.Log = log
	// As etcd has it: the proxy shows members the certificate that it shows
	// clients, or that for peers if it has no other.
	members := e.ClientTLSInfo
	if members.Empty() && members.TrustedCAFile == "" {
		members = e.PeerTLSInfo
	}
	password, err := o.proxySecret()
	if err != nil {
		return proxy.Config{}, err
	}
	w := o.proxyWait
	ms := func(n uint) time.Duration { return time.Duration(n) * time.Millisecond }
	return proxy.Config{
		Dir:         e.Dir,
		Find:        func(ctx context.Context) ([]string, error) { return o.findPeers(ctx, log) },
		Front:       f,
		Metrics:     e.ListenMetricsUrls,
		ReadOnly:    o.proxy == proxyReadonly,
		ClientTLS:   members,
		PeerTLS:     e.PeerTLSInfo,
		User:        o.proxyUser,
		Password:    password,
		FailureWait: ms(w.failure), Refresh: ms(w.refresh), DialTimeout: ms(w.dial),
		ReadTimeout: ms(w.read), WriteTimeout: ms(w.write),
		Origins: e.CORS, Hosts: e.HostWhitelist,
	}, nil
}

// findPeers is where the members listen for their peers, as the flags tell.
func (o *options) findPeers(ctx context.Context, log *slog.Logger) ([]string, error) {
	e := o.cfg.Engine
	var urls types.URLsMap
	var err error
	switch {
	case o.discovery != "":
		cfg, err := o.bootstrap(log)
		if err != nil {
			return nil, err
		}
		cluster, err := bootstrap.Find(ctx, cfg)
		if err != nil {
			return nil, err
		}
		if urls, err = types.NewURLsMap(cluster.Initial); err != nil {
			return nil, err
		}
	case e.InitialCluster == "" && e.DNSCluster == "":
		return nil, fault.Code(fault.ExitUsage, fault.Hint(fmt.Errorf("a proxy has to know where the cluster is"),
			"give --initial-cluster, --discovery or --discovery-srv"))
	case e.DNSCluster != "":
		entries, err := lookupPeers(e.DNSCluster, e.DNSClusterServiceName)
		if err != nil {
			return nil, err
		}
		if urls, err = types.NewURLsMap(strings.Join(entries, ",")); err != nil {
			return nil, err
		}
	default:
		if urls, err = types.NewURLsMap(e.InitialCluster); err != nil {
			return nil, err
		}
	}
	return urls.URLs(), nil
}

// lookupPeers asks DNS, as members do with --discovery-srv: for peers over https
// and over http. It fails if neither has an answer.
func lookupPeers(domain, service string) ([]string, error) {
	if service != "" {
		service = "-" + service
	}
	secure, err1 := srv.GetCluster("https", "etcd-server-ssl"+service, "", domain, nil)
	plain, err2 := srv.GetCluster("http", "etcd-server"+service, "", domain, nil)
	if err1 != nil && err2 != nil {
		return nil, fmt.Errorf("look up the members of %s: %w", domain, errors.Join(err1, err2))
	}
	return append(secure, plain...), nil
}
