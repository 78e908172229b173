package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// program is a store that can be started.
type program struct {
	name string
	argv []string
}

// server is one that runs: a member, or a cluster of them.
type server struct {
	name    string
	members []*member
	addrs   []string // of the members, the leader's first
	url     string   // of the leader
}

// member is one process.
type member struct {
	cmd   *exec.Cmd
	dir   string
	addr  string // for clients
	ended chan error
}

// start runs the program as a cluster of so many members in new directories and waits
// until they serve.
func (b *bench) start(p program, members int) (*server, error) {
	s := &server{name: p.name}
	peers := make([]string, members)
	var cluster []string
	for i := range members {
		client, peer, err := freePorts()
		if err != nil {
			return nil, err
		}
		s.addrs, peers[i] = append(s.addrs, client), peer
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, peer))
	}
	for i, client := range s.addrs {
		args := append(p.argv[1:len(p.argv):len(p.argv)], "--name", fmt.Sprint("m", i), "--log-level", "error",
			"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peers[i], "--initial-advertise-peer-urls", "http://"+peers[i],
			"--initial-cluster", strings.Join(cluster, ","))
		if s.name == ours && b.profile != "" {
			args = append(args, "--enable-pprof")
		}
		m, err := b.startMember(p.argv[0], args, client)
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.members = append(s.members, m)
	}
	for _, m := range s.members {
		if err := m.waitHealthy(b); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	if err := s.leaderFirst(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// leaderFirst sorts the addresses: which member leads is chance, and what goes through
// another takes longer.
func (s *server) leaderFirst() error {
	for i, addr := range s.addrs {
		var self struct{ State string }
		resp, err := http.Get("http://" + addr + "/v2/stats/self")
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&self)
			resp.Body.Close()
		}
		if err != nil {
			return fmt.Errorf("ask %s whether it leads: %w", addr, err)
		}
		if self.State == "StateLeader" {
			s.addrs[0], s.addrs[i] = s.addrs[i], s.addrs[0]
			s.url = "http://" + s.addrs[0]
			return nil
		}
	}
	return fmt.Errorf("none of %v leads", s.addrs)
}

// startMember starts one process, without waiting for it.
func (b *bench) startMember(program string, args []string, addr string) (*member, error) {
	dir, err := os.MkdirTemp(b.dir, "bench-store-")
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	m := &member{dir: dir, addr: addr, ended: make(chan error, 1)}
	m.cmd = exec.Command(program, append(args, "--data-dir", filepath.Join(dir, "data"))...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.launch(m.cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() { m.ended <- m.cmd.Wait() }()
	return m, nil
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

func (m *member) waitHealthy(b *bench) error {
	deadline := time.After(30 * time.Second)
	for {
		resp, err := http.Get("http://" + m.addr + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-m.ended:
			m.ended <- err
			log, _ := os.ReadFile(filepath.Join(m.dir, "log")) // what there is of it
			return fmt.Errorf("%s ended: %w\n%s", m.cmd.Path, err, log)
		case <-deadline:
			return fmt.Errorf("%s is not healthy after 30 s: %w", m.cmd.Path, err)
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the members by their process ids and removes their data.
func (s *server) stop() error {
	var errs []error
	for _, m := range s.members {
		m.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, m := range s.members {
		select {
		case <-m.ended:
		case <-time.After(10 * time.Second):
			m.cmd.Process.Kill()
			<-m.ended
		}
		errs = append(errs, os.RemoveAll(m.dir))
	}
	return errors.Join(errs...)
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
