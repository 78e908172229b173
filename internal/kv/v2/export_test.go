package v2

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Dump is all that is in a tree, hidden or not.
func (t *Tree) Dump(now time.Time) string {
	paths := append(t.root.descendants(nil), "/")
	slices.Sort(paths)
	var b strings.Builder
	for _, p := range paths {
		n := t.root
		if p != "/" {
			n = t.peek(p)
		}
		v, _ := json.Marshal(n.view(now))
		b.WriteString(string(v) + "\n")
	}
	at, ok := t.NextExpiry()
	fmt.Fprintln(&b, "next expiry", ok, at, "index", t.index, "stale", len(t.stale), "event", t.event)
	return b.String()
}
