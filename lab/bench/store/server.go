package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// program is a store that can be started.
type program struct {
	name string
	argv []string
}

// server is one that runs.
type server struct {
	name      string
	cmd       *exec.Cmd
	dir       string
	addr, url string
	ended     chan error
}

// start runs the program as a single member in a new directory and waits until it
// serves.
func (b *bench) start(p program) (s *server, err error) {
	dir, err := os.MkdirTemp(b.dir, "bench-store-")
	if err != nil {
		return nil, err
	}
	client, peer, err := freePorts()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	args := append(p.argv[1:len(p.argv):len(p.argv)], "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	s = &server{name: p.name, dir: dir, addr: client, url: "http://" + client, ended: make(chan error, 1)}
	if s.name == ours && b.profile != "" {
		args = append(args, "--enable-pprof")
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	s.cmd = exec.Command(p.argv[0], args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.launch(s.cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() { s.ended <- s.cmd.Wait() }()
	if err := s.waitHealthy(b); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// launch starts the command on all processors but the last, where this thread
// goes: a process starts on those of the thread that makes it.
func (b *bench) launch(cmd *exec.Cmd) error {
	last := runtime.NumCPU() - 1
	if !b.pin || last == 0 {
		return cmd.Start()
	}
	var servers, clients unix.CPUSet
	for i := range last {
		servers.Set(i)
	}
	clients.Set(last)
	if err := unix.SchedSetaffinity(0, &servers); err != nil {
		return fmt.Errorf("keep the server off processor %d: %w", last, err)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return unix.SchedSetaffinity(0, &clients)
}

func (s *server) waitHealthy(b *bench) error {
	deadline := time.After(30 * time.Second)
	for {
		resp, err := http.Get(s.url + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // what there is of it
			return fmt.Errorf("%s ended: %w\n%s", s.cmd.Path, err, log)
		case <-deadline:
			return fmt.Errorf("%s is not healthy after 30 s: %w", s.cmd.Path, err)
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the server by its process id and removes its data.
func (s *server) stop() error {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		s.cmd.Process.Kill()
		<-s.ended
	}
	return os.RemoveAll(s.dir)
}

// freePorts finds two addresses that nobody listens at.
func freePorts() (client, peer string, err error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}
