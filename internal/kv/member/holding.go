package member

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"google.golang.org/protobuf/proto"

	"flotilla/internal/fault"
	"flotilla/internal/kv/raftlog"
	"flotilla/internal/kv/whereabouts"
)

// Holding is what the data directory of a stopped member holds.
type Holding struct {
	Dir      string         `json:"dir"`
	Cluster  whereabouts.ID `json:"cluster"`
	ID       whereabouts.ID `json:"id"`
	Name     string         `json:"name"`
	Revision int64          `json:"revision"` // of the database
	Keys     int            `json:"keys"`     // that are not deleted
	Size     int64          `json:"size"`     // bytes of the database
	Term     uint64         `json:"term"`
	// Last is the last entry of the log, Committed the last that this member knows
	// to be committed, Applied the last that the database has.
	Last      uint64  `json:"last"`
	Committed uint64  `json:"committed"`
	Applied   uint64  `json:"applied"`
	Members   []Other `json:"members"` // of the cluster as last known, this one included
}

// Other is a member as a data directory has it on record.
type Other struct {
	ID       whereabouts.ID `json:"id"`
	Name     string         `json:"name"`
	PeerURLs []string       `json:"peerURLs"`
	Learner  bool           `json:"learner,omitempty"`
	Answers  bool           `json:"answers"` // somebody listens at one of the URLs; true for the member itself
}

// Hold reads what a stopped member's data directory holds and tries the addresses of
// the others. It changes nothing. own is the directory of the log, "" if it is in
// dir.
func Hold(ctx context.Context, dir, own string) (Holding, error) {
	h := Holding{Dir: dir}
	if err := checkAccess(dir); err != nil {
		return h, err
	}
	segments, err := walSegments(walDir(dir, own))
	if err != nil {
		return h, fmt.Errorf("read the log of data directory %s: %w", dir, err)
	}
	if len(segments) == 0 {
		return h, fault.Hint(fmt.Errorf("data directory %s holds no member", dir), "--data-dir names the directory of the member that is left")
	}
	id, err := readIdentity(dir, segments[0])
	if err != nil {
		return h, err
	}
	h.Cluster, h.ID, h.Name = whereabouts.ID(id.cluster), whereabouts.ID(id.member), id.name
	if err := errors.Join(h.readDatabase(dbPath(dir)), h.readLog(walDir(dir, own))); err != nil {
		return h, fmt.Errorf("read what data directory %s holds: %w", dir, err)
	}
	h.try(ctx)
	return h, nil
}

// Quorum tells whether the members that answer, this one among them, are a majority:
// then the cluster is not lost.
func (h Holding) Quorum() bool {
	voters, there := 0, 0
	for _, m := range h.Members {
		if m.Learner {
			continue
		}
		voters++
		if m.Answers {
			there++
		}
	}
	return there > voters/2
}

// membersOnRecord is the list of members in a stopped engine's database; none if
// there is no database yet.
func membersOnRecord(path string) ([]Other, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 100 * time.Millisecond})
	if err != nil {
		return nil, fmt.Errorf("read the members in %s: %w", path, err)
	}
	defer db.Close()
	var h Holding
	err = db.View(func(tx *bbolt.Tx) error {
		if members := tx.Bucket([]byte("members")); members != nil {
			return h.readMembers(members)
		}
		return nil
	})
	return h.Members, err
}

func (h *Holding) readDatabase(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		h.Size = tx.Size()
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			if raw := meta.Get([]byte("consistent_index")); len(raw) == 8 {
				h.Applied = binary.BigEndian.Uint64(raw)
			}
		}
		return errors.Join(h.readKeys(tx.Bucket([]byte("key"))), h.readMembers(tx.Bucket([]byte("members"))))
	})
}

// readKeys goes through the history: keys are revisions (8 bytes, '_', 8 bytes, and
// a 't' where the key was deleted), values what was put.
func (h *Holding) readKeys(history *bbolt.Bucket) error {
	if history == nil {
		return nil
	}
	there := map[string]struct{}{}
	err := history.ForEach(func(rev, value []byte) error {
		if len(rev) < 17 {
			return fmt.Errorf("a revision of %d bytes", len(rev))
		}
		h.Revision = int64(binary.BigEndian.Uint64(rev[:8]))
		var kv mvccpb.KeyValue
		if err := proto.Unmarshal(value, &kv); err != nil {
			return fmt.Errorf("revision %d: %w", h.Revision, err)
		}
		if len(rev) > 17 {
			delete(there, string(kv.GetKey()))
		} else {
			there[string(kv.GetKey())] = struct{}{}
		}
		return nil
	})
	h.Keys = len(there)
	return err
}

func (h *Holding) readMembers(members *bbolt.Bucket) error {
	if members == nil {
		return errors.New("no list of members")
	}
	err := members.ForEach(func(_, value []byte) error {
		var m membership.Member
		if err := json.Unmarshal(value, &m); err != nil {
			return fmt.Errorf("list of members: %w", err)
		}
		h.Members = append(h.Members, Other{ID: whereabouts.ID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, Learner: m.IsLearner})
		return nil
	})
	slices.SortFunc(h.Members, func(a, b Other) int { return strings.Compare(a.Name, b.Name) })
	return err
}

func (h *Holding) readLog(dir string) error {
	state, last, err := raftlog.End(dir)
	if err != nil {
		return err
	}
	h.Term, h.Committed, h.Last = state.GetTerm(), max(state.GetCommit(), h.Applied), max(last, h.Applied)
	return nil
}

// try finds out who of the others answers.
func (h *Holding) try(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range h.Members {
		m := &h.Members[i]
		if m.ID == h.ID {
			m.Answers = true
			continue
		}
		wg.Go(func() { m.Answers = slices.ContainsFunc(m.PeerURLs, func(u string) bool { return listens(ctx, u) }) })
	}
	wg.Wait()
}

func listens(ctx context.Context, raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	d := net.Dialer{Timeout: askTimeout}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
