package machines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/fault"
)

// bootLimit is how long a machine may take until its systemd has started all it
// should: ten times what a slow one was seen to take.
const bootLimit = 90 * time.Second

// Shared is a directory that all machines of a lab have in common. It stays when one is
// cut off: what its units do can be seen all the same.
const Shared = "/mnt/lab"

// Machine is one machine of the lab.
type Machine struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// machines lays out n machines: prefix1 with 10.10.1.1 and so on.
func machines(prefix string, n int) []Machine {
	var out []Machine
	for i := 1; i <= n; i++ {
		out = append(out, Machine{Name: prefix + strconv.Itoa(i), Address: machineNet + strconv.Itoa(i)})
	}
	return out
}

// nspawnArgs is the command that boots a machine (systemd-nspawn(1)).
func nspawnArgs(m Machine, d disk, namespace string, host Host) []string {
	args := []string{
		"systemd-nspawn",
		"--directory=" + d.root(), // also what we know our processes by
		"--machine=" + mark + m.Name,
		"--hostname=" + m.Name,
		"--register=no", // machined need not run
		"--settings=no",
		"--network-namespace-path=" + netnsDir + "/" + namespace,
		"--capability=all", // Docker
		"--system-call-filter=@keyring bpf @mount",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--bind=" + d.docker() + ":/var/lib/docker",
		"--bind=" + d.shared() + ":" + Shared,
		"--boot",
	}
	if !host.Systemd {
		// Nobody to ask for a scope: it stays in the cgroups that we made.
		args = slices.Insert(args, 1, "--keep-unit")
	}
	return args
}

// start powers the machine on and waits until its systemd has started all it should.
func (l *Lab) start(ctx context.Context, m Machine) error {
	d := l.disk(m.Name)
	var files []string
	if !l.host.Systemd {
		name := mark + m.Name
		if err := removeCgroups(ctx, l.host.Cgroups, name); err != nil { // of the boot before
			return err
		}
		var err error
		if files, err = makeCgroups(l.host.Cgroups, name); err != nil {
			return err
		}
	}
	console, err := os.OpenFile(d.console(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	defer console.Close()
	if err := os.RemoveAll(d.stayOff()); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	args := nspawnArgs(m, d, l.machineNamespace(m.Name), l.host)
	if !l.host.Systemd {
		args = keeperArgs(d, files, args)
	}
	cmd := exec.Command(args[0], args[1:]...) // not of ctx: it outlives us
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1") // Docker writes to /proc/sys and /sys
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}                // Ctrl-C is for us alone
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in the console's text
		close(ended)
	}()
	return l.waitBooted(ctx, m, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}

// waitBooted waits until the machine's systemd says that it has started all it
// should, or that some of it failed: the machine is up either way, which units
// failed is told. A member of the store that waits for the others is not waited for.
// ended tells that there is nothing left that could boot it.
func (l *Lab) waitBooted(ctx context.Context, m Machine, ended func() bool) error {
	state := ""
	gone := false
	err := until(ctx, bootLimit, func(ctx context.Context) bool {
		if gone = ended(); gone {
			return true
		}
		state = l.systemState(ctx, m.Name)
		return state == "running" || state == "degraded" || state == "starting" && l.waitsForOthers(ctx, m.Name)
	})
	switch {
	case gone:
		return fault.Hint(fmt.Errorf("boot %s: systemd-nspawn ended: %s", m.Name, l.lastWords(m.Name)), "the whole console: %s", l.disk(m.Name).console())
	case err != nil:
		return fault.Hint(fmt.Errorf("boot %s: its systemd is %q: %w", m.Name, state, err), "what hangs: flotilla lab exec %s systemctl list-jobs", m.Name)
	case state == "degraded":
		failed, _ := l.Output(ctx, m.Name, "systemctl", "--failed", "--plain", "--no-legend") // for the message alone
		l.say("%s  warning: units failed:\n%s", m.Name, failed)
	}
	return nil
}

// waitsForOthers reports whether all that the machine still starts is the store.
func (l *Lab) waitsForOthers(ctx context.Context, machine string) bool {
	jobs, err := l.Output(ctx, machine, "systemctl", "list-jobs", "--no-legend")
	return err == nil && onlyStore(jobs)
}

// onlyStore reports whether, of the jobs that "systemctl list-jobs" lists (number,
// unit, type, state), the store's is the only one that runs: the rest wait for it.
func onlyStore(jobs string) bool {
	store := false
	for line := range strings.Lines(jobs) {
		f := strings.Fields(line)
		if len(f) != 4 || f[3] != "running" {
			continue
		}
		if f[1] != "etcd.service" {
			return false
		}
		store = true
	}
	return store
}

// systemState asks the machine's systemd how far it is (systemctl is-system-running);
// "" while there is nobody to ask.
func (l *Lab) systemState(ctx context.Context, machine string) string {
	out, err := l.Output(ctx, machine, "systemctl", "is-system-running")
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ""
	}
	return strings.TrimSpace(out)
}

// lastWords is the end of what systemd-nspawn and the machine wrote.
func (l *Lab) lastWords(machine string) string {
	b, err := os.ReadFile(l.disk(machine).console())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}

// Streams is what a command in a machine reads and writes. nil is nothing.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exec runs a command in the machine as root and waits for it. What the command
// itself returns is an *exec.ExitError.
func (l *Lab) Exec(ctx context.Context, machine string, s Streams, args ...string) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	pid := initOf(l.disk(machine).root())
	if pid == 0 {
		return fault.Hint(fmt.Errorf("%s is off", machine), "flotilla lab boot %s", machine)
	}
	if onTerminal(s.In) {
		ctx = context.WithoutCancel(ctx)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	if !onTerminal(s.In) {
		// What it has started ends with it. On a terminal they stay in its foreground,
		// where Ctrl-C reaches them itself.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	}
	cmd.Env = slices.Concat(loginEnv(), l.environment(machine))
	cmd.WaitDelay = time.Second
	err := startIn(pid, cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", machine, strings.Join(args, " "), err)
	}
	return nil
}

// loginEnv is what root finds after logging in.
func loginEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "SHELL=/bin/bash",
		"LANG=C.UTF-8", "TERM=" + os.Getenv("TERM"), "SYSTEMD_PAGER=",
	}
}

// environment is the machine's /etc/environment, which a login reads (pam_env(8)):
// lines of NAME=VALUE.
func (l *Lab) environment(machine string) []string {
	b, err := os.ReadFile(filepath.Join(l.disk(machine).root(), "etc/environment"))
	if err != nil {
		return nil // a machine need not have one
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out = append(out, name+"="+strings.Trim(value, `"'`))
		}
	}
	return out
}

// onTerminal reports whether a person types at r.
func onTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Output runs a command in the machine and returns what it wrote to stdout. What it
// wrote to stderr is in the error.
func (l *Lab) Output(ctx context.Context, machine string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	err := l.Exec(ctx, machine, Streams{Out: &out, Err: &errs}, args...)
	if err != nil && errs.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), err
}

// WriteFile writes a file into the machine, on or off. Directories are made as needed.
func (l *Lab) WriteFile(machine, path string, text []byte, perm fs.FileMode) error {
	if _, err := l.machine(machine); err != nil {
		return err
	}
	if err := l.disk(machine).write(map[string]string{path: string(text)}, perm); err != nil {
		return fmt.Errorf("write %s on %s: %w", path, machine, err)
	}
	return nil
}

// command runs a command of this machine and returns what it wrote to stdout.
func command(ctx context.Context, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
