package etcdctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

func importCommand() command {
	var file string
	var hidden []string
	clients := 10
	return command{
		name: "import", summary: "write the keys of an etcd 0.4 snapshot into the store",
		flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "snap", "", "the snapshot: the file .ss of etcd 0.4, or the JSON within")
			fs.Func("hidden", "a hidden key (/_...) to take along; may be given again", func(key string) error {
				hidden = append(hidden, key)
				return nil
			})
			fs.IntVar(&clients, "c", clients, "how many keys to write at the same time")
		},
		check: func([]string) error {
			if file == "" {
				return fault.Code(exitUsage, said{classic("no snapshot file provided (use --snap)")})
			}
			if clients < 1 {
				return badUsage("-c %d: at least one client is needed", clients)
			}
			return nil
		},
		run: func(ctx context.Context, s *session, _ []string) error {
			raw, err := os.ReadFile(file)
			if err != nil {
				return fault.Code(exitUsage, said{fmt.Errorf("cannot read snapshot file %s: %w", file, errors.Unwrap(err))})
			}
			files, err := oldKeys(raw, hidden, time.Now())
			if err != nil {
				return fault.Code(exitUsage, fmt.Errorf("snapshot file %s: %w", file, err))
			}
			return s.importAll(ctx, file, files, clients)
		},
	}
}

// importAll writes the keys, several at a time. The first that fails ends it.
func (s *session) importAll(ctx context.Context, file string, files []oldKey, clients int) error {
	fmt.Fprintf(s.env.Stdout, "starting to import snapshot %s with %d clients\n", file, clients)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for _, f := range files {
		group.Go(func() error {
			_, err := s.client.Set(ctx, f.key, f.value, keys.SetOptions{TTL: f.ttl})
			if err != nil {
				return fmt.Errorf("copy key %s: %w", f.key, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fromStore(err)
	}
	fmt.Fprintf(s.env.Stdout, "finished importing %d keys\n", len(files))
	return nil
}

// oldKey is a key with a value, to be written.
type oldKey struct {
	key, value string
	ttl        time.Duration // 0: for ever
}

// oldNode is a node of the tree in a snapshot of etcd 0.4.
type oldNode struct {
	Path       string
	Value      string
	ExpireTime time.Time // zero: never
	Children   map[string]*oldNode
}

// shortestTTL is what a time to live is raised to: who keeps the key alive needs
// time to find the new store.
const shortestTTL = 5 * time.Minute

// oldKeys reads a snapshot and lists what is to be written: all files that are not
// hidden, and those below the hidden keys that are named; in order, without those
// that have expired.
func oldKeys(raw []byte, hidden []string, now time.Time) ([]oldKey, error) {
	root, err := parseSnapshot(raw)
	if err != nil {
		return nil, err
	}
	var out []oldKey
	root.list("/", now, &out)
	for _, h := range hidden {
		h = path.Clean("/" + h)
		n := root.find(h)
		if n == nil {
			return nil, fmt.Errorf("--hidden %s: no such key in it", h)
		}
		n.list(h, now, &out)
	}
	return out, nil
}

// parseSnapshot reads the JSON of a store, bare or as etcd 0.4 kept it: behind a
// line with a checksum, as the state of a Raft snapshot.
func parseSnapshot(raw []byte) (*oldNode, error) {
	raw = bytes.TrimSpace(raw)
	if head, rest, ok := bytes.Cut(raw, []byte("\n")); ok && isChecksum(head) {
		raw = rest
	}
	var file struct {
		State []byte
		Root  *oldNode
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("not a snapshot of etcd 0.4: %w", err)
	}
	if file.Root == nil && len(file.State) > 0 {
		if err := json.Unmarshal(file.State, &file); err != nil {
			return nil, fmt.Errorf("not a snapshot of etcd 0.4: its state: %w", err)
		}
	}
	if file.Root == nil {
		return nil, errors.New("not a snapshot of etcd 0.4: there is no tree in it")
	}
	return file.Root, nil
}

// isChecksum tells the first line of a snapshot file: eight digits.
func isChecksum(line []byte) bool {
	_, err := strconv.ParseUint(string(line), 16, 32)
	return err == nil && len(line) == 8
}

// find is the node at a clean path; nil if there is none.
func (n *oldNode) find(key string) *oldNode {
	for name := range strings.SplitSeq(strings.Trim(key, "/"), "/") {
		if n = n.Children[name]; n == nil {
			return nil
		}
	}
	return n
}

// list appends the files at and below the key, without hidden ones.
func (n *oldNode) list(key string, now time.Time, out *[]oldKey) {
	if n == nil || !n.ExpireTime.IsZero() && !n.ExpireTime.After(now) {
		return
	}
	if n.Children == nil && key != "/" {
		f := oldKey{key: key, value: n.Value}
		if !n.ExpireTime.IsZero() {
			f.ttl = max(n.ExpireTime.Sub(now), shortestTTL)
		}
		*out = append(*out, f)
		return
	}
	var names []string
	for name := range n.Children {
		if !strings.HasPrefix(name, "_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		n.Children[name].list(path.Join(key, name), now, out)
	}
}
