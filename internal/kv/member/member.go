package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"flotilla/internal/fault"
	"flotilla/internal/kv/front"
	"flotilla/internal/kv/gate"
	"flotilla/internal/kv/mvcc"
)

// ErrRemoved is returned by Run when the cluster has removed this member: starting
// it again is of no use.
var ErrRemoved = errors.New("this member was removed from the cluster")

// Deps is what a member gets from outside.
type Deps struct {
	Log *slog.Logger
	Now func() time.Time // nil means time.Now
}

// Member is one member of the store. Run it once.
type Member struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	lock sync.Mutex // guards what follows

	defrag defragRules

	clientURLs, peerURLs []url.URL // bound

	// What Run makes and its parts share; they are not touched before.
	engineLog *engineLog
	reception *reception
	peers     *peerPort
	scout     *scout
	fresh     bool // the data directory is empty as yet
	asked     bool // whether the cluster was recovered without this member
}

// New makes a member; it touches nothing before Run.
func New(cfg Config, deps Deps) *Member {
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	m := &Member{cfg: cfg, log: deps.Log, now: now}
	if cfg.AutoDefrag {
		m.defrag = ownDefrag
	}
	return m
}

// ClientURLs is where the member serves clients, with the ports that were bound.
// It is nil until they are.
func (m *Member) ClientURLs() []string { return m.urls(&m.clientURLs) }

// PeerURLs is where the member listens for other members, as ClientURLs.
func (m *Member) PeerURLs() []string { return m.urls(&m.peerURLs) }

func (m *Member) urls(of *[]url.URL) []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	return types.URLs(*of).StringSlice()
}

// Run starts the member, calls ready when it has joined its cluster and serves,
// and stops it when ctx is done. Clients are answered from the start: until the
// member has joined, and whenever its engine has to be stopped for a while, with
// the reason why not. Run returns nil after a clean stop, ErrRemoved if the cluster
// removed the member, else what went wrong. A failure before the engine has written
// anything leaves the data directory as it was.
func (m *Member) Run(ctx context.Context, ready func()) error {
	allowed := front.Allowed{PlainHTTP: m.cfg.AllowPlainHTTP, AnonymousTLS: m.cfg.AllowAnonymousTLS}
	if err := front.CheckExposure(front.Audiences(m.cfg.Engine), allowed); err != nil {
		return err
	}
	cfg, err := m.settle()
	if err != nil {
		return err
	}
	if m.fresh, err = checkDataDir(cfg.Dir, cfg.WalDir, cfg.Name); err != nil {
		return err
	}
	clients, err := m.listen(cfg)
	if err != nil {
		return err
	}
	defer clients.Close()
	peers, err := bindPeers(cfg)
	if err != nil {
		return err
	}
	m.bound(clients.URLs(), peers.urls)
	m.peers = peers
	if m.scout, err = newScout(m, cfg); err != nil {
		peers.end()
		return err
	}
	own := http.NewServeMux()
	own.Handle(PeerPath, m.scout)
	own.HandleFunc(JoinPath, m.scout.serveJoin)
	peers.serve(own, m.log)
	defer peers.end()
	m.reception = newReception(clients, m.log)
	defer m.reception.end()
	return ignoreCancel(ctx, m.lives(ctx, cfg, sync.OnceFunc(ready)))
}

// bound notes the addresses with the ports that the system picked.
func (m *Member) bound(clients, peers []url.URL) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.clientURLs, m.peerURLs = clients, peers
}

// pause is why a running engine has to be stopped for a while.
type pause struct {
	why string
	// mend is done while the engine is stopped; nil: nothing.
	mend func(context.Context) error
}

func (p *pause) Error() string { return "the engine pauses: " + p.why }

// lives runs one engine after the other on the same data, until one ends for
// another reason than a pause.
func (m *Member) lives(ctx context.Context, cfg *embed.Config, ready func()) error {
	for {
		err := m.live(ctx, cfg, ready)
		var p *pause
		if errors.Is(err, ErrRemoved) {
			if p = m.scout.rejoin(ctx); p == nil {
				return err
			}
			m.log.Warn("this member is none any more", "because", p.why)
		} else if !errors.As(err, &p) {
			return err
		}
		m.reception.say(p.why)
		if p.mend != nil {
			m.engineLog.enter(starting)
			if err := p.mend(ctx); err != nil {
				return err
			}
		}
		m.fresh = false
		m.log.Info("the engine starts again", "after", p.why)
	}
}

// live is one life of the engine. It returns a pause when the engine was stopped to
// be started again.
func (m *Member) live(ctx context.Context, cfg *embed.Config, ready func()) error {
	if err := m.room(cfg).wait(ctx, m.reception.say); err != nil {
		return err
	}
	m.reception.say("the store is starting")
	if !m.asked {
		m.asked = true
		if p, err := m.askFirst(ctx, cfg); err != nil || p != nil {
			return errors.Join(err, errorOf(p))
		}
	}
	e, err := m.startEngine(ctx, cfg)
	if err != nil {
		return err
	}
	m.peers.attach(e)
	m.scout.attach(e)
	defer func() {
		m.engineLog.enter(stopping)
		m.scout.detach()
		e.Close()
		m.peers.detach()
	}()
	pauses, unguard := m.guard(ctx, cfg, e)
	defer unguard()
	if err := m.join(ctx, e, pauses); err != nil {
		return err
	}
	m.engineLog.enter(running)
	return m.serve(ctx, e, pauses, ready)
}

// errorOf is p as an error, nil for none.
func errorOf(p *pause) error {
	if p == nil {
		return nil
	}
	return p
}

// guard watches over a running engine. The channel gives the first reason to pause;
// unguard ends it all.
func (m *Member) guard(ctx context.Context, cfg *embed.Config, e *embed.Etcd) (pauses <-chan *pause, unguard func()) {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan *pause)
	var wg sync.WaitGroup
	for _, watch := range []func(context.Context) *pause{
		m.room(cfg).watch,
		m.scout.watch,
	} {
		wg.Go(func() {
			p := watch(ctx)
			if p == nil {
				return
			}
			select {
			case found <- p:
			case <-ctx.Done():
			}
		})
	}
	return found, func() { cancel(); wg.Wait() }
}

// listen binds the client addresses.
func (m *Member) listen(cfg *embed.Config) (*front.Front, error) {
	c, err := front.Of(cfg)
	if err != nil {
		return nil, err
	}
	c.Log = m.log
	return front.Listen(c)
}

// settle completes the engine's configuration and has the engine check it.
func (m *Member) settle() (*embed.Config, error) {
	cfg := *m.cfg.Engine
	if cfg.Dir == "" {
		cfg.Dir = cfg.Name + ".etcd"
	}
	m.engineLog = newEngineLog(m.log, cfg.Dir, m.now)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(m.engineLog.logger())
	// What is left open here is known only after binding; the check wants
	// something.
	if cfg.AdvertiseClientUrls == nil {
		cfg.AdvertiseClientUrls = []url.URL{}
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return &cfg, nil
}

// startEngine gives the engine its addresses and starts it. A fresh data directory
// is put back as it was if the engine gives up before it wrote its log.
func (m *Member) startEngine(ctx context.Context, cfg *embed.Config) (*embed.Etcd, error) {
	m.engineLog.enter(starting)
	torn, err := m.tornTail(cfg)
	if err != nil {
		return nil, err
	}
	ec := *cfg
	if err := applyRejoin(&ec); err != nil {
		return nil, err
	}
	if m.cfg.AutoDefrag && ec.BootstrapDefragThresholdMegabytes == 0 {
		ec.BootstrapDefragThresholdMegabytes = startDefrag
	}
	if ec.AdvertiseClientUrls, ec.AdvertisePeerUrls, err = m.advertised(cfg); err != nil {
		return nil, err
	}
	e, err := startOrLeave(ctx, engineConfig(ec))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if m.fresh {
			err = errors.Join(err, undo(cfg.Dir, cfg.WalDir))
		}
		return nil, explainStart(err, &ec)
	}
	m.engineLog.enter(joining)
	if torn != nil {
		m.log.Warn("the last record of the log was torn and has been cut off", "file", torn.file, "offset", torn.offset, "kept", torn.file+".broken")
	}
	return e, nil
}

// tornTail looks whether the engine is going to cut its log.
func (m *Member) tornTail(cfg *embed.Config) (*tear, error) {
	segments, err := walSegments(walDir(cfg.Dir, cfg.WalDir))
	if err != nil {
		return nil, err
	}
	return tornTail(segments)
}

// engineConfig is what the engine is started with: none of its own listeners, which
// are the member's.
func engineConfig(cfg embed.Config) *embed.Config {
	if cfg.InitialCluster == "" && cfg.DNSCluster == "" && len(cfg.DiscoveryCfg.Endpoints) == 0 {
		cfg.InitialCluster = clusterOf(cfg.Name, cfg.AdvertisePeerUrls)
	}
	cfg.ListenClientUrls, cfg.ListenClientHttpUrls, cfg.ListenPeerUrls = nil, nil, nil
	cfg.ClientAutoTLS = false // the front has seen to it
	if len(cfg.CipherSuites) > 0 {
		cfg.PeerTLSInfo.CipherSuites = nil // peerTLS has set them; the engine wants to itself
	}
	return &cfg
}

// startOrLeave starts the engine, which cannot be interrupted while it looks for
// other members by discovery. When ctx is done first it is left to itself, to be
// closed should it come up after all.
func startOrLeave(ctx context.Context, cfg *embed.Config) (*embed.Etcd, error) {
	type outcome struct {
		e   *embed.Etcd
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		e, err := startEtcd(cfg)
		done <- outcome{e, err}
	}()
	select {
	case o := <-done:
		return o.e, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.e != nil {
				o.e.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// startEtcd starts the engine and turns what it considers fatal into an error.
func startEtcd(cfg *embed.Config) (e *embed.Etcd, err error) {
	err = caught(func() (err error) {
		e, err = embed.StartEtcd(cfg)
		return err
	})
	return e, err
}

// announceAlone corrects the record of a member that is alone before anybody sees
// it: its port may be another with every start. In a cluster that takes longer, and
// the scout does it.
func (m *Member) announceAlone(ctx context.Context, e *embed.Etcd) error {
	if len(e.Server.Cluster().Members()) > 1 {
		return nil
	}
	return m.scout.announce(ctx, m.scout.view())
}

// caught calls the engine's code and turns what that considers fatal into an error.
func caught(do func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fatalError:
			err = errors.New(string(p))
		case string: // zap panics with the message of a line at level panic
			err = errors.New(p)
		default:
			panic(p)
		}
	}()
	return do()
}

// join waits until the member takes part in its cluster, which takes a majority of
// the members.
func (m *Member) join(ctx context.Context, e *embed.Etcd, pauses <-chan *pause) error {
	m.reception.say("waiting for a majority of the members: " + strings.Join(memberNames(e.Server), " "))
	slow := time.NewTicker(5 * time.Second)
	defer slow.Stop()
	began := m.now()
	for said := false; ; {
		select {
		case <-e.Server.ReadyNotify():
			if said {
				m.log.Info("joined the cluster", "after", m.now().Sub(began))
			}
			return m.announceAlone(ctx, e)
		case <-e.Server.StopNotify():
			return m.ended(e)
		case err := <-e.Err():
			return err
		case p := <-pauses:
			return p
		case <-ctx.Done():
			return ctx.Err()
		case <-slow.C:
			if !said {
				m.log.Warn("waiting for a majority of the members", "members", memberNames(e.Server))
			}
			said = true
		}
	}
}

// ended is why the engine stopped by itself. That it was removed it learns from its
// own log or, when the others no longer send it that, from their refusal to speak
// to it.
func (m *Member) ended(e *embed.Etcd) error {
	why := m.engineLog.end()
	if e.Server.IsIDRemoved(uint64(e.Server.MemberID())) || strings.Contains(why, "permanently removed") {
		return fault.Hint(fmt.Errorf("%w (%s)", ErrRemoved, e.Server.MemberID()),
			"to bring the machine back, add it as a new member and start it with an empty data directory")
	}
	if why != "" {
		return fmt.Errorf("the engine stopped by itself%s", why)
	}
	return errors.New("the engine stopped by itself")
}

// serve runs the gateway and the servers on the running engine until ctx is done or
// there is a reason to pause.
func (m *Member) serve(ctx context.Context, e *embed.Etcd, pauses <-chan *pause, ready func()) error {
	client := v3client.New(e.Server)
	defer client.Close()
	store := mvcc.New(mvcc.Config{
		Client:      client,
		Engine:      e.Server,
		Log:         m.log,
		Active:      func() bool { return e.Server.Leader() == e.Server.MemberID() },
		KeepHistory: e.Config().AutoCompactionRetention != "0",
		Now:         m.now,
	})
	gateway, err := startGateway(ctx, store)
	if err != nil {
		return ignoreCancel(ctx, fmt.Errorf("start the v2 gateway: %w", err))
	}
	defer gateway.stop()

	guardClient := v3client.New(e.Server)
	defer guardClient.Close()
	guard := gate.New(gate.Config{Client: guardClient, Log: m.log, EngineAuth: e.Server.AuthStore().IsAuthEnabled, Now: m.now})
	following, err := startGateway(ctx, guard)
	if err != nil {
		return ignoreCancel(ctx, fmt.Errorf("read users and roles: %w", err))
	}
	defer following.stop()

	servers, err := m.newServers(e, store, guard, m.reception.front)
	if err != nil {
		return err
	}
	m.reception.open(servers)
	leading, unfollow := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer unfollow()
	beside.Go(func() { m.followLeader(leading, e.Server) })
	beside.Go(func() { m.keepSmall(leading, e) })
	m.log.Info("store ready", "name", e.Config().Name, "member", e.Server.MemberID().String(),
		"cluster", e.Server.Cluster().ID().String(), "clients", strings.Join(m.ClientURLs(), ","), "peers", strings.Join(m.PeerURLs(), ","), "data", e.Config().Dir)
	ready()
	select {
	case <-ctx.Done():
		m.reception.front.Close()
	case p := <-pauses:
		m.log.Warn("the engine is stopped for a while", "because", p.why)
		err = p
	case err = <-e.Err():
	case err = <-servers.failed:
	case err = <-m.reception.failed:
	case err = <-m.peers.failed:
	case err = <-gateway.ended:
	case err = <-following.ended:
	case <-e.Server.StopNotify():
		err = m.ended(e)
	}
	m.engineLog.enter(stopping)
	m.reception.close(servers, whyClosed(err))
	return err
}

// whyClosed is what clients are told when the store stopped serving.
func whyClosed(err error) string {
	var p *pause
	switch {
	case errors.As(err, &p):
		return p.why
	case err != nil:
		return err.Error()
	}
	return "the member is stopping"
}

// followLeader logs who leads, when that changes, in a cluster of several.
func (m *Member) followLeader(ctx context.Context, s *etcdserver.EtcdServer) {
	for last := ""; ; {
		changed := s.LeaderChangedNotify()
		if leader, ok := (info{s: s}).Leader(); ok && leader.ID != last && len(s.Cluster().Members()) > 1 {
			last = leader.ID
			m.log.Info("the cluster has a leader", "leader", leader.Name, "member", leader.ID, "term", s.Term())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// gateway is a store whose Run has called ready.
type gateway struct {
	cancel context.CancelFunc
	ended  chan error // its Run returned; buffered
	done   chan struct{}
}

func startGateway(ctx context.Context, store interface {
	Run(ctx context.Context, ready func()) error
}) (*gateway, error) {
	own, cancel := context.WithCancel(context.Background()) // it outlives ctx until the servers have stopped
	g := &gateway{cancel: cancel, ended: make(chan error, 1), done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		err := store.Run(own, func() { close(ready) })
		if err == nil && own.Err() == nil {
			err = errors.New("the v2 gateway ended by itself")
		}
		g.ended <- err
		close(g.done)
	}()
	select {
	case <-ready:
		return g, nil
	case err := <-g.ended:
		cancel()
		return nil, err
	case <-ctx.Done():
		g.stop()
		return nil, ctx.Err()
	}
}

func (g *gateway) stop() {
	g.cancel()
	<-g.done
}

// ignoreCancel makes nil of an error that is our own order to stop.
func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
