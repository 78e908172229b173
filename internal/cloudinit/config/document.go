// Package config reads cloud-config documents: what a document says, and everything
// that is wrong with it.
package config

// A Document is what a cloud-config document asks for. Its zero value asks for
// nothing. Option names are in their spelling with underscores.
type Document struct {
	Hostname          string
	ManageEtcHosts    string // "localhost", or "" for not at all
	SSHAuthorizedKeys []string
	Users             []User
	WriteFiles        []File
	CoreOS            CoreOS
}

// CoreOS is the section of that name.
type CoreOS struct {
	Etcd, Etcd2, Fleet, Flannel, Locksmith Options

	OEM    OEM
	Update Update
	Units  []Unit
}

// Options are those of one daemon that the document gives a value other than empty,
// zero or false, in alphabetical order of their names.
type Options []Option

// An Option of a daemon.
type Option struct {
	Name     string // peer_addr
	Variable string // ETCD_PEER_ADDR: how the daemon is told
	Value    string
}

// OEM describes whose image a machine was made from.
type OEM struct{ ID, Name, VersionID, HomeURL, BugReportURL string }

// Update is where updates come from, and how a machine may reboot for them.
type Update struct {
	RebootStrategy string // "off", "reboot", "best-effort" or "etcd-lock"
	Group, Server  string
}

// A Unit of systemd that is to be written, changed or told something.
type Unit struct {
	Name    string
	Content string // the whole unit file; "" if the unit exists already
	Runtime bool   // below /run: gone after a reboot
	Enable  bool
	Mask    bool
	Command string // "" or a verb of systemctl: start, stop, restart, ...
	DropIns []DropIn
}

// A DropIn of a unit.
type DropIn struct{ Name, Content string }

// A User that is to exist.
type User struct {
	Name                 string
	PasswordHash         string
	SSHAuthorizedKeys    []string
	GithubUsers          []string // deprecated: whose public keys are fetched
	KeysURL              string   // deprecated: where public keys are fetched
	Gecos, Homedir       string
	NoCreateHome, System bool
	PrimaryGroup, Shell  string
	Groups               []string
	NoUserGroup          bool
	NoLogInit            bool
}

// A File that is to be written.
type File struct {
	Path    string
	Content []byte // decoded
	Owner   string // "", USER or USER:GROUP
	Mode    uint32 // permission bits; 0644 where the document says nothing
}

// Severity is how bad a finding is.
type Severity string

// The severities, as coreos-cloudinit named them.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// A Finding is one thing that is wrong with a document. Line and Column, in characters,
// count from 1; Column is 0 if only the line is known.
type Finding struct {
	Line     int      `json:"line"`
	Column   int      `json:"column,omitempty"`
	Severity Severity `json:"kind"`
	Key      string   `json:"key,omitempty"` // coreos.units[2].command
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to write in its place
}
