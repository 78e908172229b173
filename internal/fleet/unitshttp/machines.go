package unitshttp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"flotilla/api/fleet"
	"flotilla/internal/fleet/access"
	"flotilla/internal/fleet/registry"
)

// listMachines answers with the machines; with "used", also with what is placed on
// them, for which everything has to be read.
func (s *Server) listMachines(w http.ResponseWriter, r *http.Request) error {
	page, err := s.pageOf(r)
	if err != nil {
		return err
	}
	count, err := truth(r.URL.Query(), "used")
	if err != nil {
		return err
	}
	read, sums := s.Store.ReadMachines, map[string]*fleet.Used{}
	if count {
		read = s.all.Read
	}
	v, err := read(r.Context())
	if err != nil {
		return err
	}
	if count {
		sums = used(v)
	}
	list, next := cut(v.Machines(), page)
	out := fleet.MachinePage{NextPageToken: next}
	for _, m := range list {
		one := machineOf(m)
		one.Used = sums[m.ID]
		out.Machines = append(out.Machines, one)
	}
	reply(w, http.StatusOK, out)
	return nil
}

// patch is one operation of PATCH /machines.
type patch struct {
	Op    string     `json:"op"`
	Path  string     `json:"path"`
	Value patchValue `json:"value"`
}

// patchValue is a string, or an object with the string in its member "value": the
// documents of the original show the one, its code took the other.
type patchValue string

// UnmarshalJSON takes both forms.
func (v *patchValue) UnmarshalJSON(b []byte) error {
	var object struct{ Value string }
	if err := json.Unmarshal(b, &object); err == nil {
		*v = patchValue(object.Value)
		return nil
	}
	return json.Unmarshal(b, (*string)(v))
}

var (
	metadataPath = regexp.MustCompile(`^/([^/]+)/metadata/([^/]+)$`)
	machineID    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	metadataKey  = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

// Limits of PATCH /machines: its operations, the bytes of a key and of a value, and
// the values that a machine may have by it. Metadata is kept for each machine that is
// named, present or not, and is what every fleetd reads.
const (
	maxPatches       = 1000
	maxMetadataKey   = 128
	maxMetadataValue = 1024
	maxMetadata      = 128
	maxKeptMetadata  = 2 * maxMetadata // with those removed while it is away
)

// patchMachines sets dynamic metadata. All operations are checked before the first
// is carried out.
func (s *Server) patchMachines(w http.ResponseWriter, r *http.Request) error {
	req := access.Request{Kind: access.Cluster, Doing: "set metadata of machines"}
	err := s.audited(r, req, act{}, func(ctx context.Context, _ string) ([]act, error) {
		var patches []patch
		if err := decodeBody(w, r, &patches); err != nil {
			return nil, err
		}
		ops, err := readPatches(patches)
		if err != nil {
			return nil, err
		}
		needless, err := s.settled(ctx, ops)
		if err != nil {
			return nil, err
		}
		var done []act
		for _, op := range ops {
			done = append(done, act{machine: op.Machine, what: "metadata " + op.Key + "=" + op.Value})
		}
		if err := s.Store.SetMetadata(ctx, ops); err != nil {
			return done, err
		}
		for machine, keys := range needless {
			if err := s.Store.ForgetRemoved(ctx, machine, keys); err != nil {
				s.Log.Warn("removed metadata is kept until the next change", "machine", machine, "err", err)
			}
		}
		return done, nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readPatches judges every operation of a request and tells every problem.
func readPatches(patches []patch) ([]registry.MetadataOp, error) {
	if len(patches) > maxPatches {
		return nil, refuse(http.StatusRequestEntityTooLarge, "%d operations in one request: at most %d", len(patches), maxPatches)
	}
	ops := make([]registry.MetadataOp, 0, len(patches))
	var bad problems
	for i, p := range patches {
		op, wrong := p.read()
		ops = append(ops, op)
		for _, msg := range wrong {
			if len(patches) > 1 {
				msg = fmt.Sprintf("operation %d: %s", i+1, msg)
			}
			bad = append(bad, fleet.Problem{Message: msg})
		}
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return ops, nil
}

// read makes an operation of what a request says, or tells all that is wrong with it.
func (p patch) read() (op registry.MetadataOp, wrong []string) {
	if p.Op != "add" && p.Op != "replace" && p.Op != "remove" {
		wrong = append(wrong, "invalid op: expect add, remove, or replace")
	}
	m := metadataPath.FindStringSubmatch(p.Path)
	if m == nil {
		wrong = append(wrong, "machine metadata path invalid: expect /MACHINEID/metadata/KEY")
	} else {
		op.Machine, op.Key = m[1], m[2]
		wrong = append(wrong, pathProblems(op.Machine, op.Key)...)
	}
	if p.Op == "remove" {
		return op, wrong
	}
	op.Value = string(p.Value)
	return op, append(wrong, valueProblems(op.Value)...)
}

func pathProblems(machine, key string) (wrong []string) {
	if !machineID.MatchString(machine) {
		wrong = append(wrong, fmt.Sprintf("machine metadata path invalid: %.64q is no machine's id, which has 32 digits of 0-9a-f", machine))
	}
	if !metadataKey.MatchString(key) {
		wrong = append(wrong, fmt.Sprintf("machine metadata path invalid: the key %.64q has others than letters, digits and _.-", key))
	}
	if len(key) > maxMetadataKey {
		wrong = append(wrong, fmt.Sprintf("machine metadata path invalid: a key of %d bytes, at most %d", len(key), maxMetadataKey))
	}
	return wrong
}

func valueProblems(value string) (wrong []string) {
	if value == "" {
		return []string{"invalid value: add and replace require a value"}
	}
	if len(value) > maxMetadataValue {
		wrong = append(wrong, fmt.Sprintf("invalid value: %d bytes, at most %d", len(value), maxMetadataValue))
	}
	if i := strings.IndexFunc(value, unicode.IsControl); i >= 0 {
		wrong = append(wrong, fmt.Sprintf("invalid value: a control character at byte %d", i+1))
	}
	return wrong
}

// settled judges what operations would leave behind, and refuses too many values of a
// machine. It returns by machine which removed keys then hide nothing. Two requests at once
// may exceed the limit together.
func (s *Server) settled(ctx context.Context, ops []registry.MetadataOp) (needless map[string][]string, err error) {
	if len(ops) == 0 {
		return nil, nil
	}
	v, err := s.Store.ReadMachines(ctx)
	if err != nil {
		return nil, err
	}
	after := map[string]map[string]string{}
	for _, op := range ops {
		if after[op.Machine] == nil {
			after[op.Machine] = v.DynamicMetadata(op.Machine)
		}
		after[op.Machine][op.Key] = op.Value
	}
	var bad problems
	needless = map[string][]string{}
	for _, machine := range slices.Sorted(maps.Keys(after)) {
		configured, present := v.ConfiguredMetadata(machine)
		if wrong := tooMany(v.DynamicMetadata(machine), after[machine], present); wrong != "" {
			bad = append(bad, fleet.Problem{Message: "machine " + machine + wrong})
		}
		for key, value := range after[machine] {
			if _, hides := configured[key]; value == "" && present && !hides {
				needless[machine] = append(needless[machine], key)
			}
		}
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return needless, nil
}

// tooMany says what is too much of a machine's metadata after a change, if the change made
// it more. Values that were removed count of a machine that is away alone: nobody knows
// whether they hide a configured one.
func tooMany(before, after map[string]string, present bool) string {
	switch set := values(after); {
	case set > maxMetadata && set > values(before):
		return fmt.Sprintf(" would have %d values of metadata set from outside: at most %d", set, maxMetadata)
	case !present && len(after) > maxKeptMetadata && len(after) > len(before):
		return fmt.Sprintf(" is away, and %d keys of its metadata would be kept, those removed among them: at most %d", len(after), maxKeptMetadata)
	}
	return ""
}

// values counts what has not been removed.
func values(of map[string]string) (n int) {
	for _, value := range of {
		if value != "" {
			n++
		}
	}
	return n
}
