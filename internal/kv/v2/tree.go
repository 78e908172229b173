package v2

import (
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/api/keys"
)

// KV is a v3 key as a range or a watch shows it.
type KV struct {
	Key, Value string
	Created    uint64 // create revision
	Modified   uint64 // revision
	Deleted    bool   // the key was deleted: only Key counts
}

// Tree is the v2 tree at one revision of the store. It is not safe for
// concurrent use; reads may run beside each other.
type Tree struct {
	root   *node
	index  uint64
	event  uint64 // revision of the event record, 0: never written
	expiry expiryHeap
	stale  map[*node]struct{} // holders of file records that speak for nothing
}

// NewTree returns the tree of an empty store at the revision.
func NewTree(revision uint64) *Tree {
	return &Tree{root: &node{position: -1}, index: revision, stale: map[*node]struct{}{}}
}

// Load adds keys of a store to the tree of an empty one: all of the range from
// RangeStart to RangeEnd, in any order and number of calls, as of the tree's
// revision.
func (t *Tree) Load(kvs []KV) {
	for _, kv := range kvs {
		t.take(kv)
	}
}

// Index is the revision that the tree stands at.
func (t *Tree) Index() uint64 { return t.index }

// Advance tells that nothing in the range has changed up to the revision.
func (t *Tree) Advance(revision uint64) { t.index = max(t.index, revision) }

// Get answers a read. Hidden nodes are left out of listings.
func (t *Tree) Get(path string, recursive bool, now time.Time) (*keys.Event, *keys.Error) {
	n, err := t.find(path)
	if err != nil {
		return nil, err
	}
	out := n.viewAt(path, now)
	n.list(out, recursive, now)
	return &keys.Event{Action: keys.Get, Node: out}, nil
}

// find returns the node at the path. The error names the first component that
// is missing, or the file that stands where a directory is needed.
func (t *Tree) find(path string) (*node, *keys.Error) {
	if path == "/" {
		return t.root, nil
	}
	n := t.root
	for name := range components(path) {
		if !n.isDir() {
			return nil, t.fail(keys.CodeNotDir, n.path())
		}
		child := n.children[name]
		if child == nil || !child.exists() {
			return nil, t.fail(keys.CodeKeyNotFound, join(n, name))
		}
		n = child
	}
	return n, nil
}

// peek returns the node at the path of a v3 key whatever is known about it, or
// nil if nothing is.
func (t *Tree) peek(path string) *node {
	n := t.root
	for name := range components(path) {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

func (t *Tree) fail(code int, cause string) *keys.Error {
	return keys.NewError(code, cause, t.index)
}

// take makes the tree know one key as it is now.
func (t *Tree) take(kv KV) {
	switch {
	case strings.HasPrefix(kv.Key, "/"):
		n := t.grow(kv.Key)
		was := n.exists()
		n.value, n.valueCreated, n.valueModified = kv.Value, kv.Created, kv.Modified
		if kv.Deleted {
			n.value, n.valueCreated, n.valueModified = "", 0, 0
		}
		t.settle(n, was)
	case strings.HasPrefix(kv.Key, nodePrefix+"/"):
		n := t.grow(kv.Key[len(nodePrefix):])
		was := n.exists()
		n.record, n.recordCreated, n.recordModified = decodeRecord(kv.Value), kv.Created, kv.Modified
		if kv.Deleted {
			n.record, n.recordCreated, n.recordModified = record{}, 0, 0
		}
		t.settle(n, was)
	case kv.Key == eventKey && !kv.Deleted:
		t.event = kv.Modified
	case kv.Key == eventKey:
		t.event = 0
	}
}

// grow returns the node for a v3 key, making it and those above.
func (t *Tree) grow(key string) *node {
	n := t.root
	for name := range components(key) {
		child := n.children[name]
		if child == nil {
			child = &node{name: name, parent: n, position: -1}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[name] = child
		}
		n = child
	}
	return n
}

// settle restores what depends on a node that has changed: the count of living
// children above, the expiry heap, the stale records; and drops nodes that nothing
// is known about any more.
func (t *Tree) settle(n *node, was bool) {
	for n.parent != nil {
		t.expiry.fix(n)
		t.fixStale(n)
		p := n.parent
		parentWas := p.exists()
		now, blank := n.exists(), n.blank()
		if blank {
			delete(p.children, n.name)
		}
		if now && !was {
			p.living++
		} else if !now && was {
			p.living--
		} else if !blank {
			return // nothing that counts above has changed
		}
		n, was = p, parentWas
	}
}

func (t *Tree) fixStale(n *node) {
	if n.stale() {
		t.stale[n] = struct{}{}
	} else {
		delete(t.stale, n)
	}
}

// node is what the store says about one path. The zero revision is "no such key".
type node struct {
	name     string
	parent   *node // nil: the root
	children map[string]*node
	living   int // children that exist
	position int // in the expiry heap, -1: not in it

	value                       string
	valueCreated, valueModified uint64

	record                        record
	recordCreated, recordModified uint64
}

func (n *node) held() bool     { return n.valueModified != 0 }
func (n *node) recorded() bool { return n.recordModified != 0 && n.record.Dir }
func (n *node) isDir() bool    { return n.parent == nil || n.living > 0 || n.recorded() }
func (n *node) exists() bool   { return n.held() || n.isDir() }
func (n *node) isFile() bool   { return n.held() && !n.isDir() }

// blank reports that nothing is known about the node and nothing is below it.
func (n *node) blank() bool {
	return !n.held() && n.recordModified == 0 && len(n.children) == 0
}

// stale reports a file's record that was not written with the value.
func (n *node) stale() bool {
	return n.recordModified != 0 && !n.record.Dir && n.recordModified != n.valueModified
}

// own is the record as far as it speaks for the node.
func (n *node) own() record {
	switch {
	case n.recorded():
		return n.record
	case n.isFile() && n.recordModified == n.valueModified:
		return n.record
	}
	return record{}
}

func (n *node) created() uint64 {
	if c := n.own().Created; c != 0 {
		return c
	}
	return n.base()
}

func (n *node) modified() uint64 {
	if m := n.own().Modified; m != 0 {
		return m
	}
	return n.base()
}

// base is the index that stands where no record says another one. A directory
// without a record counts from the oldest key in it.
func (n *node) base() uint64 {
	switch {
	case n.recorded():
		return n.recordModified
	case !n.isDir():
		return n.valueModified
	}
	oldest := uint64(0)
	for _, c := range n.children {
		if !c.exists() {
			continue
		}
		at := c.valueCreated
		if c.isDir() {
			at = c.created()
		}
		if oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return oldest
}

func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	size := 0
	for at := n; at.parent != nil; at = at.parent {
		size += 1 + len(at.name)
	}
	b := make([]byte, size)
	for at := n; at.parent != nil; at = at.parent {
		size -= copy(b[size-len(at.name):], at.name) + 1
		b[size] = '/'
	}
	return string(b)
}

// join is the path of the child of that name.
func join(parent *node, name string) string {
	if parent.parent == nil {
		return "/" + name
	}
	return parent.path() + "/" + name
}

// view is the node as clients see it, without its children.
func (n *node) view(now time.Time) *keys.Node { return n.viewAt(n.path(), now) }

// viewAt is view for who knows the path already.
func (n *node) viewAt(path string, now time.Time) *keys.Node {
	if n.parent == nil {
		return &keys.Node{Dir: true}
	}
	out := &keys.Node{Key: path, Dir: n.isDir(), ModifiedIndex: n.modified(), CreatedIndex: n.created()}
	if !out.Dir {
		value := n.value
		out.Value = &value
	}
	if at := n.own().Expires; at != nil {
		out.Expiration, out.TTL = at, secondsLeft(*at, now)
	}
	return out
}

// list adds the children that are not hidden, in byte order.
func (n *node) list(out *keys.Node, recursive bool, now time.Time) {
	if !n.isDir() {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c := n.children[name]
		if hidden(name) || !c.exists() {
			continue
		}
		child := c.view(now)
		if recursive {
			c.list(child, true, now)
		}
		out.Nodes = append(out.Nodes, child)
	}
}

// descendants appends the paths of all that exists below the node, hidden or not,
// in no order.
func (n *node) descendants(to []string) []string {
	for _, c := range n.children {
		if c.exists() {
			to = c.descendants(append(to, c.path()))
		}
	}
	return to
}

// secondsLeft is the time left in whole seconds, rounded up.
func secondsLeft(at, now time.Time) int64 {
	s, ns := at.Unix()-now.Unix(), at.Nanosecond()-now.Nanosecond()
	if ns > 0 {
		s++
	}
	return s
}
