package v2http

import (
	"encoding/json"
	"strconv"
	"sync/atomic"

	"flotilla/api/keys"
)

// appendEvent appends the event as encoding/json writes it, and a newline. That is
// the larger part of what a read costs, and most events are one file of plain text.
func appendEvent(b []byte, e *keys.Event) []byte {
	b = append(b, `{"action":`...)
	b = appendString(b, e.Action)
	if e.Node != nil {
		b = append(b, `,"node":`...)
		b = appendNode(b, e.Node)
	}
	if e.PrevNode != nil {
		b = append(b, `,"prevNode":`...)
		b = appendNode(b, e.PrevNode)
	}
	return append(b, '}', '\n')
}

// appendNode appends the fields that are not empty, each with a comma; the first
// comma becomes the brace.
func appendNode(b []byte, n *keys.Node) []byte {
	start := len(b)
	if n.Key != "" {
		b = append(b, `,"key":`...)
		b = appendString(b, n.Key)
	}
	if n.Value != nil {
		b = append(b, `,"value":`...)
		b = appendString(b, *n.Value)
	}
	if n.Dir {
		b = append(b, `,"dir":true`...)
	}
	if n.Expiration != nil {
		b = append(b, `,"expiration":`...)
		b = appendAny(b, n.Expiration)
	}
	if n.TTL != 0 {
		b = append(b, `,"ttl":`...)
		b = strconv.AppendInt(b, n.TTL, 10)
	}
	if len(n.Nodes) > 0 {
		b = append(b, `,"nodes":[`...)
		for i, c := range n.Nodes {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendNode(b, c)
		}
		b = append(b, ']')
	}
	b = appendIndex(b, `,"modifiedIndex":`, n.ModifiedIndex)
	b = appendIndex(b, `,"createdIndex":`, n.CreatedIndex)
	if len(b) == start {
		return append(b, '{', '}')
	}
	b[start] = '{'
	return append(b, '}')
}

func appendIndex(b []byte, name string, index uint64) []byte {
	if index == 0 {
		return b
	}
	return strconv.AppendUint(append(b, name...), index, 10)
}

// appendString leaves all but plain ASCII to encoding/json, which has rules for
// the rest.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return appendAny(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendAny is for what can always be marshalled: strings, times before the year
// 10000, and structs of such.
func appendAny(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("v2http: " + err.Error())
	}
	return append(b, text...)
}

// lastLine keeps the line of the event that was told last: all watchers of a
// change are told the same one.
type lastLine struct{ atomic.Pointer[eventLine] }

type eventLine struct {
	event *keys.Event
	line  []byte
}

// of returns the event's line; it is shared.
func (l *lastLine) of(e *keys.Event) []byte {
	if known := l.Load(); known != nil && known.event == e {
		return known.line
	}
	line := appendEvent(nil, e)
	l.Store(&eventLine{e, line})
	return line
}
