package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"flotilla/internal/fleet/model"
	"flotilla/internal/unitfile"
)

// The prefixes of the keys that come in lists.
const (
	historyPrefix = "history/"
	eventsPrefix  = "events/"
	asksPrefix    = "ask/"
	rollsPrefix   = "roll/"
)

type versionRecord struct {
	Hash string    `json:"hash"`
	Text string    `json:"text"`
	At   time.Time `json:"at,omitzero"`
	By   string    `json:"by,omitempty"`
	Why  string    `json:"why,omitempty"`
}

func encodeVersion(v model.Version) []byte {
	return encode(versionRecord{Hash: v.Hash, Text: v.Text, At: v.At.UTC(), By: v.By, Why: v.Why})
}

func decodeVersion(k Key, value []byte) (model.Version, error) {
	var rec versionRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return model.Version{}, err
	}
	v := model.Version{Unit: k.Unit, Seq: seqOf(k.ID), Hash: rec.Hash, Text: rec.Text, At: rec.At, By: rec.By, Why: rec.Why}
	if v.Seq == 0 {
		return v, fmt.Errorf("%q is not the number of a version", k.ID)
	}
	if got := unitfile.HashText(v.Text); got != v.Hash {
		return v, fmt.Errorf("hash %.7s is not that of the text, %.7s", v.Hash, got)
	}
	return v, nil
}

type destroyedRecord struct {
	At time.Time `json:"at"`
}

// changeRecord is the units that go from one text to another: of a template with
// thousands of instances few hashes are kept, and of their names what differs.
type changeRecord struct {
	From  string   `json:"from,omitempty"`
	To    string   `json:"to,omitempty"`
	Units []string `json:"units"` // model.InstanceIn
}

func encodeChanges(r model.Roll) []changeRecord {
	all := map[changeKey][]string{}
	add := func(unit string) {
		k := changeKey{r.From[unit], r.To[unit]}
		all[k] = append(all[k], model.InstanceIn(r.Group, unit))
	}
	for unit := range r.To {
		add(unit)
	}
	for unit := range r.From {
		if _, both := r.To[unit]; !both {
			add(unit)
		}
	}
	var out []changeRecord
	for k, units := range all {
		slices.Sort(units)
		out = append(out, changeRecord{From: k.from, To: k.to, Units: units})
	}
	slices.SortFunc(out, func(a, b changeRecord) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return out
}

type changeKey struct{ from, to string }

func decodeChanges(group string, changes []changeRecord) (from, to map[string]string) {
	put := func(m *map[string]string, unit, hash string) {
		if hash == "" {
			return
		}
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[unit] = hash
	}
	for _, c := range changes {
		for _, instance := range c.Units {
			unit := model.UnitIn(group, instance)
			put(&from, unit, c.From)
			put(&to, unit, c.To)
		}
	}
	return from, to
}

// MaxRoll is the largest record of a roll, in bytes: what every store takes in one
// message.
const MaxRoll = maxBytes

// RollSize is how large the record of a roll is, in bytes.
func RollSize(r model.Roll) int { return len(encodeRoll(r)) }

type rollRecord struct {
	State   model.RollState      `json:"state"`
	Changes []changeRecord       `json:"changes,omitempty"`
	Texts   map[string]string    `json:"texts,omitempty"`
	Since   map[string]time.Time `json:"since,omitempty"`
	Started time.Time            `json:"started"`
	Ended   time.Time            `json:"ended,omitzero"`
	By      string               `json:"by,omitempty"`
	Why     string               `json:"why,omitempty"`
	Failed  string               `json:"failed,omitempty"`
	Machine string               `json:"machine,omitempty"`
	Log     []string             `json:"log,omitempty"`
	Asked   string               `json:"asked,omitempty"`
	AskedBy string               `json:"askedBy,omitempty"`
}

func encodeRoll(r model.Roll) []byte {
	return encode(rollRecord{
		State: r.State, Changes: encodeChanges(r), Texts: r.Texts, Since: r.Since, Started: r.Started, Ended: r.Ended,
		By: r.By, Why: r.Why, Failed: r.Failed, Machine: r.Machine, Log: r.Log, Asked: r.Asked, AskedBy: r.AskedBy,
	})
}

// decodeRoll leaves out texts that are not what they are said to be: a revert would
// put them back. Beside an error it returns a roll of no state, with its revision, so
// that the next one can be written in its place.
func decodeRoll(k Key, value []byte, rev int64) (model.Roll, error) {
	bad := model.Roll{Group: k.Group, Why: "its record cannot be read", Rev: rev}
	var rec rollRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return bad, err
	}
	switch rec.State {
	case model.Rolling, model.Paused, model.Reverting, model.Done, model.Reverted:
	default:
		return bad, fmt.Errorf("a roll is not %q", rec.State)
	}
	for hash, text := range rec.Texts {
		if unitfile.HashText(text) != hash {
			delete(rec.Texts, hash)
		}
	}
	from, to := decodeChanges(k.Group, rec.Changes)
	return model.Roll{
		Group: k.Group, State: rec.State, From: from, To: to, Texts: rec.Texts, Since: rec.Since, Started: rec.Started, Ended: rec.Ended,
		By: rec.By, Why: rec.Why, Failed: rec.Failed, Machine: rec.Machine, Log: rec.Log,
		Asked: rec.Asked, AskedBy: rec.AskedBy, Rev: rev,
	}, nil
}

type cordonRecord struct {
	Drain bool      `json:"drain,omitempty"`
	Why   string    `json:"why,omitempty"`
	By    string    `json:"by,omitempty"`
	At    time.Time `json:"at,omitzero"`
}

func encodeCordon(c model.Cordon) []byte {
	return encode(cordonRecord{Drain: c.Drain, Why: c.Why, By: c.By, At: c.At.UTC()})
}

// decodeCordon takes a record that cannot be read for a cordon, beside the error:
// somebody has put it there, and nothing is moved for it.
func decodeCordon(value []byte) (model.Cordon, error) {
	var rec cordonRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return model.Cordon{Why: "its record cannot be read"}, err
	}
	return model.Cordon(rec), nil
}

type askRecord struct {
	Kind    model.AskKind `json:"kind"`
	Unit    string        `json:"unit,omitempty"`
	Machine string        `json:"machine,omitempty"`
	Max     int           `json:"max,omitempty"`
	By      string        `json:"by,omitempty"`
	At      time.Time     `json:"at"`
}

func encodeAsk(a model.Ask) []byte {
	return encode(askRecord{Kind: a.Kind, Unit: a.Unit, Machine: a.Machine, Max: a.Max, By: a.By, At: a.At.UTC()})
}

// decodeAsk returns an ask that cannot be read too, of no kind: the engine removes
// it.
func decodeAsk(k Key, value []byte) (model.Ask, error) {
	var rec askRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return model.Ask{ID: k.ID}, err
	}
	return model.Ask{ID: k.ID, Kind: rec.Kind, Unit: rec.Unit, Machine: rec.Machine, Max: rec.Max, By: rec.By, At: rec.At}, nil
}

type eventRecord struct {
	At      time.Time       `json:"at"`
	Kind    model.EventKind `json:"kind"`
	Unit    string          `json:"unit,omitempty"`
	Machine string          `json:"machine,omitempty"`
	What    string          `json:"what"`
	Why     string          `json:"why,omitempty"`
	By      string          `json:"by,omitempty"`
}

func encodeEvent(e model.Event) []byte {
	e.At = e.At.UTC()
	return encode(eventRecord(e))
}

func decodeEvent(value []byte) (model.Event, error) {
	var rec eventRecord
	err := json.Unmarshal(value, &rec)
	return model.Event(rec), err
}
