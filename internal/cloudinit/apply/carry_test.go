package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/cloudinit/config"
	"flotilla/internal/cloudinit/plan"
)

const before = `#cloud-config
hostname: web-1
ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlSlWZ4dqR4H4pbjwNhZ3EJnWgWAyeM6JqJ2qXG5l2N one]
users:
  - {name: bob, ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlSlWZ4dqR4H4pbjwNhZ3EJnWgWAyeM6JqJ2qXG5l2N bob]}
write_files:
  - {path: /etc/one, content: one}
  - {path: /etc/deep/er/two, content: two, permissions: "0600"}
coreos:
  units:
    - {name: web.service, command: start, enable: true, content: "[Service]\nExecStart=/bin/one\n[Install]\nWantedBy=multi-user.target\n"}
    - {name: masked.service, mask: true}
`

const after = `#cloud-config
hostname: web-2
ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlSlWZ4dqR4H4pbjwNhZ3EJnWgWAyeM6JqJ2qXG5l2N two]
manage_etc_hosts: localhost
write_files:
  - {path: /etc/one, content: two}
coreos:
  etcd2: {name: m1}
  update: {reboot_strategy: etcd-lock}
  units:
    - {name: web.service, command: start, enable: true, content: "[Service]\nExecStart=/bin/two\n[Install]\nWantedBy=multi-user.target\n"}
    - {name: etcd2.service, command: start}
`

func wantedOf(t *testing.T, text string) plan.Wanted {
	t.Helper()
	doc, findings := config.Parse(text)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return plan.Wanted{Document: doc, Scratch: "/var/lib/coreos-cloudinit", Prune: true}
}

// run plans and carries out once.
func run(t *testing.T, h *Host, want plan.Wanted, m Machine) ([]Outcome, error) {
	t.Helper()
	store := Store{Tree: h.Tree, Dir: want.Scratch, Name: "user"}
	record, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	have, err := h.Look(t.Context(), want, record)
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		m = recorded{h, store}
	}
	return Carry(t.Context(), m, plan.Make(want, have), Options{Boot: h.Boot})
}

// cut is a machine that loses its power at one point: before or after a step or a
// saved record. The points are counted.
type cut struct {
	Machine
	points, at int
}

type powerLoss struct{}

func (c *cut) point() {
	if c.points++; c.points-1 == c.at {
		panic(powerLoss{})
	}
}

func (c *cut) Do(ctx context.Context, s plan.Step) error {
	c.point()
	defer c.point()
	return c.Machine.Do(ctx, s)
}

func (c *cut) Save(r plan.Record) error {
	c.point()
	defer c.point()
	return c.Machine.Save(r)
}

// until runs and returns whether the power was lost.
func (c *cut) until(f func()) (lost bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(powerLoss); !ok {
				panic(r)
			}
			lost = true
		}
	}()
	f()
	return false
}

// A run that loses power before or after any step or record, run again, leaves the same
// files, units and users as one that did not.
func TestPowerLossAnywhere(t *testing.T) {
	first, second := wantedOf(t, before), wantedOf(t, after)
	build := func() (*fake, *Host) {
		f, h := newFake(t)
		if _, err := run(t, h, first, nil); err != nil {
			t.Fatal(err)
		}
		return f, h
	}
	state := func(f *fake, h *Host) string {
		run(t, h, second, nil) // once more: the record forgets what is gone
		return fmt.Sprint(treeText(t, f.dir), running(f.active), running(f.enabled), f.hostname)
	}
	f, h := build()
	if _, err := run(t, h, second, nil); err != nil {
		t.Fatal(err)
	}
	whole := state(f, h)
	lost := true
	for at := 0; lost; at++ {
		f, h := build()
		c := &cut{Machine: recorded{h, Store{Tree: h.Tree, Dir: second.Scratch, Name: "user"}}, at: at}
		lost = c.until(func() { run(t, h, second, c) })
		if _, err := run(t, h, second, nil); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(whole, state(f, h)); d != "" {
			t.Fatalf("power lost at point %d (-whole +cut):\n%s", at, d)
		}
		if !lost && at < 30 {
			t.Errorf("only %d points", at)
		}
	}
}

func running(m map[string]bool) []string {
	on := maps.Clone(m)
	maps.DeleteFunc(on, func(_ string, v bool) bool { return !v })
	return slices.Sorted(maps.Keys(on))
}

func TestSecondRunHasNothingToDo(t *testing.T) {
	f, h := newFake(t)
	want := wantedOf(t, after)
	out, err := run(t, h, want, nil)
	if err != nil || len(out) < 10 {
		t.Fatal(out, err)
	}
	log := len(f.log)
	once := treeText(t, f.dir)
	if out, err := run(t, h, want, nil); err != nil || len(out) > 0 || len(f.log) != log {
		t.Errorf("second run: %v, %v, %v", out, err, f.log[log:])
	}
	if d := cmp.Diff(once, treeText(t, f.dir)); d != "" {
		t.Error(d)
	}
}

// What fails takes with it what needs it, and nothing else: keys are there though files
// are not.
func TestFailuresStayApart(t *testing.T) {
	f, h := newFake(t)
	if err := os.WriteFile(filepath.Join(f.dir, "etc/systemd"), nil, 0o644); err != nil {
		t.Fatal(err) // in the way of units in /etc
	}
	f.fails = "hostnamectl"
	out, err := run(t, h, wantedOf(t, before), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range out {
		if o.Status != Done {
			got = append(got, fmt.Sprintf("%s %s: %s", o.Kind, o.Target, o.Status))
		}
	}
	want := []string{
		"hostname web-1: failed",
		"write /etc/systemd/system/web.service: failed",
		"mask /etc/systemd/system/masked.service: failed",
		"command web.service: skipped",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("not done (-want +got):\n%s", d)
	}
	if text, err := os.ReadFile(filepath.Join(f.dir, "home/bob/.ssh/authorized_keys")); err != nil || !strings.Contains(string(text), "bob") {
		t.Errorf("keys: %q, %v", text, err)
	}
}

func TestEndedRunSaysWhatItDidNotReach(t *testing.T) {
	_, h := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	m := stopper{recorded{h, Store{Tree: h.Tree, Dir: "/w", Name: "user"}}, cancel}
	want := wantedOf(t, before)
	have, err := h.Look(t.Context(), want, plan.Record{})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := Carry(ctx, m, plan.Make(want, have), Options{})
	if out[0].Status != Done || out[1].Status != NotReached {
		t.Errorf("%+v", out)
	}
}

// stopper is ended after its first step.
type stopper struct {
	Machine
	cancel func()
}

func (s stopper) Do(ctx context.Context, step plan.Step) error {
	defer s.cancel()
	return s.Machine.Do(ctx, step)
}

func TestQueuedJobsAreNotWaitedFor(t *testing.T) {
	f, h := newFake(t)
	h.NoBlock = true
	want := wantedOf(t, after)
	want.Scripts = []string{"#!/bin/sh\n"}
	if _, err := run(t, h, want, nil); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"systemctl --no-block start -- web.service",
		"systemctl --no-reload enable --force -- web.service",
	} {
		if !slices.Contains(f.log, line) {
			t.Errorf("%q is not in %q", line, f.log)
		}
	}
	if !slices.ContainsFunc(f.log, func(l string) bool {
		return strings.HasPrefix(l, "systemd-run --collect --unit=coreos-cloudinit-") && strings.Contains(l, "--no-block")
	}) {
		t.Errorf("no script in %q", f.log)
	}
}

func TestInBoot(t *testing.T) {
	for _, c := range []struct {
		state, execPID string
		want           bool
	}{
		{"starting", "", true}, {"initializing", "", true}, {"running", "", false}, {"degraded", "", false},
		{"running", "7", true}, {"running", "8", false},
	} {
		if got := inBoot(c.state, c.execPID, 7); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestUseraddArgs(t *testing.T) {
	got := strings.Join(useraddArgs("/", config.User{Name: "a", Gecos: "A B", Homedir: "/h", PrimaryGroup: "g", Groups: []string{"x", "y"},
		NoUserGroup: true, System: true, NoLogInit: true, NoCreateHome: true, Shell: "/bin/sh", PasswordHash: "secret"}), "|")
	want := "--password|*|--comment|A B|--home-dir|/h|--gid|g|--groups|x,y|--shell|/bin/sh|--no-create-home|--no-user-group|--system|--no-log-init|--|a"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBrokenRecordIsSaid(t *testing.T) {
	_, h := newFake(t)
	s := Store{Tree: h.Tree, Dir: "/w", Name: "user"}
	for _, text := range []string{"{", `{"form": 99}`} {
		if err := h.Tree.Write("/w/records/user.json", []byte(text), 0o600, me()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "/w/records/user.json") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := s.Save(plan.Record{Network: "x"}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Load(); err != nil || r.Network != "x" {
		t.Error(r, err)
	}
}

func TestResultOfACutRun(t *testing.T) {
	_, h := newFake(t)
	s := Store{Tree: h.Tree, Dir: "/w", Name: "user"}
	if err := s.SaveResult(Result{State: Running}); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock(t.Context(), func() { t.Error("nobody has the lock") })
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Results(h.Tree, "/w"); err != nil || r["user"].State != Running {
		t.Error(r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Lock(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if r, err := Results(h.Tree, "/w"); err != nil || r["user"].State != WasCut {
		t.Error(r, err)
	}
}
