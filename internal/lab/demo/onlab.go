package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"flotilla/examples"
	"flotilla/internal/fault"
	"flotilla/internal/lab/machines"
)

// labPrefix keeps the demonstration's lab apart from a person's own.
const labPrefix = "demo"

// labStage is real systemd machines.
type labStage struct {
	lab  *machines.Lab
	host machines.Host
	say  func(format string, args ...any) // set by boot
	off  map[string]bool                  // machines without power
}

func newLabStage(host machines.Host) (*labStage, error) {
	s := &labStage{host: host, off: map[string]bool{}, say: func(string, ...any) {}}
	var err error
	s.lab, err = machines.New(labPrefix, host, func(format string, args ...any) { s.say(format, args...) })
	return s, err
}

func (s *labStage) title() string {
	docker := "Units that need Docker are shown without: it is not installed."
	if s.host.Docker != "" {
		docker = "Units run in Docker, as in the talks."
	}
	return "Three lab machines: a real systemd, journal and network each. " + docker
}

func (s *labStage) boot(ctx context.Context, n int, say func(string, ...any)) error {
	s.say = say
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	// What an interrupted demonstration left is nobody's.
	if err := s.lab.Down(ctx); err != nil {
		return err
	}
	if err := s.lab.Up(ctx, n); err != nil {
		return err
	}
	if err := s.lab.Cluster(ctx, self); err != nil {
		return err
	}
	return s.copyExamples()
}

// copyExamples puts the unit files into every machine, where fleetctl is typed.
func (s *labStage) copyExamples() error {
	all, err := s.lab.Machines()
	if err != nil {
		return err
	}
	return fs.WalkDir(examples.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := examples.Files.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range all {
			if err := s.lab.WriteFile(m.Name, "/root/examples/"+path, text, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *labStage) examples() string {
	if s.host.Docker == "" {
		return "examples/plain"
	}
	return "examples"
}

func (s *labStage) machines(ctx context.Context) ([]machine, error) {
	all, err := s.lab.Machines()
	if err != nil {
		return nil, err
	}
	var out []machine
	for _, m := range all {
		id, err := s.lab.Output(ctx, m.Name, "cat", "/etc/machine-id")
		if err != nil {
			return nil, err
		}
		out = append(out, machine{name: m.Name, id: strings.TrimSpace(id)})
	}
	return out, nil
}

func (s *labStage) fleetctl(ctx context.Context, args ...string) (string, error) {
	all, err := s.lab.Machines()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, m := range all {
		if !s.off[m.Name] {
			return s.lab.Output(ctx, m.Name, append([]string{"sh", "-c", `cd /root && exec fleetctl "$@"`, "sh"}, args...)...)
		}
	}
	return "", errors.New("no machine has power")
}

// running asks the systemd of each machine with power.
func (s *labStage) running(ctx context.Context) ([]row, error) {
	all, err := s.lab.Machines()
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, m := range all {
		if s.off[m.Name] {
			continue
		}
		out, err := s.lab.Output(ctx, m.Name, "systemctl", "list-units", "--plain", "--no-legend", "hello*", global)
		if err != nil {
			return nil, err
		}
		rows = append(rows, parseSystemd(machine{name: m.Name}, out)...)
	}
	return rows, nil
}

func (s *labStage) cutPower(ctx context.Context, name string) error {
	s.off[name] = true
	return s.lab.Kill(ctx, name)
}

func (s *labStage) powerOn(ctx context.Context, name string) error {
	if err := s.lab.Boot(ctx, name); err != nil {
		return err
	}
	delete(s.off, name)
	return nil
}

func (s *labStage) close(ctx context.Context) error {
	return fault.Hint(s.lab.Down(ctx), "flotilla lab down --name %s", labPrefix)
}
