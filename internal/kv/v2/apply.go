package v2

import (
	"iter"
	"slices"
	"strings"
	"time"

	"flotilla/api/keys"
)

// Commit is all that one revision of the store changed in the range.
type Commit struct {
	Revision uint64
	KVs      []KV // in the order of the transaction
}

// Change is what v2 sees of a Commit. A transaction of v3 clients that writes
// several keys is as many changes with the same index.
type Change struct {
	Event *keys.Event // as a write's answer and a watch show it; shared: do not modify
	// Refresh: only a TTL was renewed. The writer is told, a watcher is not.
	Refresh bool
	// Removed lists, in byte order, all that existed below a directory that this
	// change removed.
	Removed []string
}

// Index is the change's index.
func (c Change) Index() uint64 { return c.Event.Node.ModifiedIndex }

// Apply takes over one revision. now is what the TTLs in the changes count from.
func (t *Tree) Apply(c Commit, now time.Time) []Change {
	pending := t.announce(c, now)
	for _, kv := range c.KVs {
		t.take(kv)
	}
	t.Advance(c.Revision)
	var out []Change
	for _, p := range pending {
		if change, ok := t.conclude(p, c.Revision, now); ok {
			out = append(out, change)
		}
	}
	return out
}

// pending is a change of which only the half before the commit is known.
type pending struct {
	path, action string
	gone         bool // the node is removed
	dir          bool // a directory is written
	refresh      bool
	prev         *keys.Node // nil: there was none
	removed      []string
}

// announce finds out what the commit is to v2, while the tree is still as before.
func (t *Tree) announce(c Commit, now time.Time) []pending {
	said, records := annotations(c)
	var out []pending
	if said.removal() {
		if p, ok := t.removal(said, now); ok {
			out = append(out, p)
		}
	}
	for _, kv := range c.KVs {
		p, ok := classify(kv, said, records)
		if !ok {
			continue
		}
		if n := t.peek(p.path); n != nil && n.exists() {
			if p.gone && n.isDir() {
				continue // the value was out of sight
			}
			p.prev = n.view(now)
		} else if p.gone {
			continue
		}
		out = append(out, p)
	}
	return out
}

// annotations collects what the records written with the commit say about it.
func annotations(c Commit) (eventRecord, map[string]record) {
	var said eventRecord
	records := map[string]record{}
	for _, kv := range c.KVs {
		switch {
		case kv.Deleted:
		case kv.Key == eventKey:
			said = decodeEvent(kv.Value)
		case strings.HasPrefix(kv.Key, nodePrefix+"/"):
			if rec := decodeRecord(kv.Value); rec.Action != "" {
				records[kv.Key[len(nodePrefix):]] = rec
			}
		}
	}
	return said, records
}

func (e eventRecord) removal() bool {
	return e.Action == keys.Delete || e.Action == keys.CompareAndDelete || e.Action == keys.Expire
}

// covers reports whether the event record explains what happened at the path.
func (e eventRecord) covers(path string) bool {
	return e.removal() && (path == e.Key || isBelow(path, e.Key))
}

// removal is the change that the event record tells of.
func (t *Tree) removal(said eventRecord, now time.Time) (pending, bool) {
	if !strings.HasPrefix(said.Key, "/") {
		return pending{}, false
	}
	n := t.peek(said.Key)
	if n == nil || !n.exists() {
		return pending{}, false
	}
	p := pending{path: said.Key, action: said.Action, gone: true, prev: n.view(now)}
	if n.isDir() {
		p.removed = n.descendants(nil)
		slices.Sort(p.removed)
	}
	return p, true
}

// classify says what one key's change is to v2, if it is anything by itself.
func classify(kv KV, said eventRecord, records map[string]record) (pending, bool) {
	switch {
	case strings.HasPrefix(kv.Key, nodePrefix+"/"):
		path := kv.Key[len(nodePrefix):]
		rec, ok := records[path]
		if !ok || kv.Deleted {
			return pending{}, false
		}
		return pending{path: path, action: rec.Action, dir: rec.Dir, refresh: rec.Refresh}, true
	case !strings.HasPrefix(kv.Key, "/") || said.covers(kv.Key):
		return pending{}, false
	}
	if _, ok := records[kv.Key]; ok {
		return pending{}, false // its record tells
	}
	p := pending{path: kv.Key, action: keys.Set}
	switch {
	case kv.Deleted:
		p.action, p.gone = keys.Delete, true
	case said.Key == kv.Key && said.Action == keys.Create:
		p.action = keys.Create
	}
	return p, true
}

// conclude makes the change, now that the commit is applied. There is none if
// the node is out of sight.
func (t *Tree) conclude(p pending, revision uint64, now time.Time) (Change, bool) {
	e := &keys.Event{Action: p.action, PrevNode: p.prev}
	if p.gone {
		e.Node = &keys.Node{
			Key: p.path, Dir: p.prev.Dir, ModifiedIndex: revision, CreatedIndex: p.prev.CreatedIndex,
		}
		return Change{Event: e, Removed: p.removed}, true
	}
	n := t.peek(p.path)
	if n == nil || n.isDir() != p.dir {
		return Change{}, false
	}
	e.Node = n.view(now)
	e.Node.ModifiedIndex = revision
	return Change{Event: e, Refresh: p.refresh}, true
}

// Matches reports whether a watch on the path sees the change: at that very
// node; recursively also below it, unless a component in between is hidden; and, for
// the removal of a directory, also at everything that existed in it.
func (c Change) Matches(path string, recursive bool) bool {
	if c.Refresh {
		return false
	}
	for p, all := range c.audience() {
		if p == path && (all || recursive) {
			return true
		}
	}
	return false
}

// Audience yields the paths whose watchers see the change, once each: all of the watchers, or
// the recursive ones alone.
func (c Change) Audience() iter.Seq2[string, bool] {
	if c.Refresh {
		return func(func(string, bool) bool) {}
	}
	return c.audience()
}

func (c Change) audience() iter.Seq2[string, bool] {
	return func(yield func(path string, all bool) bool) {
		at := c.Event.Node.Key
		if !yield(at, true) {
			return
		}
		for at != "/" {
			cut := strings.LastIndexByte(at, '/')
			if hidden(at[cut+1:]) {
				break
			}
			at = at[:max(cut, 1)]
			if !yield(at, false) {
				return
			}
		}
		for _, p := range c.Removed {
			if !yield(p, true) {
				return
			}
		}
	}
}
