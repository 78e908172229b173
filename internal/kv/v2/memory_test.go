package v2_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"flotilla/api/keys"
	"flotilla/internal/kv/v2"
)

// memory is an etcd v3 store, as far as plans need one.
type memory struct {
	revision uint64
	kvs      map[string]v2.KV
}

func newMemory() *memory { return &memory{kvs: map[string]v2.KV{}} }

// run carries out a plan as one transaction. The commit is empty if a guard is
// lost.
func (m *memory) run(p v2.Plan) (v2.Commit, bool) {
	for _, g := range p.Guards {
		if !m.holds(g) {
			return v2.Commit{}, false
		}
	}
	return m.commit(p.Writes...), true
}

func (m *memory) holds(g v2.Guard) bool {
	for _, key := range m.keys(g.Key, g.End) {
		kv := m.kvs[key]
		switch {
		case g.Field == v2.ModifiedIs && kv.Modified != g.Revision,
			g.Field == v2.CreatedIs && kv.Created != g.Revision,
			g.Field == v2.ModifiedAtMost && kv.Modified > g.Revision:
			return false
		}
	}
	return true
}

// keys returns the one key, there or not, or all that are in a range.
func (m *memory) keys(key, end string) []string {
	if end == "" {
		return []string{key}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m.kvs)) {
		if key <= k && k < end {
			out = append(out, k)
		}
	}
	return out
}

func (m *memory) commit(writes ...v2.Write) v2.Commit {
	m.revision++
	c := v2.Commit{Revision: m.revision}
	for _, w := range writes {
		for _, key := range m.keys(w.Key, w.End) {
			old, there := m.kvs[key]
			if w.Kind == v2.DeleteKey {
				delete(m.kvs, key)
				if there {
					c.KVs = append(c.KVs, v2.KV{Key: key, Modified: m.revision, Deleted: true})
				}
				continue
			}
			kv := v2.KV{Key: key, Value: w.Value, Created: m.revision, Modified: m.revision}
			if there {
				kv.Created = old.Created
			}
			if w.Kind == v2.PutKeep {
				kv.Value = old.Value
			}
			m.kvs[key] = kv
			c.KVs = append(c.KVs, kv)
		}
	}
	return c
}

// load is the tree of somebody who starts now.
func (m *memory) load() *v2.Tree {
	t := v2.NewTree(m.revision)
	t.Load(slices.Collect(maps.Values(m.kvs)))
	return t
}

// gateway is a tree on a memory: what package mvcc does, without the network.
type gateway struct {
	*memory
	tree *v2.Tree
}

func newGateway() *gateway { return &gateway{memory: newMemory(), tree: v2.NewTree(0)} }

// do answers a request, and returns what watchers see.
func (g *gateway) do(t testing.TB, r v2.Request, now time.Time) (*keys.Event, *keys.Error, []v2.Change) {
	t.Helper()
	if r.Op == v2.Get {
		e, err := g.tree.Get(r.Path, r.Recursive, now)
		return e, err, nil
	}
	plan, err := g.tree.Evaluate(r, now)
	if err != nil {
		return nil, err, nil
	}
	return g.carryOut(t, plan, now)
}

func (g *gateway) carryOut(t testing.TB, plan v2.Plan, now time.Time) (*keys.Event, *keys.Error, []v2.Change) {
	t.Helper()
	c, ok := g.run(plan)
	if !ok {
		t.Fatalf("plan of a tree that is up to date lost a guard: %+v", plan)
	}
	changes := g.tree.Apply(c, now)
	for _, change := range changes {
		if change.Event.Node.Key == plan.Path {
			return change.Event, nil, changes
		}
	}
	return nil, nil, changes
}

// expire removes what is due.
func (g *gateway) expire(t testing.TB, now time.Time) []v2.Change {
	t.Helper()
	var out []v2.Change
	for {
		plan, ok := g.tree.Expire(now)
		if !ok {
			return out
		}
		_, _, changes := g.carryOut(t, plan, now)
		out = append(out, changes...)
	}
}
