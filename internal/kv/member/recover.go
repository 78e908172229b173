package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"

	"flotilla/internal/fault"
	"flotilla/internal/kv/raftlog"
	"flotilla/internal/kv/whereabouts"
)

// givenUpPrefix is where the store keeps the members that recover gave up, by id: a
// key that no v2 path reaches. The value is a givenUp as JSON.
const givenUpPrefix = ".member/given-up/"

type givenUp struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// Recover makes a cluster of one out of the member that h describes, which is stopped
// and whose others are lost. It first copies the data aside, whole, and returns where
// to. Everything in the member's log counts as committed: what the lost majority has
// acknowledged and this member holds is kept, and so may be some writes that nobody
// was told about. Revisions rise on.
//
// It records in the store who was given up, so that those who come back with their
// old data are told to join anew.
func Recover(ctx context.Context, h Holding, own string, log *slog.Logger) (aside string, err error) {
	now := time.Now().UTC()
	aside = fmt.Sprintf("%s.before-recover-%s", filepath.Clean(h.Dir), now.Format("20060102T150405Z"))
	if err := copyAside(h.Dir, own, aside); err != nil {
		return "", fmt.Errorf("keep the data of before at %s: %w", aside, err)
	}
	if err := commitAll(walDir(h.Dir, own)); err != nil {
		return aside, err
	}
	cfg := Defaults().Engine
	cfg.Name, cfg.Dir, cfg.WalDir, cfg.ForceNewCluster = h.Name, h.Dir, own, true
	engineLog := newEngineLog(log, h.Dir, time.Now)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(engineLog.logger())
	cfg.ListenClientUrls, cfg.ListenPeerUrls = nil, nil
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = mustURLs("http://127.0.0.1:1"), mustURLs("http://127.0.0.1:1")
	e, err := startOrLeave(ctx, cfg)
	if err != nil {
		return aside, fmt.Errorf("start the engine alone on %s: %w", h.Dir, err)
	}
	err = recordGivenUp(ctx, e, h, now)
	engineLog.enter(stopping)
	e.Close()
	return aside, errors.Join(err, keepOwner(h.Dir), keepOwner(walDir(h.Dir, own)))
}

// keepOwner gives what root has written below dir to whom the directory belongs: the
// member may run as a user of its own.
func keepOwner(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || os.Getuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
	})
}

// recordGivenUp waits for the engine and writes down who is no longer a member.
func recordGivenUp(ctx context.Context, e *embed.Etcd, h Holding, now time.Time) error {
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		return errors.New("the engine stopped by itself")
	case <-ctx.Done():
		return ctx.Err()
	}
	root := e.Server.AuthStore().WithRoot(ctx)
	for _, m := range h.Members {
		if m.ID == h.ID {
			continue
		}
		value, err := json.Marshal(givenUp{Name: m.Name, At: now})
		if err != nil {
			return err
		}
		if _, err := e.Server.Put(root, &pb.PutRequest{Key: []byte(givenUpPrefix + m.ID.String()), Value: value}); err != nil {
			return fmt.Errorf("record that member %s was given up: %w", m.ID, err)
		}
	}
	return nil
}

// commitAll notes in the log of a stopped member that all of it is committed. A torn
// last record is cut off first, as the engine would.
func commitAll(dir string) error {
	segments, err := walSegments(dir)
	if err != nil {
		return err
	}
	if torn, err := tornTail(segments); err != nil {
		return err
	} else if torn != nil && !wal.Repair(zap.NewNop(), dir) {
		return fmt.Errorf("cut the torn record off %s: the log cannot be repaired", torn.file)
	}
	return raftlog.CommitAll(dir)
}

// copyAside copies a data directory, whole or not at all.
func copyAside(dir, own, to string) (err error) {
	tmp := to + ".tmp"
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if err := copyTree(filepath.Join(dir, "member"), filepath.Join(tmp, "member")); err != nil {
		return err
	}
	if own != "" {
		if err := copyTree(own, filepath.Join(tmp, "member", "wal")); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case d.Type().IsRegular():
			return copyFile(path, target)
		}
		return fault.Hint(fmt.Errorf("%s is neither a file nor a directory", path), "move it out of the data directory")
	})
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// givenUpIDs asks the running engine who was given up.
func givenUpIDs(ctx context.Context, e *embed.Etcd) ([]whereabouts.ID, error) {
	prefix := []byte(givenUpPrefix)
	end := append([]byte(givenUpPrefix[:len(givenUpPrefix)-1]), '/'+1)
	got, err := e.Server.Range(e.Server.AuthStore().WithRoot(ctx), &pb.RangeRequest{Key: prefix, RangeEnd: end, KeysOnly: true, Serializable: true})
	if err != nil {
		return nil, fmt.Errorf("ask who was given up: %w", err)
	}
	var ids []whereabouts.ID
	for _, kv := range got.GetKvs() {
		var id whereabouts.ID
		if id.UnmarshalText(kv.GetKey()[len(prefix):]) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
