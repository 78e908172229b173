package registry

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/fleet/sched"
	"flotilla/internal/unitfile"
)

// The records below are the values in the store. Field names that begin with a
// capital letter, and those of stateRecord up to unitHash, are fleet 1.0's.

type objectRecord struct {
	Name     string
	UnitHash hash
	Raw      string
}

// hash is written as a list of 20 numbers, as fleet 1.0 did.
type hash [20]byte

func hashFromHex(s string) (h hash) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(h) {
		copy(h[:], b)
	}
	return h
}

type placementRecord struct {
	Hash    string      `json:"hash"`
	Text    string      `json:"text"`
	Desired model.State `json:"desired"`
	Gen     int64       `json:"gen"`
	Leaving bool        `json:"leaving,omitempty"`
	Watched bool        `json:"watched,omitempty"`
	Restart bool        `json:"restart,omitempty"`
	// Of singletons: time spans, or never.
	MoveAfter span `json:"moveAfter,omitzero"`
	WaitFor   span `json:"waitFor,omitzero"`
}

// span is a move time as the options of units are written: 10s, or never.
type span time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s span) MarshalText() ([]byte, error) {
	if s < 0 {
		return []byte("never"), nil
	}
	return []byte(time.Duration(s).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *span) UnmarshalText(b []byte) error {
	d, err := unitfile.ParseMoveAfter(string(b))
	*s = span(d)
	return err
}

func encodePlacement(p model.Placement) []byte {
	return encode(placementRecord{
		Hash: p.Hash, Text: p.Text, Desired: p.Desired, Gen: p.Gen,
		Leaving: p.Leaving, Watched: p.Watched, Restart: p.Restart,
		MoveAfter: span(p.MoveAfter), WaitFor: span(p.WaitFor),
	})
}

// decodePlacement returns an entry also beside an error: with its place and
// revision alone, so that the engine can write it anew.
func decodePlacement(k Key, value []byte, rev int64) (model.Placement, error) {
	p := model.Placement{Machine: k.Machine, Unit: k.Unit, Desired: model.Loaded, Rev: rev}
	var rec placementRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return p, err
	}
	if rec.Desired == model.Inactive {
		return p, fmt.Errorf("desired state inactive has no place in a schedule")
	}
	if got := unitfile.HashText(rec.Text); got != rec.Hash {
		return p, fmt.Errorf("hash %.7s is not that of the text, %.7s", rec.Hash, got)
	}
	p.Text, p.Hash, p.Desired, p.Gen = rec.Text, rec.Hash, rec.Desired, rec.Gen
	p.Leaving, p.Watched, p.Restart = rec.Leaving, rec.Watched, rec.Restart
	p.MoveAfter, p.WaitFor = time.Duration(rec.MoveAfter), time.Duration(rec.WaitFor)
	return p, nil
}

type verdictRecord struct {
	Machine string `json:"machine"`
	OK      bool   `json:"ok,omitempty"`
	Why     string `json:"why"`
}

type unplacedRecord struct {
	Why      string          `json:"why"`
	Verdicts []verdictRecord `json:"verdicts,omitempty"`
}

func encodeUnplaced(u sched.Unplaced) []byte {
	rec := unplacedRecord{Why: u.Why}
	for _, v := range u.Verdicts {
		rec.Verdicts = append(rec.Verdicts, verdictRecord(v))
	}
	return encode(rec)
}

func decodeUnplaced(k Key, value []byte) (sched.Unplaced, error) {
	var rec unplacedRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return sched.Unplaced{}, err
	}
	u := sched.Unplaced{Unit: k.Unit, Why: rec.Why}
	for _, v := range rec.Verdicts {
		u.Verdicts = append(u.Verdicts, sched.Verdict(v))
	}
	return u, nil
}

type stateRecord struct {
	LoadState    string       `json:"loadState"`
	ActiveState  string       `json:"activeState"`
	SubState     string       `json:"subState"`
	MachineState machineBrief `json:"machineState"`
	UnitHash     string       `json:"unitHash"`
	Message      string       `json:"message,omitempty"`
	Gen          int64        `json:"gen"`
	Heard        int64        `json:"heard,omitempty"`
	At           time.Time    `json:"at"`
	Health       model.Health `json:"health,omitempty"`
	HealthWhy    string       `json:"healthWhy,omitempty"`
	Log          string       `json:"log,omitempty"`
}

type machineBrief struct{ ID string }

func encodeState(s model.UnitState) []byte {
	return encode(stateRecord{
		LoadState: s.Load, ActiveState: s.Active, SubState: s.Sub,
		MachineState: machineBrief{ID: s.Machine}, UnitHash: s.Hash,
		Message: s.Message, Gen: s.Gen, Heard: s.Heard, At: s.At.UTC(),
		Health: s.Health, HealthWhy: s.HealthWhy, Log: s.Log,
	})
}

func decodeState(k Key, value []byte) (model.UnitState, error) {
	var rec stateRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return model.UnitState{}, err
	}
	return model.UnitState{
		Unit: k.Unit, Machine: k.Machine, Hash: rec.UnitHash,
		Load: rec.LoadState, Active: rec.ActiveState, Sub: rec.SubState,
		Message: rec.Message, Gen: rec.Gen, Heard: rec.Heard, At: rec.At,
		Health: rec.Health, HealthWhy: rec.HealthWhy, Log: rec.Log,
	}, nil
}

type machineRecord struct {
	ID       string
	PublicIP string
	Metadata map[string]string
	Version  string
	Hostname string `json:",omitempty"`
	PeerAddr string `json:",omitempty"`
	PeerKey  string `json:",omitempty"`
	Boot     string
	Instance string
	Cores    int64 `json:",omitempty"`
	Memory   int64 `json:",omitempty"`
}

// Presence is what a machine says of itself when it joins.
type Presence struct {
	model.Machine // Metadata: the configured values
	// Instance is a token that the machine's state directory has held since its
	// first start. Another instance under the same machine id is another machine.
	Instance string
}

func encodePresence(p Presence) []byte {
	return encode(machineRecord{
		ID: p.ID, PublicIP: p.IP, Metadata: p.Metadata, Version: p.Version, Hostname: p.Hostname,
		PeerAddr: p.PeerAddr, PeerKey: p.PeerKey, Boot: p.Boot, Instance: p.Instance,
		Cores: p.Cores, Memory: p.Memory,
	})
}

func decodePresence(k Key, value []byte) (Presence, error) {
	var rec machineRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return Presence{}, err
	}
	return Presence{
		Machine: model.Machine{
			ID: k.Machine, IP: rec.PublicIP, Hostname: rec.Hostname, Metadata: rec.Metadata,
			Version: rec.Version, PeerAddr: rec.PeerAddr, PeerKey: rec.PeerKey, Boot: rec.Boot,
			Cores: max(0, rec.Cores), Memory: max(0, rec.Memory),
		},
		Instance: rec.Instance,
	}, nil
}

type leaderRecord struct {
	MachineID string
	Version   int
	Instance  string `json:",omitempty"`
	Boot      string `json:",omitempty"`
}

// encode writes a record. The records hold nothing that JSON cannot say.
func encode(rec any) []byte {
	b, err := json.Marshal(rec)
	if err != nil {
		panic(fmt.Sprintf("registry: encode %T: %v", rec, err))
	}
	return b
}
