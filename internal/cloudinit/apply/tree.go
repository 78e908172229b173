package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may lead through, as in the kernel.
const maxLinks = 40

// maxRead is the size of the largest file that is looked at, in bytes.
const maxRead = 64 << 20

// errForeignLink: a directory of somebody else sends us elsewhere.
var errForeignLink = errors.New("leads through a symbolic link that belongs neither to root nor to this user")

// A Tree is the files of this machine, or of an image of one below a directory. Paths
// are those of the machine: absolute, "/" is the directory itself, and links in the
// image lead to the image. A link that belongs to an ordinary user is not followed, so
// nobody can bend what is written for him to another place.
type Tree struct{ root int }

// OpenTree opens the tree below dir. Close it.
func OpenTree(dir string) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Tree{fd}, nil
}

// Close forgets the directory.
func (t *Tree) Close() error { return unix.Close(t.root) }

// A walk is a path being followed: the directories from the root to where it is.
type walk struct {
	tree  *Tree
	dirs  []int
	links int
	make  bool // missing directories are made
}

func (w *walk) here() int {
	if len(w.dirs) == 0 {
		return w.tree.root
	}
	return w.dirs[len(w.dirs)-1]
}

func (w *walk) up() {
	if n := len(w.dirs); n > 0 {
		unix.Close(w.dirs[n-1])
		w.dirs = w.dirs[:n-1]
	}
}

func (w *walk) close() {
	for len(w.dirs) > 0 {
		w.up()
	}
}

// to goes along the components of a path, all of which are to be directories.
func (w *walk) to(p string) error {
	rest := strings.Split(p, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			w.up()
			continue
		}
		target, err := w.enter(name)
		if err != nil {
			return err
		}
		if target == "" {
			continue
		}
		if strings.HasPrefix(target, "/") {
			w.close()
		}
		rest = slices.Concat(strings.Split(target, "/"), rest)
	}
	return nil
}

// enter goes into a directory, or returns where a link points to.
func (w *walk) enter(name string) (link string, err error) {
	fd, err := unix.Openat(w.here(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && w.make {
		if fd, err = w.mkdir(name); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.dirs = append(w.dirs, fd)
		return "", nil
	case unix.S_IFLNK:
		defer unix.Close(fd)
		return w.follow(fd, st.Uid)
	}
	unix.Close(fd)
	return "", unix.ENOTDIR
}

func (w *walk) follow(fd int, owner uint32) (string, error) {
	if w.links++; w.links > maxLinks {
		return "", unix.ELOOP
	}
	if owner != 0 && owner != uint32(os.Geteuid()) {
		return "", errForeignLink
	}
	return readlink(fd, "")
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// mkdir makes a directory so that it lasts.
func (w *walk) mkdir(name string) (int, error) {
	if err := unix.Mkdirat(w.here(), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	if err := syncDir(w.here()); err != nil {
		return -1, err
	}
	return unix.Openat(w.here(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// syncDir makes the names in a directory last.
func syncDir(dir int) error {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// at runs f with the directory that a path is in and its last component.
func (t *Tree) at(op, p string, mkdirs bool, f func(dir int, name string) error) error {
	w := &walk{tree: t, make: mkdirs}
	defer w.close()
	dir, name := path.Split(p)
	err := w.to(dir)
	if err == nil {
		err = f(w.here(), name)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: p, Err: err}
	}
	return nil
}

// Lstat returns what is at a path; links are not followed at its end.
func (t *Tree) Lstat(p string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := t.at("stat", p, false, func(dir int, name string) error {
		return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return st, err
}

// Readlink returns what a symbolic link points to.
func (t *Tree) Readlink(p string) (target string, err error) {
	err = t.at("read link", p, false, func(dir int, name string) error {
		target, err = readlink(dir, name)
		return err
	})
	return target, err
}

// ReadFile returns the content of a regular file, also through links.
func (t *Tree) ReadFile(p string) (content []byte, err error) {
	for range maxLinks {
		st, err := t.Lstat(p)
		if err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return t.readRegular(p)
		}
		if st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
			return nil, &fs.PathError{Op: "read", Path: p, Err: errForeignLink}
		}
		target, err := t.Readlink(p)
		if err != nil {
			return nil, err
		}
		if !path.IsAbs(target) {
			target = path.Dir(p) + "/" + target
		}
		p = target
	}
	return nil, &fs.PathError{Op: "read", Path: p, Err: unix.ELOOP}
}

func (t *Tree) readRegular(p string) (content []byte, err error) {
	err = t.at("read", p, false, func(dir int, name string) error {
		// Without waiting: a pipe has nobody who writes.
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return errors.Join(err, errors.New("is no regular file"))
		}
		content, err = io.ReadAll(io.LimitReader(f, maxRead+1))
		if err == nil && len(content) > maxRead {
			err = fmt.Errorf("is larger than %d bytes", maxRead)
		}
		return err
	})
	return content, err
}

// ReadDir returns the names in a directory, sorted. A directory that does not exist
// has none.
func (t *Tree) ReadDir(p string) (names []string, err error) {
	err = t.at("read", p, false, func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		names, err = f.Readdirnames(-1)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

// openDir opens a directory to be locked.
func (t *Tree) openDir(p string, mkdirs bool) (f *os.File, err error) {
	err = t.at("open", p+"/.", mkdirs, func(dir int, _ string) error {
		fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		f = os.NewFile(uintptr(fd), p)
		return err
	})
	return f, err
}

// An Owner of a file.
type Owner struct{ UID, GID int }

// Write makes content the whole content of a file, with mode and owner, and makes the
// directories above it that are missing. A reader, and a machine that loses power at
// any moment, sees the old file or the new one. A link at the path is replaced. The
// new file is made under a name of its own that is the same each time, so that a write
// which was cut leaves nothing that the next one does not take away.
func (t *Tree) Write(p string, content []byte, mode uint32, o Owner) error {
	return t.at("write", p, true, func(dir int, name string) error {
		if err := notDir(dir, name); err != nil {
			return err
		}
		tmp := tempName(name)
		if err := unlink(dir, tmp); err != nil {
			return err
		}
		if err := fill(dir, tmp, content, mode, o); err != nil {
			return errors.Join(err, unlink(dir, tmp))
		}
		return replace(dir, tmp, name)
	})
}

// Symlink makes path a link, whatever file or link is there.
func (t *Tree) Symlink(target, p string) error {
	return t.at("link", p, true, func(dir int, name string) error {
		if err := notDir(dir, name); err != nil {
			return err
		}
		tmp := tempName(name)
		if err := unlink(dir, tmp); err != nil {
			return err
		}
		if err := unix.Symlinkat(target, dir, tmp); err != nil {
			return err
		}
		return replace(dir, tmp, name)
	})
}

// maxName is the longest name of a file, in bytes.
const maxName = 255

func tempName(name string) string {
	const before, after = ".", ".cloudinit-new"
	return before + name[:min(len(name), maxName-len(before)-len(after))] + after
}

func notDir(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return nil
}

func unlink(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func fill(dir int, name string, content []byte, mode uint32, o Owner) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	// First the owner: to change it takes the set-user bits away.
	if err := unix.Fchown(fd, o.UID, o.GID); err != nil {
		return fmt.Errorf("owner %d:%d: %w", o.UID, o.GID, err)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return f.Sync()
}

func replace(dir int, tmp, name string) error {
	if err := unix.Renameat(dir, tmp, dir, name); err != nil {
		return errors.Join(err, unlink(dir, tmp))
	}
	return syncDir(dir)
}

// Remove removes a file or a link. What does not exist is no error.
func (t *Tree) Remove(p string) error {
	err := t.at("remove", p, false, func(dir int, name string) error {
		if err := unlink(dir, name); err != nil {
			return err
		}
		return syncDir(dir)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Mkdir makes a directory with mode and owner unless there is one. The directory above
// it has to exist; a link in its place is an error.
func (t *Tree) Mkdir(p string, mode uint32, o Owner) error {
	return t.at("make directory", p, false, func(dir int, name string) error {
		err := unix.Mkdirat(dir, name, 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		made := err == nil
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil || !made {
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.Fchown(fd, o.UID, o.GID), unix.Fchmod(fd, mode)); err != nil {
			return err
		}
		return syncDir(dir)
	})
}
