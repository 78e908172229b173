package machines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flotilla/internal/atomicfile"
	"flotilla/internal/fault"
)

const (
	// stateDir holds a directory for each lab.
	stateDir = "/run/flotilla-lab"

	// mark begins the name of every namespace, cgroup and systemd-nspawn machine
	// that is a lab's.
	mark = "flotilla-lab-"
)

// Lab is one set of machines, told from others by the prefix of their names.
type Lab struct {
	prefix string
	host   Host
	say    func(format string, args ...any)
}

// prefixes that can be told from a machine's name (prefix and number) and fit into
// the name of a network interface (15 bytes).
var validPrefix = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,7}[a-z])?$`)

// New returns the lab whose machines are called prefix1, prefix2 and so on, whether
// it is up or not. say hears what is being done, a line each; nil is silence.
func New(prefix string, host Host, say func(format string, args ...any)) (*Lab, error) {
	if !validPrefix.MatchString(prefix) {
		return nil, fault.Usage("machines cannot be called %q and a number: it takes 1 to 9 of a-z, 0-9 and -, beginning and ending with a letter", prefix)
	}
	if say == nil {
		say = func(string, ...any) {}
	}
	return &Lab{prefix: prefix, host: host, say: say}, nil
}

// Of returns the prefix of the lab that a machine belongs to by its name.
func Of(machine string) string { return strings.TrimRight(machine, "0123456789") }

func (l *Lab) dir() string              { return filepath.Join(stateDir, l.prefix) }
func (l *Lab) disk(machine string) disk { return disk{filepath.Join(l.dir(), "disks", machine)} }

// SharedDir is where this machine has the directory that the lab's machines have at
// [Shared].
func (l *Lab) SharedDir() string { return l.disk("any").shared() }

// state is what cannot be seen by looking: how many machines were asked for.
type state struct {
	Machines []Machine `json:"machines"`
	Members  int       `json:"members,omitempty"` // of the store; 0: no cluster has been started
}

// errDown: the lab is not up.
var errDown = errors.New("not up")

func (l *Lab) load() (state, error) {
	var s state
	b, err := os.ReadFile(filepath.Join(l.dir(), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, l.hintAtOthers(fault.Hint(fmt.Errorf("lab %s: %w", l.prefix, errDown), "flotilla lab up 3%s", l.nameFlag()))
	}
	if err != nil {
		return s, fmt.Errorf("lab %s: %w", l.prefix, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fault.Hint(fmt.Errorf("lab %s: read its state: %w", l.prefix, err), "flotilla lab down --name %s", l.prefix)
	}
	return s, nil
}

// DefaultPrefix is the name of a lab that is given none.
const DefaultPrefix = "m"

// nameFlag names the lab in a command line, where that is needed.
func (l *Lab) nameFlag() string {
	if l.prefix == DefaultPrefix {
		return ""
	}
	return " --name " + l.prefix
}

// hintAtOthers names the labs that there are: one of them may have been meant.
func (l *Lab) hintAtOthers(err error) error {
	others, _ := Labs() // without them the error says enough
	if len(others) == 0 {
		return err
	}
	return fault.Hint(err, "there are the labs: %s ('flotilla lab status' shows their machines)", strings.Join(others, " "))
}

// noMachine says that the lab has no machine of this name, and which it has.
func (l *Lab) noMachine(name string, s state) error {
	names := make([]string, len(s.Machines))
	for i, m := range s.Machines {
		names[i] = m.Name
	}
	return fault.Hint(fmt.Errorf("no machine %q in lab %s", name, l.prefix), "there are: %s", strings.Join(names, " "))
}

func (l *Lab) save(s state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(l.dir(), "state.json"), append(b, '\n'), 0o600)
}

// Machines returns the lab's machines.
func (l *Lab) Machines() ([]Machine, error) {
	s, err := l.load()
	return s.Machines, err
}

// Members returns the machines that have a member of the store; none before Cluster.
func (l *Lab) Members() ([]Machine, error) {
	s, err := l.load()
	return s.Machines[:min(s.Members, len(s.Machines))], err
}

func (l *Lab) machine(name string) (Machine, error) {
	s, err := l.load()
	if err != nil {
		return Machine{}, err
	}
	i := slices.IndexFunc(s.Machines, func(m Machine) bool { return m.Name == name })
	if i < 0 {
		return Machine{}, l.noMachine(name, s)
	}
	return s.Machines[i], nil
}

// lock keeps two commands from changing the same lab at once. The file lies beside
// the lab's directory and goes with the lab.
func (l *Lab) lock() (unlock func(), err error) {
	path := l.dir() + ".lock"
	for {
		if err := os.MkdirAll(stateDir, 0o700); err != nil {
			return nil, fmt.Errorf("lab %s: %w", l.prefix, err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a "down" has just removed the directory
		}
		if err != nil {
			return nil, fmt.Errorf("lab %s: %w", l.prefix, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fault.Hint(fmt.Errorf("lab %s: another command is changing it", l.prefix), "wait until it has ended")
		}
		if isFile(path, f) {
			return func() { l.unlock(path, f) }, nil
		}
		f.Close() // what we hold has been removed: take the new one
	}
}

// unlock leaves nothing behind where there is no lab.
func (l *Lab) unlock(path string, f *os.File) {
	if !isDir(l.dir()) {
		os.Remove(path)
		os.Remove(stateDir) // of the last lab; otherwise it is not empty, and stays
	}
	f.Close()
}

func isFile(path string, f *os.File) bool {
	named, err := os.Stat(path)
	if err != nil {
		return false
	}
	held, err := f.Stat()
	return err == nil && os.SameFile(named, held)
}

// Up boots n machines and returns when all of them run. If it cannot, or ctx ends,
// it takes away what it made. Without options they are like this machine, but for what
// its owner has configured or enabled.
func (l *Lab) Up(ctx context.Context, n int, options ...Option) (err error) {
	if n < 1 || n > maxMachine {
		return fault.Usage("a lab has 1 to %d machines, not %d", maxMachine, n)
	}
	if err := l.host.Check(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(l.dir()); err == nil {
		return fault.Hint(fmt.Errorf("lab %s is up already", l.prefix), "flotilla lab status; flotilla lab down --name %s", l.prefix)
	}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted: what had been made is taken away")
		}
		if err != nil {
			err = errors.Join(err, l.remove(context.WithoutCancel(ctx)))
		}
	}()
	s := state{Machines: machines(l.prefix, n)}
	var r recipe
	for _, option := range options {
		option(&r)
	}
	if err := l.lay(ctx, s, r); err != nil {
		return err
	}
	return l.each(ctx, s.Machines, "is up", l.start)
}

// lay makes what the machines stand on: disks and network.
func (l *Lab) lay(ctx context.Context, s state, r recipe) error {
	began := time.Now()
	disks := filepath.Join(l.dir(), "disks")
	if err := os.MkdirAll(disks, 0o700); err != nil {
		return fmt.Errorf("lab %s: %w", l.prefix, err)
	}
	if err := l.save(s); err != nil {
		return fmt.Errorf("lab %s: %w", l.prefix, err)
	}
	if err := unix.Mount("flotilla-lab", disks, "tmpfs", 0, "mode=0700"); err != nil {
		return fmt.Errorf("lab %s: mount a tmpfs for the disks: %w", l.prefix, err)
	}
	if err := l.makeNetwork(ctx); err != nil {
		return err
	}
	image, why := imageFiles(l.host)
	if why != nil {
		l.say("warning: %v", why)
	}
	for _, m := range s.Machines {
		if err := l.plug(ctx, m); err != nil {
			return err
		}
		if err := l.disk(m.Name).make(m, s.Machines, l.host, r); err != nil {
			return err
		}
		if err := l.disk(m.Name).write(image, 0o644); err != nil {
			return fmt.Errorf("write the image of %s: %w", m.Name, err)
		}
	}
	l.say("disks and network of %d machines made in %s", len(s.Machines), since(began))
	return nil
}

// each does the same to several machines at once and says when each is done.
func (l *Lab) each(ctx context.Context, ms []Machine, done string, do func(context.Context, Machine) error) error {
	began := time.Now()
	errs := make([]error, len(ms))
	var all sync.WaitGroup
	for i, m := range ms {
		all.Go(func() {
			if errs[i] = do(ctx, m); errs[i] == nil {
				l.say("%s (%s) %s after %s", m.Name, m.Address, done, since(began))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// since is the time passed, as people say it.
func since(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }

// Down takes the lab away: processes, mounts, namespaces, cgroups, files. It is no
// error if there is nothing, or only a part, of it.
func (l *Lab) Down(ctx context.Context) error {
	if !l.host.Root {
		return l.host.Check()
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return l.remove(ctx)
}

// remove goes on after a failure: what can be taken away is.
func (l *Lab) remove(ctx context.Context) error {
	names, err := l.traces()
	errs := []error{err}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			err := l.removeMachine(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	errs = append(errs, removeNamespace(ctx, l.Namespace()), unmountAll(l.dir()))
	if err := errors.Join(errs...); err != nil {
		return fault.Hint(fmt.Errorf("take lab %s away: %w", l.prefix, err), "flotilla lab down --name %s does what is left", l.prefix)
	}
	return os.RemoveAll(l.dir())
}

// removeMachine ends a machine and takes away what is its own; its disk goes with
// the lab's.
func (l *Lab) removeMachine(ctx context.Context, name string) error {
	_ = l.freeze(name, false) // what is frozen dies all the same, but leaves its cgroup late
	if err := powerOff(ctx, l.disk(name).root()); err != nil {
		return err
	}
	err := removeNamespace(ctx, l.machineNamespace(name))
	if !l.host.Systemd {
		err = errors.Join(err, removeCgroups(ctx, l.host.Cgroups, mark+name))
	}
	return err
}

// traces returns the names of all machines of which anything is left: a disk, a
// namespace or a cgroup.
func (l *Lab) traces() ([]string, error) {
	patterns := []string{filepath.Join(l.dir(), "disks", l.prefix), filepath.Join(netnsDir, mark+l.prefix)}
	for _, h := range l.host.Cgroups {
		patterns = append(patterns, filepath.Join(h.Path, mark+l.prefix))
	}
	var names []string
	for _, p := range patterns {
		found, err := filepath.Glob(p + "[0-9]*")
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			name := strings.TrimPrefix(filepath.Base(path), mark)
			if Of(name) == l.prefix {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Labs returns the prefixes of the labs of which there is a directory.
func Labs() ([]string, error) {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for labs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
