package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"flotilla/internal/kv/whereabouts"
)

// PeerPath is where a member says on its peer port who and where it is: GET, or
// POST with the asker's own card, which is taken as a hint. Both answer with a
// whereabouts.Card; 503 while the member does not know yet who it is.
const PeerPath = "/flotilla/peer"

// Hints is a place where a member may learn at which peer URLs to look for the
// others of its cluster. What it says is believed only as far as the members
// themselves confirm it.
type Hints struct {
	Name string // for the log
	Find func(context.Context) (peerURLs []string, err error)
	// Tell makes this member's own peer URLs known there; nil where that cannot be.
	Tell func(ctx context.Context, member uint64, name string, peerURLs []string) error
}

const (
	scoutInterval = 250 * time.Millisecond // between looks at the engine
	calmInterval  = time.Second            // and while there is nothing to do
	ownInterval   = 5 * time.Second        // between looks at the machine's own addresses
	askTimeout    = 2 * time.Second        // for one member, and for all hints together
	askAtOnce     = 16
	// maxAsked bounds how many addresses are tried in one round, and how many hints
	// of others are kept.
	maxAsked   = 64
	maxAskWait = 10 * time.Second // between two rounds, after a while without success
	maxCard    = 64 << 10         // bytes
)

// scout knows where this member is, tells others who ask, and looks for them while
// there is no leader.
type scout struct {
	log    *slog.Logger
	cfg    *embed.Config
	hints  []Hints
	client *http.Client
	own    func() (clients, peers []url.URL, err error) // where this member can be reached now
	rung   chan struct{}                                // somebody told where it is; buffered

	announcing sync.Mutex // one attempt at a time

	mu         sync.Mutex
	engine     *embed.Etcd // nil while none runs
	card       whereabouts.Card
	met        map[whereabouts.ID]whereabouts.Meeting
	givenUp    []whereabouts.ID
	joining    bool     // anew, and without a vote until it has caught up
	heard      []string // peer URLs that others told, the latest last
	announced  []string // the own peer URLs that the cluster has recorded
	told       string   // the own peer URLs that the hints know
	tellNext   time.Time
	rehomes    int       // in a row, without a leader in between
	rehomed    bool      // and not announced since
	leaderless time.Time // since when nobody leads; zero: somebody does
	// failing is since when the leader does not take this member's address; zero: it
	// does, or there is nothing to take.
	failing time.Time
}

func newScout(m *Member, cfg *embed.Config) (*scout, error) {
	tr, err := transport.NewTransport(cfg.PeerTLSInfo, time.Second)
	if err != nil {
		return nil, fmt.Errorf("prepare to speak to peers: %w", err)
	}
	s := &scout{
		log: m.log, cfg: cfg, client: &http.Client{Transport: tr, Timeout: askTimeout},
		own: func() (clients, peers []url.URL, err error) { return m.advertised(cfg) }, rung: make(chan struct{}, 1),
	}
	s.hints = append(s.hints, Hints{Name: "--initial-cluster", Find: initialCluster(cfg.InitialCluster)})
	if len(m.cfg.PeerHints) > 0 {
		s.hints = append(s.hints, Hints{Name: "--peer-hints", Find: func(context.Context) ([]string, error) { return m.cfg.PeerHints, nil }})
	}
	if cfg.DNSCluster != "" {
		s.hints = append(s.hints, Hints{Name: "--discovery-srv", Find: srvHints(cfg)})
	}
	s.hints = append(s.hints, m.cfg.Hints...)
	_, err = os.Stat(filepath.Join(cfg.Dir, rejoinFile))
	s.joining = err == nil
	return s, nil
}

func initialCluster(list string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) {
		var urls []string
		for _, entry := range strings.Split(list, ",") {
			if _, u, ok := strings.Cut(entry, "="); ok {
				urls = append(urls, u)
			}
		}
		return urls, nil
	}
}

func srvHints(cfg *embed.Config) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) {
		found, err := srv.GetClient("etcd-server", cfg.DNSCluster, cfg.DNSClusterServiceName)
		if err != nil {
			return nil, err
		}
		return found.Endpoints, nil
	}
}

// introduce says who this member is and where it last knew the others, before an
// engine runs.
func (s *scout) introduce(id identity, peers []url.URL, others []Other) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.card = whereabouts.Card{
		Cluster: whereabouts.ID(id.cluster), ID: whereabouts.ID(id.member), Name: s.cfg.Name, PeerURLs: types.URLs(peers).StringSlice(),
	}
	for _, m := range others {
		if m.ID != s.card.ID {
			s.heard = append(s.heard, m.PeerURLs...)
		}
	}
}

// attach makes a running engine known until detach.
func (s *scout) attach(e *embed.Etcd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := e.Config()
	s.engine = e
	s.announced, s.failing = nil, time.Time{}
	s.card = whereabouts.Card{
		Cluster: whereabouts.ID(e.Server.Cluster().ID()), ID: whereabouts.ID(e.Server.MemberID()), Name: cfg.Name,
		PeerURLs: types.URLs(cfg.AdvertisePeerUrls).StringSlice(), ClientURLs: types.URLs(cfg.AdvertiseClientUrls).StringSlice(),
	}
}

func (s *scout) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engine = nil
}

// me is this member's card as of now; false until an engine has run.
func (s *scout) me() (whereabouts.Card, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.card
	c.Leader = s.engine != nil && s.engine.Server.Leader() != 0
	c.GivenUp = s.givenUp
	c.Met = map[whereabouts.ID][]string{}
	if c.Leader {
		for _, m := range s.engine.Server.Cluster().Members() {
			if id := whereabouts.ID(m.ID); id != c.ID {
				c.Met[id] = m.PeerURLs
			}
		}
	}
	for id, m := range s.met {
		c.Met[id] = m.At
	}
	return c, c.ID != 0
}

// ServeHTTP answers at PeerPath.
func (s *scout) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	me, ok := s.me()
	if !ok {
		http.Error(w, "this member does not know yet who it is", http.StatusServiceUnavailable)
		return
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		var c whereabouts.Card
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCard)).Decode(&c); err != nil {
			http.Error(w, "want a card as JSON: "+err.Error(), http.StatusBadRequest)
			return
		}
		s.hear(c)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	answer(w, http.StatusOK, me)
}

// hear keeps what a member says of its place, as a hint.
func (s *scout) hear(c whereabouts.Card) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Cluster != s.card.Cluster || c.ID == s.card.ID {
		return
	}
	for _, u := range c.PeerURLs {
		if len(u) > 1000 || slices.Contains(s.heard, u) {
			continue
		}
		s.heard = append(s.heard, u)
		select {
		case s.rung <- struct{}{}:
		default:
		}
	}
	s.heard = s.heard[max(0, len(s.heard)-maxAsked):]
}

// view is what there is to decide on.
func (s *scout) view() whereabouts.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := whereabouts.View{Self: s.card.ID, Own: s.card.PeerURLs, Unofficial: s.rehomed, Met: s.met}
	if s.engine == nil {
		return v
	}
	v.Leader = s.engine.Server.Leader() != 0
	v.Unheard = !s.failing.IsZero() && time.Since(s.failing) > unheardAfter
	for _, m := range s.engine.Server.Cluster().Members() {
		v.Recorded = append(v.Recorded, whereabouts.Member{ID: whereabouts.ID(m.ID), PeerURLs: m.PeerURLs, Learner: m.IsLearner})
	}
	return v
}

// watch looks for the others while there is no leader that hears this member, and
// makes the own addresses known while there is one. It returns a pause when the engine has to be told of
// addresses, nil when ctx is done.
func (s *scout) watch(ctx context.Context) *pause {
	tick := time.NewTimer(scoutInterval)
	defer tick.Stop()
	// A healthy cluster elects a leader within two election timeouts.
	patience := 2 * time.Duration(s.cfg.ElectionMs) * time.Millisecond
	alone, lookedAt := time.Now(), time.Time{} // since when there is no leader; when the own addresses were looked at
	wait := patience
	for {
		now := time.Now()
		if now.Sub(lookedAt) > ownInterval {
			lookedAt = now
			if p := s.lookAtOwn(); p != nil {
				return p
			}
			s.lookAtGivenUp(ctx)
		}
		v := s.view()
		s.noteLeader(v.Leader)
		if v.Leader && !v.Unheard {
			alone, wait = now, patience
			s.settled(ctx, v)
		} else if now.Sub(alone) > wait {
			s.ask(ctx)
			v = s.view()
			if p := s.rehome(v); p != nil {
				return p
			}
			if v.Leader {
				s.settled(ctx, v)
			}
			wait = min(wait*3/2, maxAskWait)
			alone = now
		}
		tick.Reset(s.interval())
		select {
		case <-tick.C:
		case <-s.rung:
			wait = 0
		case <-ctx.Done():
			return nil
		}
	}
}

// interval is until the next look. Who has seen a leader at the last look counts its
// absence from there, so that looking less often makes nobody notice later.
func (s *scout) interval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	recorded := slices.Equal(s.announced, s.card.PeerURLs) && s.failing.IsZero() && !s.joining
	if recorded && s.engine != nil && s.engine.Server.Leader() != 0 {
		return calmInterval
	}
	return scoutInterval
}

// lookAtOwn is a pause when the machine's own address has changed under the running
// engine.
func (s *scout) lookAtOwn() *pause {
	clients, peers, err := s.own()
	if err != nil {
		return nil // for now it has none
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sameSet(types.URLs(peers).StringSlice(), s.card.PeerURLs) && sameSet(types.URLs(clients).StringSlice(), s.card.ClientURLs) {
		return nil
	}
	return &pause{why: "the address of this machine is another now: " + joinURLs(peers)}
}

// lookAtGivenUp learns from the store who was given up.
func (s *scout) lookAtGivenUp(ctx context.Context) {
	s.mu.Lock()
	e := s.engine
	s.mu.Unlock()
	if e == nil {
		return
	}
	ids, err := givenUpIDs(ctx, e)
	if err != nil {
		s.log.Debug("cannot ask the store", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.givenUp = ids
}

// settled is what is to do while there is a leader.
func (s *scout) settled(ctx context.Context, v whereabouts.View) {
	s.mu.Lock()
	s.met, s.rehomes = nil, 0
	s.mu.Unlock()
	s.promote(ctx)
	err := s.announce(ctx, v)
	if err != nil && ctx.Err() == nil {
		s.log.Debug("cannot record this member's address yet", "err", err)
	}
	s.heardBy(err)
	s.tell(ctx)
}

// heardBy notes whether the leader took this member's address.
func (s *scout) heardBy(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failing = time.Time{}
	case s.failing.IsZero():
		s.failing = time.Now()
	}
}

// unheardAfter is for how long the leader may fail to take this member's address
// until the member looks for the others as if there were no leader. It is a few
// attempts.
const unheardAfter = 5 * announceTimeout

// announceTimeout is how long one attempt may take. While another change of
// membership is under way the leader drops a second one without a word, so it is
// better to try again soon than to wait.
const announceTimeout = time.Second

// announce has the cluster record this member's own addresses, once for each that
// it has: what is changed by hand later stays.
func (s *scout) announce(ctx context.Context, v whereabouts.View) error {
	s.announcing.Lock()
	defer s.announcing.Unlock()
	s.mu.Lock()
	e, done := s.engine, slices.Equal(s.announced, v.Own)
	s.mu.Unlock()
	if done || e == nil || !v.Leader {
		return nil
	}
	ctx, cancel := context.WithTimeout(e.Server.AuthStore().WithRoot(ctx), announceTimeout)
	defer cancel()
	for _, step := range whereabouts.Decide(v) {
		update := membership.Member{ID: types.ID(step.Member), RaftAttributes: membership.RaftAttributes{PeerURLs: step.PeerURLs}}
		if _, err := e.Server.UpdateMember(ctx, update); err != nil {
			return fmt.Errorf("record the peer addresses %v: %w", step.PeerURLs, err)
		}
		s.log.Info("the cluster has recorded this member's address", "because", step.Why)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced, s.rehomed = v.Own, false
	return nil
}

// ask tries all addresses that anybody suggests and remembers who answered where.
func (s *scout) ask(ctx context.Context) {
	me, ok := s.me()
	if !ok {
		return
	}
	s.tell(ctx)
	body, err := json.Marshal(me)
	if err != nil {
		s.log.Error("cannot write this member's card", "err", err)
		return
	}
	met := map[whereabouts.ID]whereabouts.Meeting{}
	asked := map[string]bool{}
	for todo := s.suggestions(ctx); len(todo) > 0 && len(asked) < maxAsked; {
		next := unasked(todo, asked)
		todo = nil
		for u, c := range s.askAll(ctx, next, body) {
			if c.Cluster != me.Cluster || c.ID == me.ID {
				continue
			}
			m := met[c.ID]
			met[c.ID] = whereabouts.Meeting{Card: c, At: append(m.At, u)}
			todo = append(todo, c.PeerURLs...)
			for _, at := range c.Met {
				todo = append(todo, at...)
			}
		}
	}
	for _, m := range met {
		slices.Sort(m.At)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.met = met
}

// unasked is the addresses of todo that are new, marked as asked.
func unasked(todo []string, asked map[string]bool) []string {
	var out []string
	for _, raw := range todo {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			continue
		}
		if base := u.Scheme + "://" + u.Host; !asked[base] && len(asked) < maxAsked {
			asked[base] = true
			out = append(out, base)
		}
	}
	return out
}

// suggestions is where to begin: what others told, what is on record, what the
// hints say.
func (s *scout) suggestions(ctx context.Context) []string {
	s.mu.Lock()
	urls := slices.Clone(s.heard)
	s.mu.Unlock()
	slices.Reverse(urls)
	for _, m := range s.view().Recorded {
		urls = append(urls, m.PeerURLs...)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, h := range s.hints {
		found, err := h.Find(ctx)
		if err != nil {
			s.log.Debug("no hints", "from", h.Name, "err", err)
		}
		urls = append(urls, found...)
	}
	return urls
}

// tellInterval is between two attempts to reach a place of hints that is away.
const tellInterval = 10 * time.Second

// tell makes the own addresses known to the hints that can be told, once for each
// address.
func (s *scout) tell(ctx context.Context) {
	s.mu.Lock()
	card, now := s.card, time.Now()
	own := strings.Join(card.PeerURLs, ",")
	due := own != s.told && now.After(s.tellNext)
	if due {
		s.tellNext = now.Add(tellInterval)
	}
	s.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, h := range s.hints {
		if h.Tell == nil {
			continue
		}
		if err := h.Tell(ctx, uint64(card.ID), card.Name, card.PeerURLs); err != nil {
			s.log.Debug("cannot make the own address known", "to", h.Name, "err", err)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = own
}

// askAll asks several addresses at once; those that give no card are left out.
func (s *scout) askAll(ctx context.Context, urls []string, body []byte) map[string]whereabouts.Card {
	var mu sync.Mutex
	cards := map[string]whereabouts.Card{}
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for _, u := range urls {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := s.askOne(ctx, u, body)
			if err != nil {
				s.log.Debug("no member answers", "at", u, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			cards[u] = c
		})
	}
	wg.Wait()
	return cards
}

func (s *scout) askOne(ctx context.Context, base string, body []byte) (whereabouts.Card, error) {
	var c whereabouts.Card
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+PeerPath, bytes.NewReader(body))
	if err != nil {
		return c, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c, errors.New(resp.Status)
	}
	return c, json.NewDecoder(io.LimitReader(resp.Body, maxCard)).Decode(&c)
}

// rehome is the pause in which the engine learns where the others are; nil when
// that would lead nowhere.
func (s *scout) rehome(v whereabouts.View) *pause {
	steps := whereabouts.Decide(v)
	if len(steps) == 0 || steps[0].Op != whereabouts.Rehome {
		return nil
	}
	places := map[whereabouts.ID][]string{}
	var why []string
	for _, step := range steps {
		places[step.Member] = step.PeerURLs
		why = append(why, step.Why)
	}
	s.mu.Lock()
	s.rehomes++
	s.rehomed = true
	wait := time.Duration(s.rehomes-1) * time.Second // a second time in a row is odd: no haste
	s.mu.Unlock()
	return &pause{why: strings.Join(why, "; "), mend: func(ctx context.Context) error {
		if err := sleep(ctx, min(wait, maxAskWait)); err != nil {
			return err
		}
		return caught(func() error { return writePlaces(s.cfg, maps.Clone(places)) })
	}}
}

// sleep waits, unless ctx is done first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
