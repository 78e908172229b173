package endpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// ListenUnix listens on a socket that its owner alone may open. What is at path is
// replaced: the caller knows that nobody listens there. The socket is made in a
// directory that nobody else may enter and moved to its place when its mode is set:
// there is no moment at which others may open it. Closing the listener removes it.
func ListenUnix(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &socket{Listener: ln, path: path}, nil
}

// socket is a listener whose socket has been moved to path.
type socket struct {
	net.Listener
	path   string
	remove sync.Once
}

// Addr is where the socket is.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close ends listening and removes the socket, once: by the second time it may be
// another's.
func (s *socket) Close() error {
	s.remove.Do(func() { os.Remove(s.path) })
	return s.Listener.Close()
}
