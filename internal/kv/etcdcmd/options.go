package etcdcmd

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"

	"flotilla/internal/applet"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
)

// options is a command line of etcd while it is read.
type options struct {
	cfg        member.Config
	flags      *flag.FlagSet
	called     string // what to type for this command
	configFile string
	version    bool

	discovery, discoveryProxy string // URLs; "" if not given
	fallback                  string // fallbackProxy or fallbackExit
	proxy                     string // proxyOff, proxyReadonly or proxyOn
	proxyWait                 proxyWaits
	proxyUser                 string // "": the proxy is nobody
	proxyPasswordFile         string
	proxyPassword             string // from the environment

	// The addresses as etcd 0.4 took them, HOST:PORT each; "" if not given.
	addr, bindAddr, peerAddr, peerBindAddr string
	token                                  string   // TLS keys are made of it; "": they are not
	notices                                []string // what was set and has no effect
}

// ownValues are flags of the engine that take other values here, or refuse what the engine
// would pass over.
var ownValues = []string{"cors", "initial-cluster-state", "metrics", "backend-bbolt-freelist-type"}

func newOptions() *options {
	o := &options{
		cfg:    member.Defaults(),
		called: "etcd",
		flags:  flag.NewFlagSet("etcd", flag.ContinueOnError),
	}
	o.flags.SetOutput(io.Discard) // errors are reported by the caller, help is ours
	engine := flag.NewFlagSet("engine", flag.ContinueOnError)
	o.cfg.Engine.AddFlags(engine)
	engine.VisitAll(func(f *flag.Flag) {
		if _, drop := gone[f.Name]; !drop && !slices.Contains(ownValues, f.Name) {
			o.flags.Var(f.Value, f.Name, f.Usage)
		}
	})
	fs := o.flags
	fs.Var(choice(&o.cfg.Engine.ClusterState, embed.ClusterStateFlagNew, embed.ClusterStateFlagExisting), "initial-cluster-state", "'new' to found a cluster, 'existing' to join one that this member was added to; of no effect on a later start.")
	fs.Var(choice(&o.cfg.Engine.Metrics, "basic", "extensive"), "metrics", "'extensive' to add histograms of v3 calls to the metrics, or 'basic'.")
	fs.Var(choice(&o.cfg.Engine.BackendFreelistType, "map", "array"), "backend-bbolt-freelist-type", "How the database lists its free pages: 'map' or 'array'.")
	fs.StringVar(&o.configFile, "config-file", "", "Read flags from this YAML `file`; flags and environment variables win over it.")
	fs.BoolVar(&o.version, "version", false, "Print the version and exit.")
	fs.BoolVar(&o.cfg.AllowPlainHTTP, "allow-plain-http", false, "Permit http:// beyond loopback, for clients and peers: whoever reaches the port can read and write everything.")
	fs.BoolVar(&o.cfg.AllowAnonymousTLS, "allow-anonymous-https", false, "Permit https:// beyond loopback without client certificates.")
	fs.BoolVar(&o.cfg.AutoDefrag, "auto-defrag", true, "Give back disk space: at a start when 64 MiB or more of the database file are free; while running when more than half of 64 MiB or more is, and at most 64 MiB are in use, in a calm moment, one member at a time, the leader last.")
	fs.Var(&origins{[]string{allOrigins}, &o.cfg.Engine.CORS}, "cors", "List of origins of web pages whose scripts may ask: http://HOST or http://HOST:PORT, or * for all.")
	fs.Var(flags.NewStringsValue(""), "peer-hints", "List of peer URLs, names in them as you like, at which to look for the other members when they are not where they were.")
	fs.StringVar(&o.addr, "addr", "", "etcd 0.4: `HOST:PORT` that clients use. Served, together with 127.0.0.1:PORT, and advertised.")
	fs.StringVar(&o.bindAddr, "bind-addr", "", "etcd 0.4: `HOST[:PORT]` to serve clients on, where it differs from -addr.")
	fs.StringVar(&o.peerAddr, "peer-addr", "", "etcd 0.4: `HOST:PORT` that other members use. Served and advertised.")
	fs.StringVar(&o.peerBindAddr, "peer-bind-addr", "", "etcd 0.4: `HOST[:PORT]` to serve other members on, where it differs from -peer-addr.")
	o.discoveryFlags()
	o.proxyFlags()
	o.ownDefaults()
	return o
}

// ownDefaults makes help show our defaults in place of the engine's.
func (o *options) ownDefaults() {
	for name, value := range map[string]string{
		"listen-client-urls":          member.DefaultClientURLs,
		"listen-peer-urls":            member.DefaultPeerURLs,
		"advertise-client-urls":       "",
		"initial-advertise-peer-urls": "",
		"log-format":                  "console",
		"log-level":                   "info",
		"data-dir":                    "NAME.etcd",
	} {
		o.flags.Lookup(name).DefValue = value
	}
	o.cfg.Engine.LogFormat = "console"
	o.flags.Lookup("advertise-client-urls").Usage = "List of this member's client URLs to tell to clients. By default those it listens on, with the machine's own address for 0.0.0.0."
	o.flags.Lookup("initial-advertise-peer-urls").Usage = "List of this member's peer URLs to tell to the others. By default those it listens on, with the machine's own address for 0.0.0.0. A member that comes back with others has the cluster record them."
}

// parse reads the arguments, then the environment, then the file: the first to
// name a flag wins. flag.ErrHelp means that help was asked for.
func (o *options) parse(env applet.Env) error {
	o.called = env.CalledOr(o.called)
	if err := o.flags.Parse(env.Args); err != nil {
		return o.explain(err)
	}
	if o.flags.NArg() > 0 {
		return fault.Usage("%q is not a flag, and etcd takes nothing else", o.flags.Arg(0))
	}
	if o.version {
		return nil
	}
	if err := o.fromEnv(env); err != nil {
		return err
	}
	if o.configFile != "" {
		if err := o.fromFile(o.configFile); err != nil {
			return err
		}
	}
	return o.apply()
}

// explain turns the error of the flag package into one that names the nearest flag.
func (o *options) explain(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return fault.Code(fault.ExitUsage, fault.Hint(err, "%s", o.wanted(err)))
	}
	return o.unknown("flag --"+name, name)
}

var flagOfError = regexp.MustCompile(` for (?:flag )?-([a-z0-9-]+): `)

// wanted says what kind of value the flag takes that the flag package complains of.
func (o *options) wanted(err error) string {
	help := fmt.Sprintf("see '%s --help'", o.called)
	m := flagOfError.FindStringSubmatch(err.Error())
	if m == nil || o.flags.Lookup(m[1]) == nil {
		return help
	}
	get, _ := o.flags.Lookup(m[1]).Value.(flag.Getter)
	if get == nil {
		return help
	}
	switch get.Get().(type) {
	case time.Duration:
		return "want a time with its unit, such as 500ms, 10s or 5m"
	case bool:
		return "want true or false, after an equals sign"
	case int, int64, uint, uint64:
		return "want a whole number"
	}
	return help
}

// unknown reports a name that is no flag, and what may have been meant.
func (o *options) unknown(what, name string) error {
	err := fmt.Errorf("unknown %s", what)
	if why := o.instead(name); why != "" {
		return fault.Code(fault.ExitUsage, fault.Hint(err, "%s", why))
	}
	var names []string
	o.flags.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if near := fault.Nearest(name, names); near != "" {
		err = fault.Hint(err, "did you mean --%s?", near)
	} else {
		err = fault.Hint(err, "see '%s --help'", o.called)
	}
	return fault.Code(fault.ExitUsage, err)
}

func (o *options) isSet(name string) bool { return flags.IsSet(o.flags, name) }

// fromEnv sets what the command line left open from ETCD_NAME, ETCD_DATA_DIR and
// so on. An empty variable counts as unset.
func (o *options) fromEnv(env applet.Env) error {
	var errs []error
	o.proxyPassword = env.Getenv(proxyPasswordVariable)
	o.flags.VisitAll(func(f *flag.Flag) {
		key := flags.FlagToEnv("ETCD", f.Name)
		value := env.Getenv(key)
		if value == "" || o.isSet(f.Name) || f.Name == "version" {
			return
		}
		if err := o.flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("variable %s: invalid value %q: %w", key, value, err))
		}
	})
	return fault.Code(fault.ExitUsage, errors.Join(append(errs, o.fromLegacyEnv(env))...))
}

// apply copies the flags that the engine does not write into its configuration
// itself, and works out the addresses.
func (o *options) apply() error {
	fs, e := o.flags, o.cfg.Engine
	e.ListenClientHttpUrls = flags.UniqueURLsFromFlag(fs, "listen-client-http-urls")
	e.ListenMetricsUrls = flags.UniqueURLsFromFlag(fs, "listen-metrics-urls")
	e.DiscoveryCfg.Endpoints = flags.UniqueStringsFromFlag(fs, "discovery-endpoints")
	e.HostWhitelist = flags.UniqueStringsMapFromFlag(fs, "host-whitelist")
	e.ClientTLSInfo.AllowedHostnames = flags.StringsFromFlag(fs, "client-cert-allowed-hostname")
	e.PeerTLSInfo.AllowedCNs = flags.StringsFromFlag(fs, "peer-cert-allowed-cn")
	e.PeerTLSInfo.AllowedHostnames = flags.StringsFromFlag(fs, "peer-cert-allowed-hostname")
	e.CipherSuites = flags.StringsFromFlag(fs, "cipher-suites")
	e.MaxConcurrentStreams = flags.Uint32FromFlag(fs, "max-concurrent-streams")
	e.LogOutputs = flags.UniqueStringsFromFlag(fs, "log-outputs")
	if o.isSet("election-timeout") && !o.isSet("heartbeat-interval") {
		e.TickMs = min(e.TickMs, e.ElectionMs/5) // the engine wants five at least
	}
	if e.Dir == "" {
		e.Dir = e.Name + ".etcd"
	}
	o.cfg.PeerHints = flags.StringsFromFlag(fs, "peer-hints")
	err := errors.Join(
		o.checkWays(),
		checkCost(e.BcryptCost),
		o.addresses("listen-client-urls", "advertise-client-urls", o.addr, o.bindAddr, e.ClientTLSInfo.CertFile != "", true),
		o.addresses("listen-peer-urls", "initial-advertise-peer-urls", o.peerAddr, o.peerBindAddr, e.PeerTLSInfo.CertFile != "", false),
	)
	if err == nil {
		err = o.planSecurity()
		o.noteIdle()
	}
	return err
}

// checkCost refuses what bcrypt does not do: the engine takes its own default instead.
func checkCost(cost uint) error {
	if cost < 4 || cost > 31 {
		return fault.Usage("--bcrypt-cost %d: want 4 to 31", cost)
	}
	return nil
}

// addresses works out where to listen and what to advertise, for clients or for
// peers: today's flags first, then those of etcd 0.4, else the default.
func (o *options) addresses(listenFlag, tellFlag, addr, bind string, tls, loopback bool) error {
	listen, tell, err := classicURLs(addr, bind, tls, loopback)
	if err != nil {
		return fault.Code(fault.ExitUsage, err)
	}
	e := o.cfg.Engine
	to, told := &e.ListenClientUrls, &e.AdvertiseClientUrls
	if listenFlag == "listen-peer-urls" {
		to, told = &e.ListenPeerUrls, &e.AdvertisePeerUrls
	}
	if listen != nil {
		*to, *told = listen, tell
	}
	if o.isSet(listenFlag) {
		*to = flags.UniqueURLsFromFlag(o.flags, listenFlag)
	}
	if o.isSet(tellFlag) {
		*told = flags.UniqueURLsFromFlag(o.flags, tellFlag)
	}
	return nil
}

// classicURLs reads the addresses of etcd 0.4. Programs on the machine itself were
// used to 127.0.0.1 whatever -addr said, so with loopback the port is served there
// too. nil without either address.
func classicURLs(addr, bind string, tls, loopback bool) (listen, tell types.URLs, err error) {
	if addr == "" && bind == "" {
		return nil, nil, nil
	}
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	if addr == "" {
		addr = bind
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("address %q: want HOST:PORT: %w", addr, err)
	}
	if bind == "" {
		bind = host
	}
	bindHost, bindPort, err := net.SplitHostPort(bind)
	if err != nil {
		bindHost, bindPort = strings.Trim(bind, "[]"), port
	}
	bound := []string{scheme + net.JoinHostPort(bindHost, bindPort)}
	if ip := net.ParseIP(bindHost); loopback && ip != nil && !ip.IsLoopback() && !ip.IsUnspecified() {
		bound = append(bound, scheme+net.JoinHostPort("127.0.0.1", bindPort))
	}
	if listen, err = types.NewURLs(bound); err != nil {
		return nil, nil, err
	}
	tell, err = types.NewURLs([]string{scheme + net.JoinHostPort(host, port)})
	return listen, tell, err
}
