package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
)

// askTimeout is how long one member may take to list the cluster.
const askTimeout = 3 * time.Second

// cluster is the members as one of them has told.
type cluster struct {
	peers   []string // peer URLs
	clients []string // client URLs, without those of learners, which answer nobody
}

// ask has the first peer that answers list the members, in random order. A member
// answers this without the others.
func ask(ctx context.Context, rt http.RoundTripper, peers []string) (cluster, error) {
	if len(peers) == 0 {
		return cluster{}, errors.New("no peer is known")
	}
	var errs []error
	for _, i := range rand.Perm(len(peers)) {
		c, err := askOne(ctx, rt, peers[i])
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", peers[i], err))
	}
	return cluster{}, errors.Join(errs...)
}

func askOne(ctx context.Context, rt http.RoundTripper, peer string) (cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peer+"/members", nil)
	if err != nil {
		return cluster{}, err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return cluster{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return cluster{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return cluster{}, fmt.Errorf("list of members: %s", resp.Status)
	}
	return parseMembers(body)
}

// parseMembers reads what a member answers on its peer address to /members.
func parseMembers(body []byte) (cluster, error) {
	var members []struct {
		PeerURLs   []string `json:"peerURLs"`
		ClientURLs []string `json:"clientURLs"`
		IsLearner  bool     `json:"isLearner"`
	}
	if err := json.Unmarshal(body, &members); err != nil {
		return cluster{}, fmt.Errorf("list of members: %w", err)
	}
	var c cluster
	for _, m := range members {
		c.peers = append(c.peers, m.PeerURLs...)
		if !m.IsLearner {
			c.clients = append(c.clients, m.ClientURLs...)
		}
	}
	if len(c.peers) == 0 {
		return cluster{}, errors.New("list of members: nobody is in it")
	}
	slices.Sort(c.peers)
	slices.Sort(c.clients)
	c.peers, c.clients = slices.Compact(c.peers), slices.Compact(c.clients)
	return c, nil
}

// file is what a proxy keeps: where to ask for members after a restart.
type file struct {
	PeerURLs []string
}

func clusterFile(dir string) string { return filepath.Join(dir, "proxy", "cluster") }

// loadPeers reads the peers of before; none if there are none.
func loadPeers(dir string) ([]string, error) {
	path := clusterFile(dir)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f file
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("read the peers of before from %s: %w", path, err), "remove the file: the flags say where the cluster is")
	}
	return f.PeerURLs, nil
}

func savePeers(dir string, peers []string) error {
	path := clusterFile(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the peers: %w", err)
	}
	raw, err := json.Marshal(file{peers})
	if err != nil {
		return err
	}
	return atomicfile.Write(path, raw, 0o600)
}
