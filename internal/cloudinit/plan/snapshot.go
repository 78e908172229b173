package plan

// Snapshot is how a machine is. What is not in a map does not exist.
type Snapshot struct {
	// Live: systemd runs, and it is this machine that is to be changed and not an image.
	Live bool
	// Boot is the boot id: a new one after each boot.
	Boot           string
	Hostname       string // of the kernel
	StaticHostname string // in /etc/hostname
	Runner         string // USER:GROUP of whoever runs this
	Files          map[string]Entry
	Users          map[string]Account
	UserIDs        map[string]uint32 // of all users, for owners of files
	Groups         map[string]uint32
	Units          map[string]Unit
	Record         Record // of the runs before
	Blind          string // why nothing is known of Units; "" if it is
}

// An Entry of a directory.
type Entry struct {
	Content []byte // of a file
	Link    string // what a symbolic link points to
	Dir     bool
	// Unreadable says why there is no Content.
	Unreadable string
	Mode       uint32 // permission bits
	UID        uint32
	GID        uint32
	Owner      string // USER:GROUP, numbers where there is no name
}

// An Account of a user, from /etc/passwd, /etc/shadow and /etc/group.
type Account struct {
	UID, GID           uint32
	Gecos, Home, Shell string
	PasswordHash       string
	Groups             []string // those it is a member of beside its own
	HasHome            bool     // the directory exists
	// AuthorizedKeys is the text of ~/.ssh/authorized_keys, Sets are the files of
	// ~/.ssh/authorized_keys.d.
	AuthorizedKeys string
	Sets           map[string]string
}

// A Unit as systemd has it.
type Unit struct {
	Missing    bool   // there is no file for it
	Active     bool   // runs, starts or reloads
	Enabled    string // as "systemctl is-enabled" says: enabled, static, ...
	NeedReload bool   // its files changed since systemd has read them
}

// A Record is what earlier runs left on a machine. It is saved as JSON; the zero
// value is that of a machine where nothing was run.
type Record struct {
	Files   map[string]FileMark `json:"files,omitempty"`    // by path
	KeySets map[string]bool     `json:"key_sets,omitempty"` // USER/SET
	Users   []string            `json:"users,omitempty"`    // that were made, or were about to be
	Units   map[string]UnitMark `json:"units,omitempty"`    // by name
	Scripts map[string]string   `json:"scripts,omitempty"`  // hash: boot id of its last run
	Names   []string            `json:"names,omitempty"`    // host names in /etc/hosts
	Network string              `json:"network,omitempty"`  // hash of the network files that networkd was restarted for
	// Detected are addresses in /etc/environment that no data source gave. They are
	// looked up anew at each run.
	Detected map[string]string `json:"detected,omitempty"`
	// ReloadDue: unit files may have changed since systemd has read them.
	ReloadDue bool `json:"reload_due,omitempty"`
}

// A FileMark says what was written.
type FileMark struct {
	Hash string `json:"hash"`
	// Shared: lines were put among those of others, so it is not ours to remove.
	Shared bool   `json:"shared,omitempty"`
	Unit   string `json:"unit,omitempty"` // whose file it is
}

// A UnitMark says what was done with a unit.
type UnitMark struct {
	Text string   `json:"text,omitempty"` // hash of its texts at the last command
	Boot string   `json:"boot,omitempty"` // when that was
	Told []string `json:"told,omitempty"` // the document's commands in that boot, for that text
	// Due: it is to be told of a new text. A run that is cut leaves it so.
	Due     bool   `json:"due,omitempty"`
	Enabled bool   `json:"enabled,omitempty"`
	Runtime bool   `json:"runtime,omitempty"` // it was enabled until the next boot
	Mask    string `json:"mask,omitempty"`    // path of the link that masks it
}
