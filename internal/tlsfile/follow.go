package tlsfile

import (
	"log/slog"
	"os"
	"slices"
	"sync"
)

// followed is what files hold, also after they have been replaced. Whoever renews
// certificates replaces one file after the other, and not all of them at a stroke: what
// was read last stays in use until all files can be read and go together.
type followed[T any] struct {
	files []File
	read  func() (T, error)
	log   *slog.Logger

	mu    sync.Mutex // guards what follows
	value T
	found []os.FileInfo // the files that value is of, as they were before they were read
	said  string        // why those that are there now are not in use
}

// Follow is what read makes of files, those without a path left out: now, and whenever the
// function is called after they have been replaced. When they cannot be read again it is what
// they were, and log is told once; nil: nobody. The error is that of the first time.
func Follow[T any](log *slog.Logger, read func() (T, error), files ...File) (now func() T, err error) {
	f, err := follow(log, read, files...)
	return f.now, err
}

// follow reads files for the first time.
func follow[T any](log *slog.Logger, read func() (T, error), files ...File) (*followed[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	files = slices.DeleteFunc(files, func(f File) bool { return f.Path == "" })
	out := &followed[T]{files: files, read: read, log: log}
	var err error
	out.found = out.look()
	out.value, err = read()
	return out, err
}

// now is what the files hold. It asks the file system each time, which costs nothing
// beside a handshake, and reads only what is not the same any more.
func (f *followed[T]) now() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := f.look()
	if slices.EqualFunc(found, f.found, same) {
		f.said = ""
		return f.value
	}
	next, err := f.read()
	switch {
	case err == nil:
		f.value, f.found, f.said = next, found, ""
		f.log.Info("certificates were replaced, new connections use them", "files", f.paths())
	case err.Error() != f.said:
		f.said = err.Error()
		f.log.Error("certificates were replaced and cannot be used, the old ones stay in force", "err", err)
	}
	return f.value
}

// look is the files as they are now; nil stands for one that is not there.
func (f *followed[T]) look() []os.FileInfo {
	out := make([]os.FileInfo, len(f.files))
	for i, file := range f.files {
		if info, err := os.Stat(file.Path); err == nil {
			out[i] = info
		}
	}
	return out
}

// same reports whether a file is the one that it was, and nobody has written to it.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (f *followed[T]) paths() []string {
	out := make([]string, len(f.files))
	for i, file := range f.files {
		out[i] = file.Path
	}
	return out
}
