package unitshttp

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"

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
		read = func(ctx context.Context) (*registry.View, error) { return s.Store.Read(ctx, registry.Everything) }
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

var metadataPath = regexp.MustCompile(`^/([A-Za-z0-9]+)/metadata/([A-Za-z0-9_.-]+)$`)

// patchMachines sets dynamic metadata. All operations are checked before the first
// is carried out.
func (s *Server) patchMachines(w http.ResponseWriter, r *http.Request) error {
	req := access.Request{Kind: access.Cluster, Doing: "set metadata of machines"}
	err := s.audited(r, req, act{}, func(ctx context.Context, _ string) ([]act, error) {
		var patches []patch
		if err := decodeBody(w, r, &patches); err != nil {
			return nil, err
		}
		var done []act
		ops := make([]registry.MetadataOp, 0, len(patches))
		for _, p := range patches {
			op, err := p.check()
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
			done = append(done, act{machine: op.Machine, what: "metadata " + op.Key + "=" + op.Value})
		}
		return done, s.Store.SetMetadata(ctx, ops)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (p patch) check() (registry.MetadataOp, error) {
	var op registry.MetadataOp
	if p.Op != "add" && p.Op != "replace" && p.Op != "remove" {
		return op, refuse(http.StatusBadRequest, "invalid op: expect add, remove, or replace")
	}
	m := metadataPath.FindStringSubmatch(p.Path)
	if m == nil {
		return op, refuse(http.StatusBadRequest, "machine metadata path invalid")
	}
	op.Machine, op.Key = m[1], m[2]
	if p.Op == "remove" {
		return op, nil
	}
	if p.Value == "" {
		return op, refuse(http.StatusBadRequest, "invalid value: add and replace require a value")
	}
	op.Value = string(p.Value)
	return op, nil
}
