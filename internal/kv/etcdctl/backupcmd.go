package etcdctl

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flotilla/internal/fault"
	"flotilla/internal/kv/backup"
)

func backupCommand() command {
	var from, to backup.Dir
	verify := true
	return command{
		name: "backup", summary: "make a data directory that a store can be started with again", offline: true,
		flags: func(fs *flag.FlagSet) {
			fs.StringVar(&from.Data, "data-dir", "", "data directory of a member that does not run; without it, the store that runs gives the backup")
			fs.StringVar(&from.WAL, "wal-dir", "", "its log, if that is elsewhere")
			fs.StringVar(&to.Data, "backup-dir", "", "directory to make; it must not exist, or be empty")
			fs.StringVar(&to.WAL, "backup-wal-dir", "", "directory to make for the log, if that is to be elsewhere")
			fs.BoolVar(&verify, "verify", true, "start the engine on a copy of the result and count the keys")
			fs.BoolFunc("with-v3", "the keys of v3 too: they and those of v2 are the same, so there is no backup without", onlyTrue)
		},
		run: func(ctx context.Context, s *session, _ []string) error {
			if to.Data == "" {
				return badUsage("--backup-dir required")
			}
			source, err := s.source(from)
			if err != nil {
				return fault.Code(exitUsage, said{err})
			}
			info, err := backup.Make(ctx, source, to, verify)
			if err != nil {
				return fault.Code(exitUsage, fmt.Errorf("backup: %w", err))
			}
			s.tellBackup(info, to, verify)
			return nil
		},
	}
}

// onlyTrue is the value of a flag that cannot be turned off.
func onlyTrue(v string) error {
	if on, err := strconv.ParseBool(v); err != nil || !on {
		return errors.New("it cannot be turned off")
	}
	return nil
}

// source is the files of a member, or the store that runs.
func (s *session) source(from backup.Dir) (backup.Source, error) {
	if from.Data != "" {
		return backup.Stopped(from), nil
	}
	if from.WAL != "" {
		return nil, fault.Hint(classic("--wal-dir without --data-dir"), "a log alone makes no backup")
	}
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12} // for https with the system's authorities
	}
	cfg := clientv3.Config{Endpoints: s.client.Endpoints(), DialTimeout: s.timeout, TLS: config, Username: s.user, Password: s.password}
	return backup.Running(cfg, func(err error) {
		fmt.Fprintf(s.env.Stderr, "warning: no majority of the members answers (%v): the backup is what one member knows\n", err)
	}), nil
}

// tellBackup says what there is now; on stderr, since the classic command says
// nothing on stdout.
func (s *session) tellBackup(info backup.Info, to backup.Dir, verified bool) {
	how := "not verified"
	if verified {
		how = "verified by starting on a copy of it"
	}
	wal := ""
	if to.WAL != "" {
		wal = " --wal-dir " + to.WAL
	}
	fmt.Fprintf(s.env.Stderr, "backup in %s: %d keys at revision %d, %s\n", to.Data, info.Keys, info.Revision, how)
	fmt.Fprintf(s.env.Stderr, "hint: start it with: etcd --force-new-cluster --data-dir %s%s\n", to.Data, wal)
	if hint := ownerHint(os.Geteuid(), to); hint != "" {
		fmt.Fprintf(s.env.Stderr, "hint: %s\n", hint)
	}
}

// ownerHint is what to do for etcd.service, which runs as the user etcd, with files that
// a user of this number has made; "" for nothing: only root could do it.
func ownerHint(uid int, made backup.Dir) string {
	if uid != 0 {
		return ""
	}
	dirs := made.Data
	if made.WAL != "" {
		dirs += " " + made.WAL
	}
	return "the files are root's, and etcd.service runs as the user etcd; before it starts with them: chown -R etcd: " + dirs
}
