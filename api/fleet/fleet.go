// Package fleet is the wire format of the fleet HTTP API, version 1.
//
// Fields that are empty are left out, and keys come in alphabetical order, as the
// original server wrote them. Fields that the original did not have say so; clients
// must ignore what they do not know.
package fleet

import "time"

// Prefix is the path below which all resources live; PrefixAlpha is its older name.
const (
	Prefix      = "/fleet/v1"
	PrefixAlpha = "/v1-alpha"
)

// Machine is a machine that is present in the cluster. The original server had ID,
// Metadata and PrimaryIP.
type Machine struct {
	Cordon    *Cordon           `json:"cordon,omitempty"`   // nothing new is placed here; nil: there is none
	Cores     float64           `json:"cores,omitempty"`    // processors that units may ask for; 0: not told
	Hostname  string            `json:"hostname,omitempty"` // for people
	ID        string            `json:"id,omitempty"`       // 32 hex digits: /etc/machine-id
	Memory    int64             `json:"memory,omitempty"`   // bytes that units may ask for; 0: not told
	Metadata  map[string]string `json:"metadata,omitempty"`
	PrimaryIP string            `json:"primaryIP,omitempty"`
	Used      *Used             `json:"used,omitempty"`    // nil: nothing is placed here
	Version   string            `json:"version,omitempty"` // of its fleetd
}

// Used is what the units that are placed on a machine have asked for, together.
type Used struct {
	Cores  float64 `json:"cores,omitempty"`  // processors
	Memory int64   `json:"memory,omitempty"` // bytes
	Units  int     `json:"units,omitempty"`  // how many they are
}

// Cordon keeps new units from a machine. PUT /machines/ID/cordon takes Drain and Why.
type Cordon struct {
	At    time.Time `json:"at,omitzero"`
	By    string    `json:"by,omitempty"`
	Drain bool      `json:"drain,omitempty"` // what is there leaves, too
	Why   string    `json:"why,omitempty"`
}

// MachinePage is a page of GET /machines.
type MachinePage struct {
	Machines      []Machine `json:"machines,omitempty"`
	NextPageToken string    `json:"nextPageToken,omitempty"`
}

// UnitOption is one line of a unit file.
type UnitOption struct {
	Name    string `json:"name"`
	Section string `json:"section"`
	Value   string `json:"value"`
}

// Unit is a unit that the cluster knows.
type Unit struct {
	// CurrentState is inactive, loaded or launched; empty for global units.
	CurrentState string `json:"currentState,omitempty"`
	// DesiredState is inactive, loaded or launched.
	DesiredState string `json:"desiredState,omitempty"`
	// DropIns are the files of the unit's drop-in directory, in order of name; the
	// original server did not have them.
	DropIns []DropIn `json:"dropIns,omitempty"`
	// Generation grows with every request for DesiredState, also for the value it
	// already has; the original server did not have it. 0: not told.
	Generation int64 `json:"generation,omitempty"`
	// MachineID is the machine that the unit is placed on; empty for none and for
	// global units.
	MachineID string       `json:"machineID,omitempty"`
	Name      string       `json:"name,omitempty"`
	Options   []UnitOption `json:"options,omitempty"`
	// Reason says why the unit is on no machine although it should be; the
	// original server did not have it.
	Reason string `json:"reason,omitempty"`
	// Restart, in a request for launched, asks for a new start also of what runs;
	// the original server did not have it.
	Restart bool `json:"restart,omitempty"`
}

// DropIn is one file of a unit's drop-in directory, NAME.d/*.conf.
type DropIn struct {
	Name    string       `json:"name"` // base name, ending in .conf
	Options []UnitOption `json:"options"`
}

// UnitPage is a page of GET /units.
type UnitPage struct {
	NextPageToken string `json:"nextPageToken,omitempty"`
	Units         []Unit `json:"units,omitempty"`
}

// UnitState is what one machine's init system says of a unit.
type UnitState struct {
	// Generation is the one of the unit's that this machine has carried out; the
	// original server did not have it. 0: not told.
	Generation int64  `json:"generation,omitempty"`
	Hash       string `json:"hash,omitempty"` // 40 hex digits: the text that is loaded
	// Health is waiting, good or bad while the unit is watched after a change of its
	// text, and HealthWhy the reason; the original server did not have them.
	Health    string `json:"health,omitempty"`
	HealthWhy string `json:"healthWhy,omitempty"`
	MachineID string `json:"machineID,omitempty"`
	// Message is the agent's word on a unit it could not load or start; the
	// original server did not have it.
	Message            string `json:"message,omitempty"`
	Name               string `json:"name,omitempty"`
	SystemdActiveState string `json:"systemdActiveState,omitempty"`
	SystemdLoadState   string `json:"systemdLoadState,omitempty"`
	SystemdSubState    string `json:"systemdSubState,omitempty"`
}

// UnitStatePage is a page of GET /state.
type UnitStatePage struct {
	NextPageToken string      `json:"nextPageToken,omitempty"`
	States        []UnitState `json:"states,omitempty"`
}

// ErrorBody is the body of every answer that is an error.
type ErrorBody struct {
	Error Error `json:"error"`
}

// Error says what went wrong with a request.
type Error struct {
	Code    int    `json:"code"` // the HTTP status
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to try; the original server did not have it
	// Problems is every single thing that is wrong with a request that is about
	// several units; Message is their sum. The original server did not have it.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is one thing that is wrong with one unit of a request.
type Problem struct {
	Message string `json:"message"`
	Unit    string `json:"unit,omitempty"`
}

// Change is one line of GET /watch (newline-delimited JSON), a resource the
// original server did not have: exactly one of Unit, State, Machine, Roll is set. The
// stream begins with what is there, then a line with only Synced, then changes.
type Change struct {
	Deleted bool       `json:"deleted,omitempty"` // the named thing is gone
	Machine *Machine   `json:"machine,omitempty"`
	Roll    *Roll      `json:"roll,omitempty"`
	State   *UnitState `json:"state,omitempty"`
	Synced  bool       `json:"synced,omitempty"`
	Unit    *Unit      `json:"unit,omitempty"` // without options
}
