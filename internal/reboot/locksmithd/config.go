package locksmithd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"flotilla/internal/confload"
	"flotilla/internal/reboot/fleetlock"
	"flotilla/internal/reboot/gate"
	"flotilla/internal/reboot/sema"
	"flotilla/internal/reboot/window"
)

// Strategy is when a machine that wants to reboot may.
type Strategy string

// The strategies.
const (
	Off        Strategy = "off"         // never; the daemon ends at once
	AtOnce     Strategy = "reboot"      // in the window
	BestEffort Strategy = "best-effort" // EtcdLock where a member of the store or a proxy runs, else AtOnce
	EtcdLock   Strategy = "etcd-lock"   // in the window, with the lock
)

// prefix is that of the variables.
const prefix = "LOCKSMITHD_"

// Config is the configuration of locksmithd. Defaults has what counts where nothing is
// said; docs/cli/locksmithd.md explains each.
type Config struct {
	Strategy     Strategy
	Endpoints    []string // the store's client URLs
	CAFile       string
	CertFile     string
	KeyFile      string
	Username     string
	Password     string
	Group        string // of the lock; "" none
	WindowStart  string // "[Day] H:M"; "" at any time
	WindowLength string
	WindowZone   string // IANA name; "" the machine's own

	Notice        time.Duration // for those who are logged in
	DrainTimeout  time.Duration // how long units may take to leave
	DrainStuck    time.Duration // how long none may leave before the rest counts as having no other place
	Patience      time.Duration // with objections while the lock is held
	GateTimeout   time.Duration // how long the machine may take to be well again
	Settle        time.Duration // how long it has to be well
	HolderTimeout time.Duration // how long a holder may be silent

	VetoDir     string // executables that may object to a reboot
	HealthDir   string // executables that say whether the machine is well
	FleetPrefix string

	RequiredFile         string // Debian's /run/reboot-required
	NeedsRestartingEvery time.Duration

	FleetLockListen   string // "off": nowhere
	FleetLockCertFile string
	FleetLockKeyFile  string
	FleetLockCAFile   string
	FleetLockInsecure bool
	FleetLockTimeout  time.Duration // from a client's slot to its first word after the boot

	CoordinatorFile string
	RunDir          string
	StateDir        string
	MachineID       string
	Hostname        string
	Verbosity       int
}

// Defaults is the configuration when nothing is set.
func Defaults() Config {
	return Config{
		Strategy:             BestEffort,
		Endpoints:            []string{"http://127.0.0.1:2379", "http://127.0.0.1:4001"},
		Notice:               5 * time.Minute,
		DrainTimeout:         10 * time.Minute,
		DrainStuck:           30 * time.Second,
		Patience:             5 * time.Minute,
		GateTimeout:          10 * time.Minute,
		Settle:               15 * time.Second,
		HolderTimeout:        sema.HolderTimeout,
		VetoDir:              "/etc/flotilla/reboot.d",
		HealthDir:            "/etc/flotilla/health.d",
		FleetPrefix:          gate.FleetPrefix,
		RequiredFile:         "/run/reboot-required",
		NeedsRestartingEvery: time.Hour,
		FleetLockListen:      "off",
		FleetLockTimeout:     fleetlock.DefaultTimeout,
		CoordinatorFile:      "/run/update-engine/coordinator.conf",
		RunDir:               "/run/locksmithd",
		StateDir:             "/var/lib/locksmithd",
	}
}

// settings names every setting, as environment and flags have it.
func (c *Config) settings() *confload.Set {
	s := &confload.Set{}
	s.Func("reboot_strategy", "off, reboot, best-effort or etcd-lock", c.setStrategy, func() string { return string(c.Strategy) })
	s.List(&c.Endpoints, "endpoint", "client URLs of the store")
	s.String(&c.CAFile, "etcd_cafile", "authority that the store's certificates are verified with")
	s.String(&c.CertFile, "etcd_certfile", "certificate shown to the store")
	s.String(&c.KeyFile, "etcd_keyfile", "its key")
	s.String(&c.Username, "etcd_username", "user at the store")
	s.String(&c.Password, "etcd_password", "that user's password")
	s.String(&c.Group, "group", "group of machines that has a lock of its own")
	s.String(&c.WindowStart, "reboot_window_start", "when the window opens: [DAY] H:M")
	s.String(&c.WindowLength, "reboot_window_length", "how long it is open, such as 1h30m")
	s.String(&c.WindowZone, "reboot_window_tz", "time zone of the window, such as Europe/Berlin; empty: the machine's")
	s.Duration(&c.Notice, 0, "notice", "how long those have who are logged in")
	s.Duration(&c.DrainTimeout, 0, "drain_timeout", "how long units may take to leave the machine")
	s.Duration(&c.DrainStuck, time.Second, "drain_stuck", "how long none may leave before the rest counts as having no other place")
	s.Duration(&c.Patience, 0, "objection_timeout", "how long the lock is held while something objects to the reboot")
	s.Duration(&c.GateTimeout, time.Second, "gate_timeout", "how long the machine may take after the boot to be well")
	s.Duration(&c.Settle, 0, "settle", "how long it has to be well: longer than fleet's agent_ttl")
	s.Duration(&c.HolderTimeout, time.Minute, "holder_timeout", "how long a holder of the lock may be silent before it counts as lost; alike on all machines")
	s.String(&c.VetoDir, "veto_dir", "executables that may object to a reboot")
	s.String(&c.HealthDir, "health_dir", "executables that say whether the machine is well after it")
	s.String(&c.FleetPrefix, "fleet_key_prefix", "where fleet keeps its keys")
	s.String(&c.RequiredFile, "required_file", "file that says that a reboot is needed")
	s.Duration(&c.NeedsRestartingEvery, time.Minute, "needs_restarting_every", "how often needs-restarting is run, where there is one")
	s.String(&c.FleetLockListen, "fleetlock_listen", "where the FleetLock protocol is served, such as 127.0.0.1:4444; off: nowhere")
	s.String(&c.FleetLockCertFile, "fleetlock_certfile", "certificate shown there")
	s.String(&c.FleetLockKeyFile, "fleetlock_keyfile", "its key")
	s.String(&c.FleetLockCAFile, "fleetlock_cafile", "authority of the clients' certificates")
	s.Bool(&c.FleetLockInsecure, "fleetlock_insecure", "serve it beyond loopback without client certificates: whoever reaches it can stop all reboots")
	s.Duration(&c.FleetLockTimeout, time.Minute, "fleetlock_holder_timeout", "how long a client may take from its slot to its first word after the boot; at most 24h")
	s.String(&c.CoordinatorFile, "coordinator_file", "file that the one who reboots the machine holds")
	s.String(&c.RunDir, "run_dir", "what a reboot forgets")
	s.String(&c.StateDir, "state_dir", "what survives it")
	s.String(&c.MachineID, "machine_id", "id of the machine, 32 hexadecimal digits; empty: /etc/machine-id")
	s.String(&c.Hostname, "hostname", "name of the machine for people; empty: the kernel's")
	s.Int(&c.Verbosity, 0, 9, "verbosity", "above 0: debug log")
	return s
}

func (c *Config) setStrategy(v string) error {
	switch s := Strategy(strings.ToLower(strings.TrimSpace(v))); s {
	case Off, AtOnce, BestEffort, EtcdLock:
		c.Strategy = s
		return nil
	}
	return fmt.Errorf("%q is none of off, reboot, best-effort, etcd-lock", v)
}

// observes tells whether the daemon looks after the holders of its group's lock.
func (c Config) observes() bool { return c.Strategy == EtcdLock || c.Strategy == BestEffort }

// window is the one that the machine may reboot in; false: at any time.
func (c Config) window() (window.Window, bool, error) {
	if c.WindowStart == "" && c.WindowLength == "" {
		return window.Window{}, false, nil
	}
	if c.WindowStart == "" || c.WindowLength == "" {
		return window.Window{}, false, about(errors.New("reboot_window_start and reboot_window_length: one without the other is no window"),
			"reboot_window_start", "reboot_window_length")
	}
	zone, zoneErr := c.zone()
	w, err := window.Parse(c.WindowStart, c.WindowLength, zone)
	if err != nil {
		return window.Window{}, false, errors.Join(zoneErr, ofWindow(err))
	}
	if w.Length() == 0 {
		err = about(errors.New("reboot window: reboot_window_length: one of 0 never opens; 'reboot_strategy=off' says that"), "reboot_window_length")
	}
	if err = errors.Join(zoneErr, err); err != nil {
		return window.Window{}, false, err
	}
	return w, true, nil
}

// zone is the time zone of the window.
func (c Config) zone() (*time.Location, error) {
	if c.WindowZone == "" {
		return machineZone("/etc/localtime"), nil
	}
	zone, err := time.LoadLocation(c.WindowZone)
	if err != nil {
		return nil, about(fmt.Errorf("reboot_window_tz: %w", err), "reboot_window_tz")
	}
	return zone, nil
}

// ofWindow says which setting each thing is about that is wrong with a window.
func ofWindow(err error) error {
	var out []error
	for _, one := range apart(err) {
		setting := "reboot_window_start"
		if errors.Is(one, window.ErrLength) {
			setting = "reboot_window_length"
		}
		out = append(out, about(fmt.Errorf("reboot window: %w", one), setting))
	}
	return errors.Join(out...)
}

// machineZone is the machine's own time zone. Its file is a link into the system's data on
// time zones; where there are none of these, the link still says which zone is meant, and
// the windows of a machine in Berlin are not to be those of UTC.
func machineZone(file string) *time.Location {
	target, err := os.Readlink(file)
	if err != nil || os.Getenv("TZ") != "" {
		return time.Local
	}
	if _, err := os.Stat(file); err == nil {
		return time.Local
	}
	_, name, _ := strings.Cut(target, "zoneinfo/")
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" {
		return time.Local
	}
	return zone
}

// bare are the variables that count without the prefix too: those of the classic file.
var bare = []string{"REBOOT_STRATEGY", "REBOOT_WINDOW_START", "REBOOT_WINDOW_LENGTH", "REBOOT_WINDOW_TZ"}

// variables are those that the daemon reads, by its settings.
func variables(settings []string) []string {
	out := slices.Clone(bare)
	for _, name := range settings {
		out = append(out, prefix+strings.ToUpper(name))
	}
	return out
}

// lenient reads what the classic file may hold: variables of other daemons beside those
// of this one, so that only the bare ones are looked at without the prefix.
func lenient(lookup func(string) (string, bool)) func(string) (string, bool) {
	if lookup == nil {
		return nil
	}
	return func(name string) (string, bool) {
		if !slices.Contains(bare, name) {
			return "", false
		}
		v, ok := lookup(name)
		return v, ok && v != "" // REBOOT_STRATEGY= is how some images say nothing
	}
}
