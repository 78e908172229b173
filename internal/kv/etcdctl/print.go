package etcdctl

import (
	"encoding/json"
	"fmt"
	"time"

	wire "flotilla/api/keys"
	"flotilla/client/keys"
)

// print writes an answer in the form that --output asks for.
func (s *session) print(r *keys.Response) {
	w := s.env.Stdout
	switch s.output {
	case "json":
		json.NewEncoder(w).Encode(jsonEvent{r.Action, toJSON(r.Node), toJSON(r.PrevNode)})
	case "extended":
		fmt.Fprintf(w, "Key: %s\nCreated-Index: %d\nModified-Index: %d\n", r.Node.Key, r.Node.CreatedIndex, r.Node.ModifiedIndex)
		if r.PrevNode != nil {
			fmt.Fprintf(w, "PrevNode.Value: %s\n", value(r.PrevNode))
		}
		fmt.Fprintf(w, "TTL: %d\nIndex: %d\n", r.Node.TTL, r.Index)
		if r.Action != wire.Delete {
			fmt.Fprintf(w, "\n%s\n", value(r.Node))
		}
	default:
		if r.Action == wire.Delete && r.PrevNode != nil {
			fmt.Fprintf(w, "PrevNode.Value: %s\n", value(r.PrevNode))
			return
		}
		fmt.Fprintln(w, value(r.Node))
	}
}

// printUnlessPlainDir is print, but says nothing of a directory in the simple form:
// it has no value to show.
func (s *session) printUnlessPlainDir(r *keys.Response) {
	if s.output == "simple" && r.Node.Dir {
		return
	}
	s.print(r)
}

func value(n *keys.Node) string {
	if n.Value == nil {
		return ""
	}
	return *n.Value
}

// jsonEvent is the classic client's form of an event; it is not the server's.
type jsonEvent struct {
	Action   string    `json:"action"`
	Node     *jsonNode `json:"node"`
	PrevNode *jsonNode `json:"prevNode"`
}

type jsonNode struct {
	Key           string      `json:"key"`
	Dir           bool        `json:"dir,omitempty"`
	Value         string      `json:"value"`
	Nodes         []*jsonNode `json:"nodes"`
	CreatedIndex  uint64      `json:"createdIndex"`
	ModifiedIndex uint64      `json:"modifiedIndex"`
	Expiration    *time.Time  `json:"expiration,omitempty"`
	TTL           int64       `json:"ttl,omitempty"`
}

func toJSON(n *keys.Node) *jsonNode {
	if n == nil {
		return nil
	}
	out := &jsonNode{
		Key: n.Key, Dir: n.Dir, Value: value(n), CreatedIndex: n.CreatedIndex, ModifiedIndex: n.ModifiedIndex,
		Expiration: n.Expiration, TTL: n.TTL,
	}
	for _, child := range n.Nodes {
		out.Nodes = append(out.Nodes, toJSON(child))
	}
	return out
}
