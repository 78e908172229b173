package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
)

// An engine that cannot write ends its process: it takes any failure of its log for
// the end. So it is stopped before its disk is full, while it can still put away
// what it has, and started again when there is room.
const (
	// lowRoom is the free space below which the engine is stopped. Stopping writes
	// a few MiB at most.
	lowRoom = 32 << 20
	// enoughRoom is the free space from which it is started: a segment of its log
	// (64 MiB, allocated as a whole) beyond lowRoom.
	enoughRoom = 96 << 20
	// roomInterval is between two looks where little room is left. It bounds how much
	// can be written in between: some 10 MiB on a disk that writes 100 MiB in a second.
	roomInterval = 100 * time.Millisecond
	// roomSeldom is between two looks where there is plenty, and fastDisk how fast
	// that may at most become little, in bytes a second: as fast as memory is written.
	roomSeldom = 2 * time.Second
	fastDisk   = 2 << 30
)

// room watches the free space where the engine writes.
type room struct {
	dirs []string
	free func(dir string) (uint64, error)
	lag  *lag
	log  *slog.Logger
}

func (m *Member) room(cfg *embed.Config) room {
	dirs := []string{cfg.Dir}
	if cfg.WalDir != "" {
		dirs = append(dirs, cfg.WalDir)
	}
	return room{dirs: dirs, free: freeBytes, lag: m.engineLog.lag, log: m.log}
}

// until is when to look again: before what is free can have become too little.
func (r room) until() time.Duration {
	least := uint64(math.MaxInt64)
	for _, dir := range r.dirs {
		free, err := r.free(dir)
		if err != nil {
			return roomInterval
		}
		least = min(least, free)
	}
	return lookAgain(least)
}

// lookAgain is how long so many free bytes last at least.
func lookAgain(free uint64) time.Duration {
	seconds := float64(max(free, lowRoom)-lowRoom) / fastDisk
	return min(max(time.Duration(seconds*float64(time.Second)), roomInterval), roomSeldom)
}

// lacking says what is wrong, "" when every directory has at least need free bytes.
// What cannot be asked counts as room: the engine will say it better.
func (r room) lacking(need uint64) string {
	for _, dir := range r.dirs {
		if free, err := r.free(dir); err == nil && free < need {
			return fmt.Sprintf("the disk of %s is full: %s free, %s needed to go on", dir, mib(free), mib(enoughRoom))
		}
	}
	return ""
}

func mib(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

// wait returns when there is enough room for the engine to start; meanwhile it
// says why it waits.
func (r room) wait(ctx context.Context, say func(string)) error {
	why := r.lacking(enoughRoom)
	if why == "" {
		return nil
	}
	r.log.Error("waiting for room", "because", why)
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	for ; why != ""; why = r.lacking(enoughRoom) {
		say(why)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.log.Info("there is room again", "dirs", r.dirs)
	return nil
}

// watch returns a pause when the room runs out, nil when ctx is done.
func (r room) watch(ctx context.Context) *pause {
	for {
		if why := r.lacking(lowRoom); why != "" {
			return &pause{why: why}
		}
		r.lag.look()
		if sleep(ctx, r.until()) != nil {
			return nil
		}
	}
}

// freeBytes is what an ordinary user may still write below dir, or below what
// exists of it.
func freeBytes(dir string) (uint64, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	for {
		_, err := os.Stat(dir)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space at %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
