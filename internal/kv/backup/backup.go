package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"flotilla/internal/fault"
)

// Dir is where a member keeps its data.
type Dir struct {
	Data string
	WAL  string // "" means member/wal below Data
}

func (d Dir) wal() string {
	if d.WAL != "" {
		return d.WAL
	}
	return filepath.Join(d.Data, "member", "wal")
}

func (d Dir) snap() string { return filepath.Join(d.Data, "member", "snap") }

func (d Dir) db() string { return filepath.Join(d.snap(), "db") }

// Info is what a backup holds.
type Info struct {
	Keys     int64 // of v3, which are somewhat more than v2 shows
	Revision int64 // also the v2 index; 0 or 1 if nothing was ever written
}

// Source takes the snapshot that a backup is made of.
type Source interface {
	// take writes the database to the file path, which is not there yet; with a
	// checksum behind it if hashed.
	take(ctx context.Context, path string) (hashed bool, err error)
}

// Make takes a snapshot from the source and makes the data directory to of it. What
// is at to must not exist or be an empty directory. With verify the result has been
// started and counted. Nothing is left at to after a failure.
func Make(ctx context.Context, from Source, to Dir, verify bool) (info Info, err error) {
	if err := vacant(to); err != nil {
		return Info{}, err
	}
	parent := filepath.Dir(filepath.Clean(to.Data))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return Info{}, fmt.Errorf("make a place for the backup: %w", err)
	}
	work, err := os.MkdirTemp(parent, ".backup-*")
	if err != nil {
		return Info{}, fmt.Errorf("make a place for the backup: %w", err)
	}
	defer os.RemoveAll(work)

	db := filepath.Join(work, "snapshot.db")
	hashed, err := from.take(ctx, db)
	if err != nil {
		return Info{}, err
	}
	made := Dir{Data: filepath.Join(work, "data"), WAL: to.WAL}
	if to.WAL != "" {
		defer func() {
			if err != nil {
				os.RemoveAll(to.WAL)
			}
		}()
	}
	if info, err = restore(db, made, hashed); err != nil {
		return Info{}, err
	}
	if verify {
		if err := check(ctx, made, filepath.Join(work, "check"), info); err != nil {
			return Info{}, err
		}
	}
	return info, publish(made.Data, to.Data)
}

// vacant wants nothing at the place of a backup: no older backup is overwritten.
func vacant(d Dir) error {
	for _, path := range []string{d.Data, d.WAL} {
		entries, err := os.ReadDir(path)
		if path == "" || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("backup to %s: %w", path, err)
		}
		if len(entries) > 0 || path == d.WAL {
			return fault.Hint(fmt.Errorf("backup to %s: there is something already", path), "name a directory that does not exist")
		}
	}
	return nil
}

// publish gives the finished directory its name, and makes that last.
func publish(made, as string) error {
	if err := os.Rename(made, as); err != nil {
		return fmt.Errorf("put the backup in place: %w", err)
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(as)))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.Sync(); err != nil {
		return fmt.Errorf("put the backup in place: %w", err)
	}
	return nil
}

// peerURL is where the new member says it is reached by others, until it has
// started and says better.
const peerURL = "http://localhost:2380"

// restore makes a data directory of the snapshot db, and tells what the snapshot
// holds. The snapshot's checksum and structure are checked.
func restore(db string, to Dir, hashed bool) (Info, error) {
	m := snapshot.NewV3(zap.NewNop())
	status, err := m.Status(db)
	if err != nil {
		return Info{}, fmt.Errorf("read the snapshot: %w", err)
	}
	err = m.Restore(snapshot.RestoreConfig{
		SnapshotPath:  db,
		SkipHashCheck: !hashed,
		OutputDataDir: to.Data,
		OutputWALDir:  to.WAL,
		Name:          "default",
		PeerURLs:      []string{peerURL},
		// The ids of cluster and member are made of these two.
		InitialCluster:      "default=" + peerURL,
		InitialClusterToken: fmt.Sprintf("backup-%d", time.Now().UnixNano()),
	})
	if err != nil {
		return Info{}, fmt.Errorf("make a data directory of the snapshot: %w", err)
	}
	if err := forgetName(to.db()); err != nil {
		return Info{}, fmt.Errorf("make a data directory of the snapshot: %w", err)
	}
	return Info{Keys: int64(status.TotalKey), Revision: status.Revision}, nil
}

// forgetName leaves the member without a name, as one that has never started: it
// takes the name that it is started with.
func forgetName(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bbolt.Tx) error {
		members := tx.Bucket([]byte("members"))
		if members == nil {
			return errors.New("no members in the database")
		}
		id, raw := members.Cursor().First()
		var attrs map[string]any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber() // an id has 64 bits
		if err := dec.Decode(&attrs); err != nil {
			return fmt.Errorf("member %s: %w", id, err)
		}
		delete(attrs, "name")
		raw, err := json.Marshal(attrs)
		if err != nil {
			return err
		}
		return members.Put(id, raw)
	})
}

// check starts the engine on a copy of the directory and wants it to hold what the
// snapshot did.
func check(ctx context.Context, made Dir, scratch string, want Info) error {
	twin := Dir{Data: scratch}
	if err := copyMember(made, twin); err != nil {
		return fmt.Errorf("verify the backup: %w", err)
	}
	got, err := replay(ctx, twin)
	if err != nil {
		return fmt.Errorf("verify the backup: start on it: %w", err)
	}
	if got.Keys != want.Keys || got.Revision < want.Revision {
		return fmt.Errorf("verify the backup: %d keys at revision %d came back of %d keys at revision %d",
			got.Keys, got.Revision, want.Keys, want.Revision)
	}
	return nil
}
