package fleetd

import (
	"time"
)

// Config is the configuration of fleetd. The classic keys have their classic
// names and defaults; Defaults has the whole list.
type Config struct {
	// EtcdServers are the URLs of the store's members.
	EtcdServers        []string
	EtcdRequestTimeout time.Duration // of one request to the store
	EtcdCAFile         string
	EtcdCertFile       string
	EtcdKeyFile        string
	EtcdUsername       string
	EtcdPassword       string
	EtcdKeyPrefix      string // "/_coreos.com/fleet/"

	PublicIP string            // published address; empty: detected
	Metadata map[string]string // published with the machine
	// Cores is how many thousandths of a processor the machine has for units and the
	// rest of the system, Memory how many bytes; 0: what the kernel says. The
	// reserves are what of it is not for units.
	Cores, Memory               int64
	ReserveCores, ReserveMemory int64
	// AgentTTL is how long after its last word a machine counts as present.
	AgentTTL time.Duration
	// EngineReconcileInterval is how often the engine looks at everything though
	// nothing has happened. Events wake it at once.
	EngineReconcileInterval time.Duration
	TokenLimit              int    // entries on a page of the HTTP API
	UnitsDirectory          string // where systemd's unit files are written; empty: systemd's own runtime directory
	SystemdUser             bool   // systemd --user
	DisableEngine           bool   // never lead
	Verbosity               int    // above 0: debug

	Units         string // who runs the units: systemd, supervisor or auto
	SupervisorDir string // where the supervisor keeps its things
	StateDir      string // survives a reboot
	RunDir        string // lost at a reboot
	// APISocket is where the HTTP API listens when no sockets are passed in.
	APISocket string
	// APIListen is where it is served over TCP, to client certificates; "off" for
	// nowhere.
	APIListen string
	// APICertFile and APIKeyFile are what the API shows over TCP, APICAFile the
	// authority that clients' certificates are verified with.
	APICertFile, APIKeyFile, APICAFile string
	// ClientDefaultRole is that of a certificate which names none; "": refused.
	ClientDefaultRole string
	// APIPlainLoopback serves the API without TLS on loopback TCP sockets.
	APIPlainLoopback bool
	// PeerListen is where other machines' fleetd ask for logs and statuses;
	// "off" for nowhere. Without a host it is the machine's own address.
	PeerListen string
	// MoveAfter is how long a machine's presence must have been gone before its
	// units move; negative: never.
	MoveAfter time.Duration
	// HoldFraction is the share of the machines whose loss at once is taken for a
	// fault of the network or the store, above 0; 1: never.
	HoldFraction float64
	// ColdStartAfter is how long a machine that has booted waits for the store
	// before it starts its units from the last known schedule.
	ColdStartAfter time.Duration
	// ForgetForeign has the units stopped that another store placed here and that
	// the present one does not mention, at the first reading after a start. It is
	// for one start: left in place, a store that has lost its data stops them all.
	ForgetForeign bool
	MachineID     string // 32 hex digits; empty: /etc/machine-id
	Hostname      string // empty: the kernel's
}

// Defaults is the configuration when nothing is set.
func Defaults() Config {
	return Config{
		EtcdServers:             []string{"http://127.0.0.1:2379", "http://127.0.0.1:4001"},
		EtcdRequestTimeout:      3 * time.Second,
		EtcdKeyPrefix:           "/_coreos.com/fleet/",
		AgentTTL:                10 * time.Second,
		EngineReconcileInterval: 30 * time.Second,
		TokenLimit:              100,
		Units:                   "auto",
		SupervisorDir:           "/var/lib/fleet/supervisor",
		StateDir:                "/var/lib/fleet",
		RunDir:                  "/run/fleet",
		APISocket:               "/run/fleet.sock",
		APIListen:               "off",
		PeerListen:              ":49154",
		MoveAfter:               10 * time.Second,
		HoldFraction:            0.5,
		ReserveMemory:           256 << 20,
		ColdStartAfter:          30 * time.Second,
	}
}
