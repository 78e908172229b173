package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"flotilla/internal/atomicfile"
	"flotilla/internal/kv/whereabouts"
)

// A cluster that lost its majority was recovered from one member; another that had
// been given up comes back with its old data. It must not go on from there: it puts
// the data aside and joins as a new member.

// JoinPath is where a member that was given up asks on a peer port to be taken in
// again: POST of its own card. The answer is a Joining; 403 if nobody has given it
// up, 503 if it has to be tried again.
const JoinPath = PeerPath + "/join"

// Joining is what a new member starts with.
type Joining struct {
	InitialCluster string `json:"initialCluster"`
}

// rejoinFile in the data directory says that this member is about to join anew, from
// before its data is put aside until its engine has started.
const rejoinFile = "rejoin.json"

func (s *scout) serveJoin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	var c whereabouts.Card
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCard)).Decode(&c); err != nil {
		http.Error(w, "want a card as JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	me, _ := s.me()
	s.mu.Lock()
	e := s.engine
	s.mu.Unlock()
	switch {
	case !slices.Contains(me.GivenUp, c.ID) || c.Cluster != me.Cluster:
		http.Error(w, "this member was not given up", http.StatusForbidden)
		return
	case e == nil || !me.Leader:
		http.Error(w, "there is no leader now", http.StatusServiceUnavailable)
		return
	}
	joining, err := takeIn(r.Context(), e, c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.log.Info("a member that was given up joins anew", "name", c.Name, "was", c.ID.String(), "at", c.PeerURLs)
	answer(w, http.StatusOK, joining)
}

// takeIn adds a member without a vote, unless it was added before and has not heard
// of it.
func takeIn(ctx context.Context, e *embed.Etcd, c whereabouts.Card) (Joining, error) {
	urls, err := types.NewURLs(c.PeerURLs)
	if err != nil {
		return Joining{}, fmt.Errorf("its peer addresses: %w", err)
	}
	now := time.Now()
	m := membership.NewMemberAsLearner("", urls, "", &now)
	ctx, cancel := context.WithTimeout(e.Server.AuthStore().WithRoot(ctx), askTimeout)
	defer cancel()
	if _, err := e.Server.AddMember(ctx, *m); err != nil && !errors.Is(err, membership.ErrPeerURLexists) {
		return Joining{}, fmt.Errorf("add it: %w", err)
	}
	var entries []string
	for _, m := range e.Server.Cluster().Members() {
		name := m.Name
		if sameSet(m.PeerURLs, c.PeerURLs) {
			name = c.Name
		} else if name == "" {
			name = m.ID.String() // it was added and has not started: any name will do
		}
		for _, u := range m.PeerURLs {
			entries = append(entries, name+"="+u)
		}
	}
	slices.Sort(entries)
	return Joining{InitialCluster: strings.Join(entries, ",")}, nil
}

// survivors is the members that say that this one was given up and that have a
// leader.
func (s *scout) survivors() []whereabouts.Meeting {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []whereabouts.Meeting
	for _, m := range s.met {
		if m.Card.Leader && slices.Contains(m.Card.GivenUp, s.card.ID) {
			out = append(out, m)
		}
	}
	return out
}

// rejoin asks the survivors, if there are any, to be taken in again; nil if nobody
// has given this member up.
func (s *scout) rejoin(ctx context.Context) *pause {
	s.ask(ctx)
	survivors := s.survivors()
	if len(survivors) == 0 {
		return nil
	}
	return &pause{
		why:  "the cluster was recovered without this member: its data is put aside and it joins anew",
		mend: func(ctx context.Context) error { return s.joinAnew(ctx, survivors) },
	}
}

func (s *scout) joinAnew(ctx context.Context, survivors []whereabouts.Meeting) error {
	me, _ := s.me()
	body, err := json.Marshal(me)
	if err != nil {
		return err
	}
	for {
		for _, m := range survivors {
			joining, err := s.askToJoin(ctx, m.At[0], body)
			if err == nil {
				return s.startOver(joining)
			}
			s.log.Debug("not taken in yet", "by", m.Card.Name, "err", err)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (s *scout) askToJoin(ctx context.Context, base string, body []byte) (Joining, error) {
	var j Joining
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+JoinPath, bytes.NewReader(body))
	if err != nil {
		return j, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return j, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return j, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return j, json.NewDecoder(io.LimitReader(resp.Body, maxCard)).Decode(&j)
}

// startOver puts the data aside and prepares the next start of the engine. Each step
// may be repeated: what is to be done is on disk before anything is moved.
func (s *scout) startOver(j Joining) error {
	raw, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(s.cfg.Dir, rejoinFile), raw, 0o600); err != nil {
		return err
	}
	aside := filepath.Join(s.cfg.Dir, "before-rejoin-"+time.Now().UTC().Format("20060102T150405Z"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return fmt.Errorf("put the data aside: %w", err)
	}
	if err := os.Rename(filepath.Join(s.cfg.Dir, "member"), filepath.Join(aside, "member")); err != nil {
		return fmt.Errorf("put the data aside: %w", err)
	}
	if s.cfg.WalDir != "" {
		if err := copyTree(s.cfg.WalDir, filepath.Join(aside, "member", "wal")); err != nil {
			return fmt.Errorf("put the log aside: %w", err)
		}
		if err := os.RemoveAll(s.cfg.WalDir); err != nil {
			return fmt.Errorf("put the log aside: %w", err)
		}
	}
	s.log.Warn("this member's old data is put aside", "at", aside)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining = true
	s.card = whereabouts.Card{} // it will be another member
	return syncDir(s.cfg.Dir)
}

// applyRejoin lets a member that has put its data aside start as a new one.
func applyRejoin(cfg *embed.Config) error {
	if segments, err := walSegments(walDir(cfg.Dir, cfg.WalDir)); err != nil || len(segments) > 0 {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, rejoinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var j Joining
	if err == nil {
		err = json.Unmarshal(raw, &j)
	}
	if err != nil {
		return fmt.Errorf("read how to join anew: %w", err)
	}
	cfg.InitialCluster, cfg.ClusterState = j.InitialCluster, embed.ClusterStateFlagExisting
	cfg.DNSCluster = ""
	return nil
}

// promote gives a member that has joined anew its vote, once it has caught up.
func (s *scout) promote(ctx context.Context) {
	s.mu.Lock()
	e, joining := s.engine, s.joining
	s.mu.Unlock()
	if e == nil || !joining {
		return
	}
	select {
	case <-e.Server.ReadyNotify():
	default:
		return // it has not yet read in the log that it has no vote
	}
	if e.Server.IsLearner() {
		ctx, cancel := context.WithTimeout(e.Server.AuthStore().WithRoot(ctx), askTimeout)
		defer cancel()
		if _, err := e.Server.PromoteMember(ctx, uint64(e.Server.MemberID())); err != nil {
			s.log.Debug("no vote yet", "err", err) // it has not caught up
			return
		}
		s.log.Info("this member has joined anew")
	}
	if err := os.Remove(filepath.Join(s.cfg.Dir, rejoinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot remove the note that this member joins anew", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining = false
}

// askFirst finds out, before an engine starts on old data, whether the cluster was
// recovered without this member.
func (m *Member) askFirst(ctx context.Context, cfg *embed.Config) (*pause, error) {
	segments, err := walSegments(walDir(cfg.Dir, cfg.WalDir))
	if err != nil || len(segments) == 0 {
		return nil, err
	}
	id, err := readIdentity(cfg.Dir, segments[0])
	if err != nil {
		return nil, err
	}
	others, err := membersOnRecord(dbPath(cfg.Dir))
	if err != nil || len(others) < 2 {
		return nil, err
	}
	_, peers, err := m.advertised(cfg)
	if err != nil {
		return nil, err
	}
	m.scout.introduce(id, peers, others)
	return m.scout.rejoin(ctx), nil
}
