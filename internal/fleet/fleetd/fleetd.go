// Package fleetd is the daemon of a machine: its agent, its share in the engine,
// the HTTP API, and what it serves to other machines.
package fleetd

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/fleet/agent"
	"flotilla/internal/fleet/engine"
	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/peer"
	"flotilla/internal/fleet/registry"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/fleet/unitshttp"
	"flotilla/internal/lifecycle"
	"flotilla/internal/unit"
)

// Deps is what a daemon gets from outside. Manager and Log are required.
type Deps struct {
	Manager unit.Manager
	Log     unit.LogReader
	Logger  *slog.Logger // nil: silent
	// Listeners serve the HTTP API; none: Config.APISocket is made. The daemon
	// closes them.
	Listeners []net.Listener
	// Reload delivers new configurations, of which the metadata, the address and the
	// capacity are taken over while running; the certificates of the API are read
	// again. nil: never.
	Reload <-chan Config
	// Dump delivers where to write, in one line of JSON, what the daemon knows; nil:
	// nobody asks.
	Dump <-chan io.Writer
	// Watched is for how long the daemon may hang, and Alive says that it does not: see
	// agent.Config. 0: nobody watches.
	Watched time.Duration
	Alive   func(within time.Duration)
	// Epoch names one run of the init system: what the agent remembers having
	// done in another epoch is forgotten, since its units ended with it. Empty:
	// the kernel's boot id.
	Epoch string
}

// Daemon is one machine's fleetd. Make it with New.
type Daemon struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
}

// New makes a daemon and touches nothing.
func New(cfg Config, deps Deps) *Daemon {
	log := deps.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Daemon{cfg: cfg, deps: deps, log: log}
}

// Run runs the daemon until ctx is done. It calls ready when the API listens and
// the agent looks after the machine's units, also while the store is away. Units
// go on running after it has returned, and the machine counts as present for
// another AgentTTL, so that a restart moves nothing.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	p, err := d.assemble()
	if err != nil {
		return err
	}
	defer p.registry.Close()
	return lifecycle.Run(ctx, d.log,
		lifecycle.Part{Name: "agent", Run: p.agent.Run},
		lifecycle.Part{Name: "engine", Run: p.runEngine},
		lifecycle.Part{Name: "peers", Run: p.runPeers},
		lifecycle.Part{Name: "events", Run: p.notes.run},
		lifecycle.Part{Name: "api", Run: p.runAPI},
		lifecycle.Part{Name: "upkeep", Run: func(ctx context.Context, started func()) error {
			started()
			d.log.Info("fleetd runs", "machine", p.presence.ID, "name", p.presence.Hostname, "version", applet.Version)
			ready()
			p.upkeep(ctx)
			return nil
		}},
	)
}

// parts is a daemon put together.
type parts struct {
	*Daemon
	presence registry.Presence
	registry *registry.Registry
	agent    *agent.Agent
	engine   *engine.Engine
	identity peer.Identity
	peerLn   net.Listener // nil: peers are off
	door     *door
	notes    *notebook
	apiLns   []net.Listener
}

// assemble finds out who this machine is and puts the parts together.
func (d *Daemon) assemble() (*parts, error) {
	p := &parts{Daemon: d}
	var err error
	if p.presence, p.identity, err = d.whoAmI(); err != nil {
		return nil, err
	}
	epoch := d.deps.Epoch
	if epoch == "" {
		if epoch, err = lifecycle.BootID(); err != nil {
			return nil, err
		}
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	p.registry, err = d.openRegistry(d.log)
	if err != nil {
		p.closeListeners()
		return nil, err
	}
	p.notes = newNotebook(p.registry.WriteEvents, d.log)
	p.agent = agent.New(agent.Config{
		Presence: p.presence, TTL: d.cfg.AgentTTL, StateDir: d.cfg.StateDir, RunDir: d.cfg.RunDir,
		Epoch: epoch, ColdStartAfter: d.cfg.ColdStartAfter, ForgetForeign: d.cfg.ForgetForeign,
		Journal: d.deps.Log, Watched: d.deps.Watched, Alive: d.deps.Alive,
	}, d.deps.Manager, p.registry, d.log)
	p.engine = engine.New(engine.Config{
		Candidate: registry.Candidate{Machine: p.presence.ID, Instance: p.presence.Instance, Boot: p.presence.Boot},
		Resync:    d.cfg.EngineReconcileInterval,
		Policy:    d.policy(),
	}, p.registry, d.log)
	return p, nil
}

// policy is how the cluster deals with machines that fall silent.
func (d *Daemon) policy() sched.Policy {
	return sched.Policy{MoveAfter: d.cfg.MoveAfter, HoldFraction: d.cfg.HoldFraction}
}

// openRegistry connects to the store; it does not wait for it.
func (d *Daemon) openRegistry(log *slog.Logger) (*registry.Registry, error) {
	tls, err := d.storeTLS()
	if err != nil {
		return nil, err
	}
	return registry.Open(registry.Config{
		Endpoints: d.cfg.EtcdServers, TLS: tls,
		Username: d.cfg.EtcdUsername, Password: d.cfg.EtcdPassword,
		Prefix: d.cfg.EtcdKeyPrefix, Timeout: d.cfg.EtcdRequestTimeout,
	}, log)
}

// whoAmI finds the machine's id, names and keys.
func (d *Daemon) whoAmI() (registry.Presence, peer.Identity, error) {
	var p registry.Presence
	id, err := machineID(d.cfg.MachineID)
	if err != nil {
		return p, peer.Identity{}, err
	}
	if err := makeDirs(d.cfg.StateDir, d.cfg.RunDir); err != nil {
		return p, peer.Identity{}, err
	}
	identity, err := peer.LoadIdentity(d.inState("peer.key"))
	if err != nil {
		return p, peer.Identity{}, err
	}
	instance, err := instanceToken(d.inState("instance"))
	if err != nil {
		return p, peer.Identity{}, err
	}
	cores, memory := d.cfg.capacity()
	return registry.Presence{
		Machine: model.Machine{
			Cores: cores, Memory: memory,
			ID: id, IP: d.address(), Hostname: hostname(d.cfg.Hostname), Metadata: d.cfg.Metadata,
			Version: applet.Version, Boot: rand.Text(),
		},
		Instance: instance,
	}, identity, nil
}

// listen takes the sockets, so that what is in use is said before anything runs.
func (p *parts) listen() error {
	ln, err := listenPeers(p.cfg.PeerListen)
	if err != nil {
		return err
	}
	if ln != nil {
		p.peerLn = ln
		p.presence.PeerKey = p.identity.Key()
		p.presence.PeerAddr = peerAddr(ln.Addr(), p.presence.IP)
	}
	if p.door, err = newDoor(p.cfg, p.log); err == nil {
		p.apiLns, err = p.door.listen(p.cfg, p.deps.Listeners)
	}
	if err != nil {
		p.closeListeners()
	}
	return err
}

func (p *parts) closeListeners() {
	if p.peerLn != nil {
		p.peerLn.Close()
	}
	for _, ln := range p.apiLns {
		ln.Close()
	}
}

func (p *parts) runEngine(ctx context.Context, ready func()) error {
	ready()
	if p.cfg.DisableEngine {
		<-ctx.Done()
		return nil
	}
	p.engine.Run(ctx)
	return nil
}

func (p *parts) runPeers(ctx context.Context, ready func()) error {
	ready()
	if p.peerLn == nil {
		<-ctx.Done()
		return nil
	}
	return peer.NewServer(p.identity, p.presence.Hostname, (&trust{read: p.peerKeys}).accept, p.local(), p.log).Serve(ctx, p.peerLn)
}

// peerKeys reads the keys of the machines that are present.
func (p *parts) peerKeys(ctx context.Context) (map[string]bool, error) {
	v, err := p.registry.ReadMachines(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, m := range v.Machines() {
		if m.PeerKey != "" {
			keys[m.PeerKey] = true
		}
	}
	return keys, nil
}

// local is what this machine can say and do about its own units.
type local struct {
	unit.LogReader
	unit.Manager
	agent *agent.Agent
}

// Adopt implements peer.Local.
func (l local) Adopt(ctx context.Context, name string) (string, error) {
	return l.agent.Adopt(ctx, name)
}

// Eject implements peer.Local.
func (l local) Eject(ctx context.Context, name string) error { return l.agent.Eject(ctx, name) }

func (p *parts) local() local {
	return local{LogReader: p.deps.Log, Manager: p.deps.Manager, agent: p.agent}
}

func (p *parts) runAPI(ctx context.Context, ready func()) error {
	deps := unitshttp.Deps{
		Store: p.registry, Local: p.local(), Who: p.door.who, Events: p.notes.tell,
		Problem: p.agent.Problem,
		Metrics: metrics(p.engine.Stats(), p.registry, p.notes), Log: p.log,
	}
	if p.peerLn != nil {
		deps.Peers = peer.NewClient(p.identity)
	}
	server := &http.Server{
		Handler: unitshttp.New(unitshttp.Config{
			Machine: p.presence.ID, Hostname: p.presence.Hostname, Version: applet.Version,
			TokenLimit: p.cfg.TokenLimit, Policy: p.policy(), Patience: p.cfg.EtcdRequestTimeout,
		}, deps),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       p.door.greet,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelWarn), // handshakes that fail
	}
	ended := make(chan error, len(p.apiLns))
	for _, ln := range p.apiLns {
		go func() { ended <- server.Serve(ln) }()
	}
	ready()
	select {
	case err := <-ended:
		server.Close()
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	// Requests see ctx end; those that only have to be written out may do so.
	limited, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		server.Close()
	}
	return nil
}

// addressEvery is how often the machine's address is detected anew.
const addressEvery = time.Minute

// upkeep keeps what the machine says of itself true until ctx is done.
func (p *parts) upkeep(ctx context.Context) {
	tick := time.NewTicker(addressEvery)
	defer tick.Stop()
	cfg := p.cfg
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case w := <-p.deps.Dump:
			p.dump(ctx, w)
			continue
		case next, ok := <-p.deps.Reload:
			if !ok {
				p.deps.Reload = nil
				continue
			}
			cfg.Metadata, cfg.PublicIP = next.Metadata, next.PublicIP
			cfg.Cores, cfg.Memory = next.Cores, next.Memory
			cfg.ReserveCores, cfg.ReserveMemory = next.ReserveCores, next.ReserveMemory
			p.log.Info("configuration read again", "metadata", cfg.Metadata)
			if err := p.door.load(p.cfg); err != nil {
				p.log.Error("certificates of the API not read again, the old ones stay in force", "err", err)
			}
		}
		p.renew(cfg)
	}
}

// renew publishes address and metadata if they are not what was published.
func (p *parts) renew(cfg Config) {
	next := p.presence
	next.IP, next.Metadata = (&Daemon{cfg: cfg}).address(), cfg.Metadata
	next.Cores, next.Memory = cfg.capacity()
	if p.peerLn != nil {
		next.PeerAddr = peerAddr(p.peerLn.Addr(), next.IP)
	}
	if samePresence(next, p.presence) {
		return
	}
	if next.IP != p.presence.IP {
		p.log.Info("the machine has another address", "ip", next.IP, "before", p.presence.IP)
	}
	p.presence = next
	p.agent.Update(func(old *registry.Presence) { *old = next })
}
