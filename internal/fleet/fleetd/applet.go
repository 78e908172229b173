package fleetd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"flotilla/internal/applet"
	"flotilla/internal/cli"
	"flotilla/internal/confload"
	"flotilla/internal/fault"
	"flotilla/internal/fleet/access"
	"flotilla/internal/lifecycle"
	"flotilla/internal/logx"
)

// Applet is the program fleetd.
func Applet() applet.Applet {
	return applet.Applet{
		Name:      "fleetd",
		Group:     "Units",
		Summary:   "run this machine's share of the cluster's units",
		Completes: true,
		Run:       run,
	}
}

// defaultConfigFile is read when it is there and --config is not given.
const defaultConfigFile = "/etc/fleet/fleet.conf"

// settings names every key of the configuration, as file, environment and flags
// have it.
func (c *Config) settings() *confload.Set {
	s := &confload.Set{}
	s.Int(&c.Verbosity, 0, 9, "verbosity", "above 0: debug log")
	s.List(&c.EtcdServers, "etcd_servers", "URLs of the store's members")
	s.Duration(&c.EtcdRequestTimeout, 100*time.Millisecond, "etcd_request_timeout", "limit of one request to the store")
	s.String(&c.EtcdCAFile, "etcd_cafile", "authority that the store's certificates are verified with")
	s.String(&c.EtcdCertFile, "etcd_certfile", "certificate shown to the store")
	s.String(&c.EtcdKeyFile, "etcd_keyfile", "its key")
	s.String(&c.EtcdUsername, "etcd_username", "user at the store")
	s.String(&c.EtcdPassword, "etcd_password", "that user's password")
	s.String(&c.EtcdKeyPrefix, "etcd_key_prefix", "where in the store the registry is")
	s.String(&c.PublicIP, "public_ip", "published address of the machine; empty: that of the default route's interface")
	s.Pairs(&c.Metadata, "metadata", "k=v,k2=v2 that units may ask for (MachineMetadata=)")
	s.Func("cores", "processors of the machine, such as 4 or 0.5; empty: what the kernel says", c.setCores, func() string { return showCores(c.Cores) })
	s.Func("memory", "memory of the machine, such as 8G; empty: what the kernel says", c.setMemory, func() string { return showBytes(c.Memory) })
	s.Func("reserve_cores", "processors of it that units may not ask for", c.setReserveCores, func() string { return showCores(c.ReserveCores) })
	s.Func("reserve_memory", "memory of it that units may not ask for", c.setReserveMemory, func() string { return showBytes(c.ReserveMemory) })
	s.Duration(&c.AgentTTL, time.Second, "agent_ttl", "how long after its last word a machine counts as present")
	s.Duration(&c.EngineReconcileInterval, 100*time.Millisecond, "engine_reconcile_interval", "how often the engine looks at everything though nothing has happened")
	s.Int(&c.TokenLimit, 1, 65535, "token_limit", "entries on a page of the HTTP API")
	s.String(&c.UnitsDirectory, "units_directory", "where systemd's unit files are written; empty: systemd's default place for them")
	s.Bool(&c.SystemdUser, "systemd_user", "use the calling user's systemd")
	s.Bool(&c.DisableEngine, "disable_engine", "never decide for the cluster")
	s.Func("units", "who runs the units: systemd, supervisor, or auto (systemd where it is PID 1)", c.setUnits, func() string { return c.Units })
	s.String(&c.SupervisorDir, "supervisor_dir", "where the supervisor keeps its things")
	s.String(&c.StateDir, "state_dir", "what survives a reboot: the last known schedule, keys")
	s.String(&c.RunDir, "run_dir", "what a reboot forgets: what has been carried out")
	s.String(&c.APISocket, "api_socket", "where the HTTP API listens unless systemd passes sockets")
	s.String(&c.APIListen, "api_listen", "address where the HTTP API is served to client certificates, such as :49153; off: nowhere but on sockets")
	s.String(&c.APICertFile, "api_certfile", "certificate that the HTTP API shows over TCP")
	s.String(&c.APIKeyFile, "api_keyfile", "its key")
	s.String(&c.APICAFile, "api_cafile", "authority that clients' certificates are made with; O=flotilla:admin, flotilla:deployer (with unit name prefixes as OU) or flotilla:viewer in them is the role")
	s.Func("client_default_role", "role of a client whose certificate names none: admin, deployer or viewer; empty: it is refused", c.setDefaultRole, func() string { return c.ClientDefaultRole })
	s.Bool(&c.APIPlainLoopback, "api_plain_loopback", "serve the HTTP API without TLS on TCP sockets of the loopback interface: every user and program of this machine is an admin then")
	s.String(&c.PeerListen, "peer_listen", "where other machines ask for logs and statuses (TLS both ways); off: nowhere")
	s.Func("move_after", "how long a machine's presence must have been gone before its units move, or never", c.setMoveAfter, c.showMoveAfter)
	s.Func("hold_fraction", "share of the machines whose loss at once is taken for a fault of the network or the store, so that nothing moves: above 0, at most 1, which is never", c.setHoldFraction, func() string { return strconv.FormatFloat(c.HoldFraction, 'g', -1, 64) })
	s.Duration(&c.ColdStartAfter, 0, "cold_start_after", "how long after a reboot the store is waited for before units start from the last known schedule")
	s.Bool(&c.ForgetForeign, "forget_foreign", "for one start after the store was replaced: stop the units that another store placed here and this one does not mention")
	s.String(&c.MachineID, "machine_id", "id of the machine, 32 hexadecimal digits; empty: /etc/machine-id")
	s.String(&c.Hostname, "hostname", "name of the machine for people; empty: the kernel's")
	s.Ignored("disable_watches", "watches are how this daemon works")
	s.Ignored("enable_grpc", "there is no registry over gRPC")
	s.Ignored("verify_units", "units are not signed")
	s.Ignored("authorized_keys_file", "units are not signed")
	return s
}

func (c *Config) setUnits(v string) error {
	if v != "systemd" && v != "supervisor" && v != "auto" {
		return fmt.Errorf("%q is none of systemd, supervisor, auto", v)
	}
	c.Units = v
	return nil
}

func (c *Config) setDefaultRole(v string) error {
	if v != "" {
		if _, err := access.ParseRole(v); err != nil {
			return err
		}
	}
	c.ClientDefaultRole = v
	return nil
}

func (c *Config) setHoldFraction(v string) error {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f > 0 && f <= 1) {
		return fmt.Errorf("%q is not a number above 0 and at most 1", v)
	}
	c.HoldFraction = f
	return nil
}

func (c *Config) setMoveAfter(v string) error {
	if v == "never" {
		c.MoveAfter = -1
		return nil
	}
	var d time.Duration
	s := &confload.Set{}
	s.Duration(&d, time.Second, "move_after", "")
	s.File("", []byte("move_after="+v))
	if s.Err() != nil {
		return fmt.Errorf("%q is neither a time of at least 1s nor never", v)
	}
	c.MoveAfter = d
	return nil
}

func (c *Config) showMoveAfter() string {
	if c.MoveAfter < 0 {
		return "never"
	}
	return c.MoveAfter.String()
}

// program is one call of fleetd.
type program struct {
	env       applet.Env
	file      string // --config; empty: the default file, if it is there
	effective bool
	cfg       Config
	set       *confload.Set
}

func run(ctx context.Context, env applet.Env) int {
	p := &program{env: env, cfg: Defaults()}
	p.set = p.cfg.settings()
	cmd := &cobra.Command{
		Use:     "fleetd [--config FILE]",
		Short:   "run this machine's share of the cluster's units",
		Long:    "Run this machine's share of the cluster's units: agent, engine and HTTP API.\n\nEvery flag is also a key of the configuration file, and FLEET_ and its name in upper case a variable.",
		Version: applet.Version,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
	cmd.SetVersionTemplate("fleetd version {{.Version}}\n")
	cmd.Flags().StringVar(&p.file, "config", "", "configuration file (default "+defaultConfigFile+", if it is there)")
	cmd.Flags().BoolVar(&p.effective, "print_config", false, "print the configuration in force and end")
	p.set.Flags(cmd.Flags())
	cmd.AddCommand(storeRolesCommand(env), &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintf(env.Stdout, "fleetd version %s\n", applet.Version) },
	})
	return cli.Run(ctx, env, cmd)
}

// load puts the configuration together: file, then environment, then flags.
func (p *program) load() error {
	path := p.file
	if path == "" {
		path = defaultConfigFile
	}
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		p.set.File(path, text)
	case p.file != "" || !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("configuration: %w", err)
	}
	p.set.Env("FLEET_", p.env.LookupEnv)
	p.set.FromFlags()
	if err := p.set.Err(); err != nil {
		return fault.Code(fault.ExitUsage, fmt.Errorf("configuration:\n%w", err))
	}
	return nil
}

func (p *program) run(ctx context.Context) error {
	if err := p.load(); err != nil {
		return err
	}
	if p.effective {
		return p.set.Effective(p.env.Stdout)
	}
	log := p.logger()
	for _, n := range p.set.Notices() {
		log.Warn("configuration: " + n.String())
	}
	listeners, err := passedListeners()
	if err != nil {
		return err
	}
	init, err := openInit(ctx, p.cfg)
	if err != nil {
		return err
	}
	go frugal(ctx, p.env)
	d := New(p.cfg, Deps{
		Manager: init.manager, Log: init.log, Epoch: init.epoch, Logger: log,
		Listeners: listeners, Reload: p.reloads(ctx, log), Dump: p.dumps(ctx),
		Watched: lifecycle.Watched(), Alive: alive(log),
	})
	return d.Run(ctx, func() {
		if err := lifecycle.Notify("READY=1"); err != nil {
			log.Warn("systemd not told that we are ready", "err", err)
		}
	})
}

// alive tells systemd that the daemon does not hang. What it says when that fails, it
// says once.
func alive(log *slog.Logger) func(time.Duration) {
	var once sync.Once
	return func(within time.Duration) {
		if err := lifecycle.Alive(within); err != nil {
			once.Do(func() { log.Warn("systemd not told that we are alive", "err", err) })
		}
	}
}

// giveBackEvery is how often memory that a burst of work has left is given back.
const giveBackEvery = 30 * time.Second

// frugal keeps the process small until ctx is done: an agent does little, on a
// machine that is there for its units. Garbage is collected when the heap has grown
// by half, not when it has doubled (GOGC in the environment counts more), and what
// the start or a burst leaves is given back to the system, which the collector alone
// does when the next one comes.
func frugal(ctx context.Context, env applet.Env) {
	if env.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	const burst = 4 << 20 // bytes
	var now runtime.MemStats
	var before uint64
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if runtime.ReadMemStats(&now); now.TotalAlloc-before > burst {
			lifecycle.Trim()
			before = now.TotalAlloc
		}
	}
}

func (p *program) logger() *slog.Logger {
	level := slog.LevelInfo
	if p.cfg.Verbosity > 0 {
		level = slog.LevelDebug
	}
	return logx.New(p.env.Stderr, level)
}

// reloads delivers the configuration anew at each SIGHUP. One that is bad changes
// nothing.
func (p *program) reloads(ctx context.Context, log *slog.Logger) <-chan Config {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	out := make(chan Config)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			}
			next, err := p.again()
			if err != nil {
				log.Error("configuration not read again, the old one stays in force", "err", err)
				continue
			}
			select {
			case out <- next:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// again reads the configuration from the start, with the flags of this process.
func (p *program) again() (Config, error) {
	q := &program{env: p.env, file: p.file, cfg: Defaults()}
	q.set = q.cfg.settings()
	q.set.SameFlags(p.set)
	err := q.load()
	return q.cfg, err
}

// dumps asks for a dump on stdout at each SIGUSR1, which would end the process
// otherwise.
func (p *program) dumps(ctx context.Context) <-chan io.Writer {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	out := make(chan io.Writer)
	go func() {
		defer signal.Stop(asked)
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			select {
			case out <- p.env.Stdout:
			case <-ctx.Done():
			}
		}
	}()
	return out
}
