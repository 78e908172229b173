package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"flotilla/internal/fault"
	"flotilla/internal/kv/holder"
)

// identity is what a data directory says about its owner.
type identity struct {
	member, cluster uint64
	name            string // "" while the member has not yet published it
}

// checkDataDir says whether the member of this name may start on dir, without
// changing anything. fresh means that nothing of a member is there yet.
func checkDataDir(dir, ownWAL, name string) (fresh bool, err error) {
	if err := checkAccess(dir); err != nil {
		return false, err
	}
	segments, err := walSegments(walDir(dir, ownWAL))
	if err != nil {
		return false, fmt.Errorf("read the log of data directory %s: %w", dir, err)
	}
	if len(segments) == 0 {
		return true, nil
	}
	id, err := readIdentity(dir, segments[0])
	if err != nil {
		return false, err
	}
	if id.name != "" && id.name != name {
		return false, fault.Hint(
			fmt.Errorf("data directory %s belongs to member %q (%x of cluster %x), not to %q", dir, id.name, id.member, id.cluster, name),
			"start it as --name %s, or give %q a --data-dir of its own", id.name, name)
	}
	return false, nil
}

// checkAccess wants a directory to read and write, or one above that is writable.
func checkAccess(dir string) error {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(filepath.Clean(dir))
		if parent == filepath.Clean(dir) {
			return fmt.Errorf("data directory %s: %w", dir, err)
		}
		if err := checkAccess(parent); err != nil {
			return fmt.Errorf("make data directory %s: %w", dir, err)
		}
		return nil
	}
	if err != nil {
		return fault.Hint(fmt.Errorf("data directory: %w", err), "--data-dir says where it is")
	}
	if !st.IsDir() {
		return fault.Hint(fmt.Errorf("%s is not a directory", dir), "--data-dir has to name a directory, or nothing that exists")
	}
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return fault.Hint(fmt.Errorf("directory %s is not readable and writable for user %d: %w", dir, os.Getuid(), err),
			"run as its owner, or choose another --data-dir")
	}
	return nil
}

// walDir is where the log is: own, as --wal-dir says, or in the data directory.
func walDir(dir, own string) string {
	if own != "" {
		return own
	}
	return filepath.Join(dir, "member", "wal")
}

// dbPath is the engine's database.
func dbPath(dir string) string { return filepath.Join(dir, "member", "snap", "db") }

// walSegments lists the log's files, oldest first. None means no member.
func walSegments(dir string) ([]string, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	slices.Sort(names)
	return names, err
}

// readIdentity takes the ids from the head of the log and the name from the
// engine's list of members. A data directory in use is an error.
func readIdentity(dir, segment string) (identity, error) {
	id, err := readIDs(segment)
	if err != nil {
		return id, fault.Hint(fmt.Errorf("read who owns data directory %s: %s: %w", dir, segment, err),
			"if the disk lost data, remove this member from the cluster and add it anew with an empty directory")
	}
	path := dbPath(dir)
	id.name, err = readName(path, id.member)
	if errors.Is(err, berrors.ErrTimeout) {
		return id, fault.Hint(fmt.Errorf("data directory %s is in use%s", dir, holder.By(holder.OfLock(path))),
			"stop that one first, or choose another --data-dir")
	}
	if err != nil {
		return id, fmt.Errorf("read who owns data directory %s: %s: %w", dir, path, err)
	}
	return id, nil
}

// readIDs reads the log's first metadata record, which every segment begins with.
func readIDs(segment string) (identity, error) {
	f, err := os.Open(segment)
	if err != nil {
		return identity{}, err
	}
	defer f.Close()
	dec := wal.NewDecoder(fileutil.NewFileReader(f))
	var rec walpb.Record
	for {
		if err := dec.Decode(&rec); errors.Is(err, io.EOF) {
			return identity{}, errors.New("no identity in the log")
		} else if err != nil {
			return identity{}, err
		}
		if rec.GetType() != wal.MetadataType {
			// The checksum record: it carries what the sum goes on from.
			dec.UpdateCRC(rec.GetCrc())
			continue
		}
		var meta etcdserverpb.Metadata
		if err := proto.Unmarshal(rec.GetData(), &meta); err != nil {
			return identity{}, err
		}
		return identity{member: meta.GetNodeID(), cluster: meta.GetClusterID()}, nil
	}
}

// readName looks the member up in the engine's database, opened read-only.
func readName(path string, member uint64) (name string, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 100 * time.Millisecond})
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		members := tx.Bucket([]byte("members"))
		if members == nil {
			return nil
		}
		raw := members.Get([]byte(strconv.FormatUint(member, 16)))
		if raw == nil {
			return nil
		}
		var attrs struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(raw, &attrs); err != nil {
			return fmt.Errorf("member %x: %w", member, err)
		}
		name = attrs.Name
		return nil
	})
	return name, err
}

// undo removes what a start made that failed before it wrote the log: a fresh
// directory is as it was, and nothing of a running cluster can be lost.
func undo(dir, ownWAL string) error {
	if segments, err := walSegments(walDir(dir, ownWAL)); err != nil || len(segments) > 0 {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "member")); err != nil {
		return err
	}
	os.Remove(dir) // only if it is empty
	return nil
}
