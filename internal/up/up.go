// Package up runs every daemon of a machine in one process: the store's member and
// fleetd, the same parts that an installed machine has as systemd units. With
// several machines in the process each has a supervisor, an agent and a directory
// of its own; they share one member of the store.
//
// Below the directory DIR:
//
//	lock               held by the running "up"
//	store/             the member's data
//	machines/mN/       one machine: machine-id, state (survives a reboot), run (does not), sv (the supervisor)
//	run/fleet.sock     the fleet API, served by whichever machine is alive
//	run/up.sock        power: status, kill, boot
//	run/client-urls    the store's client URLs
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flotilla/internal/applet"
	"flotilla/internal/atomicfile"
	"flotilla/internal/endpoint"
	"flotilla/internal/fault"
	"flotilla/internal/kv/member"
	"flotilla/internal/lifecycle"
)

// Who runs the units.
const (
	UnitsAuto       = "auto"       // systemd where it is PID 1 and we are root, else the supervisor
	UnitsSystemd    = "systemd"    // this machine's systemd
	UnitsSupervisor = "supervisor" // the built-in one
)

// Config is what "flotilla up" is told.
type Config struct {
	Dir        string   // absolute; holds everything
	Machines   int      // how many machines to run in this process, 1 or more
	ClientURLs []string // where the store listens for clients
	Units      string   // UnitsAuto, UnitsSystemd or UnitsSupervisor
	KeepUnits  bool     // the supervisors and their units go on after the end
	// AllowPlainHTTP lets ClientURLs serve http:// beyond loopback.
	AllowPlainHTTP bool
	ReadyFile      string // written when all is ready; "" none
	Metadata       map[string]string
	// StoreUser and StorePassword are what the machines show the store when it asks
	// who its clients are.
	StoreUser, StorePassword string
	Exe                      string // this program, to start supervisors with
}

// maxMachines keeps a first try from taking a laptop down.
const maxMachines = 50

// maxSocketPath is what fits into a socket address (unix(7): 108 bytes with the
// final NUL).
const maxSocketPath = 107

// Validate returns every problem of the configuration at once.
func (c Config) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Machines < 1 || c.Machines > maxMachines {
		add("--machines %d: must be 1 to %d", c.Machines, maxMachines)
	}
	switch c.Units {
	case UnitsAuto, UnitsSupervisor:
	case UnitsSystemd:
		if c.Machines > 1 {
			add("--units systemd: one systemd is one machine, not %d; use --units supervisor", c.Machines)
		}
		if !booted() {
			add("--units systemd: systemd is not PID 1 here; use --units supervisor, or auto")
		}
	default:
		add("--units %q: must be systemd, supervisor or auto", c.Units)
	}
	if len(c.ClientURLs) == 0 {
		add("--listen-client-urls: at least one URL is needed")
	}
	if n := len(c.machineDir(c.Machines)) + len("/sv/run/supervisor.sock"); n > maxSocketPath {
		add("--dir %s: %d bytes too long, its sockets would not fit into an address", c.Dir, n-maxSocketPath)
	}
	if len(problems) == 0 {
		return nil
	}
	return fault.Code(fault.ExitUsage, errors.Join(problems...))
}

func (c Config) machineDir(n int) string {
	return filepath.Join(c.Dir, "machines", fmt.Sprintf("m%d", n))
}

func (c Config) runPath(name string) string { return filepath.Join(c.Dir, "run", name) }

// supervised says whether the built-in supervisor runs the units.
func (c Config) supervised() bool {
	switch c.Units {
	case UnitsSystemd:
		return false
	case UnitsSupervisor:
		return true
	}
	return !booted() || c.Machines > 1 || os.Geteuid() != 0
}

// booted says whether systemd is PID 1, as sd_booted(3) does: this directory exists
// exactly there.
func booted() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// Up is every daemon of a machine in one process. Make it with New.
type Up struct {
	cfg    Config
	env    applet.Env
	log    *slog.Logger
	began  time.Time
	member *member.Member
	hosts  *hosts
}

// New makes an Up and touches nothing. Where it listens goes to env.Stdout.
func New(cfg Config, env applet.Env, log *slog.Logger) *Up {
	return &Up{cfg: cfg, env: env, log: log}
}

// Run runs everything until ctx is done, then stops it in reverse order.
func (u *Up) Run(ctx context.Context) error {
	u.began = time.Now()
	if err := u.cfg.Validate(); err != nil {
		return err
	}
	unlock, err := u.claim()
	if err != nil {
		return err
	}
	defer unlock()
	mc, err := member.Alone("up", filepath.Join(u.cfg.Dir, "store"), u.cfg.ClientURLs)
	if err != nil {
		return fault.Code(fault.ExitUsage, err)
	}
	mc.AllowPlainHTTP = u.cfg.AllowPlainHTTP
	m := member.New(mc, member.Deps{Log: u.log.With("part", "etcd")})
	u.member = m
	u.hosts = newHosts(u.cfg, u.log, m.ClientURLs)
	return lifecycle.Run(ctx, u.log,
		lifecycle.Part{Name: "store", Run: m.Run, StopTimeout: 15 * time.Second},
		lifecycle.Part{Name: "machines", Run: u.hosts.run, StopTimeout: 2 * time.Minute},
		lifecycle.Part{Name: "fleet API", Run: u.front},
		lifecycle.Part{Name: "power", Run: u.control},
		lifecycle.Part{Name: "announcement", Run: u.announce},
	)
}

// claim makes the directories and takes the lock, so that two processes never run
// the same machines.
func (u *Up) claim() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(u.cfg.Dir, "run"), 0o700); err != nil {
		return nil, fault.Hint(fmt.Errorf("make the directory for everything: %w", err), "choose another one with --dir DIR")
	}
	path := filepath.Join(u.cfg.Dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Hint(err, "choose another directory with --dir DIR")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		return nil, fault.Hint(fmt.Errorf("%s is in use by another 'flotilla up' (process %s)", u.cfg.Dir, strings.TrimSpace(string(holder))),
			"stop that one, or run a second one beside it with --dir and --listen-client-urls http://127.0.0.1:0")
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// announce tells the command lines and the person where everything is, and takes
// it back at the end.
func (u *Up) announce(ctx context.Context, ready func()) error {
	urls := u.member.ClientURLs()
	if err := atomicfile.Write(u.cfg.runPath(endpoint.ClientURLs), []byte(strings.Join(urls, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(u.cfg.runPath(endpoint.ClientURLs))
	// Without a home directory the command lines are told by hand: see greet.
	found := endpoint.SetCurrent(u.env, u.cfg.Dir) == nil
	if u.cfg.ReadyFile != "" {
		text := fmt.Sprintf("FLEETCTL_ENDPOINT=unix://%s\nETCDCTL_ENDPOINTS=%s\n", u.cfg.runPath(endpoint.FleetSocket), strings.Join(urls, ","))
		if err := atomicfile.Write(u.cfg.ReadyFile, []byte(text), 0o644); err != nil {
			return err
		}
		defer os.Remove(u.cfg.ReadyFile)
	}
	u.greet(urls, found)
	ready()
	<-ctx.Done()
	return nil
}

// greet says where everything listens and what to type next.
func (u *Up) greet(urls []string, found bool) {
	w := u.env.Stdout
	fmt.Fprintf(w, "%s ready in %.1f s\n\n", count(u.cfg.Machines, "machine"), time.Since(u.began).Seconds())
	fmt.Fprintf(w, "  fleet API   unix://%s\n", u.cfg.runPath(endpoint.FleetSocket))
	fmt.Fprintf(w, "  store       %s\n", strings.Join(urls, " "))
	fmt.Fprintf(w, "  units run   %s\n", u.runner())
	fmt.Fprintf(w, "  kept in     %s\n\n", u.cfg.Dir)
	fmt.Fprintf(w, "Next, in another terminal:\n\n")
	if want := "unix://" + u.cfg.runPath(endpoint.FleetSocket); !found || !sameSocket(endpoint.Fleet(u.env), want) {
		fmt.Fprintf(w, "  export FLEETCTL_ENDPOINT=%s\n", want)
	}
	if !found {
		fmt.Fprintf(w, "  export ETCDCTL_ENDPOINTS=%s\n", strings.Join(urls, ","))
	}
	fmt.Fprintf(w, "  %s fleetctl list-machines\n", u.cfg.Exe)
	fmt.Fprintf(w, "  %s fleetctl start hello.service     # any unit file you have; examples/ has some\n", u.cfg.Exe)
	fmt.Fprintf(w, "  %s fleetctl journal -f hello\n", u.cfg.Exe)
	fmt.Fprintf(w, "  %s etcdctl set /message \"Hello world\"\n", u.cfg.Exe)
	if u.cfg.Machines > 1 {
		fmt.Fprintf(w, "  %s up kill m1                       # power loss; 'up boot m1' brings it back\n", u.cfg.Exe)
	}
	end := "Ctrl-C stops everything, the units too (--keep-units leaves them running)."
	if u.cfg.KeepUnits || !u.cfg.supervised() {
		end = "Ctrl-C stops everything but the units, which go on running."
	}
	fmt.Fprintf(w, "\n%s\n", end)
}

func (u *Up) runner() string {
	if u.cfg.supervised() {
		return "under the built-in supervisor, one for each machine"
	}
	return "under this machine's systemd: systemctl status and journalctl -u work"
}

// sameSocket says whether two unix:// URLs lead to one socket, over links or not.
func sameSocket(a, b string) bool {
	x, errX := os.Stat(strings.TrimPrefix(a, "unix://"))
	y, errY := os.Stat(strings.TrimPrefix(b, "unix://"))
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
