package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"flotilla/internal/fault"
	"flotilla/internal/kv/raftlog"
)

// Stopped is a member that does not run: its files.
func Stopped(d Dir) Source { return stopped{d} }

type stopped struct{ Dir }

func (s stopped) take(ctx context.Context, path string) (hashed bool, err error) {
	twin := Dir{Data: path + ".replay"}
	defer os.RemoveAll(twin.Data)
	if err := copyMember(s.Dir, twin); err != nil {
		return false, err
	}
	// What was acknowledged last does not count as committed in its log yet.
	if err := raftlog.CommitAll(twin.wal()); err != nil {
		return false, fmt.Errorf("replay the log of data directory %s: %w", s.Data, err)
	}
	if _, err := replay(ctx, twin); err != nil {
		return false, fmt.Errorf("replay the log of data directory %s: %w", s.Data, err)
	}
	return false, os.Rename(twin.db(), path)
}

// Running is the member that one of the endpoints belongs to: the first that
// answers. cfg is how they are reached; a connection has to be there within its
// DialTimeout. warn is told when the member could not ask a majority, so that its
// snapshot may lack what the others know.
func Running(cfg clientv3.Config, warn func(error)) Source { return running{cfg, warn} }

type running struct {
	cfg  clientv3.Config
	warn func(error)
}

func (r running) take(ctx context.Context, path string) (hashed bool, err error) {
	var errs []error
	for _, ep := range r.cfg.Endpoints {
		one := r.cfg
		one.Endpoints = []string{ep}
		if err := r.from(ctx, one, path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ep, err))
			continue
		}
		return true, nil
	}
	err = errors.Join(errs...)
	hint := "--data-dir makes a backup of a member that does not run"
	switch {
	case refusedFor(err, rpctypes.ErrUserEmpty):
		hint = "say who you are with --username"
	case refusedFor(err, rpctypes.ErrPermissionDenied):
		hint = "a backup is for users with the role root"
	}
	return false, fault.Hint(fmt.Errorf("take a snapshot of the running store: %w", err), "%s", hint)
}

// refusedFor looks for the store's reason by its text: what a stream ends with is
// wrapped in ways that lose its kind.
func refusedFor(err, reason error) bool { return strings.Contains(err.Error(), reason.Error()) }

func (r running) from(ctx context.Context, one clientv3.Config, path string) error {
	one.Logger = zap.NewNop()
	c, err := clientv3.New(one)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := r.catchUp(ctx, c); err != nil {
		return err
	}
	_, err = snapshot.NewV3(zap.NewNop()).Save(ctx, one, path)
	return err
}

// catchUp lets the member learn all that the cluster has agreed on. A member that
// finds no majority is the best that there is.
func (r running) catchUp(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
	defer cancel()
	_, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err == nil {
		return nil
	}
	if refusedFor(err, rpctypes.ErrUserEmpty) || refusedFor(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), r.cfg.DialTimeout)
	defer cancel()
	if _, alive := c.Status(ctx, c.Endpoints()[0]); alive != nil {
		return err
	}
	r.warn(err)
	return nil
}

// lockTimeout is how long a database may be locked before its member counts as
// running.
const lockTimeout = 100 * time.Millisecond

// copyMember copies a stopped member's database, log and snapshots. It holds the
// lock on the database until it has all of them, so that no member starts meanwhile.
func copyMember(from, to Dir) error {
	db, err := openDB(from)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, dir := range []string{to.snap(), to.wal()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(to.db(), 0o600) }); err != nil {
		return fmt.Errorf("copy %s: %w", from.db(), err)
	}
	n, err := copyFiles(filepath.Join(from.wal(), "*.wal"), to.wal())
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.Hint(fmt.Errorf("no log of a member in %s", from.wal()), "--wal-dir says where it is if not below --data-dir")
	}
	_, err = copyFiles(filepath.Join(from.snap(), "*.snap"), to.snap())
	return err
}

// openDB opens a stopped member's database, for reading alone.
func openDB(d Dir) (*bbolt.DB, error) {
	if _, err := os.Stat(d.db()); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fmt.Errorf("no member's data in %s: %w", d.Data, err), "--data-dir says where they are")
	} else if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(d.db(), 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fault.Hint(fmt.Errorf("data directory %s is in use: its member runs", d.Data),
			"leave out --data-dir: then the running member gives the backup")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.db(), err)
	}
	return db, nil
}

// copyFiles copies the files of a pattern into a directory, and counts them.
func copyFiles(pattern, to string) (int, error) {
	names, err := filepath.Glob(pattern)
	for _, name := range names {
		err = errors.Join(err, copyFile(name, filepath.Join(to, filepath.Base(name))))
	}
	return len(names), err
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
