package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flotilla/examples"
	"flotilla/internal/applet"
	"flotilla/internal/endpoint"
)

// upLimit is how long "flotilla up" may take to be ready, and to end.
const upLimit = 30 * time.Second

// upStage is "flotilla up --machines 3": the machines are parts of one process, the
// built-in supervisor runs their units.
type upStage struct {
	self string // this program's file
	dir  string // everything is below it
	env  []string

	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	log     bytes.Buffer  // what it said; read when it has ended
}

func newUpStage(env applet.Env) (*upStage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own file: %w", err)
	}
	return &upStage{self: self, env: os.Environ()}, nil
}

func (s *upStage) title() string {
	return "Three machines in one process ('flotilla up'); the built-in supervisor runs their units."
}

func (s *upStage) examples() string { return "examples/plain" }

func (s *upStage) boot(ctx context.Context, n int, say func(string, ...any)) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "flotilla-demo-"); err != nil {
		return fmt.Errorf("make a directory for the machines: %w", err)
	}
	if err := os.CopyFS(filepath.Join(s.dir, "examples"), examples.Files); err != nil {
		return fmt.Errorf("write the examples: %w", err)
	}
	up := filepath.Join(s.dir, "up")
	// The link that command lines follow is a person's own "up": leave it alone.
	s.env = append(s.env, "XDG_STATE_HOME="+filepath.Join(s.dir, "state"),
		"FLEETCTL_ENDPOINT=unix://"+filepath.Join(up, "run", endpoint.FleetSocket))
	ready := filepath.Join(s.dir, "ready")
	args := []string{"up", "--machines", strconv.Itoa(n), "--dir", up, "--units", "supervisor",
		"--listen-client-urls", "http://127.0.0.1:0", "--ready-file", ready}
	say("$ flotilla %s", strings.Join(args, " "))
	if err := s.launch(args); err != nil {
		return err
	}
	return poll(ctx, upLimit, func() (bool, error) {
		select {
		case <-s.ended:
			return false, fmt.Errorf("flotilla up has ended: %s", s.log.String())
		default:
		}
		_, err := os.Stat(ready)
		return err == nil, err
	})
}

// launch starts "flotilla up" in a process group of its own: Ctrl-C is for us, who
// end it in order.
func (s *upStage) launch(args []string) error {
	s.process = exec.Command(s.self, args...)
	s.process.Env, s.process.Dir = s.env, s.dir
	s.process.Stdout, s.process.Stderr = &s.log, &s.log
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.process.Start(); err != nil {
		s.process = nil
		return fmt.Errorf("start flotilla up: %w", err)
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.process.Wait() // why it ended is in what it said
		close(s.ended)
	}()
	return nil
}

// run runs a program of this binary and returns what it writes to stdout.
func (s *upStage) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.self, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (s *upStage) fleetctl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, append([]string{"fleetctl"}, args...)...)
}

// running is what the machines publish: their supervisors speak to nobody else.
func (s *upStage) running(ctx context.Context) ([]row, error) {
	out, err := s.fleetctl(ctx, "list-units", "--no-legend")
	return parseUnits(out), err
}

func (s *upStage) machines(ctx context.Context) ([]machine, error) {
	out, err := s.run(ctx, "up", "status", "--output", "json", "--dir", filepath.Join(s.dir, "up"))
	if err != nil {
		return nil, err
	}
	var all []struct{ Name, ID string }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("read the machines of flotilla up: %w", err)
	}
	var ms []machine
	for _, m := range all {
		ms = append(ms, machine{name: m.Name, id: m.ID})
	}
	return ms, nil
}

func (s *upStage) cutPower(ctx context.Context, name string) error { return s.power(ctx, "kill", name) }
func (s *upStage) powerOn(ctx context.Context, name string) error  { return s.power(ctx, "boot", name) }

func (s *upStage) power(ctx context.Context, verb, name string) error {
	_, err := s.run(ctx, "up", verb, name, "--dir", filepath.Join(s.dir, "up"))
	return err
}

// close ends "flotilla up" as Ctrl-C does, which ends its units too, and removes what
// it kept.
func (s *upStage) close(context.Context) error {
	var err error
	if s.process != nil {
		err = s.end()
	}
	if s.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *upStage) end() error {
	_ = s.process.Process.Signal(os.Interrupt) // it may have ended already
	select {
	case <-s.ended:
		return nil
	case <-time.After(upLimit):
		_ = s.process.Process.Kill()
		<-s.ended
		return fmt.Errorf("flotilla up did not end within %s and was killed: %s", seconds(upLimit), s.log.String())
	}
}
