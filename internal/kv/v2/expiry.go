package v2

import (
	"container/heap"
	"time"

	"flotilla/api/keys"
)

// NextExpiry is when the next node expires; false if none ever does.
func (t *Tree) NextExpiry() (time.Time, bool) {
	if len(t.expiry) == 0 {
		return time.Time{}, false
	}
	return *t.expiry[0].own().Expires, true
}

// Expire plans the removal of the node whose time ended first, if that was
// before now or at it. A directory goes with all that is in it. The guards hold
// only while the node still expires as it does now, so that two who carry out the
// plan remove the node once.
func (t *Tree) Expire(now time.Time) (Plan, bool) {
	if at, ok := t.NextExpiry(); !ok || at.After(now) {
		return Plan{}, false
	}
	n := t.expiry[0]
	p := plan{t: t, Plan: Plan{Path: n.path()}}
	p.parents(p.Path)
	if n.isDir() {
		p.guardRecord(n, p.Path)
		p.removeDir(n)
	} else {
		p.guardValue(n, p.Path)
		p.removeFile(n)
	}
	p.say(keys.Expire)
	return p.Plan, true
}

// Sweep plans the removal of a record that a v3 client's write has made
// meaningless. It changes nothing that v2 clients can see.
func (t *Tree) Sweep() (Plan, bool) {
	for n := range t.stale {
		p := plan{t: t, Plan: Plan{Path: n.path()}}
		p.guardRecord(n, p.Path)
		p.del(recordKey(p.Path))
		return p.Plan, true
	}
	return Plan{}, false
}

// expiryHeap holds the nodes with a TTL, the first to expire on top.
type expiryHeap []*node

// fix puts the node where it belongs, or takes it out.
func (h *expiryHeap) fix(n *node) {
	expires := n.exists() && n.own().Expires != nil
	switch {
	case expires && n.position >= 0:
		heap.Fix(h, n.position)
	case expires:
		heap.Push(h, n)
	case n.position >= 0:
		heap.Remove(h, n.position)
	}
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (h expiryHeap) Len() int { return len(h) }

func (h expiryHeap) Less(i, j int) bool {
	a, b := h[i].own().Expires, h[j].own().Expires
	// A node that is about to be taken out has no time; where it stands does not matter.
	if a == nil || b == nil {
		return a != nil
	}
	if !a.Equal(*b) {
		return a.Before(*b)
	}
	return h[i].path() < h[j].path()
}

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].position, h[j].position = i, j
}

func (h *expiryHeap) Push(x any) {
	n := x.(*node)
	n.position = len(*h)
	*h = append(*h, n)
}

func (h *expiryHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	last.position = -1
	return last
}
