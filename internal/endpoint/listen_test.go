package endpoint

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
)

// However generous the umask is, at no moment may others open the socket.
func TestListenUnixIsPrivateFromTheStart(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	var stop atomic.Bool
	watched := make(chan struct{})
	var open fs.FileMode
	go func() {
		defer close(watched)
		for !stop.Load() {
			if st, err := os.Stat(path); err == nil {
				open |= st.Mode().Perm() &^ 0o600
			}
		}
	}()
	for range 200 {
		ln, err := ListenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := net.Dial("unix", path); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		if got := ln.Addr().String(); got != path {
			t.Errorf("address %s", got)
		}
		ln.Close()
	}
	stop.Store(true)
	<-watched
	if open != 0 {
		t.Errorf("the socket was seen with mode bits %o for others", open)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// What a crash left is replaced; a second Close leaves the next one's socket alone.
func TestListenUnixReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	second, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
	second.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
