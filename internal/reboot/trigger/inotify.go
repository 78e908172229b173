package trigger

import (
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// notify delivers a token when a file may have come, changed or gone; stop ends it.
// Where the kernel does not tell (no directory, no inotify) there are no tokens.
func notify(log *slog.Logger, files ...string) (events <-chan struct{}, stop func()) {
	out := make(chan struct{}, 1)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Debug("no inotify", "err", err)
		return out, func() {}
	}
	watched := map[string]bool{"": true, ".": true}
	for _, f := range files {
		dir := filepath.Dir(f)
		if f == "" || watched[dir] {
			continue
		}
		watched[dir] = true
		const changes = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ONLYDIR
		if _, err := unix.InotifyAddWatch(fd, dir, changes); err != nil {
			log.Debug("directory not watched", "dir", dir, "err", err)
		}
	}
	file := os.NewFile(uintptr(fd), "inotify") // not blocking: closing it ends a read
	go deliver(file, out)
	return out, func() { file.Close() }
}

// deliver gives a token for each time there is something to read. Which file it was
// matters little: reading three small files is cheap.
func deliver(file *os.File, out chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := file.Read(buf); err != nil {
			return
		}
		select {
		case out <- struct{}{}:
		default:
		}
	}
}
