// Package raftlog reads and amends the raft log of a member that does not run.
//
// What a member acknowledges is in its log, on disk. That it is committed, the log
// says only with its next entry: a member that is killed leaves entries behind that
// were acknowledged and do not count as committed. When it starts again with its
// peers that is settled by vote; an engine that is to go on alone drops them, unless
// it is told.
package raftlog

import (
	"errors"
	"fmt"
	"io"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// End is the state that a log ends with, and the index of its last entry.
func End(dir string) (state *raftpb.HardState, last uint64, err error) {
	err = read(dir, wal.OpenForRead, func(_ *wal.WAL, s *raftpb.HardState, l uint64) error {
		state, last = s, l
		return nil
	})
	return state, last, err
}

// CommitAll notes in a log that all of it is committed. A record at its end that was
// cut short is cut off first, as the engine does when it starts.
func CommitAll(dir string) error {
	err := commitAll(dir)
	if errors.Is(err, io.ErrUnexpectedEOF) && wal.Repair(zap.NewNop(), dir) {
		err = commitAll(dir)
	}
	return err
}

func commitAll(dir string) error {
	return read(dir, wal.Open, func(w *wal.WAL, state *raftpb.HardState, last uint64) error {
		if state.GetCommit() >= last {
			return nil
		}
		state.Commit = &last
		if err := w.Save(state, nil); err != nil {
			return fmt.Errorf("note in the log %s what is committed: %w", dir, err)
		}
		return nil
	})
}

// read opens a log at its last snapshot and reads it to its end.
func read(dir string, open func(*zap.Logger, string, *walpb.Snapshot) (*wal.WAL, error), do func(*wal.WAL, *raftpb.HardState, uint64) error) error {
	lg := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(lg, dir)
	if err != nil {
		return fmt.Errorf("read the log %s: %w", dir, err)
	}
	from := &walpb.Snapshot{}
	if len(snaps) > 0 {
		from = snaps[len(snaps)-1]
	}
	w, err := open(lg, dir, from)
	if err != nil {
		return fmt.Errorf("open the log %s: %w", dir, err)
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	if err != nil {
		return fmt.Errorf("read the log %s: %w", dir, err)
	}
	last := from.GetIndex()
	if len(entries) > 0 {
		last = entries[len(entries)-1].GetIndex()
	}
	return do(w, state, last)
}
